"""Model -> ordered layer groups: parts of a model, from the input towards the head, that share a learning rate."""

import fnmatch
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import keras

from kadence import _checks
from kadence._saved_weights import SavedWeight, match
from kadence._walk import Layers, Unit


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


def split(model: keras.Model, at: Sequence[str | keras.Layer] | str | keras.Layer) -> LayerGroups:
    """Groups between named layers: each layer in `at` is the first of the next group.

    Args:
        model: Built `keras.Model` of any kind; layers nested in it count, in definition order.
        at: Split points in definition order, n for n + 1 groups: layers, addresses such as
            `"backbone/block3_conv"`, or bare names that only one layer has.

    Returns:
        `LayerGroups` named "group_1", "group_2", ... from the input towards the head.

    Raises:
        ValueError: If the model is not built, `at` is empty, a name is unknown or ambiguous, the points are out of
            order or twice the same, or a group would have no weights.
        TypeError: If a split point is neither a string nor a layer.

    Example:
        >>> groups = kadence.split(model, at=["block2_conv", "head"])
        >>> print(groups)

    Source:
        Howard & Ruder 2018, Universal Language Model Fine-tuning, section 3.2, arXiv:1801.06146.
    """
    return split_at(model, at, "at")


def split_at(model: keras.Model, at: Any, name: str) -> LayerGroups:
    """`split`, of which errors call the points by a name.

    Args:
        model: As for `split`.
        at: As for `split`.
        name: What the caller calls `at`.

    Returns:
        `LayerGroups`.

    Raises:
        ValueError: As `split`.
        TypeError: As `split`.
    """
    layers = Layers(model)
    if isinstance(at, (str, keras.Layer)):
        at = [at]
    points = _checks.sequence(name, at, "be a sequence of at least one layer name or layer")
    starts = [layers.find(point, name) for point in points]
    names = [point if isinstance(point, str) else point.name for point in points]
    for (first, start), (second, following) in itertools.pairwise(zip(names, starts, strict=True)):
        if following <= start:
            rule = "name different layers in definition order, from the input towards the head"
            fact = (
                f"{second!r} begins where {first!r} does"
                if following == start
                else f"{second!r} comes before {first!r}"
            )
            raise ValueError(_checks.sentence(name, rule, names, f"In this model {fact}."))
    return _cut(layers, starts, names, name)


def split_evenly(model: keras.Model, n_groups: int) -> LayerGroups:
    """`n_groups` groups with equally many layers that own weights; where it cannot be equal, the first have one more.

    Args:
        model: Built `keras.Model` of any kind.
        n_groups: Number of groups. Integer from 1 to the number of layers that own weights.

    Returns:
        `LayerGroups` named "group_1", "group_2", ... from the input towards the head.

    Raises:
        ValueError: If the model is not built or `n_groups` is out of range.
        TypeError: If `n_groups` is not an integer.

    Example:
        >>> groups = kadence.split_evenly(model, 4)
    """
    layers = Layers(model)
    weighted = layers.weighted
    count = len(weighted)
    n_groups = _checks.integer("n_groups", n_groups, minimum=1, maximum=count, unit="the number of layers with weights")
    size, more = divmod(count, n_groups)
    starts = [weighted[size * group + min(group, more)] for group in range(1, n_groups)]
    return _cut(layers, starts, [layers.units[start].address for start in starts], "at")


