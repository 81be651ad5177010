import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from kerastl.training.hparams import write_hparams
from kerastl.training.trials import Trial

RIGHT = np.array([True, False])
TRIALS = (
    Trial(2, 3e-4, 3, "completed", 1.5, score=0.5, loss=0.25, image_scores=RIGHT),
    Trial(4, None, 0, "completed", 0.5, score=0.75, loss=0.5, image_scores=RIGHT),
    Trial(0, 1e-3, 1, "failed", 2.0, reason="ValueError: odd"),
)


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    metadata = events.SummaryMetadata("_hparams_/session_start_info")
    data = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    values = {name: value.number_value for name, value in data.session_start_info.hparams.items()}
    scalars = {}
    for tag in ("score", "loss", "seconds"):
        if tag in events.Tags()["tensors"]:
            event = events.Tensors(tag)[0]
            scalars[tag] = (event.step, float(tf.make_ndarray(event.tensor_proto)))
    return values, scalars


def test_what_was_tried_and_what_it_gave(tmp_path):
    write_hparams(tmp_path, TRIALS)
    folders = sorted((tmp_path / "logs" / "trials").iterdir())
    assert [folder.name for folder in folders] == [
        "depth-0-rate-0.001-epochs-1", "depth-2-rate-0.0003-epochs-3", "depth-4-head-epochs-0"
    ]  # fmt: skip
    assert read(folders[1]) == (
        {"freeze_depth": 2, "learning_rate": 3e-4, "epochs": 3},
        {"score": (3, 0.5), "loss": (3, 0.25), "seconds": (3, 1.5)},
    )
    assert read(folders[2])[0] == {"freeze_depth": 4, "epochs": 0}
    assert set(read(folders[0])[1]) == {"seconds"}  # it failed


def test_what_is_there_stays(tmp_path):
    write_hparams(tmp_path, TRIALS[:1])
    (file,) = (tmp_path / "logs" / "trials" / "depth-2-rate-0.0003-epochs-3").iterdir()
    before = file.stat().st_mtime_ns
    write_hparams(tmp_path, TRIALS)
    assert file.stat().st_mtime_ns == before
    assert len(list((tmp_path / "logs" / "trials").iterdir())) == 3
