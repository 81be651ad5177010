import html
import json
import signal

import numpy as np
import pytest

import kerastl
from kerastl.errors import ArgumentError, DataError
from kerastl.runs import training
from tests.conftest import once_for_all_workers


@pytest.fixture(scope="session")
def again(finished_run, tmp_path_factory):
    """The recipe of the finished run, by its directory, trained again by the library."""

    def make(folder):
        def no_determinism():
            raise AssertionError("the library changes how all of TensorFlow works")

        handler = signal.getsignal(signal.SIGTERM)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tensorflow.config.experimental.enable_op_determinism", no_determinism)
            output = folder / "run"
            how = {"recipe": finished_run.directory, "output": output, "export": False}
            run = kerastl.train(finished_run.images, **how)
        assert signal.getsignal(signal.SIGTERM) is handler
        assert isinstance(run, kerastl.Run)

    return kerastl.load_run(once_for_all_workers(tmp_path_factory, "again", make) / "run")


def test_a_run_directory_is_a_recipe(again, finished_run):
    assert again.recipe.to_dict() == finished_run.metrics["recipe"]
    assert again.diagnosis is None
    expected = finished_run.metrics["test"]["log_loss"]
    assert again.metrics["test"]["log_loss"] == pytest.approx(expected, rel=1e-3)


def test_a_library_run_has_the_files_of_the_command(again, finished_run):
    names = {path.name for path in finished_run.directory.iterdir()}
    assert {path.name for path in again.directory.iterdir()} == names - {
        "saved_model", "diagnosis.json",
    }  # fmt: skip
    kept = json.loads((again.directory / "recipe.json").read_text())
    assert kept["data"]["data"] == str(finished_run.images)


def test_a_finished_run_is_returned_and_never_written_over(again, finished_run, capsys):
    how = {"recipe": finished_run.directory, "output": again.directory}
    assert kerastl.train(finished_run.images, resume=True, **how).metrics == again.metrics
    assert "is finished" in capsys.readouterr().err
    with pytest.raises(DataError, match="contains files already"):
        kerastl.train(finished_run.images, **how)


def test_loaded_data_are_trained_on_and_a_stopped_run_goes_on(
    finished_run, tmp_path, monkeypatch, capsys
):
    data = kerastl.load_data(finished_run.images)
    how = {"scenario": "small_similar", "output": tmp_path / "run", "verbose": False}
    how |= {"export": False, "page": False}

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "fine_tune", stop)
        with pytest.raises(KeyboardInterrupt):
            kerastl.train(data, str(finished_run.backbone), **how)
    assert (tmp_path / "run" / "checkpoints" / "begun.json").is_file()
    how["resume"] = True
    with pytest.raises(DataError, match="was started differently: its seed is 0, not 1"):
        kerastl.train(data, str(finished_run.backbone), seed=1, **how)
    other = kerastl.load_data(finished_run.images / "train")
    with pytest.raises(DataError, match="its data.fingerprint is"):
        kerastl.train(other, str(finished_run.backbone), **how)
    run = kerastl.train(data, str(finished_run.backbone), **how)
    assert run.recipe.name == "small_similar"
    assert run.metrics["test"]["num_images"] == 16
    assert run.files.source["data"] == str(finished_run.images)
    absent = ("checkpoints", "saved_model", "report.html", "evaluation.json", "pictures")
    assert not any((tmp_path / "run" / name).exists() for name in absent)
    assert capsys.readouterr().err == ""


def test_what_is_shown_in_a_notebook_is_short(again, finished_run):
    data = kerastl.load_data(finished_run.images)
    assert repr(data).endswith("2 classes; 48 train, 20 validation, 16 test images)")
    answers = again.predict(finished_run.images / "test")
    assert repr(answers).splitlines()[-1] == "... and 6 more images"
    diagnosis = kerastl.diagnose(again.model, data)
    advice, (first, *_) = kerastl.advise(diagnosis), kerastl.stages(again.model)
    assert repr(diagnosis) == f"Diagnosis({diagnosis.scenario}, {diagnosis.probability:.0%} sure)"
    assert repr(again).startswith(f"Run({str(again.directory)!r}: test accuracy ")
    assert repr(kerastl.collect_predictions(again.model, data.test)) == (
        "Predictions(16 images, 2 outputs)"
    )
    assert repr(again.recipe).startswith("Recipe('small_similar': head; ")
    of_lines = [again, data, data.test, diagnosis, advice, again.recipe, first]
    assert max(len(repr(one)) for one in of_lines) < 300
    for one in [*of_lines, answers]:
        assert one._repr_html_() == f"<pre>{html.escape(str(one))}</pre>"


def test_wrong_calls_leave_nothing(finished_run, tmp_path):
    data, backbone = kerastl.load_data(finished_run.images), str(finished_run.backbone)
    output = tmp_path / "run"
    with pytest.raises(ArgumentError, match="already has a task and test images"):
        kerastl.train(data, backbone, test=finished_run.images, output=output)
    images = np.zeros((12, 8, 8, 3), "uint8")
    untested = kerastl.load_data((images, np.arange(12) % 2), test_fraction=0.0)
    with pytest.raises(DataError, match="There are no test images"):
        kerastl.train(untested, backbone, output=output)
    with pytest.raises(ArgumentError, match="--resume needs --output"):
        kerastl.train(data, backbone, resume=True)
    assert not list(tmp_path.iterdir())
