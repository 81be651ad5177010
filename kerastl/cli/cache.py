"""`kerastl cache`: lists and clears stored activations of frozen stages."""

from typing import Annotated

import typer

from kerastl.cli.console import print_json, print_table, say
from kerastl.cli.options import Json


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all stored activations.")] = False,
    json: Json = False,
) -> None:
    """List or clear stored activations (KERASTL_CACHE_DIR or ~/.cache/kerastl).

    Example: kerastl cache --clear
    """
    from kerastl.frozen.store import ActivationStore

    store = ActivationStore()
    removed = store.clear() if clear else 0
    entries = store.entries()
    if json:
        found = [{"key": key, "description": text, "bytes": size} for key, text, size, _ in entries]
        print_json({
            "directory": str(store.directory), "bytes": store.size(), "bound": store.bound(),
            "removed_bytes": removed, "entries": found,
        })  # fmt: skip
        return
    if clear:
        say(f"Removed {removed / 1e6:,.1f} MB from {store.directory}.")
        return
    rows = [[entry.description, f"{entry.num_bytes / 1e6:,.1f}"] for entry in entries]
    title = f"{store.directory}: {store.size() / 1e6:,.1f} of at most {store.bound() / 1e6:,.0f} MB"
    print_table(title, ["activations", "MB"], rows)
