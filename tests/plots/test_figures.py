"""What holds for every plot."""

import sys

import matplotlib.pyplot as plt
import pytest
from drawings import SCHEDULE, range_test, record
from test_comparison import comparison

from kadence.plots import plot_comparison, plot_history, plot_range_test, plot_rates, plot_schedule, save_figure

pytestmark = pytest.mark.once

PLOTS = {
    "schedule": lambda **kwargs: plot_schedule(SCHEDULE, 70, **kwargs),
    "rates": lambda **kwargs: plot_rates(record(), **kwargs),
    "comparison": lambda **kwargs: plot_comparison(comparison([0.5, 0.7], [0.6, 0.7]), **kwargs),
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


@pytest.mark.parametrize("plot", PLOTS)
def test_the_line_that_installs_matplotlib(plot, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'matplotlib.*pip install "kadence\[plot\]"'):
        PLOTS[plot]()


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"of before")

    class Broken:
        def savefig(self, file, **kwargs):
            file.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_figure(Broken(), path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"picture.png": b"of before"}
