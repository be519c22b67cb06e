"""Photos that are in two places: copies, held-out ones that are trained on too, results among them."""

import collections
import hashlib
import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kadence._checks import sentence
from kadence._text import counted, first_of
from kadence.data import ImageFolder


def check_outside(name: str, out: Path, photos: Iterable[str | os.PathLike[str] | None]) -> None:
    """Raise if results would be written among photos.

    Args:
        name: Argument that the folder of the results was given as.
        out: That folder.
        photos: Folders of photos, or None for those that were not given.

    Raises:
        ValueError: If `out` is one of them or in one.
    """
    for folder in photos:
        if folder is not None and out.resolve().is_relative_to(Path(folder).resolve()):
            remedy = "Its pictures would be taken for photos of a class."
            raise ValueError(sentence(name, "not be in the folder of the photos", str(out), remedy))


def without_copies(folder: ImageFolder) -> ImageFolder:
    """The images without those whose bytes are those of an earlier one, of which a part would be held out.

    Args:
        folder: The images.

    Returns:
        `ImageFolder`; a warning says how many were left out.

    Raises:
        ValueError: If no image of a class is left.
    """
    first: dict[Any, int] = {}
    sizes = _sizes(folder)
    counts = collections.Counter(sizes)
    for position, (path, size) in enumerate(zip(folder.paths, sizes, strict=True)):
        first.setdefault(_digest(path) if counts[size] > 1 else path, position)
    n_copies = len(folder.paths) - len(first)
    if not n_copies:
        return folder
    emptied = set(folder.labels) - {folder.labels[position] for position in first.values()}
    if emptied:
        names = ", ".join(repr(folder.class_names[label]) for label in sorted(emptied))
        remedy = f"All photos of {names} are copies of photos of other classes."
        raise ValueError(sentence("folder", "hold photos of each class", str(folder.folder), remedy))
    said = f"{counted(n_copies, 'photo')} in {str(folder.folder)!r} {'is a copy' if n_copies == 1 else 'are copies'}"
    warnings.warn(f"{said} of others, and left out: copies would be held out of the training.", stacklevel=2)
    return replace(folder.select(first.values()), skipped=folder.skipped)


def warn_of_shared(train: ImageFolder, held_out: ImageFolder) -> None:
    """Warn if held-out images are among those of the training.

    Args:
        train: The images to train on.
        held_out: The images to judge on.
    """
    sizes = set(_sizes(train)) & set(_sizes(held_out))
    mine, theirs = ([path for path in part.paths if path.stat().st_size in sizes] for part in (train, held_out))
    known = set(map(_digest, mine))
    shared = [path for path in theirs if _digest(path) in known]
    if shared:
        named = first_of([repr(str(path)) for path in shared], ", ")
        said = f"{counted(len(shared), 'photo')} to judge on {'is' if len(shared) == 1 else 'are'} trained on too"
        warnings.warn(f"{said}, so the accuracy is too good: {named}.", stacklevel=2)


def _sizes(folder: ImageFolder) -> list[int]:
    """Sizes of the files: only where two are equal, their bytes have to be read."""
    return [path.stat().st_size for path in folder.paths]


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
