"""Layer groups: which layers share a learning rate, as a sequence, a table and plain data of a file."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import keras

from kadence import _checks
from kadence._saved_weights import SavedWeight, match


@dataclass(frozen=True)
class LayerGroup:
    """Layers that share a learning rate.

    Args:
        name: Name of the group, unique among its groups.
        layers: Addresses of the layers in definition order: the names on the way from the model, joined by `/`.
        weights: `keras.Variable`s that the layers own, trainable or not.
    """

    name: str
    layers: tuple[str, ...]
    weights: tuple[keras.Variable, ...] = field(default=(), repr=False, compare=False)

    @property
    def variables(self) -> list[keras.Variable]:
        """The group's `keras.Variable`s that are trainable now; a frozen layer has none."""
        return [weight for weight in self.weights if weight.trainable]


class LayerGroups(Sequence[LayerGroup]):
    """A sequence of `LayerGroup`, from the input of a model towards its head; `str()` gives a table.

    Made by `split`, `split_evenly` and `group_by`.

    Args:
        groups: The groups. Every variable belongs to exactly one.
        rates: Learning rate of each group, for the table only. Sequence of floats, or None while unknown.
    """

    def __init__(self, groups: Sequence[LayerGroup], rates: Sequence[float] | None = None):
        self._groups = tuple(groups)
        self._rates = None if rates is None else tuple(float(rate) for rate in rates)
        #: What a file says of the weights; `bind` finds them.
        self._saved: tuple[SavedWeight, ...] | None = None
        #: The same with the weights that `bind` found; what was frozen and still is it cannot find.
        self._bound: tuple[tuple[SavedWeight, keras.Variable | None], ...] = ()
        #: Weights that were frozen when they were saved, and are not now.
        self._thawed: tuple[keras.Variable, ...] = ()
        #: All weights in the model's order, which need not be that of the groups.
        self._order: tuple[keras.Variable, ...] = tuple(weight for group in groups for weight in group.weights)

    @overload
    def __getitem__(self, index: int) -> LayerGroup: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LayerGroup]: ...
    def __getitem__(self, index: int | slice) -> LayerGroup | Sequence[LayerGroup]:
        return self._groups[index]

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def names(self) -> list[str]:
        """Names of the groups, in order."""
        return [group.name for group in self]

    def with_rates(self, rates: Sequence[float]) -> "LayerGroups":
        """The same groups with a learning rate each in their table.

        Args:
            rates: One learning rate per group.

        Returns:
            `LayerGroups`.

        Raises:
            ValueError: If there is not one rate per group.
        """
        if len(rates) != len(self):
            raise ValueError(_checks.sentence("rates", f"have one rate per group, {len(self)}", list(rates)))
        groups = LayerGroups(self._groups, rates)
        groups._saved, groups._bound, groups._order = self._saved, self._bound, self._order
        return groups

    def bind(self, variables: Sequence[keras.Variable]) -> "LayerGroups":
        """The same groups, checked against the variables that an optimizer is about to train.

        Args:
            variables: The model's trainable variables, in the model's order.

        Returns:
            `LayerGroups` in which each of `variables` is in exactly one group.

        Raises:
            ValueError: If a variable is in no group, or if the groups came from a file and do not fit `variables`. Of
                those from a file, `variables` may be more than what trained then, as Keras does not save which layers
                within layers are frozen.
        """
        if self._saved is not None:
            return self._bind_saved(self._saved, variables)
        owners = [id(weight) for group in self for weight in group.weights]
        known = set(owners)
        if len(owners) > len(known):
            rule = "hold every variable in exactly one group"
            raise ValueError(_checks.sentence("groups", rule, self, "Some are in two."))
        strangers = [variable.path for variable in variables if id(variable) not in known]
        if strangers:
            rule = "hold every trainable variable of the model that is compiled"
            remedy = (
                f"In no group: {', '.join(strangers[:5])}. Make the groups from this very model, with all its layers."
            )
            raise ValueError(_checks.sentence("groups", rule, self, remedy))
        return self

    def _bind_saved(self, saved: Sequence[SavedWeight], variables: Sequence[keras.Variable]) -> "LayerGroups":
        entries = match(saved, variables, len(self))
        members: list[list[keras.Variable]] = [[] for _ in self]
        for entry, variable in zip(entries, variables, strict=True):
            members[entry.group].append(variable)
        groups = LayerGroups(
            [LayerGroup(group.name, group.layers, tuple(taken)) for group, taken in zip(self, members, strict=True)],
            self._rates,
        )
        found = {id(entry): variable for entry, variable in zip(entries, variables, strict=True)}
        groups._order, groups._bound = tuple(variables), tuple((entry, found.get(id(entry))) for entry in saved)
        groups._thawed = tuple(v for entry, v in zip(entries, variables, strict=True) if not entry.trained)
        return groups

    def freeze_again(self) -> None:
        """Freeze, once and with a warning, what was frozen when the groups were saved and is not any more."""
        thawed, self._thawed = self._thawed, ()
        for variable in thawed:
            variable.trainable = False
        if thawed:
            warnings.warn(
                f"{len(thawed)} variables were frozen when the model was saved, the first {thawed[0].path!r}. Keras "
                "does not restore that of layers within layers and of single variables, so they are frozen here. The "
                "layers' own flags stay lost: freeze those that are BatchNormalization before `fit`, or their "
                "statistics move; `kadence.freeze_batch_norm` freezes all.",
                stacklevel=4,
            )

    def get_config(self, variables: Sequence[keras.Variable] | None = None) -> dict[str, Any]:
        """Plain data from which `from_config` makes groups that bind to the same model when it is loaded again.

        Args:
            variables: The trainable variables in the model's order; by default, and where some of them are not
                trainable any more or others are, those of the groups.

        Returns:
            Dict of JSON types.
        """
        saved = self._saved
        if self._bound:
            saved = tuple(e if w is None else replace(e, trained=bool(w.trainable)) for e, w in self._bound)
        if saved is None:
            group_of = {id(weight): index for index, group in enumerate(self) for weight in group.weights}
            trainable = [weight for weight in self._order if weight.trainable]
            if variables is None or {id(v) for v in variables} != {id(v) for v in trainable}:
                variables = trainable
            in_order = iter(variables)
            weights = [next(in_order) if weight.trainable else weight for weight in self._order]
            saved = tuple(SavedWeight.of(w, group_of[id(w)]) for w in weights)
        return {
            "groups": [{"name": group.name, "layers": list(group.layers)} for group in self],
            "variables": [entry.plain() for entry in saved if entry.trained],
            "frozen": [[place, *entry.plain()] for place, entry in enumerate(saved) if not entry.trained],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "LayerGroups":
        """Groups from the result of `get_config`; they find their variables with `bind`.

        Args:
            config: Result of `get_config`.

        Returns:
            `LayerGroups`.
        """
        groups = cls([LayerGroup(str(entry["name"]), tuple(entry["layers"])) for entry in config["groups"]])
        saved = [SavedWeight.from_plain(entry, trained=True) for entry in config["variables"]]
        for place, *entry in config.get("frozen", []):
            saved.insert(place, SavedWeight.from_plain(entry, trained=False))
        groups._saved = tuple(saved)
        return groups

    def __str__(self) -> str:
        rows = [["group", "first layer", "last layer", "layers", "trainable weights"]]
        for group in self:
            weights = sum(math.prod(variable.shape) for variable in group.variables)
            rows.append([group.name, group.layers[0], group.layers[-1], str(len(group.layers)), f"{weights:,}"])
        if self._rates is not None:
            for row, cell in zip(rows, ["learning rate", *(f"{rate:.3g}" for rate in self._rates)], strict=True):
                row.append(cell)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            words = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
            figures = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
            lines.append("  ".join(words + figures))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"LayerGroups({', '.join(f'{group.name}: {len(group.layers)} layers' for group in self)})"
