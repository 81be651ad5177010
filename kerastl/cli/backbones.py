"""`kerastl backbones`: lists the available networks."""

from dataclasses import asdict
from typing import Annotated

import typer

from kerastl.cli.console import print_json, print_table
from kerastl.cli.options import Json


def backbones(
    pattern: Annotated[str, typer.Argument(help='Names to list, such as "EfficientNet*".')] = "*",
    json: Json = False,
) -> None:
    """List the available backbones, optionally by a pattern.

    Example: kerastl backbones "EfficientNet*"
    """
    from kerastl.backbones.table import BACKBONES, OWN, list_backbones

    names = list_backbones(pattern)
    records = [record for record in (*OWN, *BACKBONES) if record.name in names]
    if json:
        print_json({"backbones": [asdict(record) for record in records]})
        return
    rows = [
        [record.name, str(record.image_size), record.mode,
         "" if record.imagenet_top1 is None else f"{record.imagenet_top1:.3f}", record.paper]
        for record in records
    ]  # fmt: skip
    columns = ["name", "pixels", "preprocessing", "ImageNet top-1", "paper"]
    print_table(f"{len(rows)} backbones", columns, rows)
