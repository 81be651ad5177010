"""Transfer learning for image classification on Keras 3 and TensorFlow.

`import kerastl` is quick: TensorFlow is imported with the first name that needs it.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerastl.advice.advise import Advice as Advice
    from kerastl.advice.advise import advise as advise
    from kerastl.advice.diagnosis import Diagnosis as Diagnosis
    from kerastl.advice.diagnosis import diagnose as diagnose
    from kerastl.advice.probe import LinearProbe as LinearProbe
    from kerastl.advice.probe import LinearSVM as LinearSVM
    from kerastl.advice.probe import SoftmaxProbe as SoftmaxProbe
    from kerastl.advice.rank import rank_backbones as rank_backbones
    from kerastl.backbones.stages import split as split
    from kerastl.backbones.table import list_backbones as list_backbones
    from kerastl.data.load import load_data as load_data
    from kerastl.frozen.activations import extract_embeddings as extract_embeddings
    from kerastl.frozen.codes import extract_codes as extract_codes
    from kerastl.model.build import build_transfer_model as build_transfer_model
    from kerastl.model.freeze import freeze_to as freeze_to
    from kerastl.model.freeze import stages as stages
    from kerastl.model.fully_convolutional import to_fully_convolutional as to_fully_convolutional
    from kerastl.model.optimizers import layerwise_optimizer as layerwise_optimizer
    from kerastl.model.recipes import Phase as Phase
    from kerastl.model.recipes import Recipe as Recipe
    from kerastl.model.recipes import make_recipe as make_recipe
    from kerastl.results.calibrate import calibrate as calibrate
    from kerastl.results.class_map import ClassMap as ClassMap
    from kerastl.results.class_map import ClassMapper as ClassMapper
    from kerastl.results.code_page import write_codes_page as write_codes_page
    from kerastl.results.evaluate import collect_predictions as collect_predictions
    from kerastl.results.evaluate import evaluate as evaluate
    from kerastl.results.explain import Explanation as Explanation
    from kerastl.results.explain import explain as explain
    from kerastl.results.explain import overlay as overlay
    from kerastl.results.model_card import write_card as write_card
    from kerastl.results.movement import how_far_moved as how_far_moved
    from kerastl.results.movement import weights_by_stage as weights_by_stage
    from kerastl.results.neighbours import nearest_neighbours as nearest_neighbours
    from kerastl.results.predictions import Predictions as Predictions
    from kerastl.results.report import write_report as write_report
    from kerastl.results.transfer import compare_transfer as compare_transfer
    from kerastl.serving.export import export_model as export_model
    from kerastl.serving.fully_convolutional import (
        export_fully_convolutional as export_fully_convolutional,
    )
    from kerastl.training.fine_tune import fine_tune as fine_tune
    from kerastl.training.hypermodel import TransferHyperModel as TransferHyperModel
    from kerastl.training.oracles import SearchSpace as SearchSpace
    from kerastl.training.search import search as search
    from kerastl.training.search_result import SearchResult as SearchResult

# TensorFlow's start-up noise stays off the terminal, unless the user asked for it: at level 3, for
# it reports as errors that there is no GPU and that oneDNN has no kernel for bytes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"

_MODULE_OF = {
    "Advice": "advice.advise",
    "ClassMap": "results.class_map",
    "ClassMapper": "results.class_map",
    "Diagnosis": "advice.diagnosis",
    "Explanation": "results.explain",
    "LinearProbe": "advice.probe",
    "LinearSVM": "advice.probe",
    "Phase": "model.recipes",
    "Predictions": "results.predictions",
    "Recipe": "model.recipes",
    "SearchResult": "training.search_result",
    "SearchSpace": "training.oracles",
    "SoftmaxProbe": "advice.probe",
    "TransferHyperModel": "training.hypermodel",
    "advise": "advice.advise",
    "build_transfer_model": "model.build",
    "calibrate": "results.calibrate",
    "collect_predictions": "results.evaluate",
    "compare_transfer": "results.transfer",
    "diagnose": "advice.diagnosis",
    "evaluate": "results.evaluate",
    "explain": "results.explain",
    "export_fully_convolutional": "serving.fully_convolutional",
    "export_model": "serving.export",
    "extract_codes": "frozen.codes",
    "extract_embeddings": "frozen.activations",
    "fine_tune": "training.fine_tune",
    "freeze_to": "model.freeze",
    "how_far_moved": "results.movement",
    "layerwise_optimizer": "model.optimizers",
    "list_backbones": "backbones.table",
    "load_data": "data.load",
    "make_recipe": "model.recipes",
    "nearest_neighbours": "results.neighbours",
    "overlay": "results.explain",
    "rank_backbones": "advice.rank",
    "search": "training.search",
    "split": "backbones.stages",
    "stages": "model.freeze",
    "to_fully_convolutional": "model.fully_convolutional",
    "weights_by_stage": "results.movement",
    "write_card": "results.model_card",
    "write_codes_page": "results.code_page",
    "write_report": "results.report",
}

__all__ = [
    "Advice",
    "ClassMap",
    "ClassMapper",
    "Diagnosis",
    "Explanation",
    "LinearProbe",
    "LinearSVM",
    "Phase",
    "Predictions",
    "Recipe",
    "SearchResult",
    "SearchSpace",
    "SoftmaxProbe",
    "TransferHyperModel",
    "advise",
    "build_transfer_model",
    "calibrate",
    "collect_predictions",
    "compare_transfer",
    "diagnose",
    "evaluate",
    "explain",
    "export_fully_convolutional",
    "export_model",
    "extract_codes",
    "extract_embeddings",
    "fine_tune",
    "freeze_to",
    "how_far_moved",
    "layerwise_optimizer",
    "list_backbones",
    "load_data",
    "make_recipe",
    "nearest_neighbours",
    "overlay",
    "rank_backbones",
    "search",
    "split",
    "stages",
    "to_fully_convolutional",
    "weights_by_stage",
    "write_card",
    "write_codes_page",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'kerastl' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"kerastl.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
