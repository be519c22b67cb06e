"""Each known trap: that it is real, by a small experiment in Keras, and that the doctor sees it.

Where an experiment fails, Keras has mended the trap: take it out of the doctor, or limit it to older Keras versions.
"""

import keras
import numpy as np
import pytest
from keras import layers, optimizers
from keras.optimizers import schedules
from test_doctor import (
    BACKEND,
    backbone,
    check_saved,
    compiled,
    fit,
    grouped,
    names,
    needs_multi,
    needs_schedule_free,
    nested,
    only,
    values,
)

import kadence
from kadence.doctor import check


def rate_at(schedule, step):
    return float(keras.ops.convert_to_numpy(schedule(keras.ops.convert_to_tensor(step, "int32"))))


def test_integer_rate(tmp_path):
    numbers = {"decay_steps": 100, "warmup_target": 0.1, "warmup_steps": 100}
    wrong, right = schedules.CosineDecay(0, **numbers), schedules.CosineDecay(0.0, **numbers)
    assert rate_at(right, 100) == pytest.approx(0.1)
    if BACKEND == "tensorflow":
        with pytest.raises(Exception, match=r"(?i)int32|type"):
            rate_at(wrong, 0)
    else:
        assert [rate_at(wrong, step) for step in (0, 50, 100, 150)] == [0.0] * 4
    model = compiled(optimizers.SGD(wrong))
    finding = only(check(model))
    assert finding.name == "integer-rate"
    assert ("raises" if BACKEND == "tensorflow" else "the rate at step 100 is 0, not 0.1") in finding.what
    assert "initial_learning_rate=0," in finding.seen
    assert "initial_learning_rate=0.0" in finding.change
    assert check_saved(model, tmp_path) == (finding,)


@pytest.mark.parametrize(
    "make",
    [
        lambda one: schedules.ExponentialDecay(one, 100, 0.5),
        lambda one: schedules.InverseTimeDecay(one, 100, 0.5),
        lambda one: schedules.CosineDecay(one, 100),
        lambda one: schedules.PolynomialDecay(one, 100, 0.01),
        lambda one: schedules.CosineDecayRestarts(one, 1000),
    ],
)
def test_integer_rate_of_every_schedule(make):
    for one in (1, np.int64(1)):
        assert names(check(compiled(optimizers.SGD(make(one))))) == ["integer-rate"]
    assert check(compiled(optimizers.SGD(make(1.0)))) == ()


def test_integer_among_piecewise_values():
    found = names(check(compiled(optimizers.SGD(schedules.PiecewiseConstantDecay([50], [1, 0.1])))))
    assert found == ([] if BACKEND == "jax" else ["integer-rate"])
    assert check(compiled(optimizers.SGD(schedules.PiecewiseConstantDecay([50], [1.0, 0.1])))) == ()


# Where each backend is known to come a step late; PyTorch's logarithm depends on the processor.
KNOWN = [(100, 1.5, 250), (10, 1.1, 21), (100, 2.0, 819_100)] if BACKEND == "torch" else [(83, 1.0, 83)]


def comes_late(first_steps, t_mul, step):
    return float(values([schedules.CosineDecayRestarts(0.1, first_steps, t_mul=t_mul)(step)])[0].item()) < 0.05


LATE_HERE = [case for case in KNOWN if BACKEND != "torch" or comes_late(*case)]
FIRST_STEPS, T_MUL, LATE = LATE_HERE[0] if LATE_HERE else (None, None, None)


@pytest.mark.skipif(not LATE_HERE, reason="none of the known restarts comes late on this processor")
def test_restart_boundaries(tmp_path):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, layers.Dense(1, use_bias=False, kernel_initializer="ones")(inputs))
    schedule = schedules.CosineDecayRestarts(0.1, FIRST_STEPS, t_mul=T_MUL)
    model.compile(optimizers.SGD(schedule), "mae")
    model.optimizer.iterations.assign(LATE)
    model.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))
    assert float(values(model.weights)[0].item()) == pytest.approx(1.0, abs=1e-6)  # a rate of 0.1 would give 0.9
    finding = only(check(model))
    assert finding.name == "restart-boundaries"
    assert f"At step {LATE} the cosine is " in finding.what
    assert finding.what.endswith(", not 1.")
    assert f"kadence.WarmRestarts(0.1, {FIRST_STEPS}, cycle_mult={T_MUL})" in finding.change
    assert check_saved(model, tmp_path) == (finding,)
    mended = eval(finding.change.removeprefix("Use ").partition(", whose")[0])
    assert mended.at(LATE) == pytest.approx(0.1)


