import os
import sys

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import kadence
from kadence.plots import plot_history, plot_range_test, plot_rates, plot_schedule, save_range_picture
from kadence.range_test import Curve, RangeTest
from kadence.records import RateRecord

SCHEDULE = kadence.WarmRestarts(1e-2, first_cycle_steps=10, cycle_mult=2, lr_min=1e-5)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Nothing is shown, and no figure outlives its test."""
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("a plot was shown"))
    yield
    plt.close("all")


def record(n_groups=3, steps=40, start=0, factor=10.0):
    base = SCHEDULE.sample(steps, start)
    rates = {f"group_{i}": base * factor ** (i - n_groups) for i in range(1, n_groups + 1)}
    return RateRecord(np.arange(start, start + steps), rates, np.linspace(3, 1, steps))


def range_test(per_group=False, losses=None, runs=1):
    """Losses that fall around 1e-3 and blow up after 0.1; the first of the groups learns nothing."""
    t = np.linspace(-7, 1, 100)
    noise = np.random.default_rng(0).normal(size=(runs, 100)) * 0.02
    fall = 2.0 - 1 / (1 + np.exp(-(t + 3) * 2)) + np.where(t > -1, (t + 1) ** 2, 0.0) if losses is None else losses
    names, flat = (["low", "head"], np.full(100, 2.0)) if per_group else (["all"], fall)
    curves = [Curve(n, r, (flat if n == "low" else fall) + noise[r], "end") for r in range(runs) for n in names]
    bases = [Curve(n, r, 2.0 + noise[r], "end") for r in range(runs) for n in names] if per_group else []
    rates = {"low": 1e-5, "head": 1e-3}
    return RangeTest(1e-7, 10.0, 100, per_group, rates, {"low": 0.01, "head": 1.0}, curves, bases)


def drawn(line):
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def legend_labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


PLOTS = {
    "schedule": lambda **kwargs: plot_schedule(SCHEDULE, 70, **kwargs),
    "rates": lambda **kwargs: plot_rates(record(), **kwargs),
    "range test": lambda **kwargs: plot_range_test(range_test(), **kwargs),
    "history": lambda **kwargs: plot_history({"loss": [3.0, 2.0], "val_loss": [4.0, 3.0]}, **kwargs),
}


@pytest.mark.parametrize("plot", PLOTS)
def test_the_axes_are_returned_and_can_be_drawn(plot, tmp_path):
    ax = PLOTS[plot]()
    assert isinstance(ax, plt.Axes)
    assert len(plt.get_fignums()) == 1
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    ax.figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


@pytest.mark.parametrize("plot", PLOTS)
def test_given_axes_are_drawn_on(plot):
    _, (left, right) = plt.subplots(1, 2)
    plt.sca(left)
    assert PLOTS[plot](ax=right) is right
    assert len(right.lines) >= 1
    assert len(left.lines) == 0
    assert len(plt.get_fignums()) == 1


# plot_schedule


def test_the_drawn_schedule_is_the_schedule():
    ax = plot_schedule(SCHEDULE, 71)
    (line,) = ax.lines
    steps, rates = drawn(line)
    np.testing.assert_array_equal(steps, np.arange(71))
    np.testing.assert_array_equal(rates, SCHEDULE.sample(71))
    # The restarts of Loshchilov & Hutter for T_0 = 10, T_mult = 2, at the peak.
    np.testing.assert_allclose(rates[[0, 10, 30, 70]], 1e-2, 1e-12)
    assert ax.get_xlabel() == "optimizer step"
    assert ax.get_ylabel() == "learning rate"
    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] == 0.0
    assert ax.get_ylim()[1] > 1e-2


def test_schedules_can_be_drawn_together():
    ax = plot_schedule(SCHEDULE, 30)
    assert plot_schedule(kadence.Constant(0.5), 50, ax=ax) is ax
    first, second = ax.lines
    np.testing.assert_array_equal(drawn(first)[1], SCHEDULE.sample(30))
    np.testing.assert_array_equal(drawn(second)[1], np.full(50, 0.5))
    assert ax.get_ylim()[1] > 0.5
    assert ax.get_xlim()[1] > 49


def test_a_schedule_of_one_step_and_of_rate_0():
    (line,) = plot_schedule(kadence.Constant(0.0), 1).lines
    assert [values.tolist() for values in drawn(line)] == [[0], [0.0]]


@pytest.mark.parametrize(
    ("schedule", "n_steps", "error", "words"),
    [
        (SCHEDULE, 0, ValueError, "`n_steps` must be an integer >= 1, in optimizer steps.*n_steps=0"),
        (SCHEDULE, -3, ValueError, "`n_steps`"),
        (SCHEDULE, 10.0, TypeError, "`n_steps`"),
        (SCHEDULE, None, TypeError, "`n_steps`"),
        (0.1, 10, TypeError, r"`schedule` must be a kadence\.Schedule"),
        (np.ones(10), 10, TypeError, r"`schedule` must be a kadence\.Schedule"),
    ],
)
def test_bad_arguments_of_plot_schedule(schedule, n_steps, error, words):
    with pytest.raises(error, match=words):
        plot_schedule(schedule, n_steps)
    assert plt.get_fignums() == []


# plot_rates


def test_the_drawn_rates_are_the_record():
    made = record(start=7)
    ax = plot_rates(made)
    assert len(ax.lines) == 3
    for line, (name, rates) in zip(ax.lines, made.rates.items(), strict=True):
        assert line.get_label() == name
        np.testing.assert_array_equal(drawn(line)[0], np.arange(7, 47))
        np.testing.assert_array_equal(drawn(line)[1], rates)
    assert legend_labels(ax) == ["group_1", "group_2", "group_3"]
    assert ax.get_xlabel() == "optimizer step"
    assert ax.get_ylabel() == "learning rate"


@pytest.mark.parametrize(
    ("peaks", "scale"),
    [
        ([1.0], "linear"),
        ([1.0, 1.0], "linear"),
        ([0.1, 1.0], "linear"),
        ([0.099, 1.0], "log"),
        ([1.0, 1e-5], "log"),
        ([0.0, 1.0], "linear"),
        ([0.0, 1e-3, 1.0], "log"),
        ([0.0, 0.0], "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_peaks_differ_by_more_than_10(peaks, scale):
    rates = {f"group_{i}": np.linspace(1.0, 0.0, 5) * peak for i, peak in enumerate(peaks)}
    ax = plot_rates(RateRecord(np.arange(5), rates, np.zeros(5)))
    assert ax.get_yscale() == scale
    low, high = ax.get_ylim()
    assert high > max(peaks) or max(peaks) == 0
    if scale == "log":
        assert 0 < low < min(peak for peak in peaks if peak) / 100
    else:
        assert low == 0.0
    ax.figure.canvas.draw()


def test_every_peak_is_inside_the_axes():
    ax = plot_rates(record(factor=1000.0))
    low, high = ax.get_ylim()
    for line in ax.lines:
        assert low < drawn(line)[1].max() < high


@pytest.mark.parametrize("factor", [1.0, 10.0], ids=["linear", "logarithmic"])
def test_records_can_be_drawn_together(factor):
    first, second = record(factor=factor), record(n_groups=2, start=100, factor=factor)
    for low_first in (True, False):
        pair = [first, RateRecord(second.steps, {n: 50 * r for n, r in second.rates.items()}, second.losses)]
        ax = plot_rates(pair[not low_first])
        plot_rates(pair[low_first], ax=ax)
        assert len(ax.lines) == 5
        low, high = ax.get_ylim()
        assert all(low < drawn(line)[1].max() < high for line in ax.lines)


@pytest.mark.parametrize(("n_groups", "legend"), [(1, True), (12, True), (13, False), (60, False)])
def test_many_groups_have_no_legend(n_groups, legend):
    ax = plot_rates(record(n_groups, factor=1.1))
    assert len(ax.lines) == n_groups
    assert (ax.get_legend() is not None) == legend
    ax.figure.canvas.draw()


def test_a_record_of_one_step():
    ax = plot_rates(record(steps=1))
    assert [len(drawn(line)[0]) for line in ax.lines] == [1, 1, 1]
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (record(steps=0), ValueError, "`record` must hold at least one step.*Pass it to `fit` first"),
        (RateRecord(np.zeros(0), {}, np.zeros(0)), ValueError, "at least one step"),
        (SCHEDULE, TypeError, "`record` must be a RateRecord"),
        ({"low": [0.1]}, TypeError, "`record` must be a RateRecord"),
        (None, TypeError, "`record` must be a RateRecord"),
    ],
    ids=["no steps", "empty", "schedule", "dict", "None"],
)
def test_bad_records(value, error, words):
    with pytest.raises(error, match=words):
        plot_rates(value)
    assert plt.get_fignums() == []


# plot_history


def test_the_drawn_history_counts_epochs_from_1():
    history = {"loss": [3.0, 2.0, 1.5], "val_loss": [4.0, 3.5, 3.6], "accuracy": [0.1, 0.2, 0.3]}
    ax = plot_history(history)
    train, validation = ax.lines
    assert drawn(train)[0].tolist() == [1, 2, 3]
    assert drawn(train)[1].tolist() == history["loss"]
    assert drawn(validation)[1].tolist() == history["val_loss"]
    assert legend_labels(ax) == ["train", "validation"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    ax = plot_history(history, "accuracy")
    (line,) = ax.lines
    assert drawn(line)[1].tolist() == history["accuracy"]
    assert legend_labels(ax) == ["train"]


def test_validation_that_is_not_made_at_every_epoch():
    """`validation_freq=2` leaves fewer values; nothing can tell where they belong."""
    ax = plot_history({"loss": [3.0, 2.0, 1.5], "val_loss": [4.0]})
    assert [len(drawn(line)[0]) for line in ax.lines] == [3, 1]


def test_a_metric_that_is_not_in_the_history():
    with pytest.raises(ValueError, match=r"`metric` must be in the history.*'acuracy'.*Did you mean 'accuracy'"):
        plot_history({"loss": [1.0], "accuracy": [0.5]}, "acuracy")
    with pytest.raises(ValueError, match="`metric` must be in the history"):
        plot_history({})
    assert plt.get_fignums() == []


# plot_range_test


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
    assert span.get_x() == pytest.approx(low)
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


# Without matplotlib


@pytest.mark.parametrize("plot", PLOTS)
def test_the_line_that_installs_matplotlib(plot, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'matplotlib.*pip install "kadence\[plot\]"'):
        PLOTS[plot]()
