"""Kadence: learning rates for Keras 3."""

from kadence import _backend

_backend.choose_backend()

from kadence.backbones import Backbone, load_backbone  # noqa: E402
from kadence.batch_norm import freeze_batch_norm, recompute_batch_norm  # noqa: E402
from kadence.callbacks import LossNotFiniteError, RateRecorder  # noqa: E402
from kadence.groups import LayerGroup, LayerGroups, group_by, layer_decay, split, split_evenly  # noqa: E402
from kadence.optimizer import DiscriminativeOptimizer  # noqa: E402
from kadence.plots import plot_history, plot_rates, plot_schedule  # noqa: E402
from kadence.predict import Prediction, predict_photos  # noqa: E402
from kadence.records import RateRecord  # noqa: E402
from kadence.run import FineTuneRun, train_classifier  # noqa: E402
from kadence.schedules import (  # noqa: E402
    Constant,
    Cosine,
    Linear,
    Schedule,
    WarmRestarts,
    epochs_to_steps,
    join,
    scale,
    warmup,
)
from kadence.settings import FineTuneSettings  # noqa: E402

__all__ = [
    "Backbone",
    "Constant",
    "Cosine",
    "DiscriminativeOptimizer",
    "FineTuneRun",
    "FineTuneSettings",
    "LayerGroup",
    "LayerGroups",
    "Linear",
    "LossNotFiniteError",
    "Prediction",
    "RateRecord",
    "RateRecorder",
    "Schedule",
    "WarmRestarts",
    "epochs_to_steps",
    "freeze_batch_norm",
    "group_by",
    "join",
    "layer_decay",
    "load_backbone",
    "plot_history",
    "plot_rates",
    "plot_schedule",
    "predict_photos",
    "recompute_batch_norm",
    "scale",
    "split",
    "split_evenly",
    "train_classifier",
    "warmup",
]
