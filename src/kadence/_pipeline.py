"""One way to `fit`, also of models that prepare their data, as the tasks of KerasHub do, and take no PyDataset."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._arrays import to_numpy


class Prepared(keras.utils.PyDataset):
    """Batches that went through the preparation of a model: tokens of texts, pixels in the range that it expects.

    Args:
        batches: A PyDataset of batches x, (x, y) or (x, y, sample_weight).
        prepare: x, y and sample_weight -> the batch as the model takes it.
    """

    def __init__(self, batches: Any, prepare: Callable[..., Any]):
        super().__init__()
        self._batches, self._prepare = batches, prepare
        if hasattr(batches, "set_epoch"):
            self.set_epoch = batches.set_epoch

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        """Batch `index`, of NumPy arrays."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(self._batches[index])
        return to_numpy(self._prepare(keras.tree.map_structure(_texts_as_list, x), y, sample_weight))


def prepares(model: Any) -> bool:
    """Whether the `fit` of a model prepares its data.

    Args:
        model: `keras.Model`, such as a task of KerasHub, which tokenizes its texts.
    """
    return callable(getattr(model, "preprocess_samples", None)) and type(model).fit is not keras.Model.fit


def prepared(model: Any, batches: Any) -> Any:
    """Batches as `keras.Model.fit` takes them for this model.

    Args:
        model: The model.
        batches: What `fit` takes.

    Returns:
        The batches, those of a model that prepares its data prepared.

    Raises:
        TypeError: If they would have to be prepared, and cannot be indexed.
    """
    if not prepares(model) or isinstance(batches, Prepared):
        return batches
    if isinstance(batches, keras.utils.PyDataset):
        return Prepared(batches, model.preprocess_samples)
    if _has_nothing_to_do(model):
        return batches
    rule = f"be arrays or a PyDataset for {model.name!r}, which prepares its data"
    remedy = "Or prepare it before, with `dataset.map(model.preprocessor)`, and set `model.preprocessor = None`."
    raise TypeError(_checks.sentence("data", rule, type(batches).__name__, remedy))


def method(model: Any, name: str, x: Any) -> Callable[..., Any]:
    """`fit` or `evaluate` of a model, for data `x`.

    Args:
        model: The model.
        name: Name of the method.
        x: The data.

    Returns:
        The bound method; that of Keras itself where the model's own would prepare what is prepared.
    """
    is_ready = prepares(model) and (isinstance(x, Prepared) or _has_nothing_to_do(model))
    return getattr(keras.Model if is_ready else type(model), name).__get__(model)


def fit(model: Any, batches: Any, callbacks: Sequence[keras.callbacks.Callback], **options: Any) -> None:
    """Train a model on batches in their own order, those of each epoch where they can be told which one begins.

    Args:
        model: Compiled `keras.Model`.
        batches: What `prepared` returned.
        callbacks: For `fit`.
        options: Other arguments of `fit`.
    """
    _make_state(model, batches)
    told = [*follow_epochs(batches), *callbacks]
    method(model, "fit", batches)(batches, shuffle=False, callbacks=told, **options)


def _make_state(model: Any, batches: Any) -> None:
    """Make the variables of metrics and optimizer, for which TensorFlow would trace the step twice."""
    is_traced = keras.backend.backend() == "tensorflow" and not model.run_eagerly
    if not is_traced or model._distribute_strategy or not isinstance(batches, keras.utils.PyDataset):
        return
    with contextlib.suppress(Exception):  # it saves time alone; what is wrong, `fit` says
        model._symbolic_build(data_batch=batches[0])


def follow_epochs(batches: Any) -> list[keras.callbacks.Callback]:
    """The callback that tells batches which epoch begins, where they can be told.

    Args:
        batches: What `fit` takes.

    Returns:
        List of one callback, or of none.
    """
    if not hasattr(batches, "set_epoch"):
        return []
    return [keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.set_epoch(epoch))]


def _has_nothing_to_do(model: Any) -> bool:
    return getattr(model, "preprocessor", ...) is None


def _texts_as_list(leaf: Any) -> Any:
    return leaf.tolist() if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "US" else leaf
