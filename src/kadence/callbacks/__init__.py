"""What acts during fit, one file each."""

from kadence.callbacks.recorder import LossNotFiniteError, RateRecorder
from kadence.callbacks.run_folder import RunFolder, save_model
from kadence.callbacks.seeds import EpochSeeds

__all__ = ["EpochSeeds", "LossNotFiniteError", "RateRecorder", "RunFolder", "save_model"]
