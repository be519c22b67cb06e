import itertools
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from kadence._loss_curve import HeldOutLossCurve, LossCurve
from kadence._suggestions import smooth, smoothing


def make(n_steps=20, accumulation=1, stop_factor=4.0):
    curve = LossCurve(n_steps, accumulation, stop_factor)
    curve._model = SimpleNamespace(stop_training=False)
    return curve


def passes(curve, losses, batches_per_pass, order=lambda batches: batches):
    """What Keras calls in a `fit`; gives back how many batches were trained."""
    seen = 0
    for epoch in itertools.count():
        curve._model.stop_training = curve._model.stop_training and seen > 0
        curve.on_epoch_begin(epoch)
        ends = []
        for batch in range(batches_per_pass):
            if seen == len(losses):
                break
            curve.on_train_batch_begin(batch)
            ends.append((batch, losses[seen]))
            seen += 1
            if curve._model.stop_training:
                break
        for batch, loss in order(ends):
            curve.on_train_batch_end(batch, {"loss": loss})
        curve.on_epoch_end(epoch)
        if curve._model.stop_training:
            break
    return seen


@pytest.mark.parametrize("batches_per_pass", [1, 3, 20, 50])
def test_losses_are_those_of_the_batches(batches_per_pass):
    losses = np.random.default_rng(0).uniform(1, 2, 60)
    curve = make()
    assert passes(curve, losses, batches_per_pass) == 20
    np.testing.assert_allclose(curve.losses, losses[:20])
    assert curve.stopped == "end"
    assert sum(curve.passes) == 20


def test_accumulated_batches_are_one_step():
    losses = np.random.default_rng(0).uniform(1, 2, 90)
    curve = make(accumulation=3)
    assert passes(curve, losses, 7) == 60
    np.testing.assert_allclose(curve.losses, losses[:60].reshape(20, 3).mean(1))


def test_losses_may_come_in_any_order():
    """Keras reports batches from several threads."""
    losses = np.random.default_rng(0).uniform(1, 2, 20)
    curve = make()

    def from_threads(ends):
        jobs = [
            threading.Thread(target=curve.on_train_batch_end, args=(batch, {"loss": loss}))
            for batch, loss in ends[::-1]
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        return []

    passes(curve, losses, 20, from_threads)
    np.testing.assert_allclose(curve.losses, losses)


def test_the_end_of_the_data():
    curve = make()
    assert passes(curve, np.ones(7), 10) == 7
    assert (curve.stopped, len(curve.losses), curve.passes) == ("data", 7, [7, 0])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_sweep_ends_above_stop_factor_times_the_lowest(sign):
    losses = np.concatenate([np.full(10, 1.0), np.linspace(1, 60, 30)]) * 1.0
    losses = losses if sign > 0 else losses - 2.0
    curve = make(n_steps=40, stop_factor=3.0)
    passes(curve, losses, 40)
    smoothed = smooth(losses, smoothing(40))
    lowest = np.minimum.accumulate(smoothed)
    first = int(np.flatnonzero(smoothed > lowest + 2.0 * abs(lowest))[0])
    assert (curve.stopped, len(curve.losses)) == ("rose", first + 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_ends_it_and_is_not_kept(value):
    losses = np.ones(20)
    losses[5] = value
    curve = make()
    passes(curve, losses, 20)
    assert (curve.stopped, curve.losses) == ("not finite", [1.0] * 5)


def test_what_comes_after_the_end_is_not_seen():
    curve = make()
    curve.on_epoch_begin(0)
    curve.on_train_batch_end(0, {"loss": 1.0})
    curve.close()
    curve._model.stop_training = False
    curve.on_train_batch_end(1, {"loss": np.nan})
    assert (curve.losses, curve._model.stop_training) == ([1.0], False)


def test_logs_without_a_loss():
    curve = make()
    curve.on_epoch_begin(0)
    with pytest.raises(ValueError, match=r"`logs` must hold the loss.*\['accuracy'\].*train_step"):
        curve.on_train_batch_end(0, {"accuracy": 1.0})


def test_held_out_losses_are_those_of_the_model_after_each_step():
    answers = iter(np.arange(1.0, 100.0))
    curve = HeldOutLossCurve(20, 2, 1e9, ("x", "y", None))
    asked, resets = [], []

    def test_on_batch(*batch, return_dict):
        asked.append(batch)
        return {"loss": next(answers)}

    curve._model = SimpleNamespace(
        stop_training=False, test_on_batch=test_on_batch, reset_metrics=lambda: resets.append(len(asked))
    )
    passes(curve, np.ones(60), 7)
    assert curve.losses == list(np.arange(1.0, 21.0))
    assert asked == [("x", "y", None)] * 20
    assert resets == list(range(20))
    assert not curve.async_safe
