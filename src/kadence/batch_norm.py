"""Batch normalisation during fine-tuning: hold the running statistics still, or compute them anew.

`backbone(x, training=False)` inside a functional model does not hold them: when the outer model trains, Keras 3
hands its own `training=True` to every layer, and the running statistics move. Freezing the layers does hold them.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

from kadence import _checks
from kadence._arrays import batches_of, length_of


def freeze_batch_norm(model: keras.Model) -> int:
    """Freezes every BatchNormalization layer of `model`, nested ones too.

    A frozen BatchNormalization layer runs in inference mode, also during `fit`: it uses its running statistics and
    does not move them, and its scale and offset (gamma, beta) are not trained. Compile the model after this call,
    as Keras reads the flag when it compiles.

    Args:
        model: Any built `keras.Model`. Its BatchNormalization layers are set to `trainable = False`.

    Returns:
        Number of BatchNormalization layers in `model`, frozen before or now.

    Raises:
        TypeError: If `model` is not a `keras.Model`.
    """
    layers = batch_norms(model)
    for layer in layers:
        layer.trainable = False
    return len(layers)


def recompute_batch_norm(model: keras.Model, batches: Iterable[Any], *, include_frozen: bool = False) -> int:
    """Computes the running mean and variance of the BatchNormalization layers of `model` anew, from data.

    Needed after the weights were changed other than by training, as by averaging, and after a training of few steps,
    in which the running statistics lag behind. Around a layer that is frozen the others were trained with its old
    statistics, and new ones would do harm: it keeps them.

    Each statistic becomes the plain average of the statistics of the batches, all batches counting the same: the mean
    of the batch means, and the mean of the batch variances (not the variance of the pooled data, which is larger by the
    variance of the batch means). Use batches of the size used in training, shuffled, and drop a small last one.

    During the pass these BatchNormalization layers normalise with the statistics of the batch at hand; all others run
    in inference mode, so dropout and augmentation are off. Weights, trainable flags, optimizer and seeds stay as they
    are. After an error or Ctrl-C the old statistics are put back.

    Args:
        model: Any built `keras.Model`.
        batches: At least one batch, each as `fit` takes it from a dataset: `x`, `(x,)`, `(x, y)` or
            `(x, y, sample_weight)`, of which only `x` is used. Several inputs are a dictionary, or a tuple inside
            of the tuple: `((x1, x2),)`. Not read when there is no layer to compute.
        include_frozen: Whether frozen BatchNormalization layers get new statistics too.

    Returns:
        Number of BatchNormalization layers that were reached and have new statistics.

    Raises:
        TypeError: If `model` is not a `keras.Model`, or `batches` is not an iterable of batches.
        ValueError: If `batches` is empty, or a layer to compute has `renorm=True`.

    Source:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima, section 3.2, arXiv:1803.05407.
    """
    chosen = [layer for layer in batch_norms(model) if layer.trainable or include_frozen]
    return recompute_layers(model, batches, chosen)


class FullBatches:
    """The batches of a dataset without a smaller last one, which would count as much as the others.

    Args:
        batches: As for `recompute_batch_norm`; it can be gone through again.
    """

    def __init__(self, batches: Any):
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        """The batches; of one alone, that one."""
        first: Any = None
        last: Any = None
        for batch in batches_of("batches", self._batches):
            if first is None:
                first = batch
            else:
                yield last
            last = batch
        if last is not None and (last is first or length_of(last) >= length_of(first)):
            yield last


def recompute_layers(
    model: keras.Model, batches: Iterable[Any], layers: Sequence[keras.layers.BatchNormalization]
) -> int:
    """Computes the statistics of some BatchNormalization layers anew; the others normalise with those that they have.

    Args:
        model: As for `recompute_batch_norm`.
        batches: As for `recompute_batch_norm`.
        layers: Layers of the model.

    Returns:
        Number of `layers` that were reached.

    Raises:
        TypeError: If `batches` is not an iterable of batches.
        ValueError: If `batches` is empty, or one of `layers` has `renorm=True`.
    """
    if not layers:
        return 0
    if renormed := [layer.name for layer in layers if getattr(layer, "renorm", False)]:
        rule = "hold no BatchNormalization layer with `renorm=True`, which normalises with other statistics in training"
        remedy = "Freeze it to leave it as it is."
        raise ValueError(_checks.sentence("model", rule, renormed, remedy))
    found, seen = batches_of("batches", batches), 0
    with _old_statistics_on_error(layers), contextlib.ExitStack() as stack:
        reached = [stack.enter_context(_collecting(layer)) for layer in layers]
        stack.enter_context(_without_gradients())
        for batch in found:
            model(_inputs(batch), training=False)
            seen += 1
    if not seen:
        raise ValueError(_checks.sentence("batches", "hold at least one batch", batches))
    return sum(map(bool, reached))


def batch_norms(model: Any) -> list[keras.layers.BatchNormalization]:
    """The BatchNormalization layers of a model, nested ones too.

    Args:
        model: Built `keras.Model`.

    Returns:
        List of layers.

    Raises:
        TypeError: If `model` is not a `keras.Model`.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(_checks.sentence("model", "be a keras.Model", model))
    found = model._flatten_layers(include_self=False, recursive=True)
    return [layer for layer in found if isinstance(layer, keras.layers.BatchNormalization)]


def _inputs(batch: Any) -> Any:
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return keras.tree.map_structure(keras.ops.convert_to_tensor, x)


@contextlib.contextmanager
def _old_statistics_on_error(layers: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    variables = [variable for layer in layers for variable in layer.non_trainable_variables]
    values = [keras.ops.copy(variable) for variable in variables]
    try:
        yield
    except BaseException:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        raise


@contextlib.contextmanager
def _collecting(layer: keras.layers.BatchNormalization) -> Iterator[list[int]]:
    """Makes `layer` average the statistics of its calls; yields a list with one entry for each call."""
    before = {name: vars(layer)[name] for name in ("momentum", "call") if name in vars(layer)}
    trainable, flags = layer.trainable, [(variable, variable.trainable) for variable in layer.variables]
    calls: list[int] = []
    layer.call = _averaging_call(layer, layer.call, calls)  # Keras looks `call` up on the instance
    layer.trainable = True  # a frozen layer ignores `training=True`
    try:
        yield calls
    finally:
        del layer.call
        for name, value in before.items():
            setattr(layer, name, value)
        layer.trainable = trainable
        for variable, flag in flags:
            variable.trainable = flag


def _averaging_call(layer: Any, call: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def averaging_call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not calls:  # the first momentum is 0, and 0 * nan is nan: forget old statistics that are not finite
            for statistic in (layer.moving_mean, layer.moving_variance):
                statistic.assign(keras.ops.zeros(statistic.shape, statistic.dtype))
        layer.momentum = len(calls) / (len(calls) + 1)
        calls.append(len(calls))
        return call(inputs, training=True, mask=mask)

    return averaging_call


def _without_gradients() -> contextlib.AbstractContextManager[Any]:
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
