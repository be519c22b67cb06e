"""Gradual unfreezing within one `fit`, against the same phases in several."""

import keras
import numpy as np
import optimizer_oracles as oracles
import pytest
import tiny

import kadence
from kadence import GradualUnfreeze, freeze_to

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype("float32")
Y = RNG.normal(size=(12, 2)).astype("float32")
#: 3 batches an epoch; cycles of 2, 4 and 8 steps end after 2, 6 and 14 steps.
CYCLES = kadence.WarmRestarts(0.1, first_cycle_steps=2, cycle_mult=2)


def new_model(rate=0.1, grouped=True, **kwargs):
    keras.utils.set_random_seed(2)
    layers = [keras.layers.Dense(2, name=name) for name in ("low", "middle", "head")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, weight_decay=0.1, **kwargs)
    if grouped:
        groups = kadence.split(model, ["middle", "head"])
        optimizer = kadence.DiscriminativeOptimizer(optimizer, groups, [0.5, 1.0, 1.0])
    model.compile(optimizer, "mse", jit_compile="auto" if BACKEND == "jax" else False)
    return model


def fit(model, epochs, *callbacks, **kwargs):
    return model.fit(X, Y, 4, epochs, 0, list(callbacks), shuffle=False, **kwargs)


class Trace(keras.callbacks.Callback):
    """Which layers moved in every batch."""

    def __init__(self):
        super().__init__()
        self.moved = []

    def on_train_begin(self, logs=None):
        self.before = self._arrays()

    def _arrays(self):
        return [oracles.values(layer.kernel) for layer in self.model.layers]

    def on_train_batch_end(self, batch, logs=None):
        now = self._arrays()
        self.moved.append("".join("01"[not tiny.same(a, b)] for a, b in zip(self.before, now, strict=True)))
        self.before = now


def test_a_group_an_epoch_is_what_separate_fits_give():
    one, trace, callback = new_model(), Trace(), GradualUnfreeze()
    fit(one, 4, callback, trace)
    assert trace.moved == ["001"] * 3 + ["011"] * 3 + ["111"] * 6
    assert callback.recompilations == 2
    assert int(one.optimizer.iterations) == 12
    several = new_model()
    for epoch in range(3):
        freeze_to(several, 2 - epoch)
        fit(several, epoch + 1 if epoch < 2 else 4, initial_epoch=epoch)
    for a, b in zip(one.weights, several.weights, strict=True):
        np.testing.assert_allclose(oracles.values(a), oracles.values(b), rtol=1e-6, atol=1e-7)


def test_a_group_a_cycle_also_within_an_epoch():
    model, trace, callback = new_model(CYCLES), Trace(), GradualUnfreeze(at_cycles=[1, 2])
    history = fit(model, 3, callback, trace)
    assert trace.moved == ["001"] * 2 + ["011"] * 4 + ["111"] * 3
    assert callback.recompilations == 2
    assert int(model.optimizer.iterations) == 9
    assert np.isfinite(history.history["loss"]).all()


def test_groups_that_never_join_and_a_plain_optimizer():
    model, trace = new_model(grouped=False), Trace()
    groups = kadence.split(model, ["middle", "head"])
    fit(model, 3, callback := GradualUnfreeze(groups, at_epochs=[2]), trace, validation_data=(X, Y))
    assert trace.moved == ["001"] * 6 + ["011"] * 3
    assert callback.recompilations == 1
    fit(model, 5, callback, trace, initial_epoch=3)
    assert callback.recompilations == 0
    assert trace.moved[9:] == ["011"] * 6


def test_the_phase_follows_from_the_epoch_alone(tmp_path):
    """Killed in the second phase, a run goes on there, slots and all."""
    whole = new_model()
    fit(whole, 3, GradualUnfreeze())
    first = new_model()
    fit(first, 2, GradualUnfreeze())
    first.save_weights(tmp_path / "backup.weights.h5")
    resumed, trace, callback = new_model(), Trace(), GradualUnfreeze()
    assert callback.apply(resumed, 1) == ("group_2", "group_3")
    resumed.optimizer.build(resumed.trainable_variables)
    resumed.load_weights(tmp_path / "backup.weights.h5")
    fit(resumed, 3, callback, trace, initial_epoch=2)
    assert trace.moved == ["111"] * 3
    same = [
        tiny.same(oracles.values(a), oracles.values(b)) for a, b in zip(whole.weights, resumed.weights, strict=True)
    ]
    assert all(same) or BACKEND == "torch"


def test_records_go_on():
    recorder = kadence.RateRecorder()
    fit(new_model(CYCLES), 3, GradualUnfreeze(at_cycles=[1, 2]), recorder)
    assert recorder.record.steps.tolist() == list(range(9))
    np.testing.assert_allclose(recorder.record.rates["group_3"], CYCLES.sample(9), rtol=1e-6)


def test_errors():
    model = new_model()
    with pytest.raises(ValueError, match="`at` must be in one unit, epochs or cycles"):
        GradualUnfreeze(at_epochs=[1], at_cycles=[1])
    with pytest.raises(TypeError, match="`groups` must be LayerGroups"):
        GradualUnfreeze(["group_1"])
    groups = kadence.split(model, ["middle", "head"])
    for name in ("at_epochs", "at_cycles"):
        for value in ([0], [2, 1], [1, 2, 3]):
            with pytest.raises(ValueError, match=f"`{name}` must"):
                GradualUnfreeze(groups, **{name: value})
    before = [oracles.values(weight) for weight in model.weights]
    no_cycles = "`at_cycles` must be cycles that the schedule has; it has 0"
    for rate, message in ((0.1, "`learning_rate` must be a kadence.Schedule"), (kadence.Constant(0.1), no_cycles)):
        model = new_model(rate)
        with pytest.raises(ValueError, match=message):
            fit(model, 1, GradualUnfreeze(at_cycles=[1]))
        oracles.assert_same(before, [oracles.values(weight) for weight in model.weights])
    with pytest.raises(ValueError, match="`groups` must be given"):
        fit(new_model(grouped=False), 1, GradualUnfreeze())


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it there itself")
def test_several_steps_at_once_are_refused_for_cycles():
    model = new_model(CYCLES)
    model.compile(model.optimizer, "mse", steps_per_execution=2)
    with pytest.raises(ValueError, match="`steps_per_execution` must be 1"):
        fit(model, 1, GradualUnfreeze(at_cycles=[1]))
