import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawings import drawn, legend_labels, range_test

from kadence.plots import plot_range_test, save_range_picture
from kadence.range_test import Curve, RangeTest

pytestmark = pytest.mark.once


def test_points_line_and_answers_are_those_of_the_test():
    test = range_test(runs=2)
    ax = plot_range_test(test)
    points, lines = ax.lines[:2], [line for line in ax.lines if line.get_linestyle() == "-"]
    for line, losses in zip(points, test.runs(), strict=True):
        np.testing.assert_array_equal(drawn(line)[0], test.rates)
        np.testing.assert_array_equal(drawn(line)[1], losses)
    np.testing.assert_array_equal(drawn(lines[0])[1], test.smoothed())
    answers = [float(drawn(line)[0][0]) for line in ax.lines if len(drawn(line)[0]) == 1]
    rules = ("valley", "steepest", "minimum", "slide")
    assert answers == [test.suggest(rule).rate for rule in rules]
    texts = legend_labels(ax)
    for rule in rules:
        assert f"{rule} {test.suggest(rule).rate:.1e}" in texts
    low, high = test.interval().rates["all"]
    assert any(f"learns from {low:.1e} to {high:.1e}" in text for text in texts)
    (span,) = ax.patches
    assert np.ravel(span.get_xy())[0] == pytest.approx(low)  # a rectangle, or a polygon in matplotlib 3.8
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "learning rate", "training loss")


def test_the_fall_fills_the_height_whatever_comes_after_it():
    bottom, top = plot_range_test(range_test()).get_ylim()
    assert bottom < 1.0
    assert 2.0 < top < 3.5


def test_each_group_has_a_colour_and_one_may_have_no_answer():
    ax = plot_range_test(range_test(per_group=True))
    lines = {line.get_label().partition(",")[0]: line for line in ax.lines if line.get_linestyle() == "-"}
    assert list(lines) == ["low", "head"]
    assert lines["low"].get_color() != lines["head"].get_color()
    assert "no clear answer" in lines["low"].get_label()
    assert "valley" in lines["head"].get_label()
    assert ax.get_ylabel() == "training loss less that with the group at rate 0"
    colours = {line.get_color() for line in ax.lines if len(drawn(line)[0]) == 1}
    assert colours == {lines["head"].get_color()}


def many_groups(n):
    test = range_test()
    names = [f"group_{number}" for number in range(n)]
    curves = [Curve(name, 0, test.curves[0].losses, "end") for name in names]
    bases = [Curve(name, 0, np.full(100, 2.0), "end") for name in names]
    rates = dict.fromkeys(names, 1e-3)
    return RangeTest(1e-7, 10.0, 100, True, rates, dict.fromkeys(names, 1.0), curves, bases)


@pytest.mark.parametrize("n", [4, 5, 12, 13, 40])
def test_the_legend_of_many_groups_fits(n, monkeypatch):
    made = []
    for name in ("interval", "suggest"):
        own = getattr(RangeTest, name)
        monkeypatch.setattr(RangeTest, name, lambda *a, own=own, name=name: made.append(name) or own(*a))
    ax = plot_range_test(many_groups(n))
    assert sorted(made) == ["interval"] + ["suggest"] * 4  # they are slow, and answer for all groups at once
    labels = legend_labels(ax)
    assert len(labels) == (n if n <= 12 else 0) + 4
    assert sum("learns from" in label for label in labels) == (n if n <= 4 else 0)
    ax.figure.canvas.draw()  # an axes that has no room left is a warning
    box = ax.get_legend().get_window_extent()
    assert 0 <= box.y0 < box.y1 <= ax.figure.bbox.height
    assert len([line for line in ax.lines if line.get_linestyle() == "-"]) == n


def test_a_flat_test_can_be_drawn():
    assert "no clear answer" in legend_labels(plot_range_test(range_test(losses=np.ones(100))))[0]


def test_a_test_without_losses():
    empty = RangeTest(1e-7, 1.0, 100, False, {"all": 0.1}, {"all": 1.0}, [Curve("all", 0, np.zeros(0), "not finite")])
    with pytest.raises(ValueError, match=r"`test` must hold at least one loss.*not finite"):
        plot_range_test(empty)
    with pytest.raises(TypeError, match="`test` must be a RangeTest"):
        plot_range_test({})
    assert plt.get_fignums() == []


def test_the_picture_of_a_range_test(tmp_path):
    save_range_picture(range_test(per_group=True), tmp_path / "range_test.png")
    assert (tmp_path / "range_test.png").stat().st_size > 10_000
    assert len(list(tmp_path.iterdir())) == 1
