"""Models, data and oracles for the tests of the optimizer; nothing here knows how Kadence does it."""

import inspect

import keras
import numpy as np
from keras import ops

import kadence

STEPS = 5
SCALES = {"low": 1.0, "middle": -2.0, "head": 3.0}
#: Peaks of 0.05 that restart at steps 0, 2 and (twice as long) 6; the values are (1 + cos(pi * fraction)) / 2.
RESTARTS = kadence.WarmRestarts(0.05, first_cycle_steps=2, cycle_mult=2)
RESTART_RATES = 0.05 * np.array([1.0, 0.5, 1.0, 0.8535533905932737, 0.5])
#: A multiplier per group, one of them a schedule.
MULTIPLIERS = [0.01, kadence.Linear(0.0, 1.0, n_steps=4), 1.0]
GROUP_RATES = {
    "low": RESTART_RATES * 0.01,
    "middle": RESTART_RATES * np.array([0.0, 0.25, 0.5, 0.75, 1.0]),
    "head": RESTART_RATES,
}


def values(variable):
    return np.array(ops.convert_to_numpy(ops.copy(ops.convert_to_tensor(variable))))


def all_values(variables):
    return [values(variable) for variable in variables]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def random_like(variables, seed, count):
    """`count` lists of gradients."""
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=v.shape).astype("float32") for v in variables] for _ in range(count)]


def tensors(arrays):
    return [ops.convert_to_tensor(array) for array in arrays]


def randomize(model, seed=3):
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype("float32"))
    return model


def branches():
    """out = sum of Dense(scale * x) over three layers: the gradients of mean(y * out) do not depend on the weights."""
    inputs = keras.Input((3,), dtype="float32")
    outs = [
        keras.layers.Dense(3, name=name)(keras.layers.Rescaling(scale, dtype="float32")(inputs))
        for name, scale in SCALES.items()
    ]
    return randomize(keras.Model(inputs, keras.layers.Add(dtype="float32")(outs)))


def chain():
    inputs = keras.Input((3,))
    x = keras.layers.Dense(3, activation="tanh", name="low")(inputs)
    x = keras.layers.Dense(3, activation="tanh", name="middle")(x)
    return randomize(keras.Model(inputs, keras.layers.Dense(3, name="head")(x)))


def linear_loss(y, out):
    return ops.mean(ops.cast(y, "float32") * ops.cast(out, "float32"), axis=-1)


def three_groups(model):
    return kadence.group_by(model, {"low": "low", "middle": "middle", "head": "*"})


def by_layer(model):
    """Layer -> its kernel and bias."""
    return {name: all_values(model.get_layer(name).weights) for name in SCALES}


def batches(n_batches, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4 * n_batches, 3)).astype("float32"), rng.normal(size=(4 * n_batches, 3)).astype("float32")


def linear_gradients(x, y):
    """Of one batch, per layer: d mean(y * out) / d kernel and d bias."""
    x, y = x.astype("float64"), y.astype("float64")
    return {name: [scale * x.T @ y / y.size, y.sum(0) / y.size] for name, scale in SCALES.items()}


# The published formulas, one step t = 1, 2, ... on one array: what is taken off the weights.


def sgd(state, g, w, lr, t):
    return lr * g


def sgd_momentum(state, g, w, lr, t):
    state["m"] = 0.9 * state.get("m", 0.0) - lr * g
    return -state["m"]


def sgd_nesterov(state, g, w, lr, t):
    state["m"] = 0.9 * state.get("m", 0.0) - lr * g
    return -(0.9 * state["m"] - lr * g)


def adam(state, g, w, lr, t):
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g**2
    return lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * state["m"] / (np.sqrt(state["v"]) + 1e-7)


def lion(state, g, w, lr, t):
    momentum = state.get("m", 0.0)
    state["m"] = 0.99 * momentum + 0.01 * g
    return lr * np.sign(0.9 * momentum + 0.1 * g)


def rmsprop(state, g, w, lr, t):
    state["v"] = 0.9 * state.get("v", 0.0) + 0.1 * g**2
    return lr * g / np.sqrt(state["v"] + 1e-7)


