"""The frozen part of a model, run once: features in its place, and the rest as a model that trains on them."""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._arrays import batches_of, concatenate, is_dataset, length_of, slice_of, to_numpy
from kadence._cut import Cut
from kadence.groups import LayerGroup


class FeatureBatches(keras.utils.PyDataset):
    """Stored features in batches, each epoch in an order of its own; for `fit(..., shuffle=False)`.

    The order of epoch n follows from the seed and n alone, as that of `kadence.data.ImageBatches` does.

    Args:
        features: Array of shape (n, ...).
        y: Targets, or None.
        sample_weight: Weight of each sample, or None. Without targets, Keras takes it on JAX and PyTorch alone.
        batch_size: Samples in a batch. Integer >= 1.
        shuffle: Whether every epoch has a random order.
        seed: Seed of the orders. Integer >= 0.

    Raises:
        ValueError: If `batch_size` or `seed` is out of range.
        TypeError: If an argument has the wrong type.
    """

    def __init__(
        self,
        features: np.ndarray,
        y: Any = None,
        sample_weight: Any = None,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        self.features, self.y, self.sample_weight = features, y, sample_weight
        self.batch_size = _checks.integer("batch_size", batch_size, minimum=1, unit="in samples")
        self.shuffle = _checks.boolean("shuffle", shuffle)
        self.seed = _checks.integer("seed", seed, minimum=0, unit="the seed of the orders")
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch.

        Args:
            epoch: Index of the epoch, in epochs since the start of the training. Integer >= 0.
        """
        self.epoch = _checks.integer("epoch", epoch, minimum=0, unit="in epochs")
        n = len(self.features)
        rng = np.random.default_rng([self.seed, self.epoch])
        self._order = rng.permutation(n) if self.shuffle else np.arange(n)

    def follow_epochs(self) -> keras.callbacks.Callback:
        """The callback that calls `set_epoch` when `fit` begins an epoch."""
        return keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self.set_epoch(epoch))

    def __len__(self) -> int:
        return -(-len(self.features) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        parts = [self.features, self.y, self.sample_weight]
        while parts[-1] is None:
            parts.pop()
        return tuple(None if part is None else _rows(part, chosen) for part in parts)


def _rows(part: Any, chosen: np.ndarray) -> Any:
    return keras.tree.map_structure(lambda a: np.asarray(a[chosen]), part)


class CachedFeatures:
    """What `cache_features` gives; in a `with` statement it releases the features at the end.

    Args:
        model: The part of the model behind the cut, with the layers of the whole: training it trains the whole.
        features: The features. Array of shape (n, ...), in memory or memory-mapped.
        y: Targets, or None.
        sample_weight: Weight of each sample, or None.
        read: What makes features, targets and weights of further data.
    """

    def __init__(
        self,
        model: keras.Model,
        features: np.ndarray,
        y: Any = None,
        sample_weight: Any = None,
        read: Callable[..., tuple[np.ndarray, Any, Any]] | None = None,
    ):
        self.model = model
        self._read = read
        self._features: np.ndarray | None = features
        self.y, self.sample_weight = y, sample_weight

    @property
    def features(self) -> np.ndarray:
        """The features, an array of shape (n, ...)."""
        if self._features is None:
            raise ValueError(_checks.sentence("features", "be in use; they are released", None))
        return self._features

    def batches(self, batch_size: int = 32, shuffle: bool = False, seed: int = 0) -> FeatureBatches:
        """The features with targets and weights in batches.

        Args:
            batch_size: Samples in a batch. Integer >= 1.
            shuffle: Whether every epoch has a random order; then add `batches.follow_epochs()` to the callbacks.
            seed: Seed of the orders. Integer >= 0.

        Returns:
            `FeatureBatches`.
        """
        return FeatureBatches(self.features, self.y, self.sample_weight, batch_size, shuffle, seed)

    def of(self, x: Any, y: Any = None, sample_weight: Any = None) -> "CachedFeatures":
        """Features of further data, such as validation data, from the same part before the cut.

        Args:
            x: As for `cache_features`.
            y: As for `cache_features`.
            sample_weight: As for `cache_features`.

        Returns:
            `CachedFeatures`.

        Raises:
            ValueError: If there is no data.
        """
        if self._read is None:
            raise ValueError(_checks.sentence("features", "come from `cache_features`", self._read))
        return CachedFeatures(self.model, *self._read(x, y, sample_weight), self._read)

    def close(self) -> None:
        """Release the features; batches that are still in use keep them."""
        self._features = None

    def __enter__(self) -> "CachedFeatures":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def cache_features(
    model: keras.Model,
    at: str | keras.Layer | LayerGroup,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int = 32,
    memory_limit_bytes: int = 2**30,
    ignore_random: bool = False,
) -> CachedFeatures:
    """Runs the frozen part of a model once over data, and gives the rest as a model that trains on what comes out.

    As long as the part before the cut is frozen and nothing in it is random, training the rest on the features gives
    the same weights as training the whole, to float precision. The part before the cut runs in inference mode. The cut
    moves on over following layers without weights, such as a pooling, as long as it is one tensor.

    The rest is a `keras.Model` with the same layers: its weights are those of `model`. Compile it with an optimizer of
    its own, or with that of `model` after `rebuild_optimizer(model.optimizer, rest.trainable_variables)`.

    Features beyond `memory_limit_bytes` are in a temporary file, which has no name (on Windows, until it is closed):
    it goes with the last reference to the features, or with the process, however that ends.

    Args:
        model: Built `keras.Model`, functional or Sequential. The cut may be inside a nested model.
        at: First layer behind the cut: a layer, an address, a unique name, or a `LayerGroup` for its first layer.
        x: Inputs as arrays, or a dataset of batches `x`, (x, y) or (x, y, sample_weight), which is read once.
        y: Targets, where `x` is not a dataset; stored beside the features.
        sample_weight: Weight of each sample, or None.
        batch_size: Samples that run at once, of arrays. Integer >= 1.
        memory_limit_bytes: Size up to which the features are in memory, in bytes. Integer >= 0.
        ignore_random: Whether random layers before the cut, dropout and augmentation, are allowed, and off.

    Returns:
        `CachedFeatures` with `model`, `features`, `y`, `sample_weight` and `batches()`.

    Raises:
        ValueError: If something before the cut trains or is random, more than one tensor crosses the cut, a mask
            included, the model is subclassed where it is cut, or there is no data.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.freeze_to(model, "group_3", groups)
        >>> with kadence.cache_features(model, groups[-1], x, y) as cached:
        ...     cached.model.compile("adam", "mse")
        ...     cached.model.fit(cached.batches(32), epochs=5, shuffle=False)
    """
    batch_size = _checks.integer("batch_size", batch_size, minimum=1, unit="in samples")
    limit = _checks.integer("memory_limit_bytes", memory_limit_bytes, minimum=0, maximum=2**63 - 1, unit="in bytes")
    cut = Cut(model, at)
    _check_still(model, cut.layers_before)
    _check_not_random(cut.layers_before, _checks.boolean("ignore_random", ignore_random))
    before = cut.before()

    def read(x: Any, y: Any = None, sample_weight: Any = None) -> tuple[np.ndarray, Any, Any]:
        store, targets, weights = _Store(limit), [], []
        for inputs, target, weight in _batches(x, y, sample_weight, batch_size):
            store.add(_run(before, inputs, store.rows))
            targets.append(target)
            weights.append(weight)
        if not targets:
            raise ValueError(_checks.sentence("x", "hold at least one batch", x))
        return store.finish(), concatenate(targets), concatenate(weights)

    return CachedFeatures(cut.behind(), *read(x, y, sample_weight), read)


def _check_still(model: Any, before: list[keras.Layer]) -> None:
    trained = {id(variable) for variable in model.trainable_variables}
    norms = keras.layers.BatchNormalization
    moving = [
        layer.name
        for layer in before
        if any(id(weight) in trained for weight in layer._trainable_variables)
        or (isinstance(layer, norms) and layer.trainable)
    ]
    if moving:
        rule = f"be frozen before the cut; {len(moving)} layers are not, the first {moving[0]!r}"
        raise ValueError(_checks.sentence("model", rule, model.name, "`kadence.freeze_to` freezes them."))


def _check_not_random(before: list[keras.Layer], ignore_random: bool) -> None:
    random = [layer.name for layer in before if any(v.name == "seed_generator_state" for v in layer.variables)]
    if random and not ignore_random:
        rule = f"hold nothing random before the cut, as {', '.join(map(repr, random[:3]))} is"
        remedy = "With `ignore_random=True` it is off."
        raise ValueError(_checks.sentence("model", rule, random, remedy))


def _batches(x: Any, y: Any, sample_weight: Any, batch_size: int) -> Iterator[tuple[Any, Any, Any]]:
    if is_dataset(x):
        for batch in batches_of("x", x):
            yield keras.utils.unpack_x_y_sample_weight(batch)
        return
    inputs, targets, weights = x, to_numpy(y), to_numpy(sample_weight)
    n = length_of(inputs)
    for name, part in (("y", targets), ("sample_weight", weights)):
        if part is not None and length_of(part) != n:
            raise ValueError(_checks.sentence(name, f"have {n} rows, as `x` has", length_of(part)))
    for start in range(0, n, batch_size):
        yield tuple(slice_of(part, start, start + batch_size) for part in (inputs, targets, weights))  # type: ignore


def _run(before: Any, inputs: Any, rows: int) -> np.ndarray:
    """The features of a batch; a short one is filled up, or the step would be compiled once more for it."""
    n = length_of(inputs)
    if n < rows:
        at = np.minimum(np.arange(rows), n - 1)
        inputs = keras.tree.map_structure(lambda a: np.asarray(keras.ops.convert_to_numpy(a))[at], inputs)
    return np.asarray(before.predict_on_batch(inputs))[:n]


class _Store:
    """Rows that come batch by batch: in memory, and beyond a limit in a file without a name."""

    def __init__(self, limit: int):
        self._limit = limit
        self._parts: list[np.ndarray] = []
        self._file: Any = None
        self._n = 0
        #: Rows of the largest batch so far.
        self.rows = 0

    def add(self, rows: np.ndarray) -> None:
        self._n += len(rows)
        self.rows = max(self.rows, len(rows))
        self._shape, self._dtype = rows.shape[1:], rows.dtype
        self._parts.append(rows)
        if self._file is not None or self._n * rows[:1].nbytes > self._limit:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the features
            for part in self._parts:
                part.tofile(self._file)
            self._parts.clear()

    def finish(self) -> np.ndarray:
        if self._file is None:
            return np.concatenate(self._parts)
        with self._file as file:  # the mapping holds on to it
            file.flush()
            return np.memmap(file, self._dtype, "r", shape=(self._n, *self._shape))
