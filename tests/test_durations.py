"""Durations against exact fractions, the length of a run against Keras's own count of updates."""

import math
from fractions import Fraction

import keras
import numpy as np
import pytest
from bad_input import assert_integer, assert_number, assert_rejects
from hypothesis import given
from hypothesis import strategies as st

from kadence import epochs_to_steps, parse_duration
from kadence.durations import RunLength, minutes_to_steps, run_length

MAX = 2**31 - 1


def parse(duration, n_steps=830, steps_per_epoch=83):
    return parse_duration(duration, n_steps=n_steps, steps_per_epoch=steps_per_epoch)


# parse_duration


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("5ep", 415),
        ("0.5ep", 42),
        ("1.5ep", 125),
        ("10ep", 830),
        ("0ep", 0),
        ("10%", 83),
        ("100%", 830),
        ("0.1%", 1),
        ("33.3%", 276),
        ("500st", 500),
        ("0st", 0),
        ("500", 500),
        (" 7 st ", 7),
        ("007", 7),
        (7, 7),
        (0, 0),
        (830, 830),
        (np.int64(12), 12),
    ],
)
def test_durations(duration, steps):
    found = parse(duration)
    assert (found, type(found)) == (steps, int)


@given(
    numerator=st.integers(0, 10**6),
    digits=st.integers(0, 4),
    n_steps=st.integers(1, MAX),
    per_epoch=st.integers(1, 10**5),
)
def test_a_duration_is_rounded_to_the_nearest_halves_up(numerator, digits, n_steps, per_epoch):
    whole, part = divmod(numerator, 10**digits)
    text = f"{whole}.{part:0{digits}d}" if digits else str(whole)
    for unit, size in (("%", Fraction(n_steps, 100)), ("ep", Fraction(per_epoch))):
        exact = Fraction(numerator, 10**digits) * size
        steps = math.floor(exact + Fraction(1, 2))
        if steps <= n_steps and (steps or not exact):
            assert parse_duration(text + unit, n_steps=n_steps, steps_per_epoch=per_epoch) == steps
        else:
            with pytest.raises(ValueError, match=r"^`duration` must "):
                parse_duration(text + unit, n_steps=n_steps, steps_per_epoch=per_epoch)


@pytest.mark.parametrize("epochs", [0.5, 1, 1.5, 2.25, 9])
def test_epochs_are_those_of_epochs_to_steps(epochs):
    assert parse(f"{epochs}ep") == epochs_to_steps(epochs, 83)


NONSENSE = [
    "",
    " ",
    "ep",
    "%",
    "5 epochs",
    "5e",
    "5EP",
    "-5ep",
    "-1",
    "+5",
    "1e3st",
    "5.5st",
    "5.5",
    ".5ep",
    "5.ep",
    "5,5%",
]


@pytest.mark.parametrize(
    "text", [*NONSENSE, "inf%", "nan", "5ep5ep", "5\nep", "\u0665ep", "9" * 16, "5 %%", "0x10", "1_000"]
)
def test_nonsense(text):
    assert_rejects(parse, "duration", text, ValueError)
    with pytest.raises(ValueError, match='such as "5ep"'):
        parse(text)


@pytest.mark.parametrize("value", [0.5, 5.0, True, None, b"5ep", ["5ep"], np.float64(5), 1j])
def test_what_is_neither_text_nor_a_count_is_no_duration(value):
    assert_rejects(parse, "duration", value, TypeError)


@pytest.mark.parametrize(
    "value", [-1, 831, "831st", "831", "10.1ep", "100.1%", "200%", "11ep", 2**40, "999999999999999"]
)
def test_longer_than_the_run_or_negative(value):
    assert_rejects(parse, "duration", value, ValueError)


def test_a_duration_that_rounds_to_nothing_is_no_silent_zero():
    with pytest.raises(ValueError, match=r"must be 0 or at least one optimizer step\. Received: duration='0.01%'"):
        parse("0.01%")


def test_what_is_needed_must_be_known():
    assert parse_duration("5st") == parse_duration(5) == 5
    assert parse_duration("2ep", steps_per_epoch=5.25) == 11
    with pytest.raises(ValueError, match=r"^`warmup` must not be a share of a run of unknown length.*warmup='5%'"):
        parse_duration("5%", steps_per_epoch=10, name="warmup")
    with pytest.raises(ValueError, match=r"not known\. Received: duration='5ep'\. Give it in optimizer steps"):
        parse_duration("5ep", n_steps=10)
    assert_rejects(parse_duration, "duration", str(MAX + 1), ValueError)
    for steps_per_epoch, error in ((0, ValueError), (-1, ValueError), (math.nan, ValueError), ("83", TypeError)):
        assert_rejects(lambda v: parse("5ep", steps_per_epoch=v), "steps_per_epoch", steps_per_epoch, error)
    for n_steps, error in ((0, ValueError), (2**31, ValueError), (10.0, TypeError)):
        assert_rejects(lambda v: parse("5%", n_steps=v), "n_steps", n_steps, error)


# run_length


