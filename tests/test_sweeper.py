"""The runs of a model whose rates are swept: what moves, from which state, in which order."""

import contextlib
import time

import keras
import numpy as np
import pytest
from range_tests import assert_untouched, bits, compiled, data, everything, grouped

import kadence
from kadence import lr_range_test
from kadence._randomness import preserved_randomness
from kadence._restore import given_back
from kadence._sweeper import Move, Sweeper, _enqueuers, check_model, check_repeatable, seed_of_run

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
        assert [move.is_baseline for move in [joint, *alone]] == [False, False, True, False, True]
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
        assert sweeper.notes(per_group=False) == ["The data has 12 batches, a sweep 20: it was gone through 2 times."]
    assert_untouched(model, before)


class Parallel(keras.utils.PyDataset):
    """Longer than a sweep, read ahead by three workers."""

    def __init__(self, n=200, broken_at=None):
        super().__init__(workers=3)
        self.n, self.broken_at, self.calls = n, broken_at, 0

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.calls += 1
        np.random.random(3)
        time.sleep(0.002)
        if index == self.broken_at:
            raise OSError("the disk is gone")
        return X[:8], Y[:8]


@pytest.mark.parametrize(("n", "broken_at"), [(200, None), (24, None), (200, 7)])
def test_no_worker_of_the_data_goes_on_after_a_sweep(n, broken_at):
    model, batches = compiled(), Parallel(n, broken_at)
    state = str(np.random.get_state())
    with (
        contextlib.suppress(Exception) if broken_at else contextlib.nullcontext(),
        preserved_randomness(),
        given_back(model, {"x": X, "y": Y}) as held,
    ):
        sweeper = Sweeper(model, held, {"x": batches, "y": None, "batch_size": None}, RATES, stop_factor=9.0)
        sweeper.run(sweeper.moves(per_group=False)[0], 0, 0, ())
    if not broken_at:
        calls = batches.calls
        time.sleep(0.1)
        assert batches.calls == calls
        assert str(np.random.get_state()) == state
    assert not _enqueuers(batches)


def test_groups_that_stand_still_at_the_present_update():
    def notes(per_group, rate, multipliers):
        keras.utils.set_random_seed(0)
        model = compiled(lambda m: grouped(m, keras.optimizers.SGD(rate), lr_multipliers=multipliers))
        return lr_range_test(model, X, Y, batch_size=4, n_steps=20, per_group=per_group, seed=0).notes

    late = kadence.Linear(0.0, 1.0, 4)
    still = "The current rate of group_1, group_2 is 0 at the present update, 0: trained at it, a group stands still."
    assert notes(False, late, [0.1, 1.0]) == (), "together they move at rates of the test"
    assert notes(True, late, [0.1, 1.0]) == (f"{still} They stood still while another group was swept.",)
    (multiplier,) = notes(False, 0.1, [late, 1.0])
    assert multiplier == "The multiplier of group_1 is 0 at the present update, 0: no rate was found for it but 0."
    with pytest.raises(ValueError, match=r"`lr_multipliers` must not all be 0 at the present update, 0, .*per_group"):
        notes(False, 0.1, [late, late])
    assert notes(False, 0.1, [0.1, 1.0]) == ()


def test_evaluation_after_a_test_sees_all_data():
    """TensorFlow keeps a compiled evaluation of several batches an execution for data of another shape."""
    model = compiled(groups=True, steps_per_execution=1 if keras.backend.backend() == "torch" else 4)
    expected = model.evaluate(X, Y, batch_size=8, verbose=0)
    with preserved_randomness(), given_back(model, DATA) as state:
        Sweeper(model, state, DATA, RATES, stop_factor=4.0)
        assert model.test_function is None
        model.evaluate(X[:40], Y[:40], batch_size=5, verbose=0)
    assert model.evaluate(X, Y, batch_size=8, verbose=0) == expected