def adafactor(state, g, w, lr, t):
    def rms(a):
        return np.sqrt(np.mean(a**2))

    decay = 1 - t**-0.8
    square = g**2 + 1e-30
    if g.ndim == 2:
        state["r"] = decay * state.get("r", 0.0) + (1 - decay) * square.mean(1)
        state["c"] = decay * state.get("c", 0.0) + (1 - decay) * square.mean(0)
        v = np.outer(state["r"] / state["r"].mean(), state["c"])
    else:
        v = state["v"] = decay * state.get("v", 0.0) + (1 - decay) * square
    update = g / np.sqrt(v)
    return max(1e-3, rms(w)) * min(lr, 1 / np.sqrt(t)) * update / max(1.0, rms(update))


def muon(state, g, w, lr, t):
    if g.ndim == 1:
        return adam(state, g, w, lr, t)
    state["m"] = 0.95 * state.get("m", 0.0) + g
    update = g + 0.95 * state["m"]
    if tall := update.shape[0] > update.shape[1]:
        update = update.T
    update = update / np.linalg.norm(update)
    for _ in range(5):
        square = update @ update.T
        update = 3.4445 * update + (-4.7750 * square + 2.0315 * square @ square) @ update
    return lr * 0.2 * np.sqrt(max(g.shape)) * (update.T if tall else update)


FORMULAS = {
    "SGD": (keras.optimizers.SGD, {}, sgd),
    "SGD momentum": (keras.optimizers.SGD, {"momentum": 0.9}, sgd_momentum),
    "SGD Nesterov": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}, sgd_nesterov),
    "Adam": (keras.optimizers.Adam, {}, adam),
    "AdamW": (keras.optimizers.AdamW, {"weight_decay": 0.3}, adam),
    "Lion": (keras.optimizers.Lion, {}, lion),
    "RMSprop": (keras.optimizers.RMSprop, {}, rmsprop),
    "Adafactor": (keras.optimizers.Adafactor, {}, adafactor),
}
if "rms_rate" in inspect.signature(keras.optimizers.Muon).parameters:  # Keras 3.12 defines another Muon
    MUON = {"weight_decay": 0.3, "adam_weight_decay": 0.3, "adam_lr_ratio": 1, "rms_rate": 0.2, "ns_steps": 5}
    FORMULAS["Muon"] = (keras.optimizers.Muon, MUON, muon)


def oracle(formula, weights, gradients, rates=GROUP_RATES, weight_decay=0.0):
    """The weights after steps with the gradients per layer of each; decay is decoupled and comes first."""
    weights = {name: [w.astype("float64") for w in layer] for name, layer in weights.items()}
    states = {name: [{} for _ in layer] for name, layer in weights.items()}
    for step, layers in enumerate(gradients):
        for name, layer in weights.items():
            rate = rates[name][step]
            for i, (w, g, state) in enumerate(zip(layer, layers[name], states[name], strict=True)):
                w = w * (1 - rate * weight_decay)
                layer[i] = w - formula(state, g, w, rate, step + 1)
    return weights


def assert_close(model, expected, rtol=1e-5, atol=2e-6):
    for name, layer in by_layer(model).items():
        for got, want in zip(layer, expected[name], strict=True):
            np.testing.assert_allclose(got, want, rtol, atol, err_msg=name)


def fit(model, optimizer, x, y, loss=linear_loss, eager=False, **kwargs):
    """Compile and fit; `eager` saves the second that compiling takes, where that is not the point."""
    # XLA on TensorFlow is tried in a test of its own.
    model.compile(optimizer, loss, run_eagerly=eager, jit_compile="auto" if keras.backend.backend() == "jax" else False)
    return model.fit(x, y, **{"batch_size": 4, "shuffle": False, "verbose": 0, **kwargs})


def batch_gradients(x, y):
    return [linear_gradients(x[i : i + 4], y[i : i + 4]) for i in range(0, len(x), 4)]


def apply_to_layers(optimizer, model, gradients):
    """Hand `optimizer.apply` the gradients per layer of each step."""
    for layers in gradients:
        variables = [v for name in layers for v in model.get_layer(name).trainable_variables]
        optimizer.apply(tensors(g.astype("float32") for name in layers for g in layers[name]), variables)
