"""The options about data, which several commands take, and messages that name them."""

import pytest
import typer

from kerastl.cli.options import as_options, seconds_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Name it with `image_column`.", "Name it with `--image-column`."),
        ("pass task='multi_label'.", "pass `--task multi_label`."),
        ("pass `bit_depth=12` if", "pass `--bit-depth 12` if"),
        ("pass `label_separator=' '` to", "pass `--label-separator ' '` to"),
        ("with bit_depth=12. Received", "with `--bit-depth 12`. Received"),
        ("the task is a task", "the task is a task"),
    ],
)
def test_messages_name_options(text, expected):
    assert as_options(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7200), (None, None)]
)
def test_times(text, expected):
    assert seconds_of(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-5", "1d", "1 h", "1e3"])
def test_what_is_no_time(text):
    with pytest.raises(typer.BadParameter, match="10m"):
        seconds_of(text)
