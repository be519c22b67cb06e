"""Frozen records of what happened; JSON in and out."""

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kadence import _checks

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: Error numbers of a disk, a quota or a file that is full.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Names under which Kadence writes: those of texts and pictures, with the process; of weights; of models.
_PART = re.compile(r"\.(csv|json|png)\.\d+\.part$|\.part\.(weights\.h5|keras)$")


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file is written whole or not at all: to a temporary name beside it, then renamed.

    Args:
        path: File to write; an existing one is replaced. A link is followed, a pipe or device is written to itself.

    Yields:
        The path to write to.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        yield target
        return
    target = Path(os.path.realpath(target))
    # Two processes may write the same file at the same time.
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file of text, see `whole`.

    Args:
        path: File to write; an existing one is replaced.
        text: Its content, written as UTF-8.

    Raises:
        OSError: If the file cannot be written; an existing one is then as it was.
    """
    # A file name may hold bytes that are no text.
    with whole(path) as part, part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        if part.is_file():
            os.fsync(file.fileno())


def new_folder(name: str, folder: Path, remedy: str = "") -> None:
    """Raise if a folder holds anything, but for what a kill left while its first file was written.

    Args:
        name: Argument that the folder was given as.
        folder: The folder, which need not exist.
        remedy: What to do instead.

    Raises:
        FileExistsError: If it does, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or not all(_PART.search(found.name) for found in folder.iterdir())):
        raise FileExistsError(_checks.sentence(name, "be a new or empty folder", str(folder), remedy))


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder with those above it; what was made and is empty at the end, after a mistake, goes again.

    Args:
        folder: The folder.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()


@contextlib.contextmanager
def held(name: str, folder: Path | None) -> Iterator[None]:
    """Make a run folder, and keep other processes out of it, where system and file system have locks; Windows has not.

    Args:
        name: Argument that the folder was given as.
        folder: The folder, or None for none. What is no folder is left to those who look into it.

    Raises:
        FileExistsError: If another process has it.
    """
    if folder is None or (folder.exists() and not folder.is_dir()):
        yield
        return
    with made(folder), contextlib.ExitStack() as stack:
        if fcntl is not None:
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                remedy = "Wait for it, or choose another folder."
                rule = "be a folder in which no other process trains"
                raise FileExistsError(_checks.sentence(name, rule, str(folder), remedy)) from error
            except OSError:
                pass
            else:  # workers that were forked and are left running hold the file open, and with it the lock
                stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        yield


def remove_parts(folder: Path) -> None:
    """Remove the files in a run folder, and below it, that a kill left half written; what else is there stays.

    Args:
        folder: The folder.
    """
    for left in folder.rglob("*.part*"):
        if left.is_file() and _PART.search(left.name):
            left.unlink()


@contextlib.contextmanager
def full_disk_told(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Says what to do where the disk is full; what was finished before is whole.

    Args:
        folder: The run folder, or None.

    Raises:
        OSError: If something inside could not be written for want of space.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # h5py raises both
        if getattr(error, "errno", None) not in _FULL and "No space left" not in str(error):
            raise
        remedy = "Make room, and go on with `resume`: all finished epochs are kept."
        told = _checks.sentence("run_dir", "be on a disk that is not full", str(folder), remedy)
        raise OSError(errno.ENOSPC, told) from error


@dataclass(frozen=True, eq=False)
class RateRecord:
    """What every batch was trained with: the update it was part of, each group's rate, its loss.

    Args:
        steps: Optimizer updates done before the update that the batch was part of. Array of shape (n,), int64. With
            gradient accumulation, the batches of an update share its step.
        rates: Group name -> learning rate of that update. Arrays of shape (n,), float64.
        losses: Loss of the batch, or of the batches of one `steps_per_execution`. Array of shape (n,), float64; NaN
            where it is not known.

    Raises:
        ValueError: If the arrays do not have the same length, or have more than one dimension.
    """

    steps: np.ndarray
    rates: Mapping[str, np.ndarray]
    losses: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", np.asarray(self.steps, np.int64))
        object.__setattr__(self, "losses", np.asarray(self.losses, np.float64))
        object.__setattr__(self, "rates", {name: np.asarray(rate, np.float64) for name, rate in self.rates.items()})
        shapes = [array.shape for array in (self.steps, self.losses, *self.rates.values())]
        if len(set(shapes)) != 1 or len(shapes[0]) != 1:
            raise ValueError(_checks.sentence("rates", "have arrays of one length, with steps and losses", shapes))

    @classmethod
    def stored(cls, path: Path) -> "RateRecord | None":
        """The record in a file of a run, or None if there is no file.

        Args:
            path: The file.

        Returns:
            `RateRecord`, or None.

        Raises:
            ValueError: If the file holds anything else.
        """
        if not path.is_file():
            return None
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            remedy = "It was spoilt: start anew in another folder, or remove the file."
            raise ValueError(_checks.sentence(path.name, "be the record of a run", str(path), remedy)) from error

    def __len__(self) -> int:
        return len(self.steps)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RateRecord) and self.to_json() == other.to_json()

    def before(self, step: int) -> "RateRecord":
        """The part of the record that lies before an update.

        Args:
            step: The first optimizer step that is left out. Integer >= 0.

        Returns:
            `RateRecord`.
        """
        kept = self.steps < step
        return RateRecord(self.steps[kept], {name: rate[kept] for name, rate in self.rates.items()}, self.losses[kept])

    def then(self, later: "RateRecord") -> "RateRecord":
        """This record with another one, of the same groups, after it.

        Args:
            later: The record that follows.

        Returns:
            `RateRecord`.

        Raises:
            ValueError: If the groups differ.
        """
        if not len(self) or not len(later):
            return later if len(later) else self
        if set(self.rates) != set(later.rates):
            rule = f"have the groups {list(self.rates)}"
            raise ValueError(_checks.sentence("later", rule, list(later.rates)))
        return RateRecord(
            np.concatenate([self.steps, later.steps]),
            {name: np.concatenate([rate, later.rates[name]]) for name, rate in self.rates.items()},
            np.concatenate([self.losses, later.losses]),
        )

    def to_json(self) -> str:
        """The record as JSON text; a loss that is not finite becomes null."""
        losses = [loss if math.isfinite(loss) else None for loss in self.losses.tolist()]
        content = {
            "kadence": "rates",
            "version": 1,
            "steps": self.steps.tolist(),
            "rates": {name: rate.tolist() for name, rate in self.rates.items()},
            "losses": losses,
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> "RateRecord":
        """The record that `to_json` wrote.

        Args:
            text: Result of `to_json`.

        Returns:
            `RateRecord`.

        Raises:
            ValueError: If the text is not such a record.
        """
        if not isinstance(text, str):
            raise TypeError(_checks.sentence("text", "be a string", text))
        rule = 'be JSON of a rate record, {"kadence": "rates", "version": 1, ...}'
        try:
            content: Any = json.loads(text)
            if not isinstance(content, dict) or content.get("kadence") != "rates" or content.get("version") != 1:
                raise ValueError(_checks.sentence("text", rule, text[:80]))
            losses = [math.nan if loss is None else loss for loss in content["losses"]]
            if not all(type(step) is int for step in content["steps"]):
                raise TypeError("steps must be integers")
            return cls(np.asarray(content["steps"], np.int64), content["rates"], np.asarray(losses, np.float64))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(_checks.sentence("text", rule, text[:80])) from error
