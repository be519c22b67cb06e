"""Kadence: learning rates for Keras 3."""

from kadence import _backend

_backend.choose_backend()

from kadence.averages import average_weights  # noqa: E402
from kadence.backbones import Backbone, load_backbone  # noqa: E402
from kadence.batch_norm import freeze_batch_norm, recompute_batch_norm  # noqa: E402
from kadence.budgets import scale_for_batch, solve_cycles  # noqa: E402
from kadence.callbacks import GradualUnfreeze, LossNotFiniteError, RateRecorder, SnapshotSaver  # noqa: E402
from kadence.compare import compare  # noqa: E402
from kadence.comparison import Comparison  # noqa: E402
from kadence.doctor import check, check_file  # noqa: E402
from kadence.durations import minutes_to_steps, parse_duration  # noqa: E402
from kadence.ensemble import SnapshotEnsemble  # noqa: E402
from kadence.features import CachedFeatures, FeatureBatches, cache_features  # noqa: E402
from kadence.finder import lr_range_test  # noqa: E402
from kadence.fine_tune_result import FineTuneResult  # noqa: E402
from kadence.finetune import fine_tune  # noqa: E402
from kadence.freezing import freeze_to, unfreeze  # noqa: E402
from kadence.groups import LayerGroup, LayerGroups, group_by, layer_decay, split, split_evenly  # noqa: E402
from kadence.ladders import LadderTest, lr_ladder_test  # noqa: E402
from kadence.multipliers import gradual_multipliers  # noqa: E402
from kadence.optimizer import DiscriminativeOptimizer  # noqa: E402
from kadence.phases import FindPhase, HeadPhase, TrainPhase  # noqa: E402
from kadence.plan import Plan, plan  # noqa: E402
from kadence.plots import (  # noqa: E402
    plot_comparison,
    plot_history,
    plot_range_test,
    plot_rates,
    plot_schedule,
)
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
from kadence.slots import rebuild_optimizer  # noqa: E402
from kadence.strategies import Strategy  # noqa: E402
from kadence.tta import predict_augmented  # noqa: E402

__all__ = [
    "Backbone",
    "CachedFeatures",
    "Comparison",
    "Constant",
    "Cosine",
    "Cyclical",
    "DiscriminativeOptimizer",
    "Exponential",
    "FeatureBatches",
    "FindPhase",
    "FineTuneResult",
    "FineTuneRun",
    "FineTuneSettings",
    "GradualUnfreeze",
    "HeadPhase",
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
    "SnapshotEnsemble",
    "SnapshotSaver",
    "Step",
    "Strategy",
    "TrainPhase",
    "WarmRestarts",
    "WarmupStableDecay",
    "average_weights",
    "cache_features",
    "check",
    "check_file",
    "compare",
    "epochs_to_steps",
    "fine_tune",
    "freeze_batch_norm",
    "freeze_to",
    "from_function",
    "from_points",
    "gradual_multipliers",
    "group_by",
    "join",
    "layer_decay",
    "load_backbone",
    "lr_ladder_test",
    "lr_range_test",
    "minutes_to_steps",
    "one_cycle",
    "parse_duration",
    "plan",
    "plot_comparison",
    "plot_history",
    "plot_range_test",
    "plot_rates",
    "plot_schedule",
    "predict_augmented",
    "predict_photos",
    "rebuild_optimizer",
    "recompute_batch_norm",
    "scale",
    "scale_for_batch",
    "solve_cycles",
    "split",
    "split_evenly",
    "train_classifier",
    "unfreeze",
    "warmup",
]
