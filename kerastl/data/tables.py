"""Reads the images and labels of a table."""

import csv
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from kerastl._checks import did_you_mean
from kerastl._label_columns import ONE_CLASS, LabelColumns
from kerastl.data import exports, webdataset, yolo
from kerastl.data.cells import DELIMITER, split_labels
from kerastl.data.classes import normal
from kerastl.data.exports import Table
from kerastl.data.listing import Entry, Listing
from kerastl.data.loaded import join_names
from kerastl.data.options import NO_OPTIONS, DataOptions
from kerastl.data.parts import WORDS, part_of
from kerastl.errors import ArgumentError, DataError

ENDINGS = (".csv", ".tsv", ".parquet", ".json", *webdataset.ENDINGS, *yolo.ENDINGS)
# Headings in any spelling, the most telling first.
_IMAGE_COLUMNS = (
    "image_path", "path", "filepath", "filename", "file", "image", "image_id", "image_file",
    "image_name", "img_path", "img", "filepaths", "images",
)  # fmt: skip
_BESIDE = {
    "image_column": ", the labels with `label_column`, and `image_folder` and `image_suffix` if "
    "names have no folder or suffix"
}
_SPLIT_COLUMNS = ("subset", "partition", "data_set", "set", "usage", "phase", "dataset_split")


def is_frame(source: Any) -> bool:
    """Whether a source is a `pandas.DataFrame`."""
    return hasattr(source, "columns") and hasattr(source, "to_dict")


def is_table(path: str) -> bool:
    """Whether a path is that of a table, or a folder of Parquet files, of tars, or of YOLO."""
    if os.path.isdir(path):
        found = exports.parquet_files(path) or webdataset.shards_in(path)
        return bool(found or yolo.description_in(path))
    return path.lower().endswith(ENDINGS) and os.path.isfile(path)


def list_table(
    source: Any,
    options: DataOptions = NO_OPTIONS,
    columns: LabelColumns = ONE_CLASS,
    class_names: Sequence[str] | None = None,
) -> Listing:
    """List the images of a table.

    Args:
        source: path of a CSV, of an export of COCO or Label Studio, of a Parquet file or a folder
            of such, or a `pandas.DataFrame`.
        options: names of columns, and where and how images are named.
        columns: what the task says of the columns of labels.
        class_names: where there can be several columns, and all of these are some, they are taken.
    """
    table = _read(source, options)
    image = _column(table, options.image_column, _IMAGE_COLUMNS, "image_column")
    part = _split_column(table, options, image)
    group = options.group_column and _column(table, options.group_column, (), "group_column")
    others = [name for name in table.header if name not in (image, part, group)]
    names = _label_columns(columns, table, others, options.label_column, class_names)
    listing = Listing(table.home, columns=names)
    folder = os.path.join(table.home, os.path.expanduser(options.image_folder or ""))
    cells = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    targets = _targets(columns, names, cells, options, table, listing)
    for number, (row, target) in enumerate(zip(cells, targets, strict=True), table.first):
        label = DELIMITER.join(normal(row[name].strip()) for name in names)
        if not row[image].strip() or not (label or columns.are_several):
            raise DataError(
                f"Each row needs an image and a label. Received: {row} in line {number} of "
                f"{table.source}. Complete or remove the row."
            )
        file = find_file(folder, row[image], options.image_suffix or "")
        in_part = part_of(row[part]) if part else "train"
        if in_part is None:
            raise DataError(
                f"A split must be {WORDS}. Received: {row[str(part)]!r} in line {number} of "
                f"{table.source}. Correct the row."
            )
        if not listing.skips(file):
            named = f"{group} {row[group].strip()}" if group and row[group].strip() else ""
            listing.entries.append(Entry(in_part, file, row[image], label, target, named))
    _join_rows(listing, joins=columns.is_parted and len(names) == 1)
    check_files(listing)
    listing.warn_of_unused_skips()
    return listing


