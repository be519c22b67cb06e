"""Each finding where it is due, with its numbers, and no other; a good run is left alone."""

import re

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kadence import (
    Constant,
    Cosine,
    Cyclical,
    Exponential,
    Linear,
    OneCycle,
    Step,
    WarmRestarts,
    from_function,
    from_points,
    join,
    plan,
    scale,
    warmup,
)
from kadence._findings import Finding, mid_cycle
from kadence._planned_run import USUAL_PEAKS
from kadence._text import counted
from kadence.durations import run_length


def found(schedule, **arguments):
    """{name: finding} of a plan; each is found once."""
    findings = plan(schedule, **arguments).findings
    by_name = {finding.name: finding for finding in findings}
    assert len(by_name) == len(findings)
    for finding in findings:
        for text in (finding.what, finding.change):
            assert re.fullmatch(r"\S.*\.", text), text
    return by_name


def the_only(name, schedule, **arguments):
    by_name = found(schedule, **arguments)
    assert list(by_name) == [name]
    return by_name[name]


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(1e-3),
        Cosine(1e-3, 500),
        OneCycle(1e-3, 500),
        Linear(1e-3, 0, 500),
        Linear(0, 1e-3, 500),
        Exponential(1e-3, 0.99),
        Step(1e-3, 100),
        WarmRestarts(1e-3, 100),
        WarmRestarts(1e-3, 500, 2),
        WarmRestarts(1e-3, 100, peak_decay=0.5, lr_min=1e-5),
        warmup(Cosine(1e-3, 400), 100),
        warmup(Constant(1e-3), 499),
        warmup(WarmRestarts(1e-3, 200), 100),
        join([WarmRestarts(1e-3, 50), Constant(1e-4)], [100]),
        Cyclical(1e-3, 50, mode="triangular2"),
        from_points([0, 100, 200], [1e-4, 1e-3, 1e-4], "constant"),
        from_points([0, 100], [1e-4, 1e-3]),
    ],
)
def test_a_good_run_has_no_findings(schedule):
    assert found(schedule, epochs=5, steps_per_epoch=100, optimizer_name="adamw") == {}
    assert found(scale(schedule, 0.5), n_steps=500, lr_multipliers=[0.1, 1]) == {}


# The end of the run within a cycle


@pytest.mark.parametrize(
    ("schedule", "epochs", "nearest"),
    [
        (WarmRestarts(1.0, 10, 2), 2, [1, 3]),
        (WarmRestarts(1.0, 10, 2), 5, [3, 7]),
        (WarmRestarts(1.0, 20, 2), 1, [2]),
        (WarmRestarts(1.0, 30), 7, [6, 9]),
        (WarmRestarts(1.0, 15), 2, [3]),
        (WarmRestarts(1.0, 15, 2), 2, []),
        (warmup(WarmRestarts(1.0, 30), 10), 3, [4]),  # an epoch of warm-up alone is no better end
        (scale(warmup(WarmRestarts(1.0, 30), 10), 0.1), 5, [4, 7]),
        (join([Constant(1.0), warmup(WarmRestarts(1.0, 20), 20)], [20]), 5, [6]),
        (Cyclical(1.0, 5, down_steps=15), 3, [2, 4]),
        (join([WarmRestarts(1.0, 30), Cosine(1.0, 20)], [40]), 4, [3]),  # cut short by the schedule itself
    ],
)
def test_mid_cycle(schedule, epochs, nearest):
    finding = found(schedule, epochs=epochs, steps_per_epoch=10)["mid-cycle"]
    words = " and ".join(counted(budget, "epoch") for budget in nearest) or "none of a whole number of epochs"
    assert finding.change.endswith(f"Nearest budgets that do not: {words}.")
    rate = float(schedule.at(10 * epochs - 1))
    run = counted(epochs, "epoch")
    assert finding.what == f"The run of {run} ends in the middle of a cycle, at a rate of {rate:.3g}."
    assert finding.severity == "warning"
    for budget in nearest:
        assert mid_cycle(schedule, run_length(epochs=budget, steps_per_epoch=10)) is None


def test_mid_cycle_in_steps():
    finding = the_only("mid-cycle", WarmRestarts(1.0, 100, 2), n_steps=500)
    assert finding.change.endswith("do not: 300 updates and 700 updates.")
    assert the_only("mid-cycle", WarmRestarts(1.0, 100), n_steps=50).change.endswith("do not: 100 updates.")
    assert the_only("mid-cycle", WarmRestarts(1.0, 2**31 - 1), n_steps=50).change.endswith(
        "do not: 2,147,483,647 updates."
    )


