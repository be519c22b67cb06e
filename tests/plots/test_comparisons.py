import numpy as np
import pytest
from drawings import drawn, legend_labels
from test_comparison import comparison
from test_comparison_rows import result

from kadence.plots import plot_comparison, save_comparison_picture

pytestmark = pytest.mark.once


def test_curves_of_a_comparison_have_a_band_over_the_seeds():
    """A trial that diverged has a shorter curve, and one that failed has none."""
    curves = ({"val_accuracy": [0.1, 0.3]}, {"val_accuracy": [0.3, 0.9]}, {"val_accuracy": [None]})
    results = result(
        "x", [0.3, 0.9, 0.1], curves=tuple({**c, "seconds": [1.0] * len(c["val_accuracy"])} for c in curves)
    )
    ax = plot_comparison(comparison([], results=(results, result("nothing", []))))
    epochs, mean = drawn(ax.lines[0])
    np.testing.assert_array_equal(epochs, [1, 2])
    np.testing.assert_allclose(mean, [0.2, 0.6])
    np.testing.assert_allclose(np.unique(ax.collections[0].get_paths()[0].vertices[:, 1]), [0.1, 0.3, 0.9])
    assert legend_labels(ax) == ["x"]
    with pytest.raises(TypeError, match="`comparison` must be a Comparison"):
        plot_comparison(results)


def test_a_single_epoch_is_seen():
    curves = tuple({"val_accuracy": [value], "seconds": [1.0]} for value in (0.2, 0.4))
    ax = plot_comparison(comparison([], results=(result("x", [0.2, 0.4], curves=curves),)))
    assert ax.lines[0].get_marker() == "o"
    assert ax.collections[0].get_linewidth() > 0.0
    assert [tick for tick in ax.get_xticks() if tick % 1] == []


@pytest.mark.parametrize("values", [([0.5, 0.7], [0.6, 0.7]), ([0.5], [0.6])])
def test_the_picture_of_a_comparison(values, tmp_path):
    save_comparison_picture(comparison(*values), tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 10_000
