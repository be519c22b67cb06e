"""What `fit` takes, as batches that every trial and phase can go through again in its own seed's order."""

import copy
import functools
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence.data import ImageBatches

_RULE = "be arrays (x, y), an ImageBatches, or another dataset that can be gone through again"


class ArrayBatches(keras.utils.PyDataset):
    """Batches of arrays; epoch e has the order `numpy.random.default_rng([seed, e]).permutation(n)`.

    Args:
        arrays: Tree of arrays with as many rows each, such as (x, y). uint8 becomes float32 in the batches.
        batch_size: Rows in a batch. Integer >= 1. The last batch may be smaller.
        seed: Seed of the orders, or None for the order of the arrays.
    """

    def __init__(self, arrays: Any, batch_size: int, seed: int | None = None):
        super().__init__()
        self.arrays, self.batch_size, self.seed = arrays, batch_size, seed
        self.n_rows = len(keras.tree.flatten(arrays)[0])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch.

        Args:
            epoch: Index of the epoch, in epochs since the start of the training. Integer >= 0.
        """
        shuffled = self.seed is not None
        rng = np.random.default_rng([self.seed or 0, epoch])
        self._order = rng.permutation(self.n_rows) if shuffled else np.arange(self.n_rows)

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.n_rows // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """Batch `index`, a tree as `arrays` is."""
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        return keras.tree.map_structure(lambda array: _as_input(array[rows]), self.arrays)


class Data:
    """One part of the data: training, validation or test.

    Args:
        name: What errors call it.
        value: What the user gave.
        batch_size: Rows in a batch, for arrays. Integer >= 1.

    Raises:
        TypeError: If `value` is not data that can be gone through again.
        ValueError: If its arrays are empty or do not have as many rows each.
    """

    def __init__(self, name: str, value: Any, batch_size: int):
        self.name, self.batch_size = name, batch_size
        self.photos = value.folder if isinstance(value, ImageBatches) else None
        self.dataset: Any = None
        self.arrays: Any = None
        if isinstance(value, ImageBatches) and value._pixels is not None:
            self.arrays, self.batch_size = (value._pixels, value._labels), value.batch_size
        elif isinstance(value, (tuple, list)):
            self.arrays = _checked_arrays(name, value)
        elif hasattr(value, "__len__") and hasattr(value, "__getitem__" if _is_py(value) else "__iter__"):
            self.dataset = value
            if isinstance(value, (str, bytes, dict, np.ndarray)) or not len(value):
                raise TypeError(_checks.sentence(name, _RULE, value))
        else:
            raise TypeError(_checks.sentence(name, _RULE, value, "A generator is used up after one trial."))

    def batches(self, seed: int | None = None) -> Any:
        """The batches, from their first epoch.

        Args:
            seed: Seed of the order, or None for the data's own. A dataset with `seed` and `set_epoch` follows it too;
                images are shuffled by it, as arrays are, whether they fit into memory or not.

        Returns:
            What `fit` takes.
        """
        if self.arrays is not None:
            return ArrayBatches(self.arrays, self.batch_size, seed)
        if seed is None or not (hasattr(self.dataset, "seed") and hasattr(self.dataset, "set_epoch")):
            return self.dataset
        seeded = copy.copy(self.dataset)
        seeded.seed = seed
        if isinstance(seeded, ImageBatches):
            seeded.shuffle = True
        seeded.set_epoch(0)
        return seeded

    def __len__(self) -> int:
        return len(self.batches())

    @functools.cached_property
    def n_rows(self) -> int:
        """Number of rows, for which a dataset that does not say it is gone through."""
        if self.photos is not None:
            return len(self.photos.paths)
        return sum(len(keras.tree.flatten(batch)[0]) for batch in _iterate(self.batches()))

    @functools.cached_property
    def batch_rows(self) -> int:
        """Rows in a batch; of a dataset, in its first."""
        return self.batch_size if self.arrays is not None else len(keras.tree.flatten(self.first())[0])

    @property
    def is_same_each_time(self) -> bool:
        """Whether an epoch has the rows of the one before: arrays and images do, another dataset may augment."""
        return self.arrays is not None or self.photos is not None

    def label(self, row: int) -> str:
        """What an error calls a row: the file of a photo, or the number of the row."""
        return f"row {row} of {self.name}" if self.photos is None else repr(str(self.photos.paths[row]))

    def first(self, n_rows: int | None = None) -> Any:
        """The first rows, or the first batch, a tree such as (x, y)."""
        batch = next(_iterate(self.batches()))
        return keras.tree.map_structure(lambda array: np.asarray(array)[:n_rows], batch)

    def digests(self) -> tuple[list[bytes], str]:
        """A digest of the input of each row, and one of all rows with their targets, which is that of the data."""
        rows: list[bytes] = []
        whole: list[bytes] = []
        for batch in _iterate(self.batches()):
            x, *rest = batch if isinstance(batch, (tuple, list)) else (batch,)
            inputs = _row_digests(x)
            rows += inputs
            whole += [own + other for own, other in zip(inputs, _row_digests(rest, len(inputs)), strict=True)]
        if self.arrays is None:  # a dataset may have another order each time
            whole.sort()
        return rows, hashlib.sha256(b"".join(whole)).hexdigest()


def _is_py(value: Any) -> bool:
    return isinstance(value, keras.utils.PyDataset)


def _checked_arrays(name: str, value: Any) -> tuple[Any, ...]:
    arrays: Any = keras.tree.map_structure(np.asarray, tuple(value))
    leaves: list[np.ndarray] = keras.tree.flatten(arrays)
    if len(arrays) not in (2, 3) or any(leaf.dtype == object or not leaf.ndim for leaf in leaves):
        shapes = [leaf.shape for leaf in leaves]
        raise TypeError(_checks.sentence(name, "be arrays (x, y) or (x, y, sample_weight)", shapes))
    lengths = [len(leaf) for leaf in leaves]
    if len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(_checks.sentence(name, "have as many rows in each array, at least one", lengths))
    return arrays


def _as_input(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.uint8 else array


def _iterate(batches: Any) -> Iterator[Any]:
    source: Iterable[Any] = map(batches.__getitem__, range(len(batches))) if _is_py(batches) else batches
    return iter(source)


def _row_digests(tree: Any, n_rows: int = 0) -> list[bytes]:
    """A digest of each row of the arrays of a tree."""
    leaves = [np.ascontiguousarray(leaf) for leaf in map(np.asarray, keras.tree.flatten(tree))]
    if not leaves:
        return [b""] * n_rows
    return [hashlib.sha256(b"".join(leaf[row].tobytes() for leaf in leaves)).digest() for row in range(len(leaves[0]))]


class Augmented(keras.utils.PyDataset):
    """Batches whose inputs go through an augmentation, which is random in a way that a resumed run repeats.

    Args:
        batches: A PyDataset of batches (x, y) or (x, y, sample_weight).
        augment: Layer that is called on `x` with `training=True`.
        seed: Seed. Integer >= 0.
    """

    def __init__(self, batches: Any, augment: keras.layers.Layer, seed: int):
        super().__init__()
        self._batches, self._augment, self._seed, self._epoch = batches, augment, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order and the augmentations of an epoch.

        Args:
            epoch: Index of the epoch, in epochs since the start of the phase. Integer >= 0.
        """
        self._epoch = epoch
        self._batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        x, *rest = self._batches[index]
        states = [variable for variable in self._augment.variables if variable.name == "seed_generator_state"]
        for position, state in enumerate(states):
            rng = np.random.default_rng([self._seed, self._epoch, index, position])
            state.assign(rng.integers(0, 2**31, size=2))
        augmented = self._augment(keras.tree.map_structure(keras.ops.convert_to_tensor, x), training=True)
        return (keras.tree.map_structure(lambda a: np.asarray(keras.ops.convert_to_numpy(a)), augmented), *rest)