@given(
    first=st.integers(1, 40),
    mult=st.sampled_from([1.0, 1.5, 2.0]),
    per_epoch=st.integers(1, 12),
    epochs=st.integers(1, 20),
    accumulation=st.integers(1, 3),
)
def test_the_nearest_budgets_are_the_nearest(first, mult, per_epoch, epochs, accumulation):
    """Against `cycle_ends`, budget by budget."""
    schedule = WarmRestarts(1.0, first, mult)

    def length(count):
        return run_length(epochs=count, n_samples=per_epoch * 3, batch_size=1, accumulation=accumulation)

    def good(count):
        return schedule.ends_with_cycle(length(count).n_steps)

    finding = mid_cycle(schedule, length(epochs))
    assert (finding is None) == good(epochs)
    if finding is not None:
        before = next((count for count in range(epochs - 1, 0, -1) if good(count)), None)
        after = next((count for count in range(epochs + 1, 20 * epochs + 20) if good(count)), None)
        budgets = [counted(count, "epoch") for count in (before, after) if count is not None]
        words = " and ".join(budgets) or "none of a whole number of epochs"
        assert finding.change.endswith(f"do not: {words}.")


def test_a_huge_number_of_epochs_is_judged_at_once():
    finding = mid_cycle(WarmRestarts(1.0, 3), run_length(epochs=2**31 - 1, steps_per_epoch=1))
    assert finding.change.endswith(f"do not: {2**31 - 2:,} epochs.")


def test_a_run_that_goes_on_ends_in_mid_cycle():
    optimizer = keras.optimizers.SGD(WarmRestarts(0.1, 10, 2))
    optimizer.iterations.assign(20)
    assert found(optimizer, n_steps=10) == {}
    finding = the_only("mid-cycle", optimizer, n_steps=20)
    assert finding.change.endswith("do not: 10 updates and 50 updates.")
    finding = the_only("mid-cycle", optimizer, epochs=4, steps_per_epoch=5)
    assert finding.change.endswith("do not: 2 epochs and 10 epochs.")
    assert the_only("mid-cycle", optimizer, n_steps=5).change.endswith("do not: 10 updates.")


def test_only_the_cycles_of_warm_restarts_are_solved():
    assert "solve_cycles" in the_only("mid-cycle", scale(WarmRestarts(1.0, 100), 0.5), n_steps=50).change
    assert the_only("mid-cycle", Cyclical(1.0, 50), n_steps=150).change.startswith("Nearest budgets that do not: 100")


# The other rules


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (warmup(Constant(1e-3), 1000), "the schedule"),
        (warmup(WarmRestarts(1e-3, 50), 501), "the schedule"),
        (OneCycle(1e-3, 5000), "the schedule"),
        (scale(from_points([0, 900], [0, 1e-3]), 2), "the schedule"),
    ],
)
def test_a_warm_up_longer_than_the_run(schedule, name):
    finding = found(schedule, n_steps=500)["warmup-too-long"]
    assert (
        f"{name} still rises at the end, at {schedule.at(499):.3g} of a peak of {schedule.lr_max:.3g}." in finding.what
    )


def test_a_late_group_that_is_never_warm():
    finding = the_only(
        "warmup-too-long", Constant(1e-3), n_steps=500, groups=["early", "head"], lr_multipliers=[Linear(0, 1, 900), 1]
    )
    assert "the factor of early still rises" in finding.what


def test_a_peak_that_sinks_to_the_floor():
    schedule = WarmRestarts(1e-3, 10, lr_min=1e-4, peak_decay=0.5)  # peaks 1, 0.5, 0.25, 0.125, and then the floor
    finding = the_only("floor-above-peak", schedule, n_steps=100)
    assert finding.what.startswith(
        "From step 40 on, the peak of a cycle has sunk to the floor: the rate stays at 0.0001."
    )
    finding = the_only("floor-above-peak", scale(warmup(schedule, 7), 2), n_steps=107)
    assert finding.what.startswith("From step 47 on")
    assert found(schedule, n_steps=40) == {}