def test_restart_peaks(tmp_path):
    schedule = schedules.CosineDecayRestarts(0.1, 100, t_mul=1.0, m_mul=0.5, alpha=0.1)
    assert [rate_at(schedule, step) for step in (0, 100, 200)] == pytest.approx([0.1, 0.055, 0.0325])
    model = compiled(optimizers.SGD(schedule))
    finding = only(check(model))
    assert finding.name == "restart-peaks"
    assert "they are 0.1, 0.055, 0.0325, not 0.1, 0.05, 0.025" in finding.what
    assert "kadence.WarmRestarts(0.1, 100, cycle_mult=1.0, lr_min=0.01, peak_decay=0.5)" in finding.change
    assert check_saved(model, tmp_path) == (finding,)


@pytest.mark.skipif(not LATE_HERE, reason="none of the known restarts comes late on this processor")
@pytest.mark.parametrize("numbers", [{"m_mul": 1.1}, {"alpha": 1.0}, {"m_mul": 1.1, "alpha": 0.1}])
def test_no_call_that_would_raise(numbers):
    schedule = schedules.CosineDecayRestarts(0.1, FIRST_STEPS, t_mul=T_MUL, **numbers)
    finding = only(check(compiled(optimizers.SGD(schedule))))
    assert finding.change == "Use kadence.WarmRestarts, whose boundaries are integers."


def test_no_call_that_would_raise_for_peaks():
    schedule = schedules.CosineDecayRestarts(0.1, 100, t_mul=0.5, m_mul=0.5, alpha=0.1)
    assert only(check(compiled(optimizers.SGD(schedule)))).change == "Use kadence.WarmRestarts."


def test_accumulation(tmp_path):
    schedule = schedules.PiecewiseConstantDecay([1], [1.0, 2.0])
    optimizer = optimizers.SGD(schedule, gradient_accumulation_steps=2)
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer.build([variable])
    for _ in range(4):
        optimizer.apply([keras.ops.ones(1)], [variable])
    assert values([variable])[0].item() == -3.0  # updates 0 and 1 would have the rate 1
    model = compiled(optimizers.SGD(schedule, gradient_accumulation_steps=2))
    finding = only(check(model))
    assert finding.name == "schedule-counts-micro-batches"
    assert finding.seen.endswith("gradient_accumulation_steps = 2")
    assert check_saved(model, tmp_path) == (finding,)
    ours = compiled(optimizers.SGD(kadence.Cosine(0.1, 10), gradient_accumulation_steps=4))
    assert "runs 4 times as fast" in only(check(ours)).what


@pytest.mark.parametrize("kind", ["functional", "sequential", "layer"])
def test_training_false_is_overridden(kind, tmp_path):
    norm = layers.BatchNormalization(name="norm")
    inner = {
        "functional": lambda: backbone("base"),
        "sequential": lambda: keras.Sequential([keras.Input((4,)), norm], name="base"),
        "layer": lambda: norm,
    }[kind]()
    inputs = keras.Input((4,))
    model = compiled(optimizers.SGD(0.0), keras.Model(inputs, layers.Dense(1)(inner(inputs, training=False))))
    before = values(inner.non_trainable_variables)
    finding = only(check(model))
    assert finding.name == "training-false-overridden"
    assert ("'norm'" if kind == "layer" else "'base/norm'") in finding.seen
    assert check_saved(model, tmp_path) == (finding,)
    fit(model)
    assert not any(map(np.array_equal, before, values(inner.non_trainable_variables)))
    kadence.freeze_batch_norm(model)
    model.compile("sgd", "mse")
    assert check(model) == ()


