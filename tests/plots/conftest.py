import os

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Nothing is shown, and no figure outlives its test."""
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("a plot was shown"))
    yield
    plt.close("all")
