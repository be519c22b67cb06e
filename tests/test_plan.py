"""A plan: its rates, its cycles with their epochs, its text, its JSON, its picture, and the command."""

import json
import re

import keras
import numpy as np
import pytest
from bad_input import assert_rejects

import kadence
from kadence import (
    Constant,
    Cosine,
    Cyclical,
    Linear,
    Plan,
    WarmRestarts,
    cli,
    join,
    plan,
    plot_rates,
    scale,
    warmup,
)
from kadence.durations import RunLength, run_length
from kadence.plan import Cycle

RESTARTS = WarmRestarts(1e-2, first_cycle_steps=100, cycle_mult=2)
DATA = {"n_samples": 3_200, "batch_size": 32}


def bounds(cycles):
    return [(c.first_step, c.last_step, c.first_epoch, c.last_epoch, c.whole) for c in cycles]


# Rates and length


def test_a_run_that_goes_on():
    """All but the schedule counts from the run's first step."""
    optimizer = keras.optimizers.SGD(RESTARTS)
    optimizer.iterations.assign(150)
    found = plan(optimizer, epochs=2, steps_per_epoch=100)
    np.testing.assert_array_equal(found.rates["all"], RESTARTS.sample(200, 150))
    assert bounds(found.cycles) == [(0, 149, 1, 2, True), (150, 199, 2, 2, False)]
    assert found.schedule == f"from step 150 on: {RESTARTS!r}"


def test_a_schedule_with_groups():
    found = plan(RESTARTS, epochs=7, **DATA, learning_rates=[1e-5, 1e-2])
    assert (found.n_steps, found.steps_per_epoch, found.length.epochs) == (700, 100, 7)
    np.testing.assert_array_equal(found.rates["group_2"], RESTARTS.sample(700))
    np.testing.assert_allclose(found.rates["group_1"], RESTARTS.sample(700) * 1e-3, rtol=1e-15)
    assert found.findings == ()
    assert found.schedule == repr(RESTARTS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": 5, **DATA},
        {"epochs": 5, "steps_per_epoch": 100},
        {"n_steps": 500, "steps_per_epoch": 100},
        {"n_steps": 500, **DATA},
        {"length": run_length(epochs=5, steps_per_epoch=100)},
        {"epochs": 5, "n_samples": 6400, "batch_size": 16, "accumulation": 4},
        {"epochs": 5, "steps_per_epoch": 100, "accumulation": 4},
        {"length": run_length(epochs=5, steps_per_epoch=100, accumulation=4)},
    ],
)
def test_ways_to_give_the_same_length(arguments):
    found = plan(RESTARTS, **arguments)
    assert (found.n_steps, found.steps_per_epoch, found.length.epochs) == (500, 100, 5)
    assert bounds(found.cycles) == [(0, 99, 1, 1, True), (100, 299, 2, 3, True), (300, 499, 4, 5, False)]


@pytest.mark.parametrize(
    "make",
    [
        lambda steps: warmup(Cosine(1e-3, steps("90%")), steps("1ep")),
        lambda steps: keras.optimizers.SGD(warmup(Cosine(1e-3, steps("4.5ep")), steps("50st"))),
    ],
)
def test_a_function_of_durations(make):
    found = plan(make, epochs=5, steps_per_epoch=50)
    np.testing.assert_array_equal(found.rates["all"], warmup(Cosine(1e-3, 225), 50).sample(250))


def test_a_function_counts_in_the_updates_of_its_optimizer():
    def make(steps):
        return keras.optimizers.SGD(Constant(float(steps("1ep"))), gradient_accumulation_steps=2)

    assert plan(make, epochs=2, n_samples=10, batch_size=1, accumulation=2).rates["all"].tolist() == [5.0] * 10
    with pytest.raises(ValueError, match=r"`accumulation` must be 2"):
        plan(make, epochs=2, n_samples=10, batch_size=1)


