import base64

import numpy as np
import pytest

from kerastl.serving.query import (
    Rejected,
    Signature,
    check_shape,
    query_of,
    texts,
    version_number,
)

PIXELS = Signature("serving_default", "image", "float32", (2, 2, 3))
BYTES_OF_PIXELS = Signature("serving_default", "image", "uint8", (2, 2, 3))
FILES = Signature("serving_bytes", "image_bytes", "string", ())


OUTSIDE = [
    np.where(np.arange(12) == 5, number, 7.0).reshape(1, 2, 2, 3)
    for number in (np.nan, np.inf, -np.inf, 1e300, 257, -2, 65_536.0 + 7)
]


def test_pixels_become_the_signature_s_type():
    rows = query_of(PIXELS, np.full((3, 2, 2, 3), 7).tolist(), 4).rows
    assert (rows.shape, rows.dtype) == ((3, 2, 2, 3), "float32")
    assert query_of(BYTES_OF_PIXELS, np.full((1, 2, 2, 3), 255.0), 4).rows.dtype == "uint8"


def test_files_come_as_base64_or_bytes():
    rows = query_of(FILES, [base64.b64encode(b"\xff\xd8").decode(), b"\0"], 4).rows
    assert rows.tolist() == [b"\xff\xd8", b"\0"]


@pytest.mark.parametrize(
    ("signature", "values", "status", "message"),
    [
        (FILES, [], 400, "no rows"),
        (FILES, "text", 400, "no rows"),
        (FILES, 3, 400, "no rows"),
        (FILES, ["a"] * 5, 413, "At most 4 images per request. Received 5"),
        (FILES, ["@@@@"], 400, "Row 0 of 'image_bytes' must be an encoded image in base64"),
        (FILES, [7], 400, "must be an encoded image in base64. Received: 7"),
        (FILES, ["ä"], 400, "must be an encoded image in base64"),
        (FILES, [{"a": [0] * 10**6}], 400, "must be an encoded image in base64. Received: {'a'"),
        (PIXELS, [[1, 2]], 400, "takes rows of shape (2, 2, 3)"),
        (
            PIXELS,
            [[1], [1, 2]],
            400,
            "Received something that is not an array of numbers. For encoded images, use",
        ),
        (PIXELS, ["text"], 400, "something that is not an array of numbers"),
        (PIXELS, [{}], 400, "something that is not an array of numbers"),
        (PIXELS, [10**400], 400, "something that is not an array of numbers"),
        (PIXELS, ["x" * 10**6] + [""] * 3, 400, "something that is not an array of numbers"),
        *(
            (pixels, numbers, 400, "from 0 to 255")
            for pixels in (PIXELS, BYTES_OF_PIXELS)
            for numbers in OUTSIDE
        ),
    ],
)
def test_what_is_rejected(signature, values, status, message):
    with pytest.raises(Rejected) as caught:
        query_of(signature, values, 4)
    assert caught.value.status == status
    assert message in caught.value.reason


def test_arrays_as_json():
    assert texts(np.array([["ä".encode(), b"b"]], object)) == [["ä", "b"]]
    assert texts(np.array([True, False])) == [True, False]


def test_a_resize_may_leave_the_range_by_a_level():
    values = np.array([-0.5, 255.5, 254.6] * 4).reshape(1, 2, 2, 3)
    assert query_of(PIXELS, values, 4).rows.ravel()[:3] == pytest.approx([-0.5, 255.5, 254.6])
    assert query_of(BYTES_OF_PIXELS, values, 4).rows.ravel()[:3].tolist() == [0, 255, 255]


SHAPES = [
    [2**28], [2**28, 2, 2, 3], [1, 2**62, 2**62, 3], [-1, 2, 2, 3], [0, 2, 2, 3], [], [1] * 10**5,
]  # fmt: skip


@pytest.mark.parametrize("signature", [PIXELS, FILES])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_checked_before_anything_is_made(signature, shape):
    with pytest.raises(Rejected) as caught:
        check_shape(signature, shape, 4)
    assert caught.value.status in (400, 413)
    assert len(caught.value.reason) < 300


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0", "٣", "²", "9" * 5000, " 1"])
def test_versions_are_numbers_of_few_digits(text):
    with pytest.raises(Rejected, match="There is no version") as caught:
        version_number(text)
    assert caught.value.status == 404
    assert len(caught.value.reason) < 100
