import pytest
import tensorflow as tf

from kerastl.serving.warmup import PATH, write_warmup


def records(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path / PATH))]


def test_the_records_are_what_the_official_messages_read(tmp_path):
    apis = pytest.importorskip("tensorflow_serving.apis", reason="needs tensorflow-serving-api")
    from tensorflow_serving.apis import prediction_log_pb2

    assert apis
    write_warmup(tmp_path, "insects", (5, 7, 3), "uint8")
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records(tmp_path)]
    requests = [log.predict_log.request for log in logs]
    assert [r.model_spec.name for r in requests] == ["insects"] * 4
    counts = [len(tf.make_ndarray(*request.inputs.values())) for request in requests]
    assert counts == [1, 1, 8, 8]
    signatures = [request.model_spec.signature_name for request in requests]
    assert signatures == ["serving_default", "serving_bytes"] * 2
    image = tf.make_ndarray(requests[2].inputs["image"])
    assert (image.shape, image.dtype) == ((8, 5, 7, 3), "uint8")
    encoded = tf.make_ndarray(requests[1].inputs["image_bytes"])[0]
    assert tf.io.decode_jpeg(encoded).shape == (5, 7, 3)
    assert all(
        log.SerializeToString() == record
        for log, record in zip(logs, records(tmp_path), strict=True)
    )


def test_an_export_has_them(exported):
    assert len(records(exported.path)) == 4