def test_beside_an_optimizer_nothing_of_its_own_is_given():
    optimizer = keras.optimizers.SGD(0.1)
    for name, value in {"groups": ["a"], "lr_multipliers": [1], "learning_rates": [1], "optimizer_name": "sgd"}.items():
        assert_rejects(lambda v, name=name: plan(optimizer, n_steps=5, **{name: v}), name, value, ValueError)


def test_what_cannot_be_planned():
    for value in (0.1, None, "adam", keras.optimizers.SGD, RESTARTS.sample(3)):
        with pytest.raises(TypeError, match="`schedule_or_optimizer` must be"):
            plan(value, n_steps=5)
    with pytest.raises(TypeError, match=r"Received: schedule_or_optimizer=5"):
        plan(lambda steps: steps("5st"), n_steps=5)
    with pytest.raises(ValueError, match=r"`n_steps` must be an integer from 1 to 10000000"):
        plan(RESTARTS, n_steps=10_000_001)
    with pytest.raises(ValueError, match="exactly one of the two"):
        plan(RESTARTS)


# Cycles


@pytest.mark.parametrize(
    ("schedule", "arguments", "cycles"),
    [
        (Cosine(1e-3, 50), {"n_steps": 50}, []),
        (RESTARTS, {"n_steps": 300}, [(0, 99, None, None, True), (100, 299, None, None, True)]),
        (RESTARTS, {"n_steps": 50}, [(0, 49, None, None, False)]),
        (
            scale(warmup(WarmRestarts(1.0, 10), 5), 2),
            {"epochs": 5, "steps_per_epoch": 5},
            [(5, 14, 2, 3, True), (15, 24, 4, 5, True)],
        ),
        (
            join([WarmRestarts(1.0, 10), Constant(0.5), Cyclical(1.0, 3)], [15, 20]),
            {"n_steps": 28},
            [
                (0, 9, None, None, True),
                (10, 14, None, None, False),
                (20, 25, None, None, True),
                (26, 27, None, None, False),
            ],
        ),
        (
            WarmRestarts(1.0, 4),
            {"epochs": 3, "n_samples": 5, "batch_size": 1, "accumulation": 2},  # 2.5 updates in an epoch
            [(0, 3, 1, 2, True), (4, 6, 2, 3, False)],
        ),
    ],
)
def test_cycles(schedule, arguments, cycles):
    assert bounds(plan(schedule, **arguments).cycles) == cycles


def test_cycles_of_a_schedule_that_counts_batches():
    optimizer = keras.optimizers.SGD(WarmRestarts(1.0, 10), gradient_accumulation_steps=4)
    # The updates are at the steps 3, 7, 11, ..., 27 of the schedule.
    found = plan(optimizer, n_steps=7)
    assert [c[:2] + c[4:] for c in bounds(found.cycles)] == [(0, 1, True), (2, 4, True), (5, 6, True)]
    assert found.rates["all"].tolist() == WarmRestarts(1.0, 10).at([3, 7, 11, 15, 19, 23, 27]).tolist()


# The record


def test_json():
    for found in (
        plan(RESTARTS, epochs=5, **DATA, learning_rates=[0, 1e-2], optimizer_name="adam"),
        plan(Cosine(1e-3, 50), n_steps=50),
    ):
        again = Plan.from_json(found.to_json())
        assert again == found
        assert (again.cycles, again.findings, again.length) == (found.cycles, found.findings, found.length)
        assert str(again) == str(found)
        assert again != plan(Cosine(1e-3, 51), n_steps=51)


BROKEN = [{"version": 2}, {"kadence": "rates"}, {"cycles": [{}]}, {"cycles": 1}, {"findings": [{}]}, {"length": {}}]


