"""EpochSeeds: dropout and augmentation that an interrupted run repeats."""

import sys
from typing import Any

import keras
import numpy as np

from kadence import _checks


class EpochSeeds(keras.callbacks.Callback):
    """Seeds every random layer anew at the start of each epoch, from the seed and the number of the epoch.

    Keras does not save the state of its seed generators: a run that is resumed would draw the dropout masks and
    augmentations of its first epoch again. With this callback, epoch n draws the same ones however it is reached.

    Args:
        seed: Integer >= 0.

    Raises:
        ValueError: If `seed` is negative.
        TypeError: If `seed` is not an integer.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.model: Any
        self.seed = _checks.integer("seed", seed, minimum=0, unit="a seed")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Assign the state of each seed generator."""
        states = [variable for variable in self.model.variables if variable.name == "seed_generator_state"]
        for position, state in enumerate(states):
            state.assign(np.random.default_rng([self.seed, epoch, position]).integers(0, 2**31, size=2))
        if keras.backend.backend() == "torch":
            # Keras's dropout draws from PyTorch's own generator there.
            sys.modules["torch"].manual_seed(int(np.random.default_rng([self.seed, epoch]).integers(0, 2**31)))
