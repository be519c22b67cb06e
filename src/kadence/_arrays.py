"""Data in the forms that `fit` takes -> batches, and arrays in slices."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from kadence import _checks

#: About how much of a dataset is in memory at a time.
_CHUNK_BYTES = 2**30


def batches_of(name: str, data: Any) -> Iterable[Any]:
    """The batches of a dataset: of any iterable, or of a `keras.utils.PyDataset`, which has no iterator.

    Args:
        name: Name of the argument, for the error.
        data: The dataset.

    Returns:
        Iterable of batches.

    Raises:
        TypeError: If `data` is not a dataset.
    """
    if isinstance(data, keras.utils.PyDataset):
        return map(data.__getitem__, range(data.__len__()))  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(data, (str, bytes, dict)) or not isinstance(data, Iterable):
        raise TypeError(_checks.sentence(name, "be an iterable of input batches", data))
    return data


def is_dataset(x: Any) -> bool:
    """Whether `x` holds targets too, batch by batch, rather than being arrays of inputs.

    Args:
        x: First argument of `fit`.

    Returns:
        Bool. A list, tuple or dict holds several inputs, as in Keras.
    """
    return not isinstance(x, (list, tuple, dict)) and not hasattr(x, "shape")


def check_repeatable(name: str, x: Any) -> None:
    """Raise if the data can be read once only.

    Args:
        name: Name of the argument, for the error.
        x: Arrays or a dataset.

    Raises:
        TypeError: If `x` is an iterator, as a generator is.
    """
    if isinstance(x, Iterator):
        remedy = "Give arrays or a dataset; an iterator is used up by the first snapshot."
        raise TypeError(_checks.sentence(name, "be data that can be read more than once", x, remedy))


def chunks_of(x: Any, y: Any = None, sample_weight: Any = None) -> Iterator[list[tuple[Any, Any, Any, int | None]]]:
    """Inputs, targets and sample weights that belong together, of a dataset in one pass: the next may be shuffled anew.

    Args:
        x: Inputs, or a dataset of batches.
        y: Targets, or None where `x` is a dataset or there are none.
        sample_weight: Weight of each sample, or None.

    Yields:
        Lists of x, y, sample_weight and the rows of a batch, the parts of a dataset as structures of arrays of about a
        gigabyte a list, with batches of one shape joined. Inputs that are no dataset stay as they are; None for rows.
    """
    if y is not None or not is_dataset(x):
        yield [(x, to_numpy(y), to_numpy(sample_weight), None)]
        return
    held, size = [], 0
    for batch in batches_of("x", x):
        inputs, *others = keras.utils.unpack_x_y_sample_weight(batch)
        held.append((_inputs_in_memory(inputs), *map(to_numpy, others)))
        size += sum(getattr(array, "nbytes", 0) for array in keras.tree.flatten(held[-1]))
        if size >= _CHUNK_BYTES:
            yield _joined(held)
            held, size = [], 0
    if held:
        yield _joined(held)


def _inputs_in_memory(inputs: Any) -> Any:
    arrays = to_numpy(inputs)
    # Keras takes texts as tensors of TensorFlow, not as arrays.
    is_text = any(array.dtype.kind in "OSU" for array in keras.tree.flatten(arrays) if array is not None)
    return inputs if is_text else arrays


def _joined(batches: list[tuple[Any, Any, Any]]) -> list[tuple[Any, Any, Any, int | None]]:
    alike = [list(group) for _, group in itertools.groupby(batches, _shapes)]
    wholes = [group[0] if len(group) == 1 else tuple(map(concatenate, zip(*group, strict=True))) for group in alike]
    return [(*whole, length_of(group[0][0])) for whole, group in zip(wholes, alike, strict=True)]


def _shapes(batch: Any) -> list[Any]:
    """Of each array, the shape without the rows; what is no array is like no other."""
    leaves = keras.tree.flatten(batch)
    return [leaf.shape[1:] if isinstance(leaf, np.ndarray) else None if leaf is None else object() for leaf in leaves]


def to_numpy(structure: Any) -> Any:
    """A structure of tensors, arrays or lists of numbers as one of NumPy arrays; None stays None.

    Args:
        structure: Nested structure.

    Returns:
        The same structure; a plain list of numbers is one array.
    """
    if structure is None:
        return None
    if isinstance(structure, list) and structure and not hasattr(structure[0], "shape"):
        return np.asarray(structure)
    return keras.tree.map_structure(
        lambda a: None if a is None else np.asarray(keras.ops.convert_to_numpy(a)), structure
    )


def concatenate(parts: Any) -> Any:
    """Structures of arrays, one after the other along the first axis; None if they are None.

    Args:
        parts: Sequence of equal structures.

    Returns:
        Structure of NumPy arrays.
    """
    parts = [to_numpy(part) for part in parts]
    if parts[0] is None:
        return None
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def slice_of(structure: Any, start: int, stop: int) -> Any:
    """Rows `start` to `stop` of each array of a structure; of None, None.

    Args:
        structure: Structure of arrays, or None.
        start: First row.
        stop: The row after the last.

    Returns:
        Structure of arrays, or None.
    """
    return None if structure is None else keras.tree.map_structure(lambda array: array[start:stop], structure)


def length_of(structure: Any) -> int:
    """Number of rows of the arrays of a structure.

    Args:
        structure: Structure of arrays.

    Returns:
        Integer.
    """
    return len(keras.tree.flatten(structure)[0])
