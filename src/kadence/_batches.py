"""Data of any kind that `fit` takes -> whether there is any, and one batch from all over it."""

import itertools
import types
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kadence import _checks

#: Batches that are looked at, at most.
_LOOK_AT = 32
_DEFAULT_BATCH = 32


def check_not_empty(x: Any) -> None:
    """Raise if it can be seen that there is no data.

    Args:
        x: What `fit` takes as x.

    Raises:
        ValueError: If there is none.
    """
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    if 0 in ([leaf.shape[0] for leaf in leaves if len(leaf.shape)] if _are_arrays(x) else [_size(x)]):
        raise no_data(x)


def begun(x: Any) -> Any:
    """Draw the first batch of a generator, to see that there is one: Keras says it clearly in its newer versions only.

    Args:
        x: What `fit` takes as x.

    Returns:
        A generator of the same batches, the first one included; other data as it is.

    Raises:
        ValueError: If the generator has no batch.
    """
    if not isinstance(x, types.GeneratorType):
        return x
    for first in x:
        return _from_the_start(first, x)
    raise no_data(x)


def _from_the_start(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from others


def no_data(x: Any) -> ValueError:
    """The error of data without a batch.

    Args:
        x: What `fit` takes as x; the error says its type.

    Returns:
        A `ValueError`, for the caller to raise.
    """
    return ValueError(_checks.sentence("x", "hold at least one batch", type(x).__name__))


def _are_arrays(x: Any) -> bool:
    return all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x) if leaf is not None)


def _size(dataset: Any) -> int | None:
    """Number of batches, where it is known."""
    if hasattr(dataset, "cardinality"):
        return int(dataset.cardinality())
    try:
        return dataset.num_batches if isinstance(dataset, keras.utils.PyDataset) else len(dataset)
    except TypeError:  # a generator; PyTorch's loader of a stream
        return None


def one_batch(data: Any, batch_size: int | None) -> tuple[tuple[Any, Any, Any], list[str]]:
    """One batch with samples from all over the data: held-out photos are often sorted by class.

    Args:
        data: What `fit` takes as `validation_data`: arrays (x, y) or (x, y, sample_weight), or a dataset.
        batch_size: Samples in it, where the data is arrays; 32 if None. Of a dataset, at most those of a batch.

    Returns:
        x, y and the sample weights, NumPy arrays in the structure of the data, None for those that are missing; and
        what should be known of them: batches that differ in shape, as texts that are padded batch by batch, cannot be
        joined, and the first is taken.

    Raises:
        ValueError: If there is no sample.
    """
    if isinstance(data, (tuple, list)) and _are_arrays(data):
        whole = keras.tree.map_structure(_as_numpy, tuple(data))
        return _unpacked(_spread(whole, batch_size or _DEFAULT_BATCH)), []
    n_batches = min(_LOOK_AT if (n := _size(data)) is None or n < 0 else n, _LOOK_AT)
    parts, size, first = [], 0, None
    for batch in _some_batches(data, n_batches):
        arrays = keras.tree.map_structure(_as_numpy, batch)
        if first is None:
            size, first = _samples(arrays), arrays
        elif _shapes(arrays) != _shapes(first):
            note = "The batches of `validation_data` differ in shape: the losses are those of its first batch alone."
            return _unpacked(_spread(first, size)), [note]
        parts.append(_spread(arrays, -(-size // n_batches)))  # all of them would be many pictures
    if not parts:
        raise ValueError(_checks.sentence("validation_data", "hold at least one batch", type(data).__name__))
    return _unpacked(_spread(keras.tree.map_structure(_joined, *parts), size)), []


def _some_batches(data: Any, n_batches: int) -> Iterator[Any]:
    if isinstance(data, keras.utils.PyDataset):
        indices = np.linspace(0, (_size(data) or n_batches) - 1, n_batches).astype(int)
        return (data[int(index)] for index in indices)
    return itertools.islice(iter(data), n_batches)


def _as_numpy(leaf: Any) -> Any:
    return None if leaf is None else np.asarray(keras.ops.convert_to_numpy(leaf))


def _joined(*leaves: Any) -> Any:
    return None if leaves[0] is None else np.concatenate(leaves)


def _shapes(batch: Any) -> list[Any]:
    """Of each array, the shape without the samples."""
    return [None if leaf is None else leaf.shape[1:] for leaf in keras.tree.flatten(batch)]


def _samples(batch: Any) -> int:
    return len(next(leaf for leaf in keras.tree.flatten(batch) if leaf is not None))


def _spread(arrays: Any, size: int) -> Any:
    n = _samples(arrays)
    if not n:
        raise ValueError(_checks.sentence("validation_data", "hold at least one sample", n))
    chosen = np.unique(np.linspace(0, n - 1, min(n, size)).astype(int))
    return keras.tree.map_structure(lambda array: None if array is None else array[chosen], arrays)


def _unpacked(batch: Any) -> tuple[Any, Any, Any]:
    return keras.utils.unpack_x_y_sample_weight(batch)
