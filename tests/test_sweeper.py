"""The runs of a model whose rates are swept: what moves, from which state, in which order."""

import keras
import numpy as np
import pytest
from range_tests import assert_untouched, bits, compiled, data, everything

from kadence._randomness import preserved_randomness
from kadence._restore import given_back
from kadence._sweeper import Move, Sweeper, check_model, check_repeatable, seed_of_run

X, Y = data()
DATA = {"x": X, "y": Y, "batch_size": 8}
RATES = np.full(20, 1e-2)


def test_check_model_knows_the_groups():
    assert check_model(compiled()) is None
    model = compiled(groups=True)
    assert check_model(model) is model.optimizer
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model"):
        check_model("model")
    with pytest.raises(ValueError, match="`model` must be compiled"):
        check_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))


def test_a_generator_serves_one_sweep():
    generator = (batch for batch in [(X, Y)])
    check_repeatable(generator, 1)
    check_repeatable(X, 9)
    with pytest.raises(ValueError, match="`x` must be data that can be gone through again"):
        check_repeatable(generator, 2)


def test_each_run_has_a_seed_of_its_own():
    seeds = [seed_of_run(seed, run) for seed in range(3) for run in range(3)]
    assert len(set(seeds)) == 9
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds == [seed_of_run(seed, run) for seed in range(3) for run in range(3)]


def test_what_moves_and_what_a_run_leaves():
    """Joint: the multipliers. Per group: one at a time, and once more with that one at rate 0."""
    model = compiled(groups=True)
    before = everything(model)
    with preserved_randomness(), given_back(model, DATA) as state:
        sweeper = Sweeper(model, state, DATA, RATES, stop_factor=4.0)
        (joint,) = sweeper.moves(per_group=False)
        assert joint.name == "all"
        assert joint.factors == pytest.approx([0.1, 1.0])
        assert joint.still == [0.0] * 2
        alone = sweeper.moves(per_group=True)
        assert [move.name for move in alone] == [name for name in sweeper.current_rates for _ in "12"]
        assert [move.factors for move in alone[::2]] == np.eye(2).tolist()
        assert not any(any(move.factors) for move in alone[1::2])
        assert alone[0].still == alone[1].still == pytest.approx([0.0, 1e-2])
        still = [bits(variable) for variable in model.trainable_variables]
        curve = sweeper.run(Move("nothing", [0.0] * 2, [0.0] * 2), 0, 0, ())
        assert (len(curve.losses), curve.stopped) == (20, "end")
        assert [bits(variable) for variable in model.trainable_variables] == still
        head = Move("head", [0.0, 1.0], [0.0] * 2)
        first, again, other = (sweeper.run(head, run, 0, ()).losses for run in (0, 0, 1))
        moved = [bits(variable) != value for variable, value in zip(model.trainable_variables, still, strict=True)]
        assert moved == ["head" in variable.path for variable in model.trainable_variables]
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
        assert sweeper.notes() == ["The data has 12 batches, a sweep 20: it was gone through 2 times."]
    assert_untouched(model, before)
