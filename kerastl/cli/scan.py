"""`kerastl scan`: finds damaged image files, duplicates and leaks before training."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerastl._steps import step
from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.cli.options import Json, advanced, with_data_options
from kerastl.data.options import DataOptions
from kerastl.errors import ArgumentError

if TYPE_CHECKING:
    from kerastl.data.inspection import Inspection

_MOST_ROWS = 50  # of the table for people


@with_data_options
def scan(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder or table.")],
    fix: Annotated[
        bool, typer.Option("--fix", help="Write kerastl-skip.txt; training skips its files.")
    ] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the findings to a CSV file.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="BACKBONE", help="Also find labels that look wrong, with a network."),
    ] = None,
    weights: options.Weights = None,
    page: Annotated[
        Path | None, advanced(help="Write a page of the labels that look wrong.")
    ] = None,
    manifest: Annotated[Path | None, advanced(help="SHA-256 sums to check or to write.")] = None,
    max_pixels: Annotated[
        int | None,
        advanced(min=1, metavar="N", help="Most pixels of an image; default: 89 million."),
    ] = None,
    json: Json = False,
    *,
    how: DataOptions,
) -> None:
    """Check every image file, and find duplicates and leaks.

    Every file is decoded completely. No image is changed, moved or deleted. The exit status is 0 if
    you can train on the data (with --fix: after the fix), otherwise 2. Labels that look wrong are
    listed, most suspicious first, and never changed.

    Example: kerastl scan photos/ --fix
    """
    if labels is None and (page or weights):
        raise ArgumentError(
            f"`{'--page' if page else '--weights'}` needs `--labels BACKBONE`. Received: no "
            "--labels. Write `--labels MobileNetV2`."
        )
    from kerastl.data.inspection import inspect_images
    from kerastl.data.scan import MAX_PIXELS

    found = inspect_images(
        data, options=how, manifest_path=None if manifest is None else str(manifest),
        max_pixels=max_pixels or MAX_PIXELS, verbose=True,
    )  # fmt: skip
    written = _fix(found) if fix else None
    is_accepted = found.is_accepted or bool(written and not found.errors)
    if labels and is_accepted:
        found = _with_labels(found, labels, weights or "imagenet", page, how)
    elif labels:
        say("The labels were not checked, because the data has errors.")
    if csv_file is not None:
        found.write_csv(csv_file)
    if json:
        print_json({**found.to_dict(), "skip_list": written})
    else:
        _print(found)
    if not is_accepted:
        raise typer.Exit(2)


def _with_labels(
    found: "Inspection", backbone: str, weights: str, page: Path | None, how: DataOptions
) -> "Inspection":
    start_tensorflow()
    from kerastl.results.label_issues import find_label_issues
    from kerastl.runs.telling import load_told

    data = load_told(found.source, say, how)
    with step("Running the network once"):
        issues = find_label_issues(data, backbone, weights=weights)
    if page is not None:
        issues.write_page(page)
        say(f"Page: {page}")
    return dataclasses.replace(found, labels=issues.findings())


def _fix(found: "Inspection") -> str | None:
    if not found.skips():
        say("No file has to be skipped, so no skip list was written.")
        return None
    path = found.write_skips()
    say(f"{path} lists {len(found.skips()):,} files that training skips. No file was moved.")
    return path


def _print(found: "Inspection") -> None:
    summary: dict[str, Any] = found.to_dict()
    findings = found.findings()
    if findings:
        rows = [list(finding) for finding in findings[:_MOST_ROWS]]
        print_table(f"{found.source}: findings", ["file", "kind", "reason"], rows)
    if len(findings) > _MOST_ROWS:
        say(f"... and {len(findings) - _MOST_ROWS:,} more. --csv FILE writes all of them.")
    classes = ", ".join(f"{name} {count:,}" for name, count in summary["classes"].items())
    say(
        f"{summary['num_images']:,} of {summary['num_files']:,} files are readable images"
        f"{f' ({classes})' if classes else ''}; {len(found.bad):,} are not."
    )
    for text in found.errors:
        say(f"Error: {text}")
    for text in found.warnings:
        say(f"Warning: {text}")
