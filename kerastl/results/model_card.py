"""Writes the Hugging Face model card of a run."""

import json
from pathlib import Path

from kerastl._measure import headlines
from kerastl._task import find_task
from kerastl.data.options import RGB
from kerastl.results.report import humanise, percent
from kerastl.results.run_files import Json, RunFiles, in_words

MOST_CLASSES = 50
_MARKUP = "\\`*_{}[]<>()#+-.!|&~$"


def write_card(run: str | Path) -> Path:
    """Write `MODEL_CARD.md` from the files of a run, and return its path.

    The front matter has the format of Hugging Face model cards
    (https://huggingface.co/docs/hub/model-cards). The licence is `other`, because it depends on the
    pretrained weights and the images.

    Args:
        run: a directory of `kerastl train` or `kerastl search`.

    Raises:
        DataError: `run` is not a run, or a file is damaged.
        ExportError: the card cannot be written.

    Example:
        >>> kerastl.write_card("runs/1")
        PosixPath('runs/1/MODEL_CARD.md')
    """
    facts = RunFiles(run)
    return facts.write(facts.CARD, card(facts))


def card(facts: RunFiles) -> str:
    """Return the card as Markdown with YAML in front."""
    with in_words(facts.directory):
        parts = [
            _front_matter(facts),
            f"# {plain(facts.directory.resolve().name)}",
            _what_it_is(facts),
            f"## {find_task(facts.task).plural.capitalize()}",
            _classes(facts),
            "## Training",
            _training(facts),
            "## Results",
            _results(facts),
            "## Limits",
            _limits(facts),
            "## Use",
            _use(facts),
        ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Return text escaped for Markdown, such as names of classes and files."""
    return "".join(f"\\{sign}" if sign in _MARKUP else sign for sign in text)


def _front_matter(facts: RunFiles) -> str:
    """Return the facts as YAML; JSON is YAML, and quotes what is hostile."""
    task = find_task(facts.task)
    named = task.hub_metrics
    lines: Json = {"library_name": "keras"}
    if task.hub_pipeline:
        lines["pipeline_tag"] = task.hub_pipeline
    lines |= {
        "license": "other",
        "tags": [task.hub_tag, "keras", "transfer-learning", "kerastl"],
        "metrics": [kind for _, kind, _ in named] or [one.key for one in task.measures],
    }
    test = (facts.metrics or {}).get("test")
    if test and named:
        lines["model-index"] = [
            {
                "name": facts.directory.resolve().name,
                "results": [
                    {
                        "task": {"type": task.hub_pipeline},
                        "dataset": {"name": _source(facts), "type": "imagefolder", "split": "test"},
                        "metrics": [
                            {"type": kind, "name": title, "value": round(test[key], 6)}
                            for key, kind, title in named
                        ],
                    }
                ],
            }
        ]
    text = "\n".join(f"{name}: {json.dumps(value)}" for name, value in lines.items())
    return f"---\n{text}\n---"


def _source(facts: RunFiles) -> str:
    return str(facts.source.get("data") or "unnamed")


def _what_it_is(facts: RunFiles) -> str:
    recipe = facts.recipe
    backbone = recipe.get("backbone") or "a backbone of its own"
    weights = str(recipe.get("weights") or "unknown").split("/")[-1]
    task, channels = find_task(facts.task), facts.options.rules.channels
    kind = "RGB pixels" if channels == RGB else f"pixels of {channels} channels"
    return (
        f"A Keras model that {task.what_it_does(facts.class_names)}. Backbone: "
        f"{plain(backbone)}, started from {plain(weights)} weights. It takes raw {kind} "
        f"from 0 to 255 and answers {task.answers_with}; the preprocessing is inside."
    )


def _classes(facts: RunFiles) -> str:
    names = ", ".join(plain(name) for name in facts.class_names[:MOST_CLASSES])
    more = len(facts.class_names) - MOST_CLASSES
    return names + (f" and {more} more (`labels.txt`)" if more > 0 else "")


def _training(facts: RunFiles) -> str:
    recipe = facts.recipe
    lines = [f"Data: {plain(_source(facts))}."]
    if facts.evaluation:
        data = facts.evaluation["data"]
        sizes = data.get("sizes") or {part: sum(each) for part, each in data["counts"].items()}
        lines.append("Images: " + ", ".join(f"{n:,} {part}" for part, n in sizes.items()) + ".")
        if data["num_skipped"]:
            lines.append(f"{data['num_skipped']} files could not be read and were left out.")
    phases = ", ".join(
        f"{humanise(phase['name'])} ("
        + ("closed form" if phase["method"] == "probe" else f"{phase['epochs']} epochs")
        + f", {phase['freeze_depth']} stages frozen)"
        for phase in recipe.get("phases", [])
    )
    lines.append(f"Recipe: {plain(humanise(str(recipe.get('name'))))}; {plain(phases)}.")
    if recipe.get("reason"):
        lines.append(plain(recipe["reason"]))
    return " ".join(lines)


def _results(facts: RunFiles) -> str:
    test = (facts.metrics or {}).get("test")
    if not test:
        return "Not measured: there were no test images."
    rows = headlines(test, find_task(facts.task).card_measures)
    return "\n".join(
        [
            f"On {test['num_images']:,} test images that were not used for any choice:",
            "",
            "| measure | value | 95 % interval |",
            "| --- | --- | --- |",
            *(f"| {one.title} | {one.value} | {one.interval} |" for one in rows),
        ]
    )


def _limits(facts: RunFiles) -> str:
    findings = facts.evaluation or {}
    told = (findings.get("data"), facts.diagnosis, facts.transfer)
    warnings = dict.fromkeys(text for one in told if one for text in one.get("warnings", []))
    confused = findings.get("most_confused", [])[:3]
    lines = [f"- {plain(warning)}" for warning in warnings] + [
        f"- {plain(row['label'])} is predicted as {plain(row['answer'])} in "
        f"{percent(row['share'])} of its test images."
        for row in confused
    ]
    limit = find_task(facts.task).limit
    first = f"{limit} Images that differ from the training images were not measured."
    return "\n".join([first, "", *lines]).rstrip()


def _use(facts: RunFiles) -> str:
    outputs = find_task(facts.task).output_name
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return (
        "```python\nimport keras\n\n"
        'model = keras.saving.load_model("model.keras")\n'
        f"{outputs} = model.predict(images)  # raw pixels, "
        f"(n, height, width, {facts.options.rules.channels})\n"
        f"```\n\nMade with {plain(versions)}."
    )