def test_training_false_deep_inside(tmp_path):
    inputs = keras.Input((4,))
    model = compiled(model=keras.Model(inputs, nested(training=False)(inputs), name="outer"))
    finding = only(check(model))
    assert "'classifier/backbone/norm'" in finding.seen
    inputs = keras.Input((4,))
    base = backbone()
    twice = base(base(inputs, training=False), training=False)
    assert only(check(compiled(model=keras.Model(inputs, twice)))).name == finding.name
    assert check_saved(model, tmp_path) == (finding,)


@needs_multi
def test_patterns_of_a_nested_model(tmp_path):
    def make(pattern):
        inner = {pattern: optimizers.SGD(1.0)}
        return compiled(optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD(0.0), inner)))

    model = make("backbone/.*")
    before = values(model.trainable_variables)
    finding = only(check(model))
    assert finding.name == "pattern-misses-variables"
    assert "misses 'backbone/dense/kernel', 'backbone/dense/bias', 'backbone/norm/gamma' and 3 more" in finding.what
    assert names(check_saved(model, tmp_path)) == [finding.name]
    fit(model)
    assert all(map(np.array_equal, before, values(model.trainable_variables)))
    assert only(check(model)) == finding
    assert "misses 'backbone/dense/kernel'" in only(check(make("(backbone|head)/.*"))).what
    for typo in ("haed/.*", "head", "("):
        assert "matches no variable" in only(check(make(typo))).what
    assert check(compiled(optimizers.MultiOptimizer(lambda variable: optimizers.SGD(0.1)))) == ()


@needs_multi
def test_the_path_that_a_pattern_misses_is_shown():
    head = layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input((4,)), head], name="plain")
    inner = {"head/.*": optimizers.SGD(1.0)}
    compiled(optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD(0.0), inner)), model)
    assert head.kernel.path == "plain/head/kernel"
    expected = "misses 'head/kernel', 'head/bias': the path of the first is 'plain/head/kernel'."
    assert expected in only(check(model)).what


def test_initial_epoch():
    schedule = schedules.PiecewiseConstantDecay([3], [1.0, 2.0])
    model = compiled(optimizers.SGD(schedule))
    assert check(model) == ()
    finding = only(check(model, initial_epoch=5, steps_per_epoch=2))
    assert finding.name == "schedule-starts-at-zero"
    assert "not at step 10" in finding.what
    assert "model.optimizer.iterations.assign(10)" in finding.change
    assert "the first step of that epoch" in only(check(model, initial_epoch=5)).what
    fit(model, initial_epoch=5, epochs=6)
    assert int(model.optimizer.iterations) == 1  # and not 6
    assert check(model, initial_epoch=6) == ()
    assert check(compiled(optimizers.SGD(0.1)), initial_epoch=5) == ()
    assert names(check(grouped(multipliers=[kadence.Linear(0, 1, 5), 1]), initial_epoch=5)) == [finding.name]
    accumulating = grouped(kadence.Cosine(0.1, 10), gradient_accumulation_steps=2)
    assert "assign" not in only(check(accumulating, initial_epoch=5, steps_per_epoch=2)).change
    mended = compiled(optimizers.SGD(schedule))
    mended.optimizer.iterations.assign(5)
    fit(mended, initial_epoch=5, epochs=6)
    assert int(mended.optimizer.iterations) == 6


def test_initial_epoch_and_a_momentum():
    """Its schedule goes by the count of updates too, beside a rate that is none."""
    model = nested()
    momentum = {"momentum": kadence.Linear(0.8, 0.9, 5)}
    sgd, groups = optimizers.SGD(0.1, momentum=0.9), kadence.split(model, at=["head"])
    compiled(kadence.DiscriminativeOptimizer(sgd, groups, [0.1, 1], schedules=momentum), model)
    assert check(model) == ()
    assert only(check(model, initial_epoch=5)).name == "schedule-starts-at-zero"


@needs_multi
def test_initial_epoch_and_several_optimizers(tmp_path):
    schedule = schedules.PiecewiseConstantDecay([3], [1e-3, 2e-3])
    inner = {"head/.*": optimizers.SGD(schedule)}
    model = compiled(optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD(schedule), inner)))
    for _ in range(2):
        finding = only(check(model, initial_epoch=5, steps_per_epoch=2))
        assert finding.name == "schedule-starts-at-zero"
        assert "assign" not in finding.change
        model.optimizer.iterations.assign(10)  # which reaches neither of the two
    fit(model, epochs=2)
    assert [int(each.iterations) for each in model.optimizer.optimizers] == [2, 2]
    assert check(model, initial_epoch=2) == ()
    model.save(tmp_path / "model.keras")
    assert check(keras.saving.load_model(tmp_path / "model.keras"), initial_epoch=2) == ()


