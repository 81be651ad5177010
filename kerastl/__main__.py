"""`python -m kerastl` is the command `kerastl`."""

from kerastl.cli.app import main

if __name__ == "__main__":
    main()
