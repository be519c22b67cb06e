"""The description of a run of `fine_tune`: what it was begun with, to go on with nothing else."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kadence import _checks
from kadence._backend import versions
from kadence._snapshot_files import load_weights, save_weights
from kadence._trial_data import Data
from kadence._walk import Layers
from kadence.groups import LayerGroups
from kadence.records import new_folder, remove_parts, write_text

_START = "start.weights.h5"
_DESCRIPTION = "run.json"


def begin_run(folder: Path | None, resume: bool, described: dict[str, Any], seed: int | None, model: Any) -> int:
    """Make the run folder, or check that it is one of the same run, and give the model its start.

    Args:
        folder: The run folder, or None for none.
        resume: Whether to go on with it.
        described: What has to be the same. JSON types.
        seed: The seed, or None to draw one, or to go on with that of the run.
        model: The model, whose weights are kept at the start and put back to go on.

    Returns:
        The seed of the run.

    Raises:
        FileExistsError: If the folder holds something, and it is not to go on.
        FileNotFoundError: If it is to go on, and there is no run.
        ValueError: If the run was begun with something else.
    """
    drawn = int(np.random.default_rng().integers(2**31)) if seed is None else seed
    drawn = _checks.integer("seed", drawn, minimum=0, unit="a seed")
    if folder is None:
        if resume:
            raise ValueError(_checks.sentence("resume", "be False without a `run_dir`", resume))
        return drawn
    path = folder / _DESCRIPTION
    if not resume:
        new_folder("run_dir", folder, "Choose another folder, or go on with that run with `resume=True`.")
        folder.mkdir(parents=True, exist_ok=True)
        remove_parts(folder)
        content = {"fine_tune": described, "seed": drawn, "versions": versions()}
        write_text(path, json.dumps(content, ensure_ascii=False, indent=1))
        save_weights(model, folder / _START)
        return drawn
    if not path.is_file():
        remedy = "Start it without `resume`."
        raise FileNotFoundError(_checks.sentence("run_dir", "be the folder of a run", str(folder), remedy))
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        known, stored = before["fine_tune"], int(before["seed"])
    except (ValueError, KeyError, TypeError) as error:
        remedy = "It is spoilt, or of a run that another recipe trained: go on with that one."
        raise ValueError(_checks.sentence(_DESCRIPTION, "be of a run of `fine_tune`", str(path), remedy)) from error
    now = json.loads(json.dumps({**described, "seed": stored if seed is None else seed}))
    changed = [name for name, value in now.items() if {**known, "seed": stored}.get(name) != value]
    if changed:
        rule = "go on with the same model, data and settings"
        remedy = f"Changed: {', '.join(changed)}. Choose another `run_dir` for another run."
        raise ValueError(_checks.sentence("resume", rule, resume, remedy))
    warn_of_versions(before.get("versions"))
    remove_parts(folder)
    if (folder / _START).exists():
        load_weights(model, folder / _START)
    else:  # a kill came between the description and the start
        save_weights(model, folder / _START)
    return stored


def warn_of_versions(before: Any) -> None:
    """Warn if a run goes on with another backend or other packages than it was begun with.

    Args:
        before: What `versions` gave then, or anything else where that is not known.
    """
    then, now = before if isinstance(before, dict) else {}, versions()
    changed = [f"{name} {then[name]}, now {value}" for name, value in now.items() if then.get(name, value) != value]
    if changed:
        said = f"The run was begun with {'; '.join(changed)}"
        warnings.warn(f"{said}. It goes on, but not to the same weights bit for bit.", stacklevel=2)


def digest_of_model(layers: Layers) -> str:
    """Digest of the classes and shapes; Keras numbers names anew in each process, and values are in the run folder.

    Args:
        layers: The layers of the model.

    Returns:
        Hexadecimal digits.
    """
    content = [(type(unit.layer).__name__, [list(weight.shape) for weight in unit.weights]) for unit in layers.units]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def digest_of_groups(groups: LayerGroups, layers: Layers) -> list[list[Any]]:
    """Name of each group, and where its layers with weights are in the model.

    Args:
        groups: The groups.
        layers: The layers of the model.

    Returns:
        A pair of name and list of indices for each group.
    """
    owner = {id(weight): index for index, unit in enumerate(layers.units) for weight in unit.weights}
    return [[group.name, sorted({owner[id(weight)] for weight in group.weights})] for group in groups]


def digest_of_data(data: Data) -> str:
    """Digest of arrays by their content, of photos by classes, names and sizes, of other datasets by their length.

    Args:
        data: The `Data`.

    Returns:
        Text.
    """
    shapes = ""
    if data.arrays is not None or hasattr(data.dataset, "__getitem__"):
        shapes = str([np.shape(leaf)[1:] for leaf in keras.tree.flatten(data.first(1))])
    if data.photos is not None:
        return hashlib.sha256(f"{len(data)}\n{shapes}\n".encode() + data.photos.listing()).hexdigest()
    return data.digests()[1] if data.arrays is not None else f"{type(data.dataset).__name__} of {len(data)} batches"