def find_file(folder: str, name: str, suffix: str = "") -> str:
    """Return the file in a cell, as written, or without spaces around the name.

    That are blanks around it, `~`, backslashes, and another Unicode form; a cell may leave out the
    suffix. A file that is not there is returned as written.
    """
    if suffix and not name.strip().lower().endswith(suffix.lower()):
        name = name.strip() + suffix
    paths = [os.path.join(folder, form) for form in _spellings(name)]
    return next((path for path in paths if os.path.lexists(path)), paths[0])


def _spellings(name: str) -> Iterator[str]:
    yield name
    plain = os.path.expanduser(name.strip())
    yield plain
    plain = plain.replace("\\", "/")
    yield plain
    for form in ("NFC", "NFD"):
        yield unicodedata.normalize(form, plain)


def _targets(
    columns: LabelColumns,
    names: Sequence[str],
    rows: Sequence[dict[str, str]],
    options: DataOptions,
    table: Table,
    listing: Listing,
) -> list[tuple[Any, ...]]:
    """Return what the task makes of the labels of each row."""
    if columns.is_parted and len(names) == 1:
        cells = [row[names[0]].strip() for row in rows]
        found, mark = split_labels(cells, options.label_separator, names[0])
        if mark not in (None, DELIMITER):
            listing.warnings.append(
                f"the labels of column {names[0]!r} are separated by {mark!r}; pass "
                "`label_separator` for another separator"
            )
        return list(found)
    return [
        columns.parse(
            {name: row[name].strip() for name in names}, f"line {number} of {table.source}"
        )
        for number, row in enumerate(rows, table.first)
    ]


