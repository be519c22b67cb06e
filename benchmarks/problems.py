"""Data sets, networks and strategies that the benchmarks of accuracy share.

A data set is a folder with `train`, `val` and `test` folders of class folders. Rates are chosen on pictures of `val`,
never on a part of `train`, whose pictures may be near-duplicates of those that are trained; strategies are judged on
pictures of `test`.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
import numpy as np

from kadence import data as photos
from kadence._problem import Problem, make_data
from kadence.classifier import build_classifier
from kadence.settings import FineTuneSettings

IMAGE_SIZE, BATCH_SIZE = 64, 32
N_VALIDATION, N_TEST = 300, 1000
SEEDS = range(5)


class Pictures(NamedTuple):
    """A data set: its folder, and at most how many training pictures of all, and of a class."""

    folder: str
    n_train: int = 640
    of_class: int | None = None
    #: Length of a trial, in optimizer steps, rounded up to whole epochs.
    n_steps: int = 160


DATA = {"grocery": Pictures("grocery"), "fashion": Pictures("fashion"), "grocery-10": Pictures("grocery", of_class=10)}
#: Data sets of longer trials, of which there are few.
LONGER = {"grocery-all": Pictures("grocery", 10_000, n_steps=660)}
#: Ladder -> factor on the rate from a group to the one before it, towards the input.
LADDERS = {"one rate": 1.0, "gentle": 1 / 2.6, "steep": 0.1}
#: Schedule -> fields of the strategy. Each rises for a tenth of the run, three cycles of restarts for a 25th each.
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"schedule": "cosine", "warmup": "10%"},
    "warm-restarts": {"schedule": "warm-restarts", "warmup": "4%"},
    "constant": {"schedule": "constant", "warmup": "10%"},
}
#: Optimizer -> the middle of the three rates that are tried first, as a number of half decades.
MIDDLE = {"adam": -6, "sgd": -4}
VGG_WEIGHTS = Path.home() / ".cache" / "kadence-benchmarks" / "vgg.weights.h5"

Arrays = tuple[np.ndarray, np.ndarray]

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # In so short a training, rewriting the graph costs more than it gains: 2 of 4 seconds before the first step.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def strategy(optimizer: str, ladder: str, schedule: str) -> kadence.Strategy:
    """The strategy of a cell of the map."""
    name = f"{optimizer}/{schedule}/{ladder}"
    return kadence.Strategy(name, layer_decay=LADDERS[ladder], optimizer=optimizer, **SCHEDULES[schedule])


def rate_at(half_decades: int) -> float:
    """10 ** (half_decades / 2), as 1e-3, 3.16e-3, ..."""
    return float(f"{10 ** (half_decades / 2):.3g}")


def build_lite0(n_classes: int) -> tuple[keras.Model, kadence.LayerGroups]:
    """EfficientNet-Lite0 with ImageNet weights and a new head, in three groups."""
    # Trained unless a strategy, or `fine_tune`, freezes them.
    settings = FineTuneSettings(
        photos="", image_size=IMAGE_SIZE, augment=False, rates=(1.0, 1.0, 1.0), batch_norm="train"
    )
    return build_classifier(settings, n_classes)


def build_vgg(n_classes: int, weights: str | None = str(VGG_WEIGHTS)) -> tuple[keras.Model, kadence.LayerGroups]:
    """Eight convolutions without BatchNorm, pretrained by `pretrain_vgg.py`, and a new head, in three groups."""
    inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)
    for stage, filters in enumerate((16, 32, 64, 128), start=1):
        for number in (1, 2):
            kind = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
            x = keras.layers.Conv2D(filters, 3, name=f"conv{stage}_{number}", **kind)(x)
        x = keras.layers.MaxPooling2D(name=f"pool{stage}")(x)
    features = keras.Model(inputs, x)
    if weights is not None:
        features.load_weights(weights)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dropout(0.2, name="head_dropout")(x)
    model = keras.Model(inputs, keras.layers.Dense(n_classes, activation="softmax", name="head")(x))
    return model, kadence.split(model, at=["conv3_1", "head_pool"])


NETWORKS: dict[str, Callable[..., Any]] = {"lite0": build_lite0, "vgg": build_vgg}


def pictures(folder: photos.ImageFolder, n_images: int, classes: Sequence[int]) -> Arrays:
    """At most `n_images` pictures of these classes, as equally many of each as there are, as uint8."""
    rng = np.random.default_rng(0)
    labels = np.asarray(folder.labels)
    members = [rng.permutation(np.flatnonzero(labels == label)).tolist() for label in range(len(folder.class_names))]
    rounds = itertools.zip_longest(*(members[label] for label in classes))
    chosen = [place for places in rounds for place in places if place is not None][:n_images]
    batches = photos.ImageBatches(folder.select(chosen), IMAGE_SIZE, len(chosen), shuffle=False)
    x, y = batches[0]
    return x.astype(np.uint8), np.searchsorted(classes, y).astype(np.int32)


def classes_of(folder: photos.ImageFolder, data: str, network: str) -> list[int]:
    """All classes; but of groceries, for the VGG, every other one: it was pretrained on those between."""
    classes = list(range(len(folder.class_names)))
    return classes[1::2] if (network, (DATA | LONGER)[data].folder) == ("vgg", "grocery") else classes


@functools.cache
def make_problem(root: Path, data: str, network: str) -> tuple[str, Problem]:
    """What all trials of a data set and a network share, and its name: a word for each, and a digest of the data."""
    folder, n_train, of_class, n_steps = (DATA | LONGER)[data]
    train = photos.scan_folder(root / folder / "train")
    held_out = [photos.scan_folder(root / folder / part, class_names=train.class_names) for part in ("val", "test")]
    classes = classes_of(train, data, network)
    sizes = (n_train if of_class is None else of_class * len(classes), N_VALIDATION, N_TEST)
    sets = [pictures(part, n, classes) for part, n in zip((train, *held_out), sizes, strict=True)]
    parts = make_data(*sets, BATCH_SIZE)
    digests = "".join(part.digests()[1] for part in parts if part is not None)
    builder = functools.partial(NETWORKS[network], n_classes=len(classes))
    problem = Problem(builder, *parts, -(-n_steps // len(parts[0])), "sparse_categorical_crossentropy", "accuracy")
    return f"{data}/{network}/{hashlib.sha256(digests.encode()).hexdigest()[:8]}", problem
