"""Model -> ordered layer groups: parts of a model, from the input towards the head, that share a learning rate."""

import fnmatch
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kadence import _checks
from kadence._layer_groups import LayerGroup, LayerGroups
from kadence._walk import Layers, Unit


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
