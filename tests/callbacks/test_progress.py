import io
import re
import sys

import keras
import numpy as np
import pytest
from rich.console import Console

from kadence.callbacks.progress import ProgressDisplay

SHOW_CURSOR = "\x1b[?25h"
METRICS = {"loss": 0.51239, "accuracy": 0.25, "val_loss": 1.5, "val_accuracy": 0.75, "learning_rate_group_1": 1e-5}


def show(terminal, epochs=2, steps=3, fail=False):
    """What is written while `epochs` epochs of `steps` batches run."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    with ProgressDisplay(console) as progress:
        progress.set_params({"epochs": epochs, "steps": steps})
        for epoch in range(epochs):
            progress.on_epoch_begin(epoch)
            for batch in range(steps):
                progress.on_train_batch_end(batch, {"loss": 0.5 + batch, "accuracy": 0.1})
                progress._bar.refresh()
                if fail:
                    raise KeyboardInterrupt
            progress.on_epoch_end(epoch, METRICS)
    return text.getvalue()


def test_a_line_per_epoch_without_a_terminal():
    lines = show(terminal=False).splitlines()
    assert [re.sub(r"\d+ s$", "_ s", line.rstrip()) for line in lines if line.strip()] == [
        f"epoch {epoch}/2  loss 0.5124  accuracy 0.2500  val_loss 1.5000  val_accuracy 0.7500  _ s" for epoch in (1, 2)
    ]
    assert "\x1b" not in "".join(lines)


def test_a_bar_in_a_terminal():
    text = show(terminal=True)
    assert text.count("accuracy 0.2500  val_loss 1.5000  val_accuracy 0.7500") == 2
    for words in ("epoch 1/2", "epoch 2/2", "1/3", "2/3", "3/3", "loss 0.5000", "loss 2.5000"):
        assert words in text
    assert text.rindex(SHOW_CURSOR) > text.rindex("\x1b[?25l"), "the cursor is back"
    assert "nan" not in text, "before the first batch the loss is not NaN but unknown"


def test_the_cursor_is_back_after_an_error():
    text = io.StringIO()
    progress = ProgressDisplay(Console(file=text, force_terminal=True, color_system=None))
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert text.getvalue().endswith(SHOW_CURSOR) or SHOW_CURSOR in text.getvalue()


def test_logs_without_metrics():
    text = io.StringIO()
    with ProgressDisplay(Console(file=text, force_terminal=True, color_system=None)) as progress:
        progress.set_params({"epochs": 1, "steps": None})
        progress.on_epoch_begin(0)
        progress.on_train_batch_end(0)
        progress.on_epoch_end(0)
    assert "epoch 1/1" in text.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_in_fit(terminal):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    text = io.StringIO()
    with ProgressDisplay(Console(file=text, force_terminal=terminal, width=100, color_system=None)) as progress:
        history = model.fit(np.ones((4, 2)), np.ones((4, 1)), 2, 2, 0, [progress]).history
    for epoch, loss in enumerate(history["loss"], 1):
        assert re.search(rf"epoch {epoch}/2  loss {loss:.4f}  \d+ s", text.getvalue())


def test_without_rich(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "kadence\[cli\]"'):
        ProgressDisplay(Console(file=io.StringIO()))


def test_sweeps_of_a_range_test_are_shown_in_the_same_place():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    with ProgressDisplay(console) as progress:
        sweeps = progress.sweeps(20)
        for _ in range(2):
            sweeps.on_train_begin()
            for batch in range(15):
                sweeps.on_train_batch_end(batch % 4, {"loss": 1.0})
            progress._bar.refresh()
            sweeps.on_train_end()
    assert "finding rates, sweep 1" in text.getvalue()
    assert "finding rates, sweep 2" in text.getvalue()
    assert "15/20" in text.getvalue()
    assert sweeps.async_safe
