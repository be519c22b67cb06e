"""Layer groups that stand still: freezing and unfreezing by group, with the optimizer going on."""

from collections.abc import Sequence
from typing import Any

import keras

from kadence import _checks
from kadence._trainable import Flags, follow_sublayers, set_unit
from kadence._walk import Layers
from kadence.groups import LayerGroup, LayerGroups
from kadence.optimizer import DiscriminativeOptimizer
from kadence.slots import rebuild_optimizer

_POLICIES = ("frozen", "train")


def freeze_to(
    model: keras.Model,
    group: str | int,
    groups: LayerGroups | None = None,
    *,
    batch_norm: str | Sequence[str] = "frozen",
    restart: bool = False,
) -> tuple[str, ...]:
    """Freezes all layer groups below `group`, and trains `group` and those above it.

    Frozen groups cost no backward pass, and nothing moves in them: no weight decay, no momentum, and no
    BatchNormalization statistics, as a frozen BatchNormalization layer runs in inference mode. (Their dropout still
    drops, and a SpectralNormalization still normalises its kernel in `fit`, as Keras does.) A group that trains already
    stays as it is; one that is wholly frozen is unfrozen with all its weights, but for those that were off while others
    of their layer trained, and the kernels beneath LoRA.

    A model that is compiled goes on: its optimizer is built anew for the weights that train now, those that stay keep
    their state, see `rebuild_optimizer`. The step is compiled once more. It works between two `fit`, and in a callback
    before an epoch or a batch.

    Args:
        model: Built `keras.Model`, compiled or not.
        group: Name of the lowest group that trains, or its index. -1 is the head.
        groups: `LayerGroups` of the model; None for those of its `DiscriminativeOptimizer`.
        batch_norm: What becomes of the BatchNormalization layers of a group that is unfrozen: "frozen", they stay as
            they are, in inference mode; "train", they train and their statistics move, so that `recompute_batch_norm`
            is due at the end. One for all groups, or a sequence of one per group.
        restart: Whether the optimizer begins anew, at step 0 of its schedule and without moments.

    Returns:
        Names of the groups that train now.

    Raises:
        ValueError: If there is no such group, the groups are not known or not of this model, or nothing is left to
            train. The model is then as it was.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.freeze_to(model, "group_3", groups)
        ('group_3',)

    Source:
        Howard & Ruder 2018, Universal Language Model Fine-tuning, section 3.3, arXiv:1801.06146.
    """
    groups = groups_of(model, groups)
    first = _index(group, groups)
    _change(model, groups, [position >= first for position in range(len(groups))], batch_norm, restart)
    return _trainable(model, groups)


def unfreeze(
    model: keras.Model,
    group: str | int | None = None,
    groups: LayerGroups | None = None,
    *,
    batch_norm: str | Sequence[str] = "frozen",
    restart: bool = False,
) -> tuple[str, ...]:
    """Unfreezes one layer group, or all; the others stay as they are.

    Args:
        model: Built `keras.Model`, compiled or not.
        group: Name of the group, or its index; None for all groups.
        groups: `LayerGroups` of the model; None for those of its `DiscriminativeOptimizer`.
        batch_norm: As for `freeze_to`.
        restart: As for `freeze_to`.

    Returns:
        Names of the groups that train now.

    Raises:
        ValueError: If there is no such group, or the groups are not known or not of this model.
        TypeError: If an argument has the wrong type.

    Example:
        >>> kadence.unfreeze(model, groups=groups)
        ('group_1', 'group_2', 'group_3')
    """
    groups = groups_of(model, groups)
    chosen = range(len(groups)) if group is None else [_index(group, groups)]
    wanted = [True if position in chosen else None for position in range(len(groups))]
    _change(model, groups, wanted, batch_norm, restart)
    return _trainable(model, groups)


def set_trained(
    model: keras.Model, groups: LayerGroups, wanted: Sequence[bool], batch_norm: str | Sequence[str] = "frozen"
) -> tuple[str, ...]:
    """Trains some layer groups and freezes the others.

    Args:
        model: Built `keras.Model`, compiled or not.
        groups: `LayerGroups` of the model.
        wanted: Whether each group is to train, one per group.
        batch_norm: As for `freeze_to`.

    Returns:
        Names of the groups that train now.

    Raises:
        ValueError: If the groups are not of this model, or nothing is left to train. The model is then as it was.
    """
    groups = groups_of(model, groups)
    _change(model, groups, wanted, batch_norm, False)
    return _trainable(model, groups)


def groups_of(model: Any, groups: LayerGroups | None) -> LayerGroups:
    """`groups`, or those of the model's optimizer, each with all weights of its layers in the model.

    Args:
        model: Built `keras.Model`.
        groups: `LayerGroups`, or None.

    Returns:
        `LayerGroups`.

    Raises:
        ValueError: If there are none, or they are not those of this model.
        TypeError: If `groups` is something else.
    """
    layers = Layers(model)
    if groups is None:
        optimizer = _discriminative(getattr(model, "optimizer", None))
        if optimizer is None:
            rule = "be given, or the model compiled with a DiscriminativeOptimizer"
            raise ValueError(_checks.sentence("groups", rule, None, "`kadence.split` makes them."))
        groups = optimizer._groups
    if not isinstance(groups, LayerGroups):
        raise TypeError(_checks.sentence("groups", "be LayerGroups, from `kadence.split` for example", groups))
    return complete(groups, layers)


