"""A pretrained backbone with a new head: the model, its layer groups, and which of them stand still."""

from typing import Any

import keras

from kadence import _checks
from kadence._walk import Layers
from kadence.backbones import load_backbone
from kadence.batch_norm import freeze_batch_norm
from kadence.groups import LayerGroups, split_at
from kadence.settings import FineTuneSettings

#: Name of the first layer of the head.
HEAD = "head_pool"
#: Of photos and backbones, whatever the Keras config says.
_FORMAT = "channels_last"


@keras.saving.register_keras_serializable(package="kadence")
class RandomTranslation(keras.layers.RandomTranslation):
    """Keras's layer, compiled on JAX: Keras marks it as not fit for XLA, which would turn the jit of the model off."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.supports_jit = keras.backend.backend() == "jax"


@keras.saving.register_keras_serializable(package="kadence")
class RandomZoom(keras.layers.RandomZoom):
    """As `RandomTranslation`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.supports_jit = keras.backend.backend() == "jax"


def build_classifier(
    settings: FineTuneSettings, n_classes: int, weights: str | None = "imagenet"
) -> tuple[keras.Model, LayerGroups]:
    """A backbone with a new head, its layer groups, and its layers frozen as the settings say.

    Args:
        settings: The `FineTuneSettings`.
        n_classes: Number of classes. Integer >= 2.
        weights: "imagenet", or None for random weights.

    Returns:
        The model, raw pixels (batch, image_size, image_size, 3) to probabilities (batch, n_classes), and its groups.

    Raises:
        ValueError: If the backbone or a split layer is unknown, or the number of rates is not that of the groups.
    """
    backbone = load_backbone(settings.backbone, settings.image_size, weights)
    inputs = keras.Input((settings.image_size, settings.image_size, 3), name="pixels")
    x = inputs
    if settings.augment:
        for layer in (
            keras.layers.RandomFlip("horizontal", data_format=_FORMAT, name="random_flip"),
            RandomTranslation(0.1, 0.1, data_format=_FORMAT, name="random_translation"),
            RandomZoom(0.1, data_format=_FORMAT, name="random_zoom"),
        ):
            x = layer(x)
    x = keras.layers.GlobalAveragePooling2D(_FORMAT, name=HEAD)(backbone.model(x))
    x = keras.layers.Dropout(0.2, name="head_dropout")(x)
    model = keras.Model(inputs, keras.layers.Dense(n_classes, activation="softmax", name="head")(x), name="classifier")
    groups = split_at(model, settings.split or (*backbone.split, HEAD), "split")
    rates = rates_of(settings, groups)
    if settings.batch_norm == "frozen":
        freeze_batch_norm(backbone.model)
    still = {address for group, rate in zip(groups, rates, strict=True) if rate == 0.0 for address in group.layers}
    for unit in Layers(model).units:
        if unit.address in still:
            unit.layer.trainable = False
    return model, groups


def rates_of(settings: FineTuneSettings, groups: LayerGroups) -> list[float]:
    """Peak rate of each group: the given ones, or 1e-3 for the head and a tenth for each group before.

    Args:
        settings: The `FineTuneSettings`.
        groups: The `LayerGroups`.

    Returns:
        List of one float per group.

    Raises:
        ValueError: If the number of rates is not that of the groups.
    """
    rates = settings.rates or [10.0 ** -(3 + distance) for distance in reversed(range(len(groups)))]
    if len(rates) != len(groups):
        rule = f"have one rate per group; the split {list(settings.split or ['(default)'])} makes {len(groups)} groups"
        raise ValueError(_checks.sentence("rates", rule, list(rates)))
    return list(rates)
