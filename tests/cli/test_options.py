"""The options about data, which several commands take, and messages that name them."""

import pytest

from kerastl.cli.options import as_options


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