def complete(groups: LayerGroups, layers: Layers, whole: LayerGroups | None = None) -> LayerGroups:
    """The same groups with all weights of their layers; those from a file know only what trains in the model.

    A layer belongs where a weight of it does. Of the others the file says the place of each weight in the model, or an
    older one their addresses, which do not hold for names that Keras numbers anew.

    Args:
        groups: The groups.
        layers: The layers of the model.
        whole: Groups with all weights, to ask for the rest where they have the same names.

    Returns:
        `LayerGroups`.

    Raises:
        ValueError: If a layer with weights is in no group, or the groups cannot tell two layers of one address apart.
    """
    weighted = [unit for unit in layers.units if unit.weights]
    weights = [weight for unit in weighted for weight in unit.weights]
    known = _positions(groups)
    if all(id(weight) in known for weight in weights):
        return groups
    saved = groups._bound
    if len(saved) == len(weights) and all(entry.fits(w) for (entry, _), w in zip(saved, weights, strict=True)):
        known = {id(w): entry.group for (entry, _), w in zip(saved, weights, strict=True)} | known
    if whole is not None and whole.names == groups.names:
        known = _positions(whole) | known
    owners = {(address, position) for position, group in enumerate(groups) for address in group.layers}
    owner = dict(owners)
    ambiguous = len(owner) < len(owners)
    members: list[list[keras.Variable]] = [[] for _ in groups]
    strangers = []
    for unit in weighted:
        by_address = None if ambiguous else owner.get(unit.address)
        place = next((known[id(w)] for w in unit.weights if id(w) in known), by_address)
        if place is None:
            strangers.append(unit.address)
        else:
            members[place].extend(unit.weights)
    if strangers:
        rule = "be the groups of this model, with every layer that has weights"
        remedy = f"In no group: {', '.join(strangers[:5])}. Make them from this model."
        raise ValueError(_checks.sentence("groups", rule, groups, remedy))
    found = LayerGroups([LayerGroup(g.name, g.layers, tuple(m)) for g, m in zip(groups, members, strict=True)])
    found._order = tuple(weights)
    return found


def _positions(groups: LayerGroups) -> dict[int, int]:
    """Id of a weight -> index of its group."""
    return {id(weight): position for position, group in enumerate(groups) for weight in group.weights}


def _discriminative(optimizer: Any) -> DiscriminativeOptimizer | None:
    while optimizer is not None and not isinstance(optimizer, DiscriminativeOptimizer):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return optimizer


def _index(group: Any, groups: LayerGroups) -> int:
    if isinstance(group, str):
        if group not in groups.names:
            remedy = _checks.did_you_mean(group, groups.names)
            raise ValueError(_checks.sentence("group", "be the name of a group", group, remedy))
        return groups.names.index(group)
    n = len(groups)
    return _checks.integer("group", group, minimum=-n, maximum=n - 1, unit="or the name of a group") % n


def _trainable(model: Any, groups: LayerGroups) -> tuple[str, ...]:
    trained = {id(variable) for variable in model.trainable_variables}
    return tuple(group.name for group in groups if any(id(weight) in trained for weight in group.weights))


def _policies(batch_norm: Any, groups: LayerGroups) -> list[str]:
    if isinstance(batch_norm, str):
        batch_norm = [batch_norm] * len(groups)
    rule = f"be 'frozen' or 'train', or one of them per group, {len(groups)}"
    items = _checks.sequence("batch_norm", batch_norm, rule)
    if len(items) != len(groups):
        raise ValueError(_checks.sentence("batch_norm", rule, items))
    return [_checks.one_of("batch_norm", item, _POLICIES) for item in items]


def _change(
    model: Any, groups: LayerGroups, wanted: Sequence[bool | None], batch_norm: str | Sequence[str], restart: bool
) -> None:
    """Freeze (False), train (True) or leave (None) each group, and let the compiled model follow."""
    policies = _policies(batch_norm, groups)
    _checks.boolean("restart", restart)
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # within `fit`, JAX holds the state elsewhere
    trains = _trainable(model, groups)
    flags = Flags(model)
    group_of = _positions(groups)
    addresses = {address: position for position, group in enumerate(groups) for address in group.layers}
    for unit in Layers(model).units:
        position = group_of[id(unit.weights[0])] if unit.weights else addresses.get(unit.address)
        if position is None or wanted[position] is None or (wanted[position] and groups[position].name in trains):
            continue
        still = isinstance(unit.layer, keras.layers.BatchNormalization) and policies[position] == "frozen"
        set_unit(unit, bool(wanted[position]) and not still)
    for layer in reversed(model._flatten_layers()):
        follow_sublayers(layer)
    try:
        _follow_flags(model, groups, flags, restart)
    except BaseException:
        flags.put_back()
        raise


def _follow_flags(model: Any, groups: LayerGroups, flags: Flags, restart: bool) -> None:
    """Build the optimizer for what trains now, and let Keras compile its functions anew."""
    if not model.trainable_variables:
        raise ValueError(_checks.sentence("group", "leave something to train; nothing is", model.name))
    changed = flags.changed()
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and (changed or restart):
        grouped = _discriminative(optimizer)
        if grouped is not None and grouped.built:
            grouped._groups = complete(grouped._groups, Layers(model), groups)
        rebuild_optimizer(optimizer, model.trainable_variables, restart)
    if (changed or restart) and model.compiled:
        state = getattr(model, "_compiled_trainable_state", {})  # from Keras 3.15 on
        state.update({layer: layer.trainable for layer in state})
        made = model.train_function is not None
        model.train_function = model.test_function = model.predict_function = None
        if made:  # within `fit`, Keras calls it without asking
            model.make_train_function()
