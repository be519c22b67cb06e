"""Argument rules: the one place where error sentences are built.

Every error reads "`name` must RULE. Received: name=value." and then, where there is one, a sentence of remedy.
`TypeError` for a wrong type, `ValueError` for a wrong value, `ImportError` for a missing extra.
"""

import difflib
import importlib
import itertools
import math
import operator
import re
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

#: Steps are 32-bit integers on every backend: JAX has no others unless it is told.
MAX_STEPS = 2**31 - 1


def sentence(name: str, rule: str, value: object, remedy: str = "") -> str:
    """The words of an error: the rule, the value received, and a remedy where there is one."""
    shown = repr(value)
    if len(shown) > 200:
        shown = shown[:197] + "..."
    return f"`{name}` must {rule}. Received: {name}={shown}." + (f" {remedy}" if remedy else "")


def said(error: BaseException) -> str:
    """What an error of another library says, on one line and without its colours."""
    return " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split())


def integer(name: str, value: Any, *, minimum: int, unit: str, maximum: int = MAX_STEPS) -> int:
    """`value` as an int within [minimum, maximum]; `unit` is said in the error ("in optimizer steps")."""
    rule = (
        f"be an integer >= {minimum}, {unit}"
        if maximum == MAX_STEPS
        else f"be an integer from {minimum} to {maximum}, {unit}"
    )
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(sentence(name, rule, value))
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(sentence(name, rule, value)) from None
    if not minimum <= result <= maximum:
        above = f"The largest step Kadence counts is 2**31 - 1 = {MAX_STEPS}." if result > MAX_STEPS else ""
        raise ValueError(sentence(name, rule, value, above))
    return result


def number(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    above: float = -math.inf,
    maximum: float = math.inf,
    below: float = math.inf,
    unit: str = "",
) -> float:
    """`value` as a finite float with minimum <= value <= maximum and above < value < below."""
    bounds = [f"> {above:g}"] if above > -math.inf else []
    bounds += [f">= {minimum:g}"] if minimum > -math.inf else []
    bounds += [f"<= {maximum:g}"] if maximum < math.inf else []
    bounds += [f"< {below:g}"] if below < math.inf else []
    rule = " ".join(["be a finite number", " and ".join(bounds)]).strip() + (f", {unit}" if unit else "")
    if isinstance(value, (str, bytes, bool, np.bool_)) or value is None:
        raise TypeError(sentence(name, rule, value))
    try:
        result = float(value) + 0.0  # -0.0 becomes 0.0: equal numbers have one form
    except (TypeError, ValueError):
        raise TypeError(sentence(name, rule, value)) from None
    except OverflowError:
        raise ValueError(sentence(name, rule, value)) from None
    if not (math.isfinite(result) and minimum <= result <= maximum and above < result < below):
        raise ValueError(sentence(name, rule, value))
    return result


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """`value` if it is one of `choices`."""
    rule = "be one of " + ", ".join(repr(choice) for choice in choices)
    if not isinstance(value, str):
        raise TypeError(sentence(name, rule, value))
    if value not in choices:
        raise ValueError(sentence(name, rule, value, did_you_mean(value, choices)))
    return value


def sequence(name: str, value: Any, rule: str, minimum_length: int = 1) -> list[Any]:
    """`value` as a list of at least `minimum_length` items; a string is not a sequence here."""
    if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
        raise TypeError(sentence(name, rule, value))
    items = list(value)
    if len(items) < minimum_length:
        raise ValueError(sentence(name, rule, value))
    return items


def closest(word: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The `n` entries of `known` that look most like `word`, best first."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, word, candidate).ratio()
        return max(whole, difflib.SequenceMatcher(None, word, candidate.rpartition("/")[2]).ratio())

    return sorted(dict.fromkeys(known), key=likeness, reverse=True)[:n]


def did_you_mean(word: str, known: Iterable[str], n: int = 3) -> str:
    """A sentence that offers the closest entries of `known`, or nothing if there are none."""
    names = ", ".join(repr(name) for name in closest(word, known, n))
    return f"Did you mean {names}?" if names else ""


def extra(module: str, extra_name: str, purpose: str) -> ModuleType:
    """Import an optional module, or say which pip line installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        package = module.partition(".")[0]
        line = f'pip install "kadence[{extra_name}]"'
        raise ImportError(f"{purpose} needs the package `{package}`. Install it with: {line}") from error


def boolean(name: str, value: Any) -> bool:
    """`value` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(sentence(name, "be True or False", value))
    return value


def increasing(name: str, values: Any, *, minimum: int, unit: str) -> list[int]:
    """`values` as a list of strictly increasing integers >= `minimum`."""
    items = sequence(name, values, f"be a sequence of integers, {unit}")
    result = [integer(name, item, minimum=minimum, unit=unit) for item in items]
    if any(later <= earlier for earlier, later in itertools.pairwise(result)):
        raise ValueError(sentence(name, "be strictly increasing", values))
    return result
