"""Snapshots of a model's weights on disk: written whole, listed, loaded, and the model's own weights given back."""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._updates import assign_array
from kadence.records import write_text

#: Name of the list of the snapshots in a folder.
INDEX = "snapshots.json"
SUFFIX = ".weights.h5"
Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_RULE = 'be a list of snapshots, {"kadence": "snapshots", "version": 1, "snapshots": [...]}'


@dataclass(frozen=True)
class Snapshot:
    """The weights of a model at one step of its training.

    Args:
        file: Name of the file in its folder.
        step: Optimizer updates done by then. Integer >= 0.
        epoch: Number of the epoch that it was taken in or at the end of, from 1. Integer, in epochs.
        provisional: Whether it was taken because `fit` ended: the next one takes its place if training goes on.
    """

    file: str
    step: int
    epoch: int
    provisional: bool = False


def read_index(folder: Path) -> list[Snapshot]:
    """The snapshots that a folder's index lists.

    Args:
        folder: The folder.

    Returns:
        List of `Snapshot` in the order of their steps; empty if there is no index.

    Raises:
        ValueError: If the index is spoilt.
    """
    path = folder / INDEX
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kadence"] == "snapshots" and content["version"] == 1:
            found = [
                Snapshot(str(e["file"]), int(e["step"]), int(e["epoch"]), bool(e.get("provisional")))
                for e in content["snapshots"]
            ]
            if all(Path(snapshot.file).name == snapshot.file for snapshot in found):
                return found
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(_checks.sentence(INDEX, _RULE, str(path), "Give the files themselves instead of their folder."))


def write_index(folder: Path, snapshots: list[Snapshot]) -> None:
    """Write the index of a folder, whole.

    Args:
        folder: The folder.
        snapshots: What it lists.
    """
    entries = [asdict(snapshot) for snapshot in snapshots]
    write_text(folder / INDEX, json.dumps({"kadence": "snapshots", "version": 1, "snapshots": entries}, indent=1))


def save_weights(model: Any, path: Path) -> None:
    """Write a model's weights, without its optimizer, whole or not at all.

    Args:
        model: Built `keras.Model`.
        path: File that ends in ".weights.h5"; an existing one is replaced.
    """
    part = path.with_name(f"{path.name.removesuffix(SUFFIX)}.part{SUFFIX}")
    try:
        keras.saving.save_weights(model, part, objects_to_skip=_no_weights(model))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_weights(model: Any, path: Path) -> None:
    """Load what `save_weights` wrote; the optimizer stays as it is.

    Args:
        model: The built model.
        path: The file.

    Raises:
        ValueError: If the file is not one of this model's weights. Some may have been loaded by then.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras warns where it leaves a layer as it is
            keras.saving.load_weights(model, path, objects_to_skip=_no_weights(model))
    except (OSError, ValueError, KeyError, UserWarning) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(_checks.sentence("file", "hold weights of this model", str(path), f"{reason}.")) from error


def _no_weights(model: Any) -> list[Any]:
    """What a compiled model carries beside its weights: optimizer and metrics."""
    return [part for part in (getattr(model, "optimizer", None), *model.metrics) if part is not None]


def arrays_of(variables: Sequence[Any]) -> list[np.ndarray]:
    """The values of variables, in memory of their own.

    Args:
        variables: `keras.Variable`s.

    Returns:
        List of arrays.
    """
    return [np.array(keras.ops.convert_to_numpy(variable), copy=True) for variable in variables]


def buffers_of(model: Any) -> list[Any]:
    """What modules of PyTorch in a model keep beside their parameters, such as running statistics; Keras has no part.

    Args:
        model: `keras.Model`.

    Returns:
        List of tensors; empty on other backends.
    """
    if keras.backend.backend() != "torch":
        return []
    # PyTorch does not know the layers that Keras has in a list, as in a Sequential.
    layers = model._flatten_layers(include_self=True, recursive=True)
    return list({id(buffer): buffer for layer in layers for buffer in layer.buffers()}.values())


def state_of(model: Any) -> list[np.ndarray]:
    """Weights, seeds and buffers of a model, in memory of their own.

    Args:
        model: Built `keras.Model`.

    Returns:
        List of arrays.
    """
    return arrays_of([*model.variables, *buffers_of(model)])


@contextlib.contextmanager
def own_weights(model: Any) -> Iterator[list[np.ndarray]]:
    """Gives a model back what it held, weights, seeds and buffers, whatever happens inside.

    Args:
        model: Built `keras.Model`.

    Yields:
        What `state_of` says of the model.
    """
    held = state_of(model)
    try:
        yield held
    finally:
        if hasattr(model, "_jax_state"):
            # An exception in `predict` leaves the variables of JAX empty, and a state that a later sync would put back.
            model._jax_state, model._jax_state_synced = None, True
        n_variables = len(model.variables)
        for variable, value in zip(model.variables, held[:n_variables], strict=True):
            assign_array(variable, value)
        assign_buffers(model, held[n_variables:])


def assign_buffers(model: Any, arrays: Sequence[np.ndarray]) -> None:
    """Give the buffers of a model the values of arrays.

    Args:
        model: `keras.Model`.
        arrays: One for each of `buffers_of(model)`.
    """
    for buffer, array in zip(buffers_of(model), arrays, strict=True):
        buffer.data.copy_(keras.ops.convert_to_tensor(array))


def check_model(model: Any) -> Any:
    """`model` if it is a built `keras.Model`.

    Args:
        model: What is to be given weights.

    Raises:
        TypeError: If it is not a `keras.Model`.
        ValueError: If it is not built, and has no weights yet.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(_checks.sentence("model", "be a keras.Model", model))
    if not model.built:
        remedy = "Call it on a batch of data, or `model.build(input_shape)`, first."
        raise ValueError(_checks.sentence("model", "be built", model.name, remedy))
    return model


