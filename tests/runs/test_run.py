import json
import shutil

import numpy as np
import pytest
from PIL import Image

import kerastl
from kerastl.errors import ArgumentError, DataError


@pytest.fixture(scope="module")
def run(finished_run):
    return kerastl.load_run(finished_run.directory)


@pytest.fixture
def copied(finished_run, tmp_path):
    shutil.copytree(finished_run.directory, tmp_path / "run")
    return kerastl.load_run(tmp_path / "run")


def test_a_run_tells_what_its_files_say(run, finished_run):
    metrics = finished_run.metrics
    assert run.directory == finished_run.directory
    assert (run.class_names, run.task) == (["bright", "dark"], "classification")
    assert run.metrics == metrics
    assert run.recipe.to_dict() == metrics["recipe"]
    assert run.diagnosis["scenario"] == run.recipe.name
    assert run.history[0]["phase"] == "head"
    assert run.model.output_shape == (None, 2)


def test_a_run_as_text(run, finished_run):
    test = finished_run.metrics["test"]
    low, high = test["accuracy_interval"]
    percent = "\N{NO-BREAK SPACE}%"
    measured = f"test accuracy {100 * test['accuracy']:.1f}{percent} (95 % interval "
    measured += f"{100 * low:.1f} to {100 * high:.1f}{percent}; 16"
    assert repr(run) == f"Run({str(run.directory)!r}: {measured} images))"
    text = str(run)
    assert text.startswith(f"run: {measured} images).\n")
    assert f"Recipe: {run.recipe.name}. Measured: " in text
    assert "report.html" in text
    assert len(text.splitlines()) <= 8


def test_what_is_no_run(tmp_path):
    with pytest.raises(DataError, match=r"is not a run: it has no recipe\.json"):
        kerastl.load_run(tmp_path)


def test_paths_folders_bytes_and_arrays_are_predicted_alike(run, finished_run):
    folder = finished_run.images / "test" / "dark"
    files = sorted(folder.iterdir())
    by_folder = run.predict(str(folder))
    assert by_folder.paths == [str(file) for file in files]
    expected = by_folder.outputs
    found = [
        run.predict(files),
        run.predict([file.read_bytes() for file in files]),
        run.predict(np.stack([np.asarray(Image.open(file)) for file in files])),
    ]
    for predictions in found:
        np.testing.assert_allclose(predictions.outputs, expected, atol=1e-5)
    assert found[1].paths is None
    (row,) = run.predict(files[0]).rows(top=2)
    assert row["path"] == str(files[0])
    assert [one["label"] for one in row["classes"]] == ["dark", "bright"]
    assert str(run.predict(files[0])).startswith(f"{files[0]}: dark ")
    one = run.predict(np.asarray(Image.open(files[0])))
    np.testing.assert_allclose(one.outputs, expected[:1], atol=1e-5)


@pytest.mark.parametrize("images", [3, [], [1, 2], None])
def test_what_is_no_image(run, images):
    with pytest.raises(ArgumentError, match=r"paths of files or folders.*Received: "):
        run.predict(images)


def test_a_damaged_file_is_left_out_only_if_asked(run, finished_run, tmp_path):
    shutil.copy(finished_run.images / "test" / "dark" / "0.png", tmp_path)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    with pytest.raises(kerastl.errors.UnreadableImagesError, match="cut"):
        run.predict(tmp_path)
    found = run.predict(tmp_path, on_bad="skip")
    assert len(found) == 1
    assert found.skipped[0].path.endswith("cut.png")


def test_evaluate_takes_sources_data_and_splits(run, finished_run):
    expected = pytest.approx(finished_run.metrics["test"]["log_loss"], rel=1e-4)
    data = run.load_data()
    for source in (finished_run.images, data, data.test):
        assert run.evaluate(source)["log_loss"] == expected


def test_the_images_of_a_run_are_known(run, finished_run):
    with pytest.raises(DataError, match="their fingerprint differs"):
        run.load_data(str(finished_run.images / "train"))


def test_a_run_of_before_squashes(finished_run, tmp_path):
    recipe = json.loads((finished_run.directory / "recipe.json").read_text())
    assert recipe["data"]["options"].pop("resize") == recipe["recipe"].pop("resize") == "crop"
    data = kerastl.load_data(finished_run.images, resize="squash")
    recipe["data"]["fingerprint"] = data.fingerprint()
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))

    assert kerastl.load_run(tmp_path).load_data().options.resize == "squash"


def test_what_it_was_wrong_about(run):
    worst = run.top_losses(3)
    assert len(worst) == 3
    assert worst[0]["loss"] >= worst[1]["loss"] >= worst[2]["loss"]
    titles = [axes.get_title() for axes in worst.show().axes[:3]]
    assert titles[0].startswith(f"{worst[0]['label']}\nanswered {worst[0]['answer']} (")


def test_figures_for_a_notebook(run, copied):
    figure = run.plot_confusion()
    assert figure._repr_png_().startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == run.class_names
    matrix = np.array(run.files.evaluation["confusion"])
    assert [int(text.get_text()) for text in axes.texts] == matrix.ravel().tolist()
    shown = [axes.get_title() for axes in run.show_results(4).axes]
    assert len(shown) == 4
    assert "answered" in shown[0]
    (copied.files.path("pictures") / copied.top_losses(1)[0]["file"]).unlink()
    with pytest.raises(DataError, match=r"no pictures of these.*`kerastl report RUN --measure`"):
        copied.top_losses(1).show()
    copied.files.path("evaluation.json").unlink()
    with pytest.raises(DataError, match="no predictions, because it has no page.*`kerastl report "):
        kerastl.Run(copied.directory).plot_confusion()


def test_explain(run, finished_run):
    folder = finished_run.images / "test" / "dark"
    found = run.explain([folder / "0.png", folder / "1.png"], class_name="bright")
    assert found.heat.shape == (2, 32, 32)
    assert list(found.class_ids) == [0, 0]
    with pytest.raises(ArgumentError, match="class_name"):
        run.explain(folder, class_name="gray")


def test_export_with_the_fitted_temperature(run, copied, tmp_path):
    path = run.export(tmp_path / "served", calibrate=True)
    fitted = run.files.evaluation["calibration"]["temperature"]
    assert path == tmp_path / "served" / "1"
    assert json.loads((path / "parity.json").read_text())["temperature"] == pytest.approx(fitted)
    copied.files.path("evaluation.json").unlink()
    with pytest.raises(DataError, match="no fitted temperature"):
        copied.fitted_temperature()


def test_the_page_is_written_again(copied):
    for name in ("report.html", "MODEL_CARD.md"):
        copied.files.path(name).unlink()
    assert copied.report().read_text().startswith("<!doctype html>")
    assert copied.files.path("MODEL_CARD.md").is_file()


def test_serving_takes_the_export_of_the_run(run, monkeypatch):
    served = []
    monkeypatch.setattr("kerastl.serving.server.serve", lambda *a, **k: served.append((a, k)))
    run.serve(port=0)
    assert served == [((run.directory / "saved_model",), {"name": "run", "port": 0})]
