import pytest

from kerastl.data.file_report import csv_cell


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("+cmd|x", "'+cmd|x"), ("\t=1", "'\t=1"),
        ("-x.jpg", "'-x.jpg"), ("-1", "-1"), ("+2.5e3", "+2.5e3"), ("a=1", "a=1"), ("", ""),
        (-1.5, -1.5), (None, None),
    ],
)  # fmt: skip
def test_no_cell_is_a_formula(value, expected):
    assert csv_cell(value) == expected
