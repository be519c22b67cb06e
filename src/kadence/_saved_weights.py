"""What a file says of the weights of layer groups, and which weights of a model these are."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kadence import _checks

#: What Keras calls a variable without a name, numbered anew in each process: "variable", "jax_variable_2".
_NAMELESS = re.compile(r"([a-z]+_)?variable(_\d+)?")


@dataclass(frozen=True)
class SavedWeight:
    """What a file says of a weight.

    Args:
        group: Index of its group. Integer >= 0.
        name: Its name within its layer.
        shape: Its shape.
        path: Its path in the model; "" in older files.
        trained: Whether it trained when it was saved.
    """

    group: int
    name: str
    shape: tuple[int, ...]
    path: str = ""
    trained: bool = True

    @classmethod
    def of(cls, weight: keras.Variable, group: int) -> "SavedWeight":
        """The description of a weight.

        Args:
            weight: The weight.
            group: Index of its group. Integer >= 0.
        """
        return cls(group, weight.name, tuple(weight.shape), weight.path, bool(weight.trainable))

    @classmethod
    def from_plain(cls, plain: Sequence[Any], trained: bool) -> "SavedWeight":
        """The description that a file holds.

        Args:
            plain: Result of `plain`; in an older file, without the path.
            trained: Whether the weight trained.
        """
        group, name, shape, *path = plain
        return cls(int(group), name, tuple(shape), *path, trained=trained)

    def plain(self) -> list[Any]:
        """JSON types, all but `trained`."""
        return [self.group, self.name, list(self.shape), self.path]

    def __str__(self) -> str:
        return f"{self.name!r} of shape {self.shape}"

    def fits(self, variable: keras.Variable) -> bool:
        """Whether a variable can be the one that was saved.

        Args:
            variable: Variable of a model.
        """
        names = (self.name, variable.name)
        alike = self.name == variable.name or any(_NAMELESS.fullmatch(name) for name in names)
        return alike and self.shape == tuple(variable.shape)


def match(saved: Sequence[SavedWeight], variables: Sequence[keras.Variable], n_groups: int) -> Sequence[SavedWeight]:
    """Which of the saved weights each variable is.

    Args:
        saved: What the file says, in the model's order.
        variables: What trains now, in the model's order: what trained then, or more than that, as Keras does not save
            which layers within layers are frozen.
        n_groups: Number of groups. Integer >= 1.

    Returns:
        One of `saved` for each of `variables`.

    Raises:
        ValueError: If they do not fit, or it can be in several ways.
    """
    remedy = "The model is not the one that was saved: make new groups, for example with `kadence.split`."
    for entry in saved:
        if not 0 <= entry.group < n_groups:
            rule = f"be the index of one of the {n_groups} saved groups"
            raise ValueError(_checks.sentence("group", rule, entry.group, remedy))
    trained = [entry for entry in saved if entry.trained]
    entries = trained if len(trained) == len(variables) else _aligned(saved, variables)
    if entries is None:
        rule = f"be as many trainable variables as in the saved groups, {len(trained)}"
        remedy += (
            " Or layers within its layers were frozen, which Keras does not save: load it with `compile=False`,"
            " then `kadence.freeze_to`, then compile it."
        )
        raise ValueError(_checks.sentence("variables", rule, len(variables), remedy))
    for position, (expected, variable) in enumerate(zip(entries, variables, strict=True)):
        if not expected.fits(variable):
            rule = f"be {expected} at position {position}, as in the saved groups"
            received = str(SavedWeight.of(variable, expected.group))
            raise ValueError(_checks.sentence("variables", rule, received, remedy))
    return entries


def _aligned(saved: Sequence[SavedWeight], variables: Sequence[keras.Variable]) -> list[SavedWeight] | None:
    """Which saved weight each variable is, where by order, and paths if they hold, it can be in one way only."""
    for path_of in (str, _unnumbered, _no_path):
        found = _first_fits(saved, variables, path_of)
        last = _first_fits(saved[::-1], variables[::-1], path_of)[::-1]
        entries = [entry for entry, other in zip(found, last, strict=True) if entry is not None and entry is other]
        kept = {id(entry) for entry in entries}
        if len(entries) == len(variables) and all(id(entry) in kept for entry in saved if entry.trained):
            return entries
    return None


def _first_fits(
    saved: Sequence[SavedWeight], variables: Sequence[keras.Variable], path_of: Callable[[str], str]
) -> list[SavedWeight | None]:
    """Of each variable, the first saved weight that it fits, after that of the variable before."""
    left = iter(saved)
    return [next((e for e in left if e.fits(v) and path_of(e.path) == path_of(v.path)), None) for v in variables]


def _unnumbered(path: str) -> str:
    """A path without the numbers that Keras adds to names of its own making, anew in each process."""
    return re.sub(r"_\d+(?=/|$)", "", path)


def _no_path(path: str) -> str:
    return ""