def test_a_rate_of_0_throughout():
    still = the_only("no-rate", Cosine(1e-3, 10), n_steps=10, learning_rates=[0, 1e-4, 0, 1e-3])
    assert (still.severity, still.what[:33]) == ("note", "The rate of group_1, group_3 is 0")
    nothing = the_only("no-rate", Constant(0.0), n_steps=10, lr_multipliers=[1, 0.1])
    assert (nothing.severity, nothing.what) == ("warning", "Every rate is 0 throughout: nothing is trained.")
    late = [join([Constant(0), Constant(1)], [10]), 1]
    assert list(found(Constant(1e-3), n_steps=10, lr_multipliers=late)) == ["no-rate"]
    assert found(Constant(1e-3), n_steps=11, lr_multipliers=late) == {}


@pytest.mark.parametrize(
    ("batches", "accumulation", "epochs", "words"),
    [
        (21, 4, 10, "has 52 updates, some with batches of two epochs, and its last 2 batches are in none."),
        (21, 4, 4, "has 21 updates, some with batches of two epochs."),
        (3, 4, 2, "has 1 update, some with batches of two epochs, and its last 2 batches are in none."),
    ],
)
def test_accumulation_that_does_not_divide_an_epoch(batches, accumulation, epochs, words):
    arguments = {"epochs": epochs, "n_samples": batches, "batch_size": 1, "accumulation": accumulation}
    finding = the_only("accumulation", Constant(1e-3), **arguments)
    assert finding.what.endswith(words)
    assert finding.severity == "note"


def test_accumulation_that_divides_an_epoch():
    data = {"n_samples": 80, "batch_size": 4}
    finding = the_only("accumulation", Constant(1e-3), epochs=3, **data, accumulation=5)
    assert finding.what == "5 batches make one update: an epoch of 20 batches has 4 updates, the run 12."
    assert finding.severity == "note"
    assert found(Constant(1e-3), epochs=3, **data, accumulation=1) == {}
    assert found(Constant(1e-3), n_steps=3, accumulation=5) == {}


@pytest.mark.parametrize("schedule", [Constant(1e-3), keras.optimizers.schedules.CosineDecay(1e-3, 90)])
def test_a_schedule_in_an_optimizer_without_groups_counts_batches(schedule):
    optimizer = keras.optimizers.Adam(schedule, gradient_accumulation_steps=3)
    finding = the_only("micro-batches", optimizer, n_steps=30)
    assert "runs 3 times as fast" in finding.what


def test_lengths_count_batches_there():
    optimizer = keras.optimizers.Adam(Cosine(1e-3, 90), gradient_accumulation_steps=3)
    assert list(found(optimizer, n_steps=30)) == ["micro-batches"]
    by_name = found(optimizer, n_steps=90)
    assert list(by_name) == ["schedule-too-short", "micro-batches"]
    assert by_name["schedule-too-short"].change == "Make it 270 batches long."


def test_cycles_count_batches_there():
    def optimizer():
        return keras.optimizers.Adam(WarmRestarts(1e-3, 30), gradient_accumulation_steps=4)

    # Updates at the steps 3, 7, ..., 27; the next, 31, is in the next cycle.
    assert list(found(optimizer(), n_steps=7)) == ["micro-batches"]
    finding = found(optimizer(), n_steps=8)["mid-cycle"]
    assert finding.change.endswith("do not: 7 updates and 15 updates.")


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5, 500])
def test_a_schedule_of_the_length_of_the_run(n_steps):
    assert found(Cosine(1e-3, n_steps), n_steps=n_steps) == {}


@pytest.mark.parametrize(
    ("schedule", "n_steps", "name", "severity", "words"),
    [
        (
            Cosine(1e-3, 500),
            600,
            "schedule-too-short",
            "warning",
            "ends at step 500 of 600: from there on the rate stays at 0.",
        ),
        (Cosine(1e-3, 500, lr_min=1e-6), 600, "schedule-too-short", "note", "the rate stays at 1e-06."),
        (OneCycle(1e-3, 500), 501, "schedule-too-short", "note", "the rate stays at 4e-09."),
        (Cosine(1e-3, 829), 830, "schedule-too-short", "note", "ends at step 829 of 830: from there on"),
        (Cosine(1e-3, 822), 830, "schedule-too-short", "note", "the rate stays at 0."),
        (Cosine(1e-3, 821), 830, "schedule-too-short", "warning", "the rate stays at 0."),
        (warmup(Cosine(1e-3, 500), 50), 600, "schedule-too-short", "warning", "ends at step 550 of 600"),
        (
            Cosine(1e-3, 500),
            400,
            "schedule-too-long",
            "warning",
            "500 optimizer steps long, the run 400: it breaks off",
        ),
        (Cosine(1e-3, 504), 500, "schedule-too-long", "note", "504 optimizer steps long"),
        (Cosine(1e-3, 506), 500, "schedule-too-long", "warning", "506 optimizer steps long"),
        (scale(Linear(1e-3, 0, 10), 2), 8, "schedule-too-long", "warning", "it breaks off at a rate of 0.0006."),
    ],
)
def test_a_schedule_of_another_length(schedule, n_steps, name, severity, words):
    finding = the_only(name, schedule, n_steps=n_steps)
    assert finding.severity == severity
    assert words in finding.what
    assert finding.change == f"Make it {n_steps} optimizer steps long."


