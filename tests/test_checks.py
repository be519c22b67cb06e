import importlib
import math
import sys
from decimal import Decimal
from fractions import Fraction

import keras
import numpy as np
import pytest
from bad_input import NOT_FINITE, NOT_INTEGERS, NOT_NUMBERS, assert_rejects

from kadence import _checks


def integer(value, **kwargs):
    return _checks.integer("n_steps", value, **{"minimum": 1, "unit": "in optimizer steps", **kwargs})


def number(value, **kwargs):
    return _checks.number("rate", value, **kwargs)


def message(call):
    with pytest.raises((TypeError, ValueError, ImportError)) as caught:
        call()
    return str(caught.value)


# sentence


def test_what_another_library_says_is_one_plain_line():
    assert _checks.said(ValueError("\x1b[1mInput 0\x1b[0m\n  is\t\x1b[1;31mwrong\x1b[0m")) == "Input 0 is wrong"


def test_a_number_below():
    assert number(0.9999999999, minimum=0.0, below=1.0) == 0.9999999999
    assert message(lambda: number(1.0, minimum=0.0, below=1.0)) == (
        "`rate` must be a finite number >= 0 and < 1. Received: rate=1.0."
    )


def test_sentence_states_the_rule_then_the_value():
    assert _checks.sentence("n", "be an integer", 0) == "`n` must be an integer. Received: n=0."
    assert _checks.sentence("n", "be an integer", "0", "Try 1.") == "`n` must be an integer. Received: n='0'. Try 1."


@pytest.mark.parametrize(("length", "shown"), [(198, 200), (199, 200), (10_000, 200)])
def test_sentence_shortens_a_long_value(length, shown):
    text = _checks.sentence("at", "be short", "x" * length).partition("Received: at=")[2].removesuffix(".")
    assert len(text) == shown
    assert text.endswith("...") == (length > 198)


# integer


@pytest.mark.parametrize("value", [1, 7, 2**31 - 1, np.int8(3), np.uint64(9), np.int64(2**31 - 1), np.array(5)])
def test_integer_takes_every_integer_and_gives_an_int(value):
    assert integer(value) == int(value)
    assert type(integer(value)) is int


def test_integer_takes_a_backend_scalar():
    assert integer(keras.ops.convert_to_tensor(4, "int32")) == 4


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
def test_integer_refuses_other_types(value):
    assert_rejects(integer, "n_steps", value, TypeError)


@pytest.mark.parametrize("value", [np.True_, np.False_])
def test_integer_refuses_a_numpy_bool(value):
    assert_rejects(integer, "n_steps", value, TypeError)


@pytest.mark.parametrize("value", [0, -1, 2**31, 10**30, np.int64(-(2**31))])
def test_integer_refuses_values_out_of_range(value):
    assert_rejects(integer, "n_steps", value, ValueError)


def test_integer_names_the_unit_and_the_bounds():
    assert message(lambda: integer(0)) == (
        "`n_steps` must be an integer >= 1, in optimizer steps. Received: n_steps=0."
    )
    assert message(lambda: integer(5, maximum=4, unit="the number of layers")) == (
        "`n_steps` must be an integer from 1 to 4, the number of layers. Received: n_steps=5."
    )
    assert integer(4, maximum=4) == 4


def test_integer_says_which_step_is_the_largest():
    assert "2**31 - 1 = 2147483647" in message(lambda: integer(2**31))
    assert "2**31" not in message(lambda: integer(0))


# number


@pytest.mark.parametrize(
    "value", [1, 0.5, -2, np.float32(0.25), np.int64(3), Fraction(1, 4), Decimal("0.1"), np.array(0.5)], ids=repr
)
def test_number_takes_every_real_number_and_gives_a_float(value):
    assert number(value) == float(value)
    assert type(number(value)) is float


def test_number_takes_a_backend_scalar():
    assert number(keras.ops.convert_to_tensor(0.5, "float32")) == 0.5


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
def test_number_refuses_other_types(value):
    assert_rejects(number, "rate", value, TypeError)


@pytest.mark.parametrize("value", [np.True_, np.False_])
def test_number_refuses_a_numpy_bool(value):
    assert_rejects(number, "rate", value, TypeError)


@pytest.mark.parametrize("value", NOT_FINITE, ids=lambda value: repr(value)[:20])
def test_number_refuses_what_is_not_finite(value):
    assert_rejects(number, "rate", value, ValueError)


def test_number_bounds():
    assert number(0.0, minimum=0.0) == 0.0
    assert number(1.0, maximum=1.0) == 1.0
    assert number(5e-324, above=0.0) == 5e-324
    for value, bounds in [(-5e-324, {"minimum": 0.0}), (0.0, {"above": 0.0}), (math.nextafter(1, 2), {"maximum": 1.0})]:
        assert_rejects(lambda v, bounds=bounds: number(v, **bounds), "rate", value, ValueError)


@pytest.mark.parametrize(
    ("bounds", "rule"),
    [
        ({}, "be a finite number."),
        ({"minimum": 0.0}, "be a finite number >= 0."),
        ({"above": 0.0, "maximum": 1.0}, "be a finite number > 0 and <= 1."),
        ({"minimum": 0.0, "unit": "in epochs"}, "be a finite number >= 0, in epochs."),
        ({"minimum": 1.0, "maximum": 2.5, "unit": "in epochs"}, "be a finite number >= 1 and <= 2.5, in epochs."),
    ],
)
def test_number_states_the_bounds(bounds, rule):
    assert message(lambda: number(math.nan, **bounds)) == f"`rate` must {rule} Received: rate=nan."


def test_number_has_one_zero():
    """Minus zero would give two equal schedules two hashes."""
    assert math.copysign(1.0, number(-0.0)) == 1.0