@needs_schedule_free
def test_schedule_free_on_tensorflow():
    model = compiled(optimizers.ScheduleFreeAdamW(1e-12))
    before, found = values(model.trainable_variables), check(model)
    fit(model)
    moved = max(np.abs(new - old).max() for new, old in zip(values(model.trainable_variables), before, strict=True))
    if BACKEND == "tensorflow":
        assert moved == pytest.approx(1.0)
        assert only(found).name == "averages-start-elsewhere"
        assert "from zero" in only(found).what
    else:
        assert moved < 1e-6
        assert found == ()
    mended = compiled(optimizers.ScheduleFreeAdamW(1e-12))
    mended.optimizer.build(mended.trainable_variables)
    before = values(mended.trainable_variables)
    assert check(mended) == ()
    fit(mended)
    assert np.allclose(before[2], values(mended.trainable_variables)[2], atol=1e-6)
    assert check(compiled(optimizers.ScheduleFreeAdamW(1e-12), run_eagerly=True)) == ()  # there it is built eagerly


@needs_schedule_free
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_schedule_free_from_a_file_without_state(tmp_path):
    compiled(optimizers.ScheduleFreeAdamW(1e-12)).save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    before, finding = values(model.trainable_variables), only(check(model))
    assert finding.name == "averages-start-elsewhere"
    assert "from other weights" in finding.what
    fit(model)
    assert np.abs(values(model.trainable_variables)[0] - before[0]).max() > 0.01
    assert check(model) == ()


@pytest.mark.parametrize("trainable", [False, True], ids=["freeze", "unfreeze"])
@pytest.mark.parametrize("recompile", [False, True], ids=["go on", "recompile"])
def test_stale_optimizer(trainable, recompile):
    model = compiled(optimizers.SGD(0.1), nested(trainable=not trainable))
    fit(model)
    model.get_layer("backbone").trainable = trainable
    if recompile:
        model.compile(model.optimizer, "mse")
    found = check(model)
    before = values(model.get_layer("backbone").weights[:1])
    try:
        fit(model)
    except (ValueError, KeyError):
        assert "`fit` raises" in only(found).what
    else:
        moved = not np.array_equal(before, values(model.get_layer("backbone").weights[:1]))
        assert names(found) == (["stale-optimizer"] if moved != trainable else [])
        assert all("goes on training" in finding.what for finding in found)
    model.compile(optimizers.SGD(0.1), "mse")
    assert check(model) == ()


def test_rate_zero(tmp_path):
    model = grouped(multipliers=[0.0, 1.0])
    finding = only(check(model))
    assert finding.name == "rate-zero-trainable"
    assert "'group_1': multiplier 0, trainable variables 4" in finding.seen
    assert check_saved(model, tmp_path) == (finding,)
    before = values(model.trainable_variables)
    fit(model)
    assert np.array_equal(before[0], values(model.trainable_variables)[0])
    slots = [v for v in model.optimizer.variables if "dense_kernel" in v.path and "velocity" in v.path]
    assert np.any(values(slots)[0] > 0)  # a gradient was computed
    model.get_layer("backbone").trainable = False
    groups = kadence.split(model, at=["head"])
    model.compile(kadence.DiscriminativeOptimizer(optimizers.SGD(0.1), groups, [0.0, 1.0]), "mse")
    assert check(model) == ()
    assert check_saved(model, tmp_path) == ()


def test_findings_add_up():
    optimizer = optimizers.SGD(schedules.CosineDecayRestarts(1, 10, 1.0, 0.5, 0.1), gradient_accumulation_steps=2)
    found = names(check(compiled(optimizer, nested(training=False)), initial_epoch=1))
    expected = ["integer-rate", "restart-peaks", "schedule-counts-micro-batches", "training-false-overridden"]
    assert found == [*expected, "schedule-starts-at-zero"]
