"""`Run`: a finished run, read from the files of its directory."""

import dataclasses
import warnings
from collections.abc import Sequence
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
from kerastl.runs.next_images import NextImages, next_images
from kerastl.runs.trackers import push_to_hub, track
from kerastl.serving.export import export_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@typed
class Run(Shown):
    """A finished run: the trained model and its results.

    `kerastl.train` and `kerastl.load_run` return a `Run`. Each property is read from the files of
    the run directory when you first use it.

    Args:
        directory: the run directory.
        model: the model, if it is already loaded. Default: it is loaded from `model.keras`.

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
        """The trained model, an ordinary `keras.Model` for raw pixels 0-255."""
        return read_model(self.directory)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes (labels, targets), in the order of the model's outputs."""
        return self.files.class_names

    @property
    def task(self) -> str:
        """The task: `"classification"`, `"multi_label"`, `"regression"` or `"detection"`."""
        return self.files.task

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that the model was trained with."""
        return Recipe.from_dict(self.files.recipe)

    @property
    def diagnosis(self) -> Json | None:
        """The measurements before training; None if there are none."""
        return self.files.diagnosis

    @property
    def history(self) -> list[Json]:
        """One dict per epoch: `epoch`, `phase`, and the measures that `fit` reports."""
        return self.files.history

    @property
    def metrics(self) -> Json:
        """The content of `metrics.json`: the measures on `test` and `validation`, and `timing`."""
        return self.files.metrics or {}

    def measures(self) -> dict[str, Measured | None]:
        """Return the measures on the `validation` and `test` images."""
        return {part: self.metrics.get(part) for part in ("validation", "test")}

    def predict(self, images: Any, *, on_bad: str = "error") -> ImagePredictions:
        """Predict images.

        Args:
            images: the path of a file or folder, or a list of paths; the bytes of an encoded image,
                or a list of them; or raw pixels 0-255 `(n, height, width, 3)` of any size.
            on_bad: what to do with unreadable files: `"error"`, or `"skip"` to leave them out.

        Returns:
            An `ImagePredictions`; print it, or use `rows()` or `outputs`.

        Raises:
            DataError: no image can be read.
        """
        return classifier_of(self.model, self.class_names, self.rules).predict_images(
            images, on_bad
        )

    def evaluate(
        self, data: Any, *, on_bad: str = "error", options: DataOptions = NO_OPTIONS
    ) -> Measured:
        """Measure the model on labelled images that it was not trained on.

        Args:
            data: a source as for `load_data`: its test part is used, or all images if there is no
                test part; or an `ImageData` or one of its parts.
            on_bad: what to do with unreadable files: `"error"` or `"skip"`.
            options: how to read `data`, as for `kerastl.train`. Default for pixels: as in the run.

        Returns:
            The same as `kerastl.evaluate`.
        """
        options = self.reading(options)
        _, split = labelled_images(data, self.class_names, self.task, on_bad, options)
        for warning in self.files.warn_of_seen(split.source):
            warnings.warn(warning, stacklevel=2)
        return evaluate(self.model, split)

    def next(self, pool: str | Path | Sequence[str], **options: Any) -> NextImages:
        """Choose the unlabelled images to label next; options as for `next_images`."""
        return typed(next_images)(self, pool, **options)

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
            images: as for `predict`.
            class_name: the class, label or target. Default: as in `kerastl.explain`.
            method: as for `kerastl.explain`.
            stage: as for `kerastl.explain`.

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
        """Export the model as a new version, and check that it predicts the same.

        Args:
            directory: folder of the versions. Default: `saved_model` of the run.
            calibrate: whether to divide the scores by the temperature that the run fitted.
            **options: arguments of `kerastl.export_model`, such as `formats`.

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
                "validation images. Train with validation images, or pass `--temperature`."
            )
        return float(calibration["temperature"])

    def report(self) -> Path:
        """Write `report.html` and `MODEL_CARD.md` again, and return the path of the page."""
        write_card(self.directory)
        return write_report(self.directory)

    def serve(self, **options: Any) -> None:
        """Serve the exported model over HTTP until the process is interrupted.

        Args:
            **options: options of the server, such as `host`, `port`, `grpc_port` and `name`.
        """
        from kerastl.serving.server import serve  # needs the extra "serve"

        options.setdefault("name", self.directory.resolve().name)
        serve(self.files.path(RunFiles.SAVED_MODEL), **options)

    def track(self, tracker: str) -> None:
        """Log settings, measures, epochs, page and model to an experiment tracker.

        Configure the tracker as usual, with `MLFLOW_TRACKING_URI`, `WANDB_MODE=offline`, ...

        Args:
            tracker: `"mlflow"` or `"wandb"`, each an extra of kerastl.

        Raises:
            ArgumentError: the tracker is unknown or not installed.
        """
        track(self.files, tracker)

    def push_to_hub(self, name: str, *, private: bool = False, page: bool = False) -> str:
        """Upload the model, its card, labels, recipe and measures to the Hugging Face hub.

        This needs the extra `huggingface`, and a login (`hf auth login`) or `HF_TOKEN`. The
        uploaded recipe contains the name of the image folder.

        Args:
            name: name of the repository, such as `"me/flowers"`; it is created if it does not
                exist.
            private: whether a new repository is private.
            page: whether to upload the page, which shows training and test images.

        Returns:
            The name of the repository, with its owner.

        Raises:
            ArgumentError: `huggingface_hub` is not installed.
            ExportError: the hub rejected the upload, or the run is not finished.

        Example:
            >>> run.push_to_hub("me/flowers")
            'me/flowers'
        """
        return push_to_hub(self.files, name, private=private, page=page)

    def top_losses(self, most: int = 10) -> ShownAnswers:
        """Return the test images with the largest loss, worst first.

        Args:
            most: maximum number of images, up to the 12 that a run stores with their pictures.

        Returns:
            One dict per image: `path`, `label`, `answer` and their probabilities, or the true and
            predicted values for regression; `loss`; `file` and `overlay`, file names in
            `pictures/`. `.show()` returns a figure.
        """
        return ShownAnswers((self.files.evaluation or {}).get("worst", [])[:most], self.files)

    def show_results(self, most: int = 12) -> "Figure":
        """Return a figure of the most confident correct and the worst predictions."""
        surest = (self.files.evaluation or {}).get("surest", [])[: most // 2]
        rows = [*surest, *self.top_losses(most - len(surest))]
        return ShownAnswers(rows, self.files).show()

    def plot_confusion(self) -> "Figure":
        """Return the confusion matrix of the test images as a figure."""
        return plot_run_confusion(self.files)

    def load_data(self, data: str | None = None) -> ImageData:
        """Load the images of the run, with the same split.

        Args:
            data: the new location of the images, if they moved.

        Raises:
            DataError: the images are missing, or are not the images of the run.
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
                f"The images in {data or source.get('data')} are not the images of the run "
                f"{self.directory}: their fingerprint differs. Pass the original folder as "
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
        """Compare the recipe with other training, write `transfer.json`, and return warnings."""
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
    """Load a run of `kerastl.train`, or of `kerastl train`, `search` or `chain`.

    Args:
        path: the run directory.

    Raises:
        DataError: `path` is not a run.

    Example:
        >>> run = kerastl.load_run("runs/flowers")
        >>> run.metrics["test"]["accuracy"]
        0.83
    """
    run = Run(path)
    if not run.files.recipe:  # raises where there is no recipe.json
        raise DataError(f"{path} is not a run: its recipe.json contains no recipe.")
    return run
