"""Test-time augmentation: the mean prediction over several views of the same pictures."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._snapshot_files import arrays_of, check_model

#: A picture is shifted by at most this part of its side.
_SHIFT = 0.05


def predict_augmented(
    model: keras.Model, images: Any, n_views: int, seed: int = 0, predict: Callable[[Any], Any] | None = None
) -> np.ndarray:
    """The mean prediction over the pictures as they are and over augmented views of them.

    The views come from the model's own augmentation: the layers right behind its input that draw random numbers and
    own no weights, in training mode; all other layers are in inference mode. A model without such layers is shown
    shifts of up to 5 % of the side, the border repeated; a flip might be another class.

    Args:
        model: Built `keras.Model` with one input, the pictures.
        images: Pictures. Array of shape (n, rows, columns, channels), as the model takes them.
        n_views: Number of predictions to average; the pictures as they are count as one. Integer >= 1.
        seed: Seed of the views. The same seed and pictures give the same views. Integer >= 0.
        predict: What to call with the pictures, in place of `model.predict`.

    Returns:
        Array of the shape of the prediction, float32.

    Raises:
        ValueError: If `n_views` or `seed` is out of range, or `images` has another shape.
        TypeError: If an argument has the wrong type.

    Example:
        >>> probabilities = kadence.predict_augmented(model, photos, n_views=8)

    Source:
        Krizhevsky et al. 2012, ImageNet Classification with Deep CNNs, section 4.1 (ten views at test time).
    """
    check_model(model)
    n_views = _checks.integer("n_views", n_views, minimum=1, unit="a number of views")
    seed = _checks.integer("seed", seed, minimum=0, unit="a seed")
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(_checks.sentence("images", "have the shape (n, rows, columns, channels)", images.shape))
    if predict is None:
        predict = lambda pictures: model.predict(pictures, verbose=0)  # noqa: E731 # pyright: ignore[reportArgumentType]
    total = np.asarray(predict(images), np.float64)
    for view in _views(augmentation_of(model), images, n_views - 1, seed):
        total = total + np.asarray(predict(view), np.float64)
    return (total / n_views).astype(np.float32)


def augmentation_of(model: Any) -> list[Any]:
    """The layers right behind the input of a model that draw random numbers and own no weights.

    Args:
        model: Built `keras.Model`.

    Returns:
        List of layers, in order.
    """
    found: list[Any] = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if layer.weights or not _states([layer]):
            break
        found.append(layer)
    return found


def _states(layers: list[Any]) -> list[keras.Variable]:
    return [variable for layer in layers for variable in layer.variables if variable.name == "seed_generator_state"]


def _views(layers: list[Any], images: np.ndarray, n_views: int, seed: int) -> Iterator[np.ndarray]:
    with _own_states(layers) as states:
        for view in range(n_views):
            if not layers:
                yield _shifted(images, np.random.default_rng([seed, view]))
                continue
            for position, state in enumerate(states):
                state.assign(np.random.default_rng([seed, view, position]).integers(0, 2**31, size=2))
            x = keras.ops.convert_to_tensor(images)
            for layer in layers:
                x = layer(x, training=True)
            yield np.array(keras.ops.convert_to_numpy(x))


@contextlib.contextmanager
def _own_states(layers: list[Any]) -> Iterator[list[keras.Variable]]:
    states = _states(layers)
    held = arrays_of(states)
    try:
        yield states
    finally:
        for state, value in zip(states, held, strict=True):
            state.assign(value)


def _shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = images.shape[1:3]
    most = [max(1, round(_SHIFT * side)) for side in (rows, columns)]
    down, right = (int(rng.integers(-limit, limit + 1)) for limit in most)
    row = np.clip(np.arange(rows) - down, 0, rows - 1)
    column = np.clip(np.arange(columns) - right, 0, columns - 1)
    return images[:, row][:, :, column]
