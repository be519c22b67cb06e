"""Kadence: learning rates for Keras 3."""

from kadence import _backend

_backend.choose_backend()

from kadence.backbones import Backbone, load_backbone  # noqa: E402
from kadence.batch_norm import freeze_batch_norm, recompute_batch_norm  # noqa: E402
from kadence.budgets import scale_for_batch, solve_cycles  # noqa: E402
from kadence.callbacks import LossNotFiniteError, RateRecorder  # noqa: E402
from kadence.doctor import check, check_file  # noqa: E402
from kadence.durations import parse_duration  # noqa: E402
from kadence.finder import lr_range_test  # noqa: E402
from kadence.groups import LayerGroup, LayerGroups, group_by, layer_decay, split, split_evenly  # noqa: E402
from kadence.ladders import LadderTest, lr_ladder_test  # noqa: E402
from kadence.optimizer import DiscriminativeOptimizer  # noqa: E402
from kadence.plan import Plan, plan  # noqa: E402
from kadence.plots import plot_history, plot_range_test, plot_rates, plot_schedule  # noqa: E402
from kadence.predict import Prediction, predict_photos  # noqa: E402
from kadence.range_test import RangeTest  # noqa: E402
from kadence.records import RateRecord  # noqa: E402
from kadence.run import FineTuneRun, train_classifier  # noqa: E402
from kadence.schedules import (  # noqa: E402
    Constant,
    Cosine,
    Cyclical,
    Exponential,
    InverseSquareRoot,
    Linear,
    OneCycle,
    Polynomial,
    Schedule,
    SlantedTriangular,
    Step,
    WarmRestarts,
    WarmupStableDecay,
    epochs_to_steps,
    from_function,
    from_points,
    join,
    one_cycle,
    scale,
    warmup,
)
from kadence.settings import FineTuneSettings  # noqa: E402

__all__ = [
    "Backbone",
    "Constant",
    "Cosine",
    "Cyclical",
    "DiscriminativeOptimizer",
    "Exponential",
    "FineTuneRun",
    "FineTuneSettings",
    "InverseSquareRoot",
    "LadderTest",
    "LayerGroup",
    "LayerGroups",
    "Linear",
    "LossNotFiniteError",
    "OneCycle",
    "Plan",
    "Polynomial",
    "Prediction",
    "RangeTest",
    "RateRecord",
    "RateRecorder",
    "Schedule",
    "SlantedTriangular",
    "Step",
    "WarmRestarts",
    "WarmupStableDecay",
    "check",
    "check_file",
    "epochs_to_steps",
    "freeze_batch_norm",
    "from_function",
    "from_points",
    "group_by",
    "join",
    "layer_decay",
    "load_backbone",
    "lr_ladder_test",
    "lr_range_test",
    "one_cycle",
    "parse_duration",
    "plan",
    "plot_history",
    "plot_range_test",
    "plot_rates",
    "plot_schedule",
    "predict_photos",
    "recompute_batch_norm",
    "scale",
    "scale_for_batch",
    "solve_cycles",
    "split",
    "split_evenly",
    "train_classifier",
    "warmup",
]
