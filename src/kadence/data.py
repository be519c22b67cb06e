"""Folders of images -> checked Keras datasets.

Photos are decoded here, with Pillow, because `keras.utils.image_dataset_from_directory` stops in mid-epoch at the first
broken file, ignores the EXIF orientation, and cannot give a resumed run the order its epoch would have had.
"""

import os
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from kadence._checks import did_you_mean, integer, number, sentence, sequence
from kadence._images import (
    NOT_READ,
    PICTURES,
    broken,
    existing_folder,
    find_images,
    is_hidden,
    is_image,
    read_images,
)
from kadence._text import counted, first_of

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "eval", "test", "testing"})


@dataclass(frozen=True)
class ImageFolder:
    """Images that were found and checked, with their labels.

    Args:
        folder: The folder that was scanned.
        paths: The readable images, sorted by class and then by path.
        labels: Index into `class_names` of each path. Integers >= 0, as many as `paths`.
        class_names: Names of the classes, in the order of the model's outputs.
        skipped: Pairs (path, reason) of the files that were left out.
    """

    folder: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    skipped: tuple[tuple[Path, str], ...] = ()

    def listing(self) -> bytes:
        """Name, label and size of each image, a line each; to tell two folders apart."""
        return b"".join(
            os.fsencode(path.relative_to(self.folder)) + f"\0{label}\0{path.stat().st_size}\n".encode()
            for path, label in zip(self.paths, self.labels, strict=True)
        )

    def select(self, positions: Iterable[int]) -> "ImageFolder":
        """Some of the images, in a given order, with nothing in `skipped`.

        Args:
            positions: Indices into `paths`. Integers from 0 to len(paths) - 1.

        Returns:
            `ImageFolder`.
        """
        chosen = [(self.paths[i], self.labels[i]) for i in positions]
        return replace(
            self, paths=tuple(path for path, _ in chosen), labels=tuple(label for _, label in chosen), skipped=()
        )


def scan_folder(
    folder: str | os.PathLike[str], *, strict: bool = False, class_names: Sequence[str] | None = None
) -> ImageFolder:
    """Find the images of a folder that has one sub-folder per class, and decode each one to see that it is whole.

    The class is the name of the sub-folder, in Unicode form NFC and without spaces around it; folders inside it belong
    to it too. Images are .jpg, .jpeg, .jpe, .jfif, .png, .bmp, .gif and .webp, in upper or lower case. Hidden files and
    folders and files that are no pictures are ignored. Broken images, images above Pillow's decompression-bomb limit,
    images outside the class folders, and .heic, .tif, .avif and other pictures that are not read are skipped with one
    warning.

    Args:
        folder: The folder that holds the class folders.
        strict: If True, files that would be skipped are an error.
        class_names: For a validation or test folder: the classes of the training, which give the labels. Some of them
            may be missing here. None takes the sub-folders, sorted, and asks for at least two, none of them empty.

    Returns:
        An `ImageFolder` with at least one image.

    Raises:
        ValueError: If the folder is missing or does not have the classes, if a class has no readable image, or, with
            `strict`, if a file would be skipped.

    Example:
        >>> train = scan_folder("photos/train")
        >>> test = scan_folder("photos/test", class_names=train.class_names)
    """
    root = existing_folder(folder)
    folders = _class_folders(root)
    known = None if class_names is None else sequence("class_names", class_names, "be a sequence of class names")
    _check_classes(root, list(folders), known)
    names = list(folders) if known is None else known
    pictures = [(path, name) for name, below in folders.items() for path in find_images(below, PICTURES)]
    found = [(path, name) for path, name in pictures if is_image(path)]
    reasons = broken([path for path, _ in found])
    strays = [(path, "not in a class folder") for path in sorted(root.iterdir()) if is_image(path)]
    unread = [(path, NOT_READ) for path, _ in pictures if not is_image(path)]
    skipped = (*strays, *reasons.items(), *unread)
    if strict and skipped:
        raise ValueError(sentence("folder", "hold only images that can be used", str(root), _summary(skipped)))
    good = {path: name for path, name in found if path not in reasons}
    filled = set(good.values())
    empty = [repr(name) for name in folders if name not in filled]
    if empty and (known is None or not good):
        remedy = f"No readable image in the class folders {first_of(empty, ', ')}. {_summary(skipped)}"
        raise ValueError(sentence("folder", "hold readable images of each class", str(root), remedy.strip()))
    if skipped:
        warnings.warn(f"In {str(root)!r}: {_summary(skipped)}", stacklevel=2)
    index = {name: label for label, name in enumerate(names)}
    return ImageFolder(root, tuple(good), tuple(index[name] for name in good.values()), tuple(names), skipped)


