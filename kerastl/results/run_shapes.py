"""The shapes of the JSON files of a run, used to write and to check them."""

from typing import NotRequired, TypedDict

from kerastl.model.recipes import Recipe

Pair = tuple[float, float]
"""The ends of an interval."""

Measure = int | float | None | Pair
Measures = dict[str, Measure | dict[str, Pair | None] | list[dict[str, Measure]]]
"""What was measured on a part of the images: by name numbers, intervals, and rows of outputs."""


class Source(TypedDict, total=False):
    """Where the images of a run came from."""

    data: str
    test: str | None
    on_bad: str
    fingerprint: str


class EarlierRecipe(TypedDict, total=False):
    """The recipe of an earlier training."""

    name: str
    backbone: str
    weights: str


class EarlierTraining(TypedDict):
    """A training that a backbone has gone through."""

    model: str
    sha256: str
    recipe: NotRequired[EarlierRecipe]
    data: NotRequired[Source]
    num_classes: NotRequired[int | None]
    score: NotRequired[float | None]  # on its own test images
    measure: NotRequired[str]  # the name of the score; accuracy in runs of before version 0.3


class RecipeFile(TypedDict, total=False):
    """`recipe.json`."""

    recipe: Recipe
    data: Source
    versions: dict[str, str]
    lineage: list[EarlierTraining]


class Timing(TypedDict):
    """How long a run took, in seconds."""

    total_seconds: float
    phases: dict[str, float]


class Metrics(TypedDict):
    """`metrics.json`."""

    test: NotRequired[Measures | None]
    validation: NotRequired[Measures | None]
    decisions: NotRequired[dict[str, str]]
    timing: NotRequired[Timing]
    recipe: NotRequired[Recipe]


class ProbedStage(TypedDict):
    """The linear probe at the end of a stage."""

    index: int
    score: float
    standard_error: float


class ShiftedLayer(TypedDict):
    """How far the statistics of a layer are from those of pretraining."""

    shift: float
    floor: float


class Forecast(TypedDict):
    """The error that is expected with more images."""

    num_images: int
    error: float
    low: float
    high: float


class LearningCurve(TypedDict):
    """The error against the number of images."""

    num_images: int
    a: float
    b: float
    doubled: Forecast
    quadrupled: Forecast


class Size(TypedDict):
    """What a diagnosis says of size."""

    learning_curve: NotRequired[LearningCurve | None]


class Similarity(TypedDict):
    """The similarity in a diagnosis."""

    layers: NotRequired[list[ShiftedLayer] | None]


class Reason(TypedDict):
    """Why a number of a recipe is what it is."""

    name: str
    value: str
    why: str
    otherwise: str


class AdviceShape(TypedDict):
    """What was advised."""

    reasons: list[Reason]
    summary: NotRequired[str]


class DiagnosisFile(TypedDict):
    """`diagnosis.json`."""

    task: NotRequired[str]
    scenario: str
    probability: float
    profile: list[ProbedStage]
    best_stage: int
    size: Size
    similarity: Similarity
    warnings: list[str]
    advice: NotRequired[AdviceShape]


class LeftOut(TypedDict):
    """A file that was left out."""

    path: str
    reason: str


class KeptData(TypedDict):
    """What is kept of the images."""

    source: str
    counts: dict[str, list[int]]
    sizes: NotRequired[dict[str, int]]
    spans: NotRequired[dict[str, list[list[float]]]]
    skipped: list[LeftOut]
    num_skipped: int
    ignored: list[str]
    num_ignored: int
    warnings: list[str]


class Sample(TypedDict):
    """A training image, by the name of its picture."""

    file: str
    label: str
    path: str | None


class Answer(TypedDict):
    """What was answered about one image, as texts, and how wrong that is."""

    index: int  # among the images
    path: str | None
    label: str
    answer: str
    probability: NotRequired[float]  # of the answer; this and the next of a classifier alone
    probability_of_label: NotRequired[float]
    loss: float


class ShownAnswer(Answer):
    """An answer with its picture, and of a classifier with what spoke for it."""

    file: str
    overlay: NotRequired[str]
    method: NotRequired[str]
    stage: NotRequired[str | None]
    seen: NotRequired[bool]


class Confusion(TypedDict):
    """A class, a wrong answer about its images, and how often it was given."""

    label: str
    answer: str
    count: int
    share: float  # of the images of the label
    interval: Pair | None  # of 95 %


class ConfidenceBin(TypedDict):
    """How often answers of like confidence were right."""

    confidence: float  # the mean
    accuracy: float
    interval: Pair | None  # of 95 %
    num_images: int


class StageMovement(TypedDict):
    """How far the weights of a stage are from where they started."""

    name: str
    num_parameters: int
    # The Euclidean distance over the length that the weights had at the start (0: as they were;
    # 1: as far as they were long).
    moved: float


class BeforeAfter(TypedDict):
    """Measures before a temperature and after."""

    log_loss: Pair
    ece: Pair


class Calibration(TypedDict):
    """A temperature, fitted to validation images."""

    temperature: float
    interval: Pair
    num_images: int
    validation: NotRequired[BeforeAfter]
    test: NotRequired[BeforeAfter]


class Numbers(TypedDict):
    """True numbers, and those answered."""

    truth: list[float]
    values: list[float]


class EvaluationFile(TypedDict):
    """`evaluation.json`."""

    task: NotRequired[str]
    class_names: list[str]
    data: KeptData
    samples: list[Sample]
    worst: list[ShownAnswer]
    surest: NotRequired[list[ShownAnswer]]
    calibration: NotRequired[Calibration | None]
    moved: NotRequired[list[StageMovement]]
    confusion: NotRequired[list[list[int]]]
    most_confused: NotRequired[list[Confusion]]
    reliability: NotRequired[list[ConfidenceBin]]
    answers: NotRequired[list[Numbers]]


class TrialShape(TypedDict):
    """A trial of a search."""

    freeze_depth: int
    learning_rate: float | None
    epochs: int | None
    score: float | None
    standard_error: float | None
    loss: float | None
    seconds: float | None
    status: str
    reason: str | None


class Corrected(TypedDict):
    """The score of the best trial without the luck of having been picked."""

    score: float
    standard_error: float


class SearchedBackbone(TypedDict):
    """A backbone of a search over several; `best` of those that had trials."""

    name: str
    probe: float
    best: TrialShape | None


class TrialsFile(TypedDict):
    """`trials.json`."""

    task: NotRequired[str]
    best: TrialShape
    corrected: Corrected
    trials: list[TrialShape]
    profile: list[ProbedStage]
    backbones: NotRequired[list[SearchedBackbone]]


class Arm(TypedDict):
    """A way to train, and how good it was."""

    name: str
    score: float
    interval: Pair | None
    epochs: int
    seconds: float
    most_epochs: NotRequired[int]  # this and the next of a chain
    num_trained: NotRequired[int]


class Difference(TypedDict):
    """How much better one way was than another."""

    first: str
    second: str
    difference: float
    interval: Pair


class TransferFile(TypedDict):
    """`transfer.json`."""

    num_images: int
    arms: list[Arm]
    differences: list[Difference]
    warnings: list[str]


class Step(TypedDict):
    """The gain of a step of a chain."""

    step: str
    difference: float
    interval: Pair


class Verdict(TypedDict):
    """The gain of the whole chain."""

    difference: float
    interval: Pair
    verdict: str


class ChainFile(TypedDict, total=False):
    """`chain.json`; before its end a chain has no arms."""

    num_images: int
    arms: list[Arm]
    brought: list[Step]
    paid: Verdict
    warnings: list[str]
    same_budget: bool
