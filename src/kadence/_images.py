"""Files of photos -> arrays of pixels."""

import os
import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kadence._checks import extra, integer, sentence

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"})
#: Pictures that are not read, which a user should know.
UNREAD_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".tif", ".tiff", ".jp2", ".jxl", ".dng", ".cr2", ".nef"})
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
PICTURES = SUFFIXES | UNREAD_SUFFIXES
NOT_READ = "a format that is not read: convert it to JPEG or PNG"
#: EXIF tag, and what each of its values asks for.
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def find_images(folder: str | os.PathLike[str], suffixes: Container[str] = SUFFIXES) -> tuple[Path, ...]:
    """Paths of the image files in a folder and the folders below it, sorted; nothing is opened.

    Links are followed, each folder is visited once, hidden files and folders are left out.

    Args:
        folder: The folder to look through.
        suffixes: What their names end in, in lower case.

    Returns:
        The paths, which begin with `folder`.

    Raises:
        ValueError: If the folder does not exist.
    """
    waiting, visited, found = [existing_folder(folder)], set(), []
    while waiting:
        here = waiting.pop()
        if os.path.realpath(here) in visited:
            continue
        visited.add(os.path.realpath(here))
        entries = sorted(here.iterdir(), key=Path.as_posix, reverse=True)
        found += [path for path in entries if is_image(path, suffixes)]
        waiting += [path for path in entries if path.is_dir() and not is_hidden(path)]
    return tuple(sorted(found, key=Path.as_posix))


def read_image(path: str | os.PathLike[str], image_size: int) -> np.ndarray:
    """Decode one image to a square of raw RGB pixels.

    The image is turned upright (EXIF); grey, palette, CMYK and 16-bit images become 8-bit RGB; transparent pixels lie
    on white; an animation gives its first frame. The largest centred square is cut out and resized, bilinear with
    antialiasing, as with `crop_to_aspect_ratio=True` in Keras.

    Args:
        path: The image file: JPEG, PNG, BMP, GIF or WebP.
        image_size: Side of the square, in pixels. Integer >= 1.

    Returns:
        Array of shape (image_size, image_size, 3), uint8, 0 to 255.

    Raises:
        ValueError: If the file is missing or cannot be decoded.
        ImportError: If Pillow is not installed.
    """
    image_size = integer("image_size", image_size, minimum=1, unit="in pixels")
    image_ops = extra("PIL.ImageOps", "cli", "Reading images")
    try:
        picture = _decode(Path(path), 2 * image_size)
    except Exception as error:
        raise ValueError(sentence("path", "be an image that can be read", str(path), _reason(error) + ".")) from error
    return np.array(image_ops.fit(picture, (image_size, image_size), _pillow().Resampling.BILINEAR))


def read_images(paths: Sequence[Path], image_size: int) -> np.ndarray:
    """Decode images, several at a time.

    Args:
        paths: Image files.
        image_size: As for `read_image`, in pixels.

    Returns:
        Array of shape (len(paths), image_size, image_size, 3), uint8.

    Raises:
        ValueError: If a file cannot be decoded.
    """
    pixels = np.empty((len(paths), image_size, image_size, 3), np.uint8)

    def fill(position: int) -> None:
        pixels[position] = read_image(paths[position], image_size)

    _in_threads(fill, range(len(paths)))
    return pixels


def broken(paths: Sequence[Path]) -> dict[Path, str]:
    """What does not decode.

    Args:
        paths: Image files.

    Returns:
        Dictionary path -> reason.
    """
    bomb = _pillow().DecompressionBombWarning

    def problem(path: Path) -> str | None:
        try:
            _decode(path, 1)
        except Exception as error:
            return _reason(error)
        return None

    with warnings.catch_warnings():  # around the pool, not in it: the filters are global
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", bomb)
        reasons = _in_threads(problem, paths)
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is one of those that are left out.

    Args:
        path: A file or folder.
    """
    return path.name.startswith((".", "__MACOSX"))


def is_image(path: Path, suffixes: Container[str] = SUFFIXES) -> bool:
    """Whether a path is a file, or a link, that is named like an image.

    Args:
        path: A file or folder.
        suffixes: What its name ends in, in lower case.
    """
    looks_like_one = path.suffix.lower() in suffixes and not is_hidden(path)
    return looks_like_one and (path.is_file() or path.is_symlink()) and not path.is_dir()


def existing_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder that exists.

    Args:
        folder: Its path.

    Returns:
        `Path`.

    Raises:
        ValueError: If there is none.
        TypeError: If it is no path.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(sentence("folder", "be the path of a folder", folder))
    path = Path(folder)
    if not path.is_dir():
        remedy = "That is a file." if path.exists() else "There is nothing at that path."
        raise ValueError(sentence("folder", "be an existing folder", str(folder), remedy))
    return path


def _pillow() -> Any:
    return extra("PIL.Image", "cli", "Reading images")


def _decode(path: Path, at_least: int) -> Any:
    """The upright RGB picture; a JPEG much larger than `at_least` pixels a side is decoded at 1/2, 1/4 or 1/8."""
    with _pillow().open(path, formats=FORMATS) as picture:
        picture.draft(None, (at_least, at_least))
        # `ImageOps.exif_transpose` writes all of the EXIF anew, and fails where a part of it cannot be written.
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
        return _as_rgb(picture if turn is None else picture.transpose(getattr(_pillow().Transpose, turn)))


def _as_rgb(picture: Any) -> Any:
    image = _pillow()
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
        picture = image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = image.alpha_composite(image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, _pillow().UnidentifiedImageError):
        return "not a JPEG, PNG, BMP, GIF or WebP image"
    return f"{type(error).__name__}: {error}".rstrip(".")


def _in_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))
