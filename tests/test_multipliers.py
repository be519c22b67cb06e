import keras
import numpy as np
import optimizer_oracles as oracles
import pytest

import kadence
from kadence import gradual_multipliers


@pytest.fixture(scope="module")
def groups():
    return oracles.three_groups(oracles.branches())


def table(multipliers, n=6):
    return [f.sample(n).tolist() if isinstance(f, kadence.Schedule) else f for f in multipliers]


def test_groups_join_from_the_head_down(groups):
    assert table(gradual_multipliers(groups, [2, 4], [0.01, 0.1, 0.5])) == [
        [0, 0, 0, 0, 0.01, 0.01],
        [0, 0, 0.1, 0.1, 0.1, 0.1],
        0.5,
    ]
    assert table(gradual_multipliers(groups, [3]))[:2] == [0.0, [0, 0, 0, 1, 1, 1]]


def test_at_rate_0_nothing_moves_by_decay_or_momentum_either():
    model = oracles.randomize(oracles.branches())
    groups = oracles.three_groups(model)
    optimizer = kadence.DiscriminativeOptimizer(
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.5),
        groups,
        gradual_multipliers(groups, [2, 4]),
    )
    before = oracles.by_layer(model)
    moved = []
    for gradients in oracles.random_like(model.trainable_variables, 0, 6):
        optimizer.apply(oracles.tensors(gradients), model.trainable_variables)
        now = oracles.by_layer(model)
        moved.append([not np.array_equal(before[name][0], now[name][0]) for name in ("low", "middle", "head")])
    assert [sum(row) for row in moved] == [1, 1, 2, 2, 3, 3]
    assert all(row[2] for row in moved)


def test_refusals(groups):
    for steps, error in (([0], ValueError), ([2, 2], ValueError), ([1, 2, 3], ValueError), (3, TypeError)):
        with pytest.raises(error, match="`at_steps` must"):
            gradual_multipliers(groups, steps)
    for factors, error in (([1.0], ValueError), ([1, 1, -1], ValueError), (["a", 1, 1], TypeError)):
        with pytest.raises(error, match="`lr_multipliers` must"):
            gradual_multipliers(groups, [1], factors)
