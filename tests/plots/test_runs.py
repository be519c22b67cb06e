import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawings import SCHEDULE, drawn, legend_labels, record

import kadence
from kadence.plots import plot_history, plot_rates, plot_schedule
from kadence.records import RateRecord

pytestmark = pytest.mark.once


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
    """`validation_freq=3` leaves fewer values."""
    for epochs in (6, 7):
        train, validation = plot_history({"loss": [3.0] * epochs, "val_loss": [4.0, 3.0]}).lines
        assert drawn(train)[0].tolist() == list(range(1, epochs + 1))
        assert drawn(validation)[0].tolist() == [3, 6]
    assert [len(drawn(line)[0]) for line in plot_history({"loss": [3.0], "val_loss": []}).lines] == [1, 0]


def test_what_fit_returns_is_a_history_too():
    history = keras.callbacks.History()
    history.history = {"loss": [3.0, 2.0]}
    (line,) = plot_history(history).lines
    assert drawn(line)[1].tolist() == [3.0, 2.0]
    with pytest.raises(TypeError, match="`history` must be what `fit` returns, or its `history`"):
        plot_history([3.0, 2.0])


def test_a_metric_that_is_not_in_the_history():
    with pytest.raises(ValueError, match=r"`metric` must be in the history.*'acuracy'.*Did you mean 'accuracy'"):
        plot_history({"loss": [1.0], "accuracy": [0.5]}, "acuracy")
    with pytest.raises(ValueError, match="`metric` must be in the history"):
        plot_history({})
    assert plt.get_fignums() == []