def split_validation(folder: ImageFolder, fraction: float, seed: int) -> tuple[ImageFolder, ImageFolder]:
    """Set a part of each class aside for validation.

    A class of n images gives round(fraction * n) of them, but at least one, and keeps at least one; a class with one
    image keeps it. Both parts keep all of `class_names`.

    Args:
        folder: The images to split.
        fraction: Part for validation, as a fraction of the images of each class, > 0 and < 1.
        seed: Seed of the choice. Integer >= 0; the same seed gives the same parts.

    Returns:
        The pair (train, validation), each sorted as `folder` is.

    Raises:
        ValueError: If `fraction` is out of range, or no class has two images.
    """
    if not 0 < number("fraction", fraction) < 1:
        raise ValueError(sentence("fraction", "be a number > 0 and < 1, of the images of each class", fraction))
    rng = np.random.default_rng(integer("seed", seed, minimum=0, unit="the seed of the split"))
    labels = np.asarray(folder.labels, np.int64)
    held_out = np.zeros(len(labels), bool)
    for label in range(len(folder.class_names)):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    if not held_out.any():
        remedy = "With one image per class nothing is left for validation: add images or give a validation folder."
        raise ValueError(sentence("folder", "hold at least two images of some class", str(folder.folder), remedy))
    train = replace(folder.select(np.flatnonzero(~held_out)), skipped=folder.skipped)
    return train, folder.select(np.flatnonzero(held_out))