def group_by(model: keras.Model, patterns: Mapping[str, str | Sequence[str]]) -> LayerGroups:
    """Groups of the layers whose address matches a pattern; the first pattern that matches a layer takes it.

    Args:
        model: Built `keras.Model` of any kind.
        patterns: Group name -> `fnmatch` pattern on layer addresses, or several, from the input towards the head.
            In a pattern `*` matches any characters, `/` too. A last entry `"*"` takes whatever is left.

    Returns:
        `LayerGroups` in the order of `patterns`.

    Raises:
        ValueError: If the model is not built, a pattern takes no layer with weights, or a layer with weights is left.
        TypeError: If `patterns` is not a mapping of names to strings.

    Example:
        >>> groups = kadence.group_by(model, {"early": "block1_*", "late": "*"})
    """
    rule = "map group names to fnmatch patterns on layer addresses"
    if not isinstance(patterns, Mapping):
        raise TypeError(_checks.sentence("patterns", rule, patterns))
    if not all(isinstance(name, str) for name in patterns):
        raise TypeError(_checks.sentence("patterns", rule, dict(patterns)))
    if not patterns:
        raise ValueError(_checks.sentence("patterns", rule, patterns))
    layers = Layers(model)
    members: dict[str, list[Unit]] = {name: [] for name in patterns}
    left = []
    for unit in layers.units:
        owner = next((name for name, globs in patterns.items() if _matches(unit.address, globs)), None)
        if owner is not None:
            members[owner].append(unit)
        elif unit.weights:
            left.append(unit.address)
    for name, taken in members.items():
        if not any(unit.weights for unit in taken):
            addresses = [layers.units[index].address for index in layers.weighted]
            raise ValueError(
                _checks.sentence(
                    "patterns",
                    f"give group {name!r} a layer with weights that no earlier pattern takes",
                    dict(patterns),
                    _checks.did_you_mean(str(patterns[name]), addresses),
                )
            )
    if left:
        rule = f"take every layer with weights; {len(left)} left, the first {left[0]!r}"
        raise ValueError(_checks.sentence("patterns", rule, dict(patterns), 'End with a pattern "*" for the rest.'))
    groups = LayerGroups([_group(name, taken) for name, taken in members.items()])
    groups._order = tuple(weight for unit in layers.units for weight in unit.weights)
    return groups


def layer_decay(groups: LayerGroups, decay: float) -> list[float]:
    """Multipliers that fall geometrically with the distance from the head: `decay ** (n_groups - 1 - index)`.

    Args:
        groups: The layer groups, from the input towards the head.
        decay: Factor from a group to the one before it. Float, 0 < decay <= 1; 1 / 2.6 in ULMFiT.

    Returns:
        List of one float per group; the last is 1.

    Raises:
        ValueError: If `decay` is not in (0, 1].
        TypeError: If `decay` is not a number.

    Example:
        >>> kadence.layer_decay(groups, 0.5)
        [0.25, 0.5, 1.0]

    Source:
        Howard & Ruder 2018, section 3.2 (decay 1 / 2.6), arXiv:1801.06146; Bao et al. 2022, BEiT, arXiv:2106.08254.
    """
    decay = _checks.number("decay", decay, above=0.0, maximum=1.0)
    return [decay**distance for distance in reversed(range(len(groups)))]


def _matches(address: str, patterns: str | Sequence[str]) -> bool:
    if isinstance(patterns, str):
        return fnmatch.fnmatchcase(address, patterns)
    globs = _checks.sequence("patterns", patterns, "be fnmatch patterns on layer addresses")
    return any(_matches(address, glob) for glob in globs)


def _group(name: str, units: Sequence[Unit]) -> LayerGroup:
    weights = tuple(weight for unit in units for weight in unit.weights)
    return LayerGroup(name, tuple(unit.address for unit in units), weights)


def _cut(layers: Layers, starts: Sequence[int], names: Sequence[str], argument: str) -> LayerGroups:
    """Groups between the units at `starts`, which the caller knows by `names`."""
    bounds = itertools.pairwise([0, *starts, len(layers.units)])
    groups = [_group(f"group_{i}", layers.units[start:stop]) for i, (start, stop) in enumerate(bounds, 1)]
    for position, group in enumerate(groups):
        if not group.weights:
            before = f"before {names[position]!r}" if position < len(names) else f"from {names[-1]!r} on"
            rule = f"leave every group at least one layer with weights; {group.name} ({before}) has none"
            raise ValueError(_checks.sentence(argument, rule, list(names)))
    return LayerGroups(groups)
