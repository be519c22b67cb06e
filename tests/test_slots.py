"""An optimizer that goes on with other variables, against the published formulas with a state per layer."""

import keras
import numpy as np
import optimizer_oracles as oracles
import pytest

import kadence
from kadence import rebuild_optimizer

#: The layers that train in each phase, and how many steps it takes.
PHASES = [(["head"], 2), (["middle", "head"], 2), (["low", "middle", "head"], 1), (["low", "head"], 2)]
RATE = 0.05


def wrapped(kind, make, model):
    optimizer = make(RATE)
    if kind == "plain":
        return optimizer
    optimizer = kadence.DiscriminativeOptimizer(optimizer, oracles.three_groups(model), [1.0, 1.0, 1.0])
    return optimizer if kind == "grouped" else keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)


def variables_of(model, layers):
    return [v for name in layers for v in model.get_layer(name).weights]


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "grouped") for name in oracles.FORMULAS), ("Adam", "plain"), ("AdamW", "loss scale")]
)
def test_slots_are_carried_over_by_variable(name, kind):
    cls, arguments, formula = oracles.FORMULAS[name]
    model = oracles.randomize(oracles.branches())
    optimizer = wrapped(kind, lambda rate: cls(rate, **arguments), model)
    decay = arguments.get("weight_decay", 0.0)
    weights = {layer: [w.astype("float64") for w in arrays] for layer, arrays in oracles.by_layer(model).items()}
    states = {layer: [{}, {}] for layer in weights}
    optimizer.build(variables_of(model, PHASES[0][0]))
    rng, t = np.random.default_rng(0), 0
    for layers, steps in PHASES:
        variables = variables_of(model, layers)
        rebuild_optimizer(optimizer, variables)
        for _ in range(steps):
            t += 1
            gradients = {layer: [rng.normal(size=w.shape) for w in weights[layer]] for layer in layers}
            stepping = optimizer.inner_optimizer if kind == "loss scale" else optimizer  # which JAX cannot run eagerly
            stepping.apply(
                oracles.tensors(g.astype("float32") for layer in layers for g in gradients[layer]), variables
            )
            for layer in layers:
                for i, w in enumerate(weights[layer]):
                    w = w * (1 - RATE * decay)
                    weights[layer][i] = w - formula(states[layer][i], gradients[layer][i], w, RATE, t)
    oracles.assert_close(model, weights, rtol=2e-4, atol=2e-5)
    assert int(optimizer.iterations) == t


def test_a_variable_that_leaves_and_comes_back_begins_anew():
    model = oracles.branches()
    optimizer = keras.optimizers.SGD(RATE, momentum=0.9)
    head, low = (model.get_layer(name).weights for name in ("head", "low"))
    optimizer.build([*low, *head])
    for slot in optimizer.momentums:
        slot.assign(np.full(slot.shape, 7.0))
    rebuild_optimizer(optimizer, head)
    rebuild_optimizer(optimizer, [*head, *low])  # in another order
    means = [float(oracles.values(slot).mean()) for slot in optimizer.momentums]
    assert means == [7.0, 7.0, 0.0, 0.0]
    assert len(optimizer.variables) == 2 + 4


@pytest.mark.parametrize(
    "cls", ["Adam", "Adadelta", "Adagrad", "Adamax", "Ftrl", "Nadam", "RMSprop", "Lamb", "ScheduleFreeAdamW"]
)
def test_every_optimizer_of_keras_keeps_all_state_where_the_variables_stay(cls):
    if not hasattr(keras.optimizers, cls):
        pytest.skip("not in this Keras")
    model = oracles.branches()
    optimizer = getattr(keras.optimizers, cls)(RATE, use_ema=True, gradient_accumulation_steps=2)
    variables = variables_of(model, ["low", "head"])
    optimizer.build(variables)
    for number, variable in enumerate(optimizer.variables):
        variable.assign(np.full(variable.shape, number + 1))
    before = {v.path + str(i): oracles.values(v) for i, v in enumerate(optimizer.variables)}
    held = [optimizer._iterations, optimizer._learning_rate]
    rebuild_optimizer(optimizer, variables)
    after = {v.path + str(i): oracles.values(v) for i, v in enumerate(optimizer.variables)}
    assert len(after) == len(before)
    oracles.assert_same(before.values(), after.values())
    assert optimizer._iterations is held[0]
    assert optimizer._learning_rate is held[1]


