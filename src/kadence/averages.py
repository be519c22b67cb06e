"""Snapshots of a training run -> one model with their mean weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._snapshot_files import (
    Source,
    arrays_of,
    buffers_of,
    check_files,
    check_model,
    check_shares,
    files_of,
    load_weights,
    own_weights,
    state_of,
)
from kadence._updates import assign_array
from kadence.batch_norm import batch_norms, recompute_layers


def average_weights(
    model: keras.Model,
    source: Source,
    *,
    last: int | None = None,
    weights: Sequence[float] | None = None,
    batches: Iterable[Any] | None = None,
) -> int:
    """Sets the weights of a model to the mean of those of its snapshots, and computes BatchNormalization anew.

    theta = sum over all k of share_k * theta_k

    Over snapshots of a tail at a constant or cyclical rate that is stochastic weight averaging (SWA). Computed in
    float64. Weights that are not floating-point numbers are those of the last snapshot. The optimizer stays as it is.
    Statistics that a PyTorch module keeps in buffers cannot be computed anew, and have to be the same in all snapshots.
    After an error or Ctrl-C the model has the weights that it had before.

    Args:
        model: Built `keras.Model` of the architecture that was trained.
        source: Folder that `SnapshotSaver` wrote, or a sequence of files.
        last: How many of the latest snapshots to take. Integer >= 1, or None for all.
        weights: Share of each snapshot: floats >= 0, scaled to the sum 1. None for equal shares.
        batches: Training data, as for `kadence.recompute_batch_norm`. Needed, and used, for the layers in which the
            snapshots' own statistics differ: the mean of statistics is not the statistic of the mean. A layer in which
            they are the same was frozen, and keeps them.

    Returns:
        Number of snapshots in the mean.

    Raises:
        FileNotFoundError: If the folder has no snapshots, or a file is missing.
        ValueError: If a file holds other weights, `batches` is None where it is needed, buffers of PyTorch modules
            differ, or an argument is out of range.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.average_weights(model, "snapshots", batches=train)

    Source:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima, algorithm 1, arXiv:1803.05407.
    """
    built: Any = check_model(model)
    files = check_files(files_of(source, last))
    shares = check_shares(weights, len(files))
    with own_weights(built) as held:
        means, moved = _means(built, files, shares)
        if moved and batches is None:
            rule = "be training data: the snapshots differ in their BatchNormalization statistics"
            raise ValueError(_checks.sentence("batches", rule, batches))
        for weight, mean in zip(built.weights, means, strict=True):
            assign_array(weight, mean)
        if batches is not None:
            recompute_layers(built, batches, moved)
        held[:] = state_of(built)  # what the model is given back at the end is the mean
    return len(files)


def _means(
    model: Any, files: Sequence[Path], shares: np.ndarray
) -> tuple[list[np.ndarray], list[keras.layers.BatchNormalization]]:
    """The mean of each weight over the files, and the layers whose BatchNormalization statistics differ in them."""
    norms = batch_norms(model)
    owners = {id(weight): norm for norm in norms for weight in (norm.moving_mean, norm.moving_variance)}
    sums = [np.zeros(weight.shape, np.float64) for weight in model.weights]
    before: list[np.ndarray] = []
    buffers: list[np.ndarray] = []
    moved: dict[int, keras.layers.BatchNormalization] = {}
    for file, share in zip(files, shares.tolist(), strict=True):
        load_weights(model, file)
        values = arrays_of(model.weights)
        buffers_before, buffers = buffers, arrays_of(buffers_of(model))
        if not all(map(np.array_equal, buffers_before, buffers)):
            rule = "be snapshots with the same buffers, such as running statistics, in the modules of PyTorch"
            raise ValueError(_checks.sentence("source", rule, str(file), "Freeze those modules in the training."))
        for weight, old, new in zip(model.weights, before, values, strict=False):
            owner = owners.get(id(weight))
            if owner is not None and not np.array_equal(old, new):
                moved[id(owner)] = owner
        for total, value in zip(sums, values, strict=True):
            total += share * value.astype(np.float64)
        before = values
    floats = [keras.backend.is_float_dtype(weight.dtype) for weight in model.weights]
    means = [total if real else last for total, real, last in zip(sums, floats, before, strict=True)]
    return means, list(moved.values())
