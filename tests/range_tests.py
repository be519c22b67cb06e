"""Models and data for the tests of the range test, and all that it must give back."""

import contextlib
import random
import sys

import keras
import numpy as np

import kadence

N, WIDTH = 96, 6


def data(n=N, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, WIDTH)).astype("float32")
    return x, (x[:, :2].sum(1) > 0).astype("int32")


def network(built=True):
    """Dropout, BatchNorm, and two layers of which each is a group in `grouped`."""
    inputs = [keras.Input((WIDTH,))] if built else []
    return keras.Sequential(
        [
            *inputs,
            keras.layers.Dense(8, "relu", name="low"),
            keras.layers.Dropout(0.2),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2, name="head"),
        ]
    )


def grouped(model, optimizer, **arguments):
    rates = arguments or {"learning_rates": [1e-3, 1e-2]}
    groups = kadence.split(model, at="head")
    return kadence.DiscriminativeOptimizer(optimizer, groups, **rates)


def _compiles(arguments):
    return keras.backend.backend() == "jax" and not arguments.get("run_eagerly")


def compiled(optimizer=None, built=True, seed=0, groups=False, **arguments):
    """A new model; `optimizer` may be a function of the model."""
    keras.utils.set_random_seed(seed)
    model = network(built)
    optimizer = keras.optimizers.Adam(1e-2) if optimizer is None else optimizer
    optimizer = optimizer(model) if callable(optimizer) else optimizer
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    settings = {"metrics": ["accuracy"], "jit_compile": _compiles(arguments), **arguments}
    model.compile(grouped(model, optimizer) if groups else optimizer, loss, **settings)
    return model


class OwnStep(keras.Sequential):
    """What `train_step` returns is the loss of the batch, no mean over an epoch."""

    def train_step(self, *arguments):
        backend, (x, y) = keras.backend.backend(), arguments[-1]
        if backend == "jax":
            jax, state = sys.modules["jax"], arguments[0]

            def loss_of(trainable):
                return keras.ops.mean((self.stateless_call(trainable, state[1], x, training=True)[0] - y) ** 2)

            loss, gradients = jax.value_and_grad(loss_of)(state[0])
            trained, slots = self.optimizer.stateless_apply(state[2], gradients, state[0])
            return {"loss": loss}, (trained, state[1], slots, state[3])
        weights = self.trainable_variables
        if backend == "tensorflow":
            with sys.modules["tensorflow"].GradientTape() as tape:
                loss = keras.ops.mean((self(x, training=True) - y) ** 2)
            gradients = tape.gradient(loss, weights)
        else:
            self.zero_grad()
            loss = keras.ops.mean((self(x, training=True) - y) ** 2)
            loss.backward()
            gradients = [weight.value.grad for weight in weights]
        with sys.modules["torch"].no_grad() if backend == "torch" else contextlib.nullcontext():
            self.optimizer.apply(gradients, weights)
        return {"loss": loss}


def bits(variable):
    return np.array(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable))).tobytes()


def everything(model):
    """What may not change, in a form that can be compared."""
    state = {f"{i} {v.path}": bits(v) for i, v in enumerate(model.variables + model.metrics_variables)}
    state |= {f"optimizer {i}": bits(v) for i, v in enumerate(model.optimizer.variables)}
    names = ("optimizer", "train_function", "test_function", "history", "_compile_loss", "_compile_metrics")
    state |= {name: id(vars(model).get(name)) for name in names}
    state |= {"rate": id(model.optimizer._learning_rate), "stop": model.stop_training}
    state |= {"steps": model.steps_per_execution, "attributes": sorted(vars(model)), "python": random.getstate()}
    state |= {"numpy": str(np.random.get_state()), "names": [layer.name for layer in model.layers]}
    if torch := sys.modules.get("torch"):
        state["torch"] = torch.get_rng_state().numpy().tobytes()
    if context := sys.modules.get("tensorflow.python.eager.context"):
        present = vars(context.context())
        state["tensorflow"] = (present.get("_seed"), present["_rng"].getstate() if "_rng" in present else None)
    return state


def assert_untouched(model, before):
    after = everything(model)
    assert [key for key in before if before[key] != after.get(key)] == []
    assert sorted(after) == sorted(before)
