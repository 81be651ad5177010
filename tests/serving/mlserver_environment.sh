#!/usr/bin/env bash
# Makes the environment of MLServer in the folder $1: it wants another protobuf than kerastl's.
# Runs from pip's configured index; takes two minutes and 2 GB. What runs is compiled as it is imported.
set -euo pipefail
if [ ! -x "$1/bin/mlserver" ]; then
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --no-compile --disable-pip-version-check "mlserver==1.7.1" "tensorflow==2.21.0"
fi
"$1/bin/python" -c "import mlserver, tensorflow"