def _join_rows(listing: Listing, *, joins: bool) -> None:
    """Make one entry of the rows of an image in a part; labels are joined where that is meant."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in listing.entries:
        groups.setdefault((entry.part, os.path.normpath(entry.path)), []).append(entry)
    several = [group for group in groups.values() if len(group) > 1]
    if not several:
        return
    differing = [group for group in several if len({one.label for one in group}) > 1]
    if differing and not joins:
        first = differing[0]
        listing.errors.append(
            f"{len(differing)} images are in several rows with different labels, such as "
            f"{first[0].name!r}: {join_names([one.label for one in first])}. Correct the "
            "rows, or pass task='multi_label' if an image has several labels, one per row."
        )
        return
    listing.warnings.append(
        f"{len(several)} images are in several rows, which are joined (such as "
        f"{several[0][0].name})"
    )
    listing.entries[:] = [_joined(group) for group in groups.values()]


def _joined(group: Sequence[Entry]) -> Entry:
    targets = dict.fromkeys(target for one in group for target in one.targets)
    labels = dict.fromkeys(one.label for one in group)
    if len(labels) == 1:
        return group[0]
    return group[0]._replace(label=DELIMITER.join(labels), targets=tuple(targets))


def check_files(listing: Listing) -> None:
    """Note where no image is there at all, as when another folder is meant."""
    if not listing.entries or any(os.path.lexists(one.path) for one in listing.entries):
        return
    first = listing.entries[0]
    listing.errors.append(
        f"None of the {len(listing.entries)} images of the table exists, such as "
        f"{first.path!r} from the cell {first.name!r}. Pass the folder as `image_folder`, "
        "the suffix as `image_suffix` (such as '.jpg'), or the column of the paths as "
        "`image_column`."
    )


def _split_column(table: Table, options: DataOptions, image: str) -> str | None:
    """Return the column of the parts: that asked for, `split`, or one that holds such words."""
    if options.split_column is not None:
        return _column(table, options.split_column, (), "split_column")
    wanted = options.label_column
    taken = {_key(name) for name in ([wanted] if isinstance(wanted, str) else wanted or [])}
    free = [name for name in table.header if name != image and _key(name) not in taken]
    if (split := next((name for name in free if _key(name) == "split"), None)) is not None:
        return split
    for name in free:
        if _key(name) in map(_key, _SPLIT_COLUMNS):
            place = table.header.index(name)
            parts = {part_of(row[place]) for row in table.rows}
            if None not in parts and "train" in parts:
                return name
    return None


def _label_columns(
    columns: LabelColumns,
    table: Table,
    others: Sequence[str],
    wanted: str | Sequence[str] | None,
    class_names: Sequence[str] | None,
) -> list[str]:
    """Return the columns of labels: those asked for, one of a known name, or all that are left.

    The last only where there can be several.
    """
    if wanted is not None and not isinstance(wanted, str):
        if not columns.are_several and len(wanted) != 1:
            raise ArgumentError(
                "With one class per image, `label_column` must be one column. Received: "
                f"{list(wanted)!r}. Pass task='multi_label' if images have several labels."
            )
        return [_column(table, name, (), "label_column") for name in wanted]
    if wanted is not None or not columns.are_several:
        among = table.header if wanted else others
        return [_column(table, wanted, columns.names, "label_column", among)]
    if class_names is not None and set(class_names) <= set(others):
        return list(class_names)
    known = [name for name in others if _key(name) in map(_key, columns.names)]
    found = known[:1] or list(others)
    if not found:
        raise DataError(
            f"{table.source!r} needs a column of {columns.plural} besides the images. "
            f"Received the columns: {join_names(table.header)}. Add one, such as "
            f"{(*columns.names, columns.plural)[0]!r}."
        )
    return found


def _read(source: Any, options: DataOptions) -> Table:
    if is_frame(source):
        return _read_frame(source)
    paths = [source]
    if os.path.isdir(source):
        found = exports.parquet_files(source) or webdataset.shards_in(source)
        paths = found or [yolo.description_in(source)]
    ending = os.path.splitext(paths[0])[1].lower()
    if ending == ".parquet":
        return exports.read_parquet(paths, options.image_column)
    if webdataset.is_shard(paths[0]):
        return webdataset.read_shards(paths)
    if ending in yolo.ENDINGS:
        return yolo.read_yolo(paths[0])
    return exports.read_json(source) if ending == ".json" else _read_csv(source)


def _read_csv(path: str) -> Table:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            rows = [row for row in csv.reader(file, delimiter=max(",;\t", key=first.count)) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"A table must be CSV in UTF-8. Received: {path!r} ({error}). Save it as UTF-8."
        ) from None
    header = [name.strip() for name in rows[0]] if rows else []
    _check_header(header, path)
    for number, row in enumerate(rows[1:], 2):
        if len(row) > len(header):
            raise DataError(
                f"A row must have one cell per column. Received: {len(row)} cells under "
                f"{len(header)} headings in line {number} of {path}. Quote cells that "
                "contain the separator."
            )
    filled = [row + [""] * (len(header) - len(row)) for row in rows[1:]]
    return Table(header, filled, path, 2, os.path.dirname(path))


def _read_frame(frame: Any) -> Table:
    header = [str(name).strip() for name in frame.columns]
    _check_header(header, "the DataFrame")
    columns = frame.to_dict("list").values()
    rows = [[_text(value) for value in row] for row in zip(*columns, strict=True)]
    return Table(header, rows, "the DataFrame", 0, "")


def _text(value: Any) -> str:
    """Return a value as text; what pandas writes for a missing one is empty."""
    text = str(value)
    return "" if not isinstance(value, str) and text in ("nan", "None", "<NA>", "NaT") else text


def _check_header(header: Sequence[str], source: str) -> None:
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(
            "The columns of a table must have different names. Received twice: "
            f"{join_names(twice)} in {source}. Rename them."
        )


def _column(
    table: Table,
    wanted: str | None,
    known: Sequence[str],
    argument: str,
    among: Sequence[str] | None = None,
) -> str:
    """Return the name of the column that is asked for, or the first known one `among` some."""
    columns = table.header if among is None else among
    if wanted is not None and wanted in columns:
        return wanted
    names = [wanted] if wanted else list(known)
    by_key = {_key(name): name for name in reversed(columns)}
    for name in names:
        if _key(name) in by_key:
            return by_key[_key(name)]
    raise DataError(
        f"{table.source!r} needs a column named {' or '.join(map(repr, names[:6]))}. "
        f"Received the columns: {join_names(table.header)}. Pass "
        f"`{argument}`{_BESIDE.get(argument, '')}.{did_you_mean(names[0], columns)}"
    )


def _key(heading: str) -> str:
    """Return a heading without case, blanks and marks."""
    return re.sub(r"[\s_.-]+", "", heading).casefold()