@pytest.mark.parametrize("change", [*BROKEN, {"length": None}, {"rates": {}}, {"rates": {"all": [1.0]}}, {"rates": 3}])
def test_what_is_no_plan(change):
    content = json.loads(plan(RESTARTS, n_steps=5).to_json())
    with pytest.raises(ValueError, match=r"^`(text|rates)` must be .* Received: "):
        Plan.from_json(json.dumps(content | change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"plan"', "{}"])
def test_what_is_no_json_of_a_plan(text):
    assert_rejects(Plan.from_json, "text", text, ValueError)


def test_a_plan_by_hand():
    made = Plan(RunLength(3), {"a": [1, 2, 3]}, (Cycle(0, 2, None, None, True),))
    assert made.rates["a"].dtype == np.float64
    assert made == Plan(RunLength(3), {"a": np.array([1.0, 2.0, 3.0])}, (Cycle(0, 2, None, None, True),))
    assert made != "plan"
    for rates in ({}, {"a": [1.0]}, {"a": [[1.0, 2.0, 3.0]]}, {"a": [1.0, 2.0, 3.0], "b": [1.0]}):
        with pytest.raises(ValueError, match=r"`rates` must be arrays of shape \(3,\)\. Received"):
            Plan(RunLength(3), rates)


def test_a_plan_can_be_drawn():
    found = plan(RESTARTS, n_steps=50, learning_rates=[1e-4, 1e-2])
    record = found.to_record()
    assert record.steps.tolist() == list(range(50))
    assert np.isnan(record.losses).all()
    axes = plot_rates(record)
    assert [line.get_label() for line in axes.lines] == ["group_1", "group_2"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), found.rates["group_2"])


def test_sparkline():
    found = plan(Linear(0, 1, 8), n_steps=9, groups=["a", "b"], lr_multipliers=[1, 0])
    assert found.sparkline("a") == "·▁▂▃▄▅▆▇█"
    assert found.sparkline("b", width=4) == "····"
    assert found.sparkline("a", log=True)[-1] == "█"
    assert_rejects(found.sparkline, "group", "c", ValueError)
    assert_rejects(lambda v: found.sparkline("a", v), "width", 0, ValueError)


# The text


def test_text():
    found = plan(RESTARTS, epochs=5, **DATA, groups=["early", "head"], learning_rates=[1e-5, 1e-2])
    assert str(found) == (
        f"""{RESTARTS!r}
5 epochs of 100 updates: 500 updates

group   peak    lowest  first      last
early  1e-05  6.17e-10  1e-05  5.04e-06
head    0.01  6.17e-07   0.01   0.00504

early  ███▇▆▄▃▂▁▁▃█████▇▇▆▆▅▄▄▃▃▂▂▁▁▁▁▁██████████▇▇▇▇▆▆▆▆▅▅▅
head   ███▇▆▄▃▂▁▁▃█████▇▇▆▆▅▄▄▃▃▂▂▁▁▁▁▁██████████▇▇▇▇▆▆▆▆▅▅▅

cycle  first step  last step  first epoch  last epoch
    1           0         99            1           1
    2         100        299            2           3
    3         300        499            4           5  cut short

warning: The run of 5 epochs ends in the middle of a cycle, at a rate of 0.00504.
  `kadence.solve_cycles` gives cycles that end here. Nearest budgets that do not: 3 epochs and 7 epochs."""
    )


def test_text_of_many_cycles():
    lines = str(plan(WarmRestarts(1.0, 5), n_steps=500)).splitlines()
    numbers = [int(line.split()[0]) for line in lines if re.match(r" +\d", line)]
    assert numbers == [1, 2, 3, 4, 5, 6, 99, 100]
    assert "  ... 92 more" in lines
    assert "more" not in str(plan(WarmRestarts(1.0, 5), n_steps=55))


def test_text_without_cycles_or_findings():
    text = str(plan(Constant(0.1), n_steps=5))
    assert text.splitlines()[:2] == ["Constant(lr=0.1)", "5 updates"]
    assert "cycle" not in text


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5), "ExponentialDecay"),
        (0.1, "the optimizer's present rate throughout"),
    ],
)
def test_text_of_a_rate_that_is_no_schedule_of_ours(rate, shown):
    assert str(plan(keras.optimizers.SGD(rate), n_steps=5)).startswith(f"{shown}\n5 updates\n")


