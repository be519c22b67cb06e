"""What acts during fit, one file each."""

from kadence.callbacks.gradual import GradualUnfreeze
from kadence.callbacks.recorder import LossNotFiniteError, RateRecorder
from kadence.callbacks.run_folder import RunFolder, history_text, save_model
from kadence.callbacks.seeds import EpochSeeds
from kadence.callbacks.snapshots import SnapshotSaver

__all__ = [
    "EpochSeeds",
    "GradualUnfreeze",
    "LossNotFiniteError",
    "RateRecorder",
    "RunFolder",
    "SnapshotSaver",
    "history_text",
    "save_model",
]
