"""`Run`: a finished training, as an object over the files of its directory."""

import dataclasses
import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kerastl._checks import check_choice
from kerastl._measure import headlines
from kerastl._shown import Shown
from kerastl._task import find_task
from kerastl._typed import typed
from kerastl.backbones.given_models import OWN_WEIGHTS
from kerastl.data.load import ImageData, load_data
from kerastl.data.options import NO_OPTIONS, DataOptions, PixelRules
from kerastl.errors import DataError
from kerastl.frozen.prefixes import image_size_of
from kerastl.model.recipes import Recipe
from kerastl.results.evaluate import collect_predictions, evaluate
from kerastl.results.evaluation import write_evaluation
from kerastl.results.explain import Explanation, explain
from kerastl.results.measures import Measured
from kerastl.results.model_card import write_card
from kerastl.results.report import write_report
from kerastl.results.run_files import Json, RunFiles, read_model
from kerastl.results.transfer import compare_transfer
from kerastl.runs.classifier import ImagePredictions, classifier_of, images_at
from kerastl.runs.figures import ShownAnswers, plot_run_confusion
from kerastl.runs.labelled import check_names, labelled_images
from kerastl.runs.trackers import push_to_hub, track
from kerastl.serving.export import export_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@typed
class Run(Shown):
    """A finished run: the model that was trained, and what is known of it.

    `kerastl.train` and `kerastl.load_run` return it. What it tells is read from the files of its
    directory when it is first asked for.

    Args:
        directory: the run directory.
        model: the model, if it is at hand. Default: it is read from `model.keras`.

    Example:
        >>> run = kerastl.load_run("runs/flowers")
        >>> print(run)
        >>> run.predict("rose.jpg").rows()
        [{'path': 'rose.jpg', 'classes': [{'label': 'rose', 'probability': 0.98}]}]
    """

    def __init__(self, directory: str | Path, *, model: keras.Model | None = None):
        self.files = RunFiles(directory)
        if model is not None:
            self.model = model

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.files.directory

    @cached_property
    def model(self) -> keras.Model:
        """The trained model, an ordinary `keras.Model`: raw pixels 0-255 in."""
        return read_model(self.directory)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes (labels, targets), in the order of the model's outputs."""
        return self.files.class_names

    @property
    def task(self) -> str:
        """What is told of an image: `"classification"`, `"multi_label"` or `"regression"`."""
        return self.files.task

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that the model was trained by."""
        return Recipe.from_dict(self.files.recipe)

    @property
    def diagnosis(self) -> Json | None:
        """What was measured before training; None if nothing was."""
        return self.files.diagnosis

    @property
    def history(self) -> list[Json]:
        """A dict an epoch: `epoch`, `phase`, and the measures that `fit` reports."""
        return self.files.history

    @property
    def metrics(self) -> Json:
        """What `metrics.json` holds: the measures on `test` and `validation`, and `timing`."""
        return self.files.metrics or {}

    def measures(self) -> dict[str, Measured | None]:
        """Return what was measured on the `validation` and the `test` images."""
        return {part: self.metrics.get(part) for part in ("validation", "test")}

    def predict(self, images: Any, *, on_bad: str = "error") -> ImagePredictions:
        """Predict images.

        Args:
            images: a path of a file or folder, or a list of paths; the bytes of an encoded image,
                or a list of such; or raw pixels 0-255 `(n, height, width, 3)` of any size.
            on_bad: what to do with unreadable files: `"error"`, or `"skip"` to leave them out.

        Returns:
            An `ImagePredictions`; print it, or take `rows()` or `outputs`.

        Raises:
            DataError: there is no readable image.
        """
        return classifier_of(self.model, self.class_names, self.rules).predict_images(
            images, on_bad
        )

    def evaluate(
        self, data: Any, *, on_bad: str = "error", options: DataOptions = NO_OPTIONS
    ) -> Measured:
        """Measure the model on labelled images that it did not see.

        Args:
            data: what `load_data` takes: its test part is measured, or all of it if it has none;
                or an `ImageData` or one of its parts.
            on_bad: what to do with unreadable files: `"error"` or `"skip"`.
            options: how to read `data`, as `kerastl.train` takes it; pixels are read as those
                of the run where none are given.

        Returns:
            What `kerastl.evaluate` returns.
        """
        options = self.reading(options)
        _, split = labelled_images(data, self.class_names, self.task, on_bad, options)
        for warning in self.files.warn_of_seen(split.source):
            warnings.warn(warning, stacklevel=2)
        return evaluate(self.model, split)

    def reading(self, options: DataOptions) -> DataOptions:
        """Return options with the bit depth, shape, channels of the run, where they have none."""
        own = dataclasses.asdict(self.rules)
        given = {name: getattr(options, name) or own[name] for name in own}
        return dataclasses.replace(options, **given)

    @property
    def rules(self) -> PixelRules:
        """How images become pixels."""
        return self.files.rules(self.model)

    def explain(
        self,
        images: Any,
        *,
        class_name: str | None = None,
        method: str = "auto",
        stage: str | int | None = None,
    ) -> Explanation:
        """Show what in each image speaks for a class or label, or raises a number.

        Args:
            images: as `predict` takes them.
            class_name: the class, label or target. Default: as `kerastl.explain` has it.
            method: as `kerastl.explain` takes it.
            stage: as `kerastl.explain` takes it.

        Returns:
            An `Explanation`.
        """
        pixels = images_at(images, image_size_of(self.model), self.rules)
        chosen = None
        if class_name is not None:
            check_choice("class_name", class_name, self.class_names)
            chosen = np.full(len(pixels), self.class_names.index(class_name))
        return explain(self.model, pixels, class_ids=chosen, method=method, stage=stage)

    def export(
        self, directory: str | Path | None = None, *, calibrate: bool = False, **options: Any
    ) -> Path:
        """Export the model as a new version, and prove that it predicts the same.

        Args:
            directory: folder of the versions. Default: `saved_model` of the run.
            calibrate: whether scores are divided by the temperature that the run fitted.
            **options: of `kerastl.export_model`, such as `formats`.

        Returns:
            The folder of the version.

        Raises:
            DataError: the run has no fitted temperature.
        """
        if calibrate:
            options["temperature"] = self.fitted_temperature()
        options.setdefault("bit_depth", self.rules.bit_depth)
        options.setdefault("resize", self.rules.resize)
        target = directory or self.files.path(RunFiles.SAVED_MODEL)
        return typed(export_model)(self.model, target, class_names=self.class_names, **options)

    def fitted_temperature(self) -> float:
        """Return the temperature fitted to validation images; raise a `DataError` if none was."""
        calibration = (self.files.evaluation or {}).get("calibration")
        if calibration is None:
            raise DataError(
                f"{self.directory} has no fitted temperature: `--calibrate` needs a run with "
                "validation images. Train with some, or give `--temperature`."
            )
        return float(calibration["temperature"])

    def report(self) -> Path:
        """Write `report.html` and `MODEL_CARD.md` again, and return the path of the page."""
        write_card(self.directory)
        return write_report(self.directory)

    def serve(self, **options: Any) -> None:
        """Serve the exported model over HTTP until the process is interrupted.

        Args:
            **options: of the server, such as `host`, `port`, `grpc_port` and `name`.
        """
        from kerastl.serving.server import serve  # needs the extra "serve"

        options.setdefault("name", self.directory.resolve().name)
        serve(self.files.path(RunFiles.SAVED_MODEL), **options)

    def track(self, tracker: str) -> None:
        """Log settings, measures, epochs, page and model to a tracker of experiments.

        It is configured as it always is: `MLFLOW_TRACKING_URI`, `WANDB_MODE=offline`, ...

        Args:
            tracker: `"mlflow"` or `"wandb"`, each an extra of kerastl.

        Raises:
            ArgumentError: there is no such tracker, or it is not installed.
        """
        track(self.files, tracker)

    def push_to_hub(self, name: str, *, private: bool = False, page: bool = False) -> str:
        """Upload the model, its card, labels, recipe and measures to the Hugging Face hub.

        It needs the extra `huggingface`, and a login (`hf auth login`) or `HF_TOKEN`. The recipe
        names the folder that the images came from.

        Args:
            name: of the repository, such as `"me/flowers"`; it is made if there is none.
            private: whether a new repository is private.
            page: whether to upload the page, which shows training and test images.

        Returns:
            The name of the repository, with its owner.

        Raises:
            ArgumentError: `huggingface_hub` is not installed.
            ExportError: the hub did not take it, or the run is not finished.

        Example:
            >>> run.push_to_hub("me/flowers")
            'me/flowers'
        """
        return push_to_hub(self.files, name, private=private, page=page)

    def top_losses(self, most: int = 10) -> ShownAnswers:
        """Return the test images that the model was most wrong about, worst first.

        Args:
            most: at most so many, up to the 12 that a run keeps with their pictures.

        Returns:
            A dict an image: `path`, `label`, `answer` and their probabilities, or the true and the
            predicted numbers of a regression; `loss`; `file` and `overlay`, names of `pictures/`.
            `.show()` is a figure of them.
        """
        return ShownAnswers((self.files.evaluation or {}).get("worst", [])[:most], self.files)

    def show_results(self, most: int = 12) -> "Figure":
        """Return a figure of test images: of classes the surest right answers, then the worst."""
        surest = (self.files.evaluation or {}).get("surest", [])[: most // 2]
        rows = [*surest, *self.top_losses(most - len(surest))]
        return ShownAnswers(rows, self.files).show()

    def plot_confusion(self) -> "Figure":
        """Return the confusion matrix of the test images as a figure."""
        return plot_run_confusion(self.files)

    def load_data(self, data: str | None = None) -> ImageData:
        """Load the images of the run, split as they were.

        Args:
            data: where they are now, if they were moved.

        Raises:
            DataError: they are gone, or are others than those of the run.
        """
        source = self.files.source
        images = load_data(
            data or source.get("data", ""),
            test=source.get("test"),
            seed=self.recipe.seed,
            validation_fraction=self.recipe.validation_fraction,
            on_bad=source.get("on_bad", "error"),
            task=self.task,
            **{**self.files.options.to_dict(), "resize": self.files.options.rules.resize},
        )
        if images.fingerprint() != source.get("fingerprint"):
            raise DataError(
                f"The images in {data or source.get('data')} are others than those of the run "
                f"{self.directory}: their fingerprint differs. Give the folder as it was with "
                "`--data`, or use `kerastl evaluate` for other images."
            )
        return images

    def measure_again(self, images: ImageData) -> None:
        """Write `evaluation.json` again, from the images that `load_data` returned."""
        check_names(images, self.class_names)
        kept = self.files.evaluation or {}
        write_evaluation(
            self.files,
            self.model,
            images,
            test=collect_predictions(self.model, images.test, class_names=self.class_names),
            # A head that was fitted again to the validation images gives no honest temperature.
            calibration=kept.get("calibration"),
            moved=kept.get("moved", ()),
        )

    def compare_transfer(self, images: ImageData, *, scratch: bool = False) -> list[str]:
        """Compare the recipe with other ways to train in `transfer.json`; return warnings."""
        found = compare_transfer(images, self.recipe, scratch=scratch)
        self.files.write(RunFiles.TRANSFER, found)
        return found["warnings"]

    def headline(self) -> str:
        """Return the first measure on the test images with its 95 % interval, as text."""
        test = self.metrics.get("test")
        if test is None:
            return "not finished"
        (first,) = headlines(test, find_task(self.task).measures[:1])
        is_word = first.title == first.title.capitalize()  # not "mAP"
        title = first.title.lower() if is_word else first.title
        count = f"{test['num_images']:,} images"
        return f"test {title} {first.value} (95 % interval {first.interval}; {count})"

    def _in_short(self) -> str:
        return f"{str(self.directory)!r}: {self.headline()}"

    def __str__(self) -> str:
        recipe = self.files.recipe
        size = recipe.get("image_size")
        weights = "its own" if recipe.get("weights") == OWN_WEIGHTS else recipe.get("weights")
        pixels = f", {size[0]} x {size[1]} pixels" if size else ""
        lines = [
            f"{self.directory.resolve().name}: {self.headline()}.",
            f"Backbone: {recipe.get('backbone')}, {weights} weights{pixels}.",
            f"Recipe: {recipe.get('name')}. {recipe.get('reason', '')}".rstrip(),
        ]
        reasons = (self.diagnosis or {}).get("advice", {}).get("reasons", [])[:3]
        lines += [f"  {one['name']} = {one['value']}: {one['why']}" for one in reasons]
        if self.metrics:
            lines.append(f"Trained in {self.metrics['timing']['total_seconds']:.0f} s.")
        lines.append(f"More: {self.files.path(RunFiles.REPORT)}")
        return "\n".join(lines)


def load_run(path: str | Path) -> Run:
    """Return a run that `kerastl.train`, `kerastl train`, `search` or `chain` wrote.

    Args:
        path: the run directory.

    Raises:
        DataError: it is no run.

    Example:
        >>> run = kerastl.load_run("runs/flowers")
        >>> run.metrics["test"]["accuracy"]
        0.83
    """
    run = Run(path)
    if not run.files.recipe:  # raises where there is no recipe.json
        raise DataError(f"{path} is no run: its recipe.json holds no recipe.")
    return run
