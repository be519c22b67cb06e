"""Lines of text: columns that stand under each other, and blocks that are as high as their rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kadence._text import counted, first_of, rate_lines, spark_lines, sparkline, table, tables

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (1000, "1,000 epochs"), (1.0, "1 epoch"), (2.5, "2.5 epochs")],
)
def test_counted(number, said):
    assert counted(number, "epoch") == said


def test_table():
    rows = [["name", "n", ""], ["a", "1,000", "cut short"], ["longer", "1", ""]]
    assert table(rows, n_left=1) == ["name        n", "a       1,000  cut short", "longer      1"]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (15, ["name  a  b   c", "x     1  2  30"]),
        (13, ["name  a  b", "x     1  2", "", "name   c", "x     30"]),
        (9, ["name  a", "x     1", "", "name  b", "x     2", "", "name   c", "x     30"]),
        (1, ["name  a", "x     1", "", "name  b", "x     2", "", "name   c", "x     30"]),
    ],
)
def test_a_table_that_is_too_wide_is_cut(width, lines):
    assert tables([("name", (["a"], ["b"], ["c"])), ("x", (["1"], ["2"], ["30"]))], width) == lines


def test_parts_of_a_table_stay_together():
    lines = tables([("name", (["a", "b"], ["c", "d"]))], 12)
    assert lines == ["name  a  b", "", "name  c  d"]


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], 8, "▁▂▃▄▅▆▇█"),
        ([1, 2, 3, 4, 5, 6, 7, 8], 60, "▁▂▃▄▅▆▇█"),
        ([0, 0, 1, 1], 2, "·█"),
        ([0, 2, 4, 4], 2, "▂█"),
        ([0.0] * 5, 3, "···"),
        ([1e-9, 1.0], 2, "▁█"),
        ([5.0], 60, "█"),
        ([np.nan, np.inf, 1.0], 3, "···"),
    ],
)
def test_sparkline(values, width, line):
    assert sparkline(np.array(values, np.float64), width) == line


def test_a_logarithmic_line_covers_four_decades():
    assert sparkline(np.array([1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 0.0]), 7, log=True) == "█▆▄▂▁▁·"


@given(rates=st.lists(st.floats(0, 1), min_size=1, max_size=200), width=st.integers(1, 60), log=st.booleans())
def test_a_line_fits_and_its_highest_block_is_full(rates, width, log):
    line = sparkline(np.array(rates), width, log)
    assert len(line) == min(width, len(rates))
    assert ("█" in line) == any(rates)
    assert set(line) <= set("·▁▂▃▄▅▆▇█")


@pytest.mark.parametrize("names", [["a"], ["group_1", "group_2"], ["x" * 29, "y"], ["x" * 80, "y"]])
@pytest.mark.parametrize("n_steps", [1, 59, 60, 1000])
def test_lines_of_groups_fit_60_columns(names, n_steps):
    rates = {name: np.linspace(1, 0, n_steps) ** 8 for name in names}
    lines = spark_lines(rates)
    assert len(lines) == len(names)
    assert all(len(line) <= 60 for line in lines)


def test_a_rate_that_is_low_for_most_of_the_run_is_drawn_logarithmically():
    falls = {"straight": np.linspace(1, 0, 100), "power": 0.9 ** np.arange(100.0), "none": np.zeros(100)}
    assert [line.endswith(" log") for line in spark_lines(falls)] == [False, True, False]


def test_rate_lines():
    lines = rate_lines({"a": np.array([0.1, 0.3, 0.2]), "group_2": np.array([1e-5, 0, 1e-6])})
    assert lines == [
        "group     peak  lowest  first   last",
        "a          0.3     0.1    0.1    0.2",
        "group_2  1e-05       0  1e-05  1e-06",
    ]


def test_the_first_five_and_how_many_more():
    assert first_of([], ", ") == ""
    assert first_of(list("abcde"), ", ") == "a, b, c, d, e"
    assert first_of(list("abcdefg"), "; ") == "a; b; c; d; e; and 2 more"
