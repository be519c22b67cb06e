"""A tiny network with all that a resumed run has to repeat, its data, and one call that fine-tunes it."""

import time
from pathlib import Path

import keras
import numpy as np

import kadence

SIZE = 8
BATCH_SIZE = 20


def build(optimizer="adam", loss="sparse_categorical_crossentropy", filters=4):
    """Two convolutions with BatchNorm, dropout and a head; the same weights in each process."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((SIZE, SIZE, 3))
    for number in (1, 2):
        x = keras.layers.Conv2D(filters * number, 3, strides=2, padding="same", name=f"conv{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(x))
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def data(n=60, seed=0):
    """Noise around one colour for each of three classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, SIZE, SIZE, 3)) + 2 * np.eye(3)[y][:, None, None, :]
    return x.astype(np.float32), y.astype(np.int32)


def fine_tune(model=None, train=None, validation="data", **changes):
    """`kadence.fine_tune` on the data, in four epochs, where nothing else is given."""
    settings = {"epochs": 4, "freeze_epochs": 2, "seed": 3, "verbose": 0, "batch_size": BATCH_SIZE, **changes}
    if isinstance(validation, str):
        validation = data(24, seed=1)
    return kadence.fine_tune(model or build(), train or data(), validation, **settings)


def phases():
    """As many steps as it takes to be killed in each of them."""
    return [
        kadence.HeadPhase(1),
        kadence.FindPhase(n_steps=20),
        kadence.TrainPhase(3, schedule="warm-restarts", cycles=2, snapshots=True, unfreeze_every=1),
    ]


def go_on(folder):
    """Start the run of a folder, or go on with it, as a script that is simply called again; returns its seconds."""
    began = time.perf_counter()
    options = {"augment": keras.layers.RandomTranslation(0.2, 0.2, seed=1), "batch_norm": "train"}
    again = (Path(folder) / "run.json").exists()
    kadence.fine_tune(
        build(),
        data(),
        data(24, seed=1),
        epochs=4,
        batch_size=BATCH_SIZE,
        phases=phases(),
        run_dir=folder,
        resume=again,
        seed=None if again else 3,
        verbose=0,
        **options,
    )
    return time.perf_counter() - began
