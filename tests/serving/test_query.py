import base64

import numpy as np
import pytest

from kerastl.serving.query import Rejected, Signature, query_of, texts

PIXELS = Signature("serving_default", "image", "float32", (2, 2, 3))
BYTES_OF_PIXELS = Signature("serving_default", "image", "uint8", (2, 2, 3))
FILES = Signature("serving_bytes", "image_bytes", "string", ())


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
        (FILES, ["a"] * 5, 413, "At most 4 images a request. Received 5"),
        (FILES, ["@@@@"], 400, "Row 0 of 'image_bytes' must be an encoded image in base64"),
        (FILES, [7], 400, "must be an encoded image in base64. Received: '7'"),
        (FILES, ["ä"], 400, "must be an encoded image in base64"),
        (PIXELS, [[1, 2]], 400, "of shape (2, 2, 3). Received shape (2,)"),
        (PIXELS, [[1], [1, 2]], 400, "different shapes"),
        (PIXELS, ["text"], 400, "what are no numbers"),
        (PIXELS, np.full((1, 2, 2, 3), np.nan), 400, "not finite"),
        (BYTES_OF_PIXELS, np.full((1, 2, 2, 3), 256), 400, "from 0 to 255"),
        (BYTES_OF_PIXELS, np.full((1, 2, 2, 3), -1), 400, "from 0 to 255"),
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
