"""Photos and a backbone so small that a whole fine-tuning run takes seconds."""

from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kadence.backbones import Backbone
from kadence.settings import FineTuneSettings

CLASSES = {"Äpfel": (200, 40, 40), "birnen": (60, 180, 60), "りんご": (40, 60, 200)}
SIZE = 32


def load_backbone(name="tiny", image_size=SIZE, weights=None):
    """Stands in for `kadence.classifier.load_backbone`: random weights, two groups, BatchNormalization in each."""
    x = pixels = keras.Input((image_size, image_size, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="rescaling")(x)
    for number, filters in ((1, 4), (2, 8)):
        x = keras.layers.Conv2D(filters, 3, strides=3, padding="same", name=f"conv{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    return Backbone(name, keras.Model(pixels, x, name="tiny"), ("conv2",))


def write_photos(folder, classes=CLASSES, n=6, seed=0, size=SIZE + 8):
    """`n` noisy PNGs of the class's colour in a folder per class."""
    rng = np.random.default_rng(seed)
    for name, colour in classes.items():
        (Path(folder) / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            noise = rng.integers(-40, 40, (size, size, 3))
            pixels = (np.asarray(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(Path(folder) / name / f"{i:02d}.png")
    return Path(folder)


def settings(photos, **changes):
    """Two cycles, of 1 and 2 epochs, of 3 steps each on the 12 of 18 photos that are not held out."""
    fields = {"cycles": 2, "batch_size": 5, "image_size": SIZE, "validation_fraction": 0.33, "rates": (1e-3, 3e-3, 1e-2)}
    return FineTuneSettings(**{"photos": str(photos), **fields, **changes})


def same(array, other):
    return np.asarray(array).tobytes() == np.asarray(other).tobytes()