def files_of(source: Source, last: int | None) -> list[Path]:
    """The files that a folder's index lists, or those of a sequence.

    Args:
        source: Folder that `SnapshotSaver` wrote, or a sequence of at least one file.
        last: How many of the latest to take, those at the end. Integer from 1 to their number, or None for all.

    Returns:
        List of paths in the order of the index or the sequence.

    Raises:
        FileNotFoundError: If the folder lists no snapshots.
        ValueError: If its index is spoilt, the sequence is empty, or `last` is out of range.
        TypeError: If an argument has the wrong type.
    """
    if isinstance(source, (str, os.PathLike)):
        folder = Path(source)
        files = [folder / snapshot.file for snapshot in read_index(folder)]
        if not files:
            rule = f"be a folder with snapshots and their list, {INDEX}, as SnapshotSaver writes them"
            raise FileNotFoundError(_checks.sentence("source", rule, str(source)))
    else:
        items = _checks.sequence("source", source, "be a folder, or a sequence of at least one file")
        files = [Path(item) for item in items]
    if last is None:
        return files
    last = _checks.integer("last", last, minimum=1, maximum=len(files), unit="the number of snapshots")
    return files[-last:]


def check_files(files: Any) -> list[Path]:
    """`files` as paths, if they are existing files of weights.

    Args:
        files: Sequence of at least one path that ends in ".weights.h5".

    Raises:
        ValueError: If there is none, or one has another ending.
        FileNotFoundError: If one does not exist.
        TypeError: If they are not a sequence of paths.
    """
    rule = f"be a sequence of at least one file that ends in {SUFFIX}"
    paths = [Path(item) for item in _checks.sequence("files", files, rule)]
    for path in paths:
        if not path.name.endswith(SUFFIX):
            raise ValueError(_checks.sentence("files", rule, str(path)))
        if not path.is_file():
            raise FileNotFoundError(_checks.sentence("files", "exist", str(path)))
    return paths


def check_shares(weights: Any, n: int) -> np.ndarray:
    """`weights` as an array of `n` shares with the sum 1; equal ones for None.

    Args:
        weights: Share of each snapshot: floats >= 0, one of them > 0, of any sum. Or None.
        n: Number of snapshots. Integer >= 1.

    Returns:
        Array of shape (n,), float64.

    Raises:
        ValueError: If there is not one share for each, one is negative or not finite, or all are 0.
        TypeError: If they are not a sequence of numbers.
    """
    if weights is None:
        return np.full(n, 1.0 / n)
    items = [
        _checks.number("weights", share, minimum=0.0) for share in _checks.sequence("weights", weights, "be floats")
    ]
    if len(items) != n:
        raise ValueError(_checks.sentence("weights", f"hold one share for each of the {n} snapshots", items))
    if sum(items) <= 0.0:
        raise ValueError(_checks.sentence("weights", "hold at least one share > 0", items))
    return np.array(items) / sum(items)
