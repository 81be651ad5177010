"""The public names, each with its module; `__init__.py` reads them from here."""

from kerastl.advice.advise import Advice as Advice
from kerastl.advice.advise import advise as advise
from kerastl.advice.blend import BlendProbe as BlendProbe
from kerastl.advice.diagnosis import Diagnosis as Diagnosis
from kerastl.advice.diagnosis import diagnose as diagnose
from kerastl.advice.probe import LinearProbe as LinearProbe
from kerastl.advice.probe import SoftmaxProbe as SoftmaxProbe
from kerastl.advice.rank import rank_backbones as rank_backbones
from kerastl.advice.svm import LinearSVM as LinearSVM
from kerastl.backbones.stages import split as split
from kerastl.backbones.table import list_backbones as list_backbones
from kerastl.data.load import load_data as load_data
from kerastl.data.options import DataOptions as DataOptions
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
from kerastl.results.label_issues import LabelIssue as LabelIssue
from kerastl.results.label_issues import LabelIssues as LabelIssues
from kerastl.results.label_issues import find_label_issues as find_label_issues
from kerastl.results.model_card import write_card as write_card
from kerastl.results.movement import how_far_moved as how_far_moved
from kerastl.results.movement import weights_by_stage as weights_by_stage
from kerastl.results.neighbours import nearest_neighbours as nearest_neighbours
from kerastl.results.predictions import Predictions as Predictions
from kerastl.results.report import write_report as write_report
from kerastl.results.thresholds import choose_thresholds as choose_thresholds
from kerastl.results.transfer import compare_transfer as compare_transfer
from kerastl.runs.classifier import ImagePredictions as ImagePredictions
from kerastl.runs.next_images import NextImages as NextImages
from kerastl.runs.next_images import next_images as next_images
from kerastl.runs.run import Run as Run
from kerastl.runs.run import load_run as load_run
from kerastl.runs.training import train as train
from kerastl.serving.export import export_model as export_model
from kerastl.serving.fully_convolutional import (
    export_fully_convolutional as export_fully_convolutional,
)
from kerastl.training.fine_tune import fine_tune as fine_tune
from kerastl.training.hypermodel import TransferHyperModel as TransferHyperModel
from kerastl.training.oracles import SearchSpace as SearchSpace
from kerastl.training.search import search as search
from kerastl.training.search_result import SearchResult as SearchResult

__version__: str
__all__: list[str]