class ImageBatches(keras.utils.PyDataset):
    """Batches of images and labels for `fit`, `evaluate` and `predict`, in an order that a resumed run finds again.

    Epoch e of a shuffled dataset has the order `numpy.random.default_rng([seed, e]).permutation(n)`, whatever came
    before. Keras does not tell a dataset which epoch begins, so give `fit` the callback `follow_epochs()` (without it
    all epochs have the order of `epoch`) and `shuffle=False` (or it shuffles the batches again, with Python's global
    generator). Leave `workers` at 1: images are decoded in parallel anyway, and with more workers Keras 3.12 to 3.15
    may deliver batches that it fetched before the first epoch.

    The images are decoded once and kept as uint8 if they fit in `memory_limit_bytes`, and otherwise in each epoch anew.

    Args:
        folder: The images and labels, from `scan_folder`.
        image_size: Side of the square images, in pixels. Integer >= 1.
        batch_size: Batch size, in images. Integer >= 1. The last batch may be smaller.
        shuffle: Whether each epoch has its own random order. If False, the order is that of `folder`.
        seed: Seed of the orders. Integer >= 0.
        memory_limit_bytes: Largest array of decoded images to keep, in bytes. Integer >= 0. Defaults to 2 GiB.
        multiple_of: What the size of every batch is a multiple of, so that as many devices can share it, in images.
            Integer >= 1. Above 1, the last batch is filled up with the first images of the order, and every batch has
            weights: 0 for those that fill, and one number for all others, with which the mean over a shuffled batch, or
            over the whole of a dataset in order, is the mean over the images that count.

    Raises:
        ValueError: If an argument is out of range or an image can no longer be read.

    Example:
        >>> batches = ImageBatches(scan_folder("photos"), image_size=224, batch_size=32, shuffle=True, seed=0)
        >>> model.fit(batches, epochs=3, shuffle=False, callbacks=[batches.follow_epochs()])
    """

    def __init__(
        self,
        folder: ImageFolder,
        image_size: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        memory_limit_bytes: int = 2 * 1024**3,
        multiple_of: int = 1,
    ):
        super().__init__()
        self.folder = folder
        self.image_size = integer("image_size", image_size, minimum=1, unit="in pixels")
        self.batch_size = integer("batch_size", batch_size, minimum=1, unit="in images")
        self.shuffle = bool(shuffle)
        self.seed = integer("seed", seed, minimum=0, unit="the seed of the orders")
        self.multiple_of = integer("multiple_of", multiple_of, minimum=1, unit="in images")
        if self.batch_size % self.multiple_of:
            raise ValueError(sentence("batch_size", f"be a multiple of {multiple_of}, in images", batch_size))
        self._labels = np.asarray(folder.labels, np.int32)
        limit = integer("memory_limit_bytes", memory_limit_bytes, minimum=0, maximum=2**63 - 1, unit="in bytes")
        fits = len(folder.paths) * self.image_size**2 * 3 <= limit
        self._pixels = read_images(folder.paths, self.image_size) if fits else None
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch.

        Args:
            epoch: Index of the epoch, in epochs since the start of the training. Integer >= 0.
        """
        self.epoch = integer("epoch", epoch, minimum=0, unit="in epochs")
        n_images = len(self._labels)
        rng = np.random.default_rng([self.seed, self.epoch])
        self._order = rng.permutation(n_images) if self.shuffle else np.arange(n_images)

    def follow_epochs(self) -> keras.callbacks.Callback:
        """The callback that calls `set_epoch` when `fit` begins an epoch, before Keras asks for its first batch."""
        return keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self.set_epoch(epoch))

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._labels) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        """Batch `index`: raw pixels (n, image_size, image_size, 3), float32, 0 to 255, labels (n,), int32, and weights.

        Weights (n,), float32, are there only if `multiple_of` is above 1.
        """
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        if self.multiple_of == 1:
            return self._images(chosen)
        filling = np.resize(self._order, -len(chosen) % self.multiple_of)
        n_counted = len(chosen if self.shuffle else self._order)
        weight = 1 + (-n_counted % self.multiple_of) / n_counted
        weights = np.repeat(np.array([weight, 0], np.float32), [len(chosen), len(filling)])
        return *self._images(np.concatenate([chosen, filling])), weights

    def _images(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._pixels is None:
            pixels = read_images([self.folder.paths[i] for i in chosen], self.image_size)
        else:
            pixels = self._pixels[chosen]
        return pixels.astype(np.float32), self._labels[chosen]


def _class_folders(root: Path) -> dict[str, Path]:
    """Class name -> sub-folder, sorted by name."""
    folders: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.is_dir() and not is_hidden(path):
            name = unicodedata.normalize("NFC", path.name).strip()
            remedy = f"{folders[name].name!r} is that class too: rename or merge." if name in folders else ""
            if not name or any("\ud800" <= letter <= "\udfff" for letter in name):
                remedy = "Rename it."
            if remedy:
                raise ValueError(sentence("class_folder", "have a name of its own, in Unicode", path.name, remedy))
            folders[name] = path
    if not folders:
        n_images = sum(is_image(path) for path in root.iterdir())
        remedy = f"Put its {n_images} photos into one sub-folder per class." if n_images else "It holds no sub-folder."
        raise ValueError(sentence("folder", "hold one sub-folder per class", str(root), remedy))
    return dict(sorted(folders.items()))


def _check_classes(root: Path, found: list[str], known: list[str] | None) -> None:
    """Raise if the sub-folders are not classes, or not those of the training."""
    if known is not None:
        for name in (name for name in found if name not in known):
            remedy = f"{name!r} is not one of them. {did_you_mean(name, known)}"
            raise ValueError(sentence("folder", "hold only classes of the training", str(root), remedy))
    elif SPLIT_NAMES.issuperset(name.lower() for name in found):
        remedy = f"{', '.join(map(repr, found))} are parts of a dataset, not classes: give one of them."
        raise ValueError(sentence("folder", "hold one sub-folder per class", str(root), remedy))
    elif any(name.lower() in SPLIT_NAMES for name in found):
        parts = ", ".join(repr(name) for name in found if name.lower() in SPLIT_NAMES)
        said = f"{parts} in {str(root)!r} {'are taken for classes' if ',' in parts else 'is taken for a class'}"
        warnings.warn(f"{said}; where that is a part of a dataset, move it.", stacklevel=3)
    elif len(found) == 1:
        remedy = f"The only class is {found[0]!r}."
        raise ValueError(sentence("folder", "hold at least two classes, one sub-folder each", str(root), remedy))


def _summary(skipped: Sequence[tuple[Path, str]]) -> str:
    """A sentence that counts the skipped files and names the first five with their reasons."""
    named = first_of([f"{str(path)!r} ({reason})" for path, reason in skipped], "; ")
    return f"{counted(len(skipped), 'image file')} cannot be used: {named}." if skipped else ""