@pytest.mark.parametrize(
    ("arguments", "n_steps", "epochs", "per_epoch"),
    [
        ({"n_steps": 100}, 100, None, None),
        ({"n_steps": 100, "accumulation": 3}, 100, None, None),
        ({"n_steps": 100, "steps_per_epoch": 40}, 100, 2.5, 40),
        ({"n_steps": 100, "n_samples": 100, "batch_size": 10}, 100, 10, 10),
        ({"epochs": 10, "steps_per_epoch": 83}, 830, 10, 83),
        ({"epochs": 10, "steps_per_epoch": 83, "accumulation": 4}, 830, 10, 83),
        ({"epochs": 10, "n_samples": 2650, "batch_size": 32}, 830, 10, 83),
        ({"epochs": 1, "n_samples": 1, "batch_size": 32}, 1, 1, 1),
        ({"epochs": 10, "n_samples": 21, "batch_size": 1, "accumulation": 4}, 52, 10, 5.25),
        ({"epochs": 10, "n_samples": 20, "batch_size": 1, "accumulation": 4}, 50, 10, 5),
    ],
)
def test_run_length(arguments, n_steps, epochs, per_epoch):
    length = run_length(**arguments)
    assert (length.n_steps, length.epochs, length.steps_per_epoch) == (n_steps, epochs, per_epoch)


@pytest.mark.parametrize(("batches", "accumulation", "epochs"), [(5, 2, 3), (4, 2, 2), (3, 4, 3), (7, 3, 1)])
def test_updates_and_their_epochs_are_those_of_keras(batches, accumulation, epochs):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulation), loss="mse")
    counts = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: counts.append(int(model.optimizer.iterations)))
    data = np.ones((batches, 1), np.float32)
    model.fit(data, data, batch_size=1, epochs=epochs, verbose=0, callbacks=[count])
    length = run_length(epochs=epochs, n_samples=batches, batch_size=1, accumulation=accumulation)
    assert length.n_steps == counts[-1]
    assert [length.steps_in_epochs(epoch + 1) for epoch in range(epochs)] == counts
    done_in = [1 + sum(step >= count for count in counts) for step in range(length.n_steps)]
    assert [length.epoch_of(step) for step in range(length.n_steps)] == done_in


def test_without_epochs_nothing_is_said_of_them():
    length = run_length(n_steps=10)
    assert length.epoch_of(3) is length.steps_in_epochs(2) is length.steps_per_epoch is None
    assert length.whole_epochs() is length
    assert str(length) == "10 updates"
    with pytest.raises(ValueError, match="`first` must not be in epochs"):
        length.steps("1ep", "first")


def test_whole_epochs():
    length = run_length(n_steps=1000, n_samples=2650, batch_size=32)
    assert length.whole_epochs() == run_length(epochs=12, n_samples=2650, batch_size=32)
    assert str(length.whole_epochs()) == "12 epochs of 83 updates: 996 updates"
    assert length.steps("1ep") == 83
    with pytest.raises(
        ValueError, match=r"`n_steps` must be at least one epoch, 83 optimizer steps\. Received: n_steps=82"
    ):
        run_length(n_steps=82, steps_per_epoch=83).whole_epochs()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"epochs": 1},
        {"epochs": 1, "n_steps": 1},
        {"n_samples": 5, "batch_size": 1},
        {"epochs": 1, "n_samples": 5},
        {"epochs": 1, "batch_size": 5},
        {"epochs": 1, "steps_per_epoch": 5, "batch_size": 1},
        {"epochs": 1, "steps_per_epoch": 5, "n_samples": 5, "batch_size": 1},
        {"epochs": MAX, "steps_per_epoch": 2},
        {"epochs": 1, "n_samples": 3, "batch_size": 1, "accumulation": 4},
    ],
)
def test_lengths_that_do_not_say_one_thing(arguments):
    with pytest.raises(ValueError, match=r"^`\w+` must .*\. Received: "):
        run_length(**arguments)


def test_bad_arguments():
    for name, others in {
        "epochs": {"steps_per_epoch": 5},
        "n_steps": {},
        "steps_per_epoch": {"epochs": 1},
        "n_samples": {"epochs": 1, "batch_size": 1},
        "batch_size": {"epochs": 1, "n_samples": 1},
    }.items():
        for value, error in (
            (0, ValueError),
            (-1, ValueError),
            (2**31, ValueError),
            (2.0, TypeError),
            ("3", TypeError),
        ):
            assert_rejects(lambda v, name=name, others=others: run_length(**others, **{name: v}), name, value, error)
    assert_integer(lambda v: run_length(n_steps=5, accumulation=v), "accumulation", minimum=1)


# minutes_to_steps


@pytest.mark.parametrize(
    ("minutes", "seconds", "steps"),
    [(30, 0.12, 15000), (0.1, 0.1, 60), (0.3, 0.1, 180), (1, 60, 1), (1, 7, 8), (1, 59.9, 1)],
)
def test_minutes_are_rounded_down_as_they_are_written(minutes, seconds, steps):
    assert minutes_to_steps(minutes, seconds) == steps


def test_bad_minutes():
    assert_number(lambda v: minutes_to_steps(v, 0.1), "minutes", out_of_range=[0, -1, 1e-5, 1e12])
    assert_number(lambda v: minutes_to_steps(1, v), "seconds_per_step", out_of_range=[0, -1])
    with pytest.raises(ValueError, match="at least one optimizer step of 61 seconds"):
        minutes_to_steps(1, 61)


def test_a_length_is_a_plain_record():
    assert RunLength(5) == RunLength(n_steps=5, epochs=None, batches_per_epoch=None, accumulation=1)