# one_of


def test_one_of():
    choices = ["cosine", "constant", "warm-restarts"]
    assert _checks.one_of("schedule", "constant", choices) == "constant"
    for value in (None, 1, ["cosine"], b"cosine"):
        assert_rejects(lambda v: _checks.one_of("schedule", v, choices), "schedule", value, TypeError)
    for value in ("cosin", "", "Cosine", "cosine "):
        assert_rejects(lambda v: _checks.one_of("schedule", v, choices), "schedule", value, ValueError)
    assert message(lambda: _checks.one_of("schedule", "cosin", choices)) == (
        "`schedule` must be one of 'cosine', 'constant', 'warm-restarts'. Received: schedule='cosin'. "
        "Did you mean 'cosine', 'constant', 'warm-restarts'?"
    )


# sequence


@pytest.mark.parametrize("value", [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), iter([1, 2]), {1: 0, 2: 0}.keys()])
def test_sequence_takes_any_iterable_and_gives_a_list(value):
    result = _checks.sequence("at", value, "be a sequence")
    assert type(result) is list
    assert result == [1, 2]


def test_sequence_refuses_what_only_looks_like_one():
    for value in ("ab", b"ab", {"a": 1}, 5, None, len):
        assert_rejects(lambda v: _checks.sequence("at", v, "be a sequence"), "at", value, TypeError)


def test_sequence_has_a_least_length():
    for value in ([], (), [1]):
        call = lambda v: _checks.sequence("at", v, "hold two", minimum_length=2)  # noqa: E731
        assert_rejects(call, "at", value, ValueError)
    assert _checks.sequence("at", [], "be a sequence", minimum_length=0) == []


# boolean, increasing


def test_boolean():
    assert _checks.boolean("augment", True) is True
    assert _checks.boolean("augment", False) is False
    for value in (1, 0, None, "True", "", np.True_, []):
        assert_rejects(lambda v: _checks.boolean("augment", v), "augment", value, TypeError)


def increasing(values):
    return _checks.increasing("at_steps", values, minimum=1, unit="in optimizer steps")


@pytest.mark.parametrize("values", [[1, 2, 7], (1, 2, 7), np.array([1, 2, 7]), iter([1, 2, 7]), [np.int8(1), 2, 7]])
def test_increasing_takes_integers_and_gives_a_list(values):
    assert increasing(values) == [1, 2, 7]


def test_increasing_refuses_other_orders_and_types():
    for values in ([2, 2], [1, 3, 2]):
        assert_rejects(increasing, "at_steps", values, ValueError)
    for values in ("12", 3, None, {1: 2}):
        assert_rejects(increasing, "at_steps", values, TypeError)
    for value in NOT_INTEGERS:
        assert_rejects(lambda v: increasing([1, v]), "at_steps", value, TypeError)
    assert_rejects(lambda v: increasing([v, 1]), "at_steps", 0, ValueError)


# closest, did_you_mean


ADDRESSES = ["stem", "backbone/block1_conv", "backbone/block2_conv", "backbone/block2_norm", "head", "fc_start"]


@pytest.mark.parametrize(
    ("word", "best"),
    [
        ("block2_conv", "backbone/block2_conv"),
        ("backbone/block2-norm", "backbone/block2_norm"),
        ("haed", "head"),
        ("fcstart", "fc_start"),
        ("STEM".lower(), "stem"),
    ],
)
def test_closest_gives_the_likeliest_first(word, best):
    found = _checks.closest(word, ADDRESSES)
    assert len(found) == 3
    assert found[0] == best
    assert len(set(found)) == 3
    assert set(found) <= set(ADDRESSES)


def test_closest_gives_no_name_twice_and_no_more_than_there_are():
    assert _checks.closest("a", ["a", "a", "b"]) == ["a", "b"]
    assert _checks.closest("a", []) == []
    assert _checks.closest("x", ADDRESSES, n=1) == _checks.closest("x", ADDRESSES)[:1]
    assert _checks.closest("zzz", ["p", "q", "r", "s"]) == ["p", "q", "r"]
    assert _checks.closest("", ["a", "b"]) == ["a", "b"]


def test_did_you_mean():
    assert _checks.did_you_mean("haed", ["head", "stem"]) == "Did you mean 'head', 'stem'?"
    assert _checks.did_you_mean("haed", ["head", "stem"], n=1) == "Did you mean 'head'?"
    assert _checks.did_you_mean("haed", []) == ""
    assert _checks.did_you_mean("köpf", iter(["kopf/näse", "kopf"])) == "Did you mean 'kopf', 'kopf/näse'?"


# extra


def test_extra_imports():
    assert _checks.extra("json", "cli", "Saving") is sys.modules["json"]
    assert _checks.extra("importlib.metadata", "cli", "Saving") is importlib.import_module("importlib.metadata")


@pytest.mark.parametrize("module", ["kadence_no_such_package", "kadence_no_such_package.part.of_it"])
def test_extra_says_the_pip_line(module):
    with pytest.raises(ImportError, match="needs the package") as caught:
        _checks.extra(module, "plot", "Plotting")
    assert str(caught.value) == (
        'Plotting needs the package `kadence_no_such_package`. Install it with: pip install "kadence[plot]"'
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_extra_does_not_blame_the_package_for_another_one(tmp_path, monkeypatch):
    (tmp_path / "kadence_breaks_inside.py").write_text("import kadence_no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'kadence_no_such_package'"):
        _checks.extra("kadence_breaks_inside", "plot", "Plotting")


def test_extra_does_not_hide_an_error_in_the_package(tmp_path, monkeypatch):
    (tmp_path / "kadence_raises.py").write_text("raise RuntimeError('broken')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        _checks.extra("kadence_raises", "plot", "Plotting")
