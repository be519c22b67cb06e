"""Photos and a backbone so small that a whole fine-tuning run takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
from PIL import Image

from kadence.backbones import Backbone
from kadence.settings import FineTuneSettings

SIZE = 32
COLOURS = {"apfel": (200, 40, 40), "birnen": (60, 180, 60), "りんご": (40, 60, 200)}
RUN_FILES = {"backup", "curves.png", "history.csv", "labels.json", "model.keras", "rates.json", "rates.png", "run.json"}


def load_backbone(name="tiny", image_size=SIZE, weights=None):
    """Stands in for `kadence.classifier.load_backbone`: random weights, two groups, BatchNormalization in each."""
    x = pixels = keras.Input((image_size, image_size, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="rescaling")(x)
    for number, filters in ((1, 4), (2, 8)):
        x = keras.layers.Conv2D(filters, 3, strides=3, padding="same", name=f"conv{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    return Backbone(name, keras.Model(pixels, x, name="tiny"), ("conv2",))


def write_photos(folder, classes=tuple(COLOURS), n=8, seed=0):
    """`n` noisy PNGs per class, each class in a folder and of a colour of its own."""
    rng = np.random.default_rng(seed)
    for position, name in enumerate(classes):
        colour = list(COLOURS.values())[position % len(COLOURS)]
        (Path(folder) / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = (colour + rng.integers(-40, 40, (SIZE + 8, SIZE + 8, 3))).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(Path(folder) / name / f"{i:02d}.png")
    return Path(folder)


def settings(photos, **changes):
    """Two cycles, of 1 and 2 epochs; 3 batches an epoch of 18 photos, and one batch of the 6 that are held out."""
    fields = {"cycles": 2, "batch_size": 6, "image_size": SIZE, "validation_fraction": 0.25}
    return FineTuneSettings(**{"photos": str(photos), **fields, "rates": (1e-3, 3e-3, 1e-2), **changes})


def flags(**changes):
    """The flags of `settings`, without augmentation: eager on JAX, it takes most of the time of a run."""
    words = {"cycles": 2, "batch-size": 6, "image-size": SIZE, "validation-fraction": 0.25, "rates": "1e-3,3e-3,1e-2"}
    words |= {name.replace("_", "-"): value for name, value in changes.items()}
    given = [word for name, value in words.items() if value is not None for word in (f"--{name}", str(value))]
    return ["--no-augment", *given]


def weights_of(file):
    """Address in the file -> array, of a `.weights.h5` file; the optimizer's state is in it too."""
    arrays = {}
    with h5py.File(file) as content:
        content.visititems(lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return arrays


def same(array, other):
    """Bit for bit."""
    return np.asarray(array).tobytes() == np.asarray(other).tobytes()


def snapshot(folder):
    """Path -> bytes of every file below a folder."""
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def python(code, *arguments, **environment):
    """Run code in a new process, with this module and the backend of this one."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
    words = [sys.executable, "-W", "error::UserWarning", "-c", code, *map(str, arguments)]
    return subprocess.run(words, env=variables, capture_output=True, text=True, timeout=600)