def test_a_long_schedule_is_shown_in_part():
    steps = list(range(1000))
    first = str(plan(kadence.from_points(steps, [1.0] * 1000), n_steps=5)).splitlines()[0]
    assert first.startswith("from_points(steps=[0, 1, 2")
    assert len(first) == 200


# The command


def command(capsys, *words):
    code = cli.main(["plan", *map(str, words)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_command(capsys, tmp_path):
    picture, record = tmp_path / "plan.png", tmp_path / "plan.json"
    words = "--epochs 10 --samples 2650 --rates 1e-5,1e-3 --cycles 3 --cycle-mult 2 --warmup 5%"
    code, out, err = command(capsys, "warm-restarts", *words.split(), "--png", picture, "--json", record)
    assert (code, err) == (0, "")
    made = Plan.from_json(record.read_text(encoding="utf-8"))
    assert out == f"{made}\nPicture: {picture}\nPlan: {record}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert bounds(made.cycles)[-1][1:] == (829, 5, 10, True)
    assert made.cycles[0].first_step == 42  # 5% of 830, rounded
    assert made.findings == ()


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("cosine --steps 500", ["500 updates"]),
        ("cosine --steps 500 --samples 320", ["50 epochs of 10 updates: 500 updates"]),
        ("cosine --minutes 30 --seconds-per-step 0.12", ["15,000 updates"]),
        ("cosine --minutes 30 --seconds-per-step 0.12 --samples 2650", ["180 epochs of 83 updates: 14,940 updates"]),
        (
            "constant --steps 5 --rates 0.4 --batch-size 64 --base-batch-size 16",
            ["scale(schedule=Constant(lr=0.4), factor=4.0)"],
        ),
        (
            "constant --steps 5 --rates 0.4 --batch-size 8 --accumulation 8 --base-batch-size 16 --batch-rule sqrt",
            ["scale(schedule=Constant(lr=0.4), factor=2.0)"],
        ),
        (
            "warm-restarts --epochs 5 --samples 3200 --first-cycle-steps 1ep --cycle-mult 2",
            ["warning: The run of 5 epochs ends in the middle of a cycle, at a rate of 0.000504."],
        ),
        (
            "warm-restarts --epochs 4 --samples 320 --cycles 4",
            ["    4          30         39            4           4"],
        ),
        ("constant --steps 5 --rates 0.4 --optimizer adam", ["  A rule of thumb: if the rate is meant,"]),
    ],
)
def test_command_lines(capsys, words, lines):
    code, out, err = command(capsys, *words.split())
    assert (code, err) == (0, "")
    for line in lines:
        assert any(found.startswith(line) for found in out.splitlines()), out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cosine --steps 5 --rates ,", "`rates` must have a rate above 0"),
        ("cosine --minutes 30", "`minutes` must be given together with `seconds_per_step`"),
        ("cosine --steps 5 --seconds-per-step 1", "`minutes` must be given together with `seconds_per_step`"),
        ("cosine --epochs 5", "`epochs` must come with --samples"),
        ("constant --steps 100 --warmup 3ep", "`warmup` must not be in epochs"),
        ("constant --steps 100 --warmup 3x", "`warmup` must be a duration such as"),
        ("warm-restarts --steps 100 --first-cycle-steps 0st", "`first_cycle_steps` must be an integer >= 1"),
        ("warm-restarts --steps 7 --cycles 5", "`n_steps` must be a length that 5 cycles can fill"),
        ("cosine --steps 100 --warmup 100%", "`warmup` must be shorter than the run"),
        ("cosine --minutes 1 --seconds-per-step 1 --samples 100000", "`n_steps` must be at least one epoch"),
    ],
)
def test_errors_of_the_command(capsys, words, message):
    code, out, err = command(capsys, *words.split())
    assert (code, out) == (1, "")
    assert err.startswith(f"kadence: error: {message}")
    assert err.count("\n") == 1