def test_an_average_of_the_weights_begins_with_new_variables_as_they_are():
    model = oracles.branches()
    optimizer = keras.optimizers.SGD(RATE, use_ema=True)
    optimizer.build(model.get_layer("head").weights)
    optimizer.iterations.assign(5)
    variables = variables_of(model, ["low", "head"])
    rebuild_optimizer(optimizer, variables)
    averages = oracles.all_values(optimizer._model_variables_moving_average)
    oracles.assert_same(averages[:2], oracles.all_values(model.get_layer("low").weights))
    for average, weight in zip(optimizer._model_variables_moving_average, model.get_layer("low").weights, strict=False):
        assert average.value is not weight.value, "JAX gives the memory of both away in a step"


def test_restart_begins_at_step_0_without_moments():
    model = oracles.branches()
    optimizer = wrapped("loss scale", lambda rate: keras.optimizers.Adam(oracles.RESTARTS), model)
    optimizer.build(model.trainable_variables)
    for variable in optimizer.variables:
        variable.assign(np.ones(variable.shape))
    rebuild_optimizer(optimizer, model.trainable_variables, restart=True)
    assert int(optimizer.iterations) == 0
    inner = optimizer.inner_optimizer.inner_optimizer
    assert not any(oracles.values(slot).any() for slot in [*inner._momentums, *inner._velocities])


@pytest.mark.parametrize("optimizer", ["adam", None, keras.optimizers.Adam])
def test_it_takes_an_optimizer(optimizer):
    with pytest.raises(TypeError, match=r"`optimizer` must be a keras\.optimizers\.Optimizer\. Received: optimizer="):
        rebuild_optimizer(optimizer, [])


def test_one_that_is_not_built_stays_so():
    optimizer = keras.optimizers.Adam()
    rebuild_optimizer(optimizer, oracles.branches().trainable_variables)
    assert not optimizer.built


class Hidden(keras.optimizers.SGD):
    """Keeps a slot where nobody finds it."""

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.box = {"sum": self.add_variable_from_reference(variables[0], "sum")}


def test_what_cannot_be_told_apart_is_refused_and_left_as_it_was():
    model = oracles.branches()
    hidden = Hidden(RATE)
    hidden.build(model.trainable_variables)
    before = list(hidden.variables)
    with pytest.raises(ValueError, match=r"`optimizer` must keep its state in attributes.*optimizer='Hidden'"):
        rebuild_optimizer(hidden, model.trainable_variables[:2])
    assert all(one is other for one, other in zip(before, hidden.variables, strict=True))


def test_a_build_that_fails_leaves_the_optimizer_as_it_was():
    model, other = oracles.branches(), oracles.branches()
    optimizer = wrapped("loss scale", keras.optimizers.Adam, model)
    optimizer.build(model.trainable_variables)
    before = list(optimizer.variables)
    with pytest.raises(ValueError, match="`groups` must hold every trainable variable"):
        rebuild_optimizer(optimizer, other.trainable_variables)
    assert all(one is two for one, two in zip(before, optimizer.variables, strict=True))
    gradients = oracles.tensors(oracles.random_like(model.trainable_variables, 0, 1)[0])
    optimizer.inner_optimizer.apply(gradients, model.trainable_variables)
    rebuild_optimizer(optimizer, model.trainable_variables[:2])
    assert len(optimizer.variables) == len(before) - 8