def test_the_length_of_a_run_that_goes_on():
    optimizer = keras.optimizers.SGD(Cosine(0.1, 1000))
    optimizer.iterations.assign(500)
    assert found(optimizer, n_steps=500) == {}
    finding = the_only("schedule-too-long", optimizer, n_steps=300)
    assert "1,000 optimizer steps long, the run ends at 800: it breaks off" in finding.what
    assert finding.change == "Make it 800 optimizer steps long."
    assert "ends at step 1,000 of 1,100" in the_only("schedule-too-short", optimizer, n_steps=600).what
    rising = keras.optimizers.SGD(from_points([0, 1000], [0, 0.1]))
    rising.iterations.assign(500)
    assert found(rising, n_steps=300)["warmup-too-long"].change == "Let it reach its peak well before step 800."


@pytest.mark.parametrize(
    ("schedule", "zeros"),
    [
        (warmup(Cyclical(1e-3, 10), 20), 21),
        (warmup(WarmRestarts(1e-3, 200, warmup_steps=10), 100), 101),
        (join([Constant(0.0), Constant(1e-3)], [2]), 2),
    ],
)
def test_a_run_that_begins_with_a_rate_of_0(schedule, zeros):
    finding = found(schedule, n_steps=260)["begins-at-zero"]
    assert finding.severity == "note"
    assert finding.what == f"The rate is 0 for the first {zeros} updates: nothing is trained."
    assert "begins-at-zero" not in found(warmup(Constant(1e-3), 20), n_steps=260)
    assert "begins-at-zero" not in found(Cyclical(1e-3, 130), n_steps=260)


@pytest.mark.parametrize("name", sorted(USUAL_PEAKS))
def test_usual_peaks(name):
    low, high = USUAL_PEAKS[name]
    default = {"adadelta": 1.0, "sgd": 0.01, "schedulefreeadamw": 0.0025, "lion": 1e-4}.get(name, 1e-3)
    assert low <= default <= high
    for rate in (low, high, default):
        assert found(Constant(rate), n_steps=5, optimizer_name=name, lr_multipliers=[1e-9, 1]) == {}
    for rate, side in ((low / 2, "below"), (high * 2, "above")):
        finding = the_only("unusual-rate", Constant(rate), n_steps=5, optimizer_name=name, lr_multipliers=[1e-9, 1])
        assert f"{rate:.3g} (group_2), is {side} what is usual for fine-tuning with {name}" in finding.what


def test_every_optimizer_of_keras_has_its_usual_peaks():
    wrappers = {"LossScaleOptimizer", "MultiOptimizer", "Optimizer"}
    known = {
        name.lower()
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer) and name not in wrappers
    }
    assert known <= set(USUAL_PEAKS)


def test_an_optimizer_of_ones_own_has_no_usual_peaks():
    class Mine(keras.optimizers.SGD):
        pass

    assert found(Mine(1e6), n_steps=5) == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_function_that_gives_no_rate(bad):
    schedule = from_function(lambda step: keras.ops.where(step == 3, bad, 1e-3), lr_max=1e-3)
    finding = the_only("not-a-rate", schedule, n_steps=10, lr_multipliers=[1.0])
    assert finding.what == f"The rate of all is {bad:g} at step 3."
    assert "warning: The rate of all" in str(plan(schedule, n_steps=10))


def test_a_finding():
    with pytest.raises(ValueError, match="`severity` must be one of 'warning', 'note'"):
        Finding("name", "error", "what", "change")
    assert str(Finding("name", "note", "What.", "Change.")) == "note: What. Change."


def test_warnings_come_first():
    findings = plan(WarmRestarts(1e-3, 40), n_steps=50, learning_rates=[0, 5.0], optimizer_name="adam").findings
    assert [finding.severity for finding in findings] == ["warning", "warning", "note"]
