"""What a model was compiled with: it comes back whole, and tells two runs apart."""

import json
from functools import partial

import keras
import models
import numpy as np
import optimizer_oracles as oracles
import pytest
import tiny

import kadence
from kadence._compiled import Compiled

JIT = "auto" if keras.backend.backend() == "jax" else False
X = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
ZEROS = np.zeros((8, 2), "float32")
PEAK = 0.25


def again(model, groups=None, **arguments):
    """Compile a model once more, with what it was compiled with."""
    Compiled(model).compile(model, kadence.Constant(PEAK), groups, **arguments)
    return model


def two_outputs():
    inputs = keras.Input((2,), name="in")
    body = models.dense("body")(inputs)
    return keras.Model(inputs, {"left": models.dense("left")(body), "right": models.dense("right")(body)})


def described(**arguments):
    """The description of a model compiled with these arguments; it has to be JSON."""
    model = models.sequential()
    model.compile(**{"optimizer": "sgd", "loss": "mse", "jit_compile": JIT, **arguments})
    description = Compiled(model).describe()
    assert json.loads(json.dumps(description)) == description
    return description


# It comes back


def test_loss_weights_and_metrics_come_back():
    model = two_outputs()
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.5),
        loss={"left": "mse", "right": keras.losses.Huber(delta=0.1)},
        loss_weights={"left": 0.5, "right": 3.0},
        metrics={"left": ["mae"]},
        weighted_metrics={"right": ["mse"]},
        jit_compile=JIT,
        run_eagerly=True,
    )
    targets, weights = {"left": ZEROS, "right": ZEROS}, {"left": np.ones(8), "right": np.arange(8.0)}
    before = model.evaluate(X, targets, sample_weight=weights, verbose=0, return_dict=True)
    optimizer = model.optimizer
    again(model)
    assert model.optimizer is not optimizer
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.optimizer.momentum == 0.5
    assert float(model.optimizer.learning_rate) == PEAK
    assert model.run_eagerly
    assert model.evaluate(X, targets, sample_weight=weights, verbose=0, return_dict=True) == pytest.approx(before)
    assert len(before) == 5, "three losses and two metrics"
    assert before["loss"] == pytest.approx(0.5 * before["left_loss"] + 3.0 * before["right_loss"])


def test_the_optimizer_of_the_model_and_its_state_are_left_alone():
    model = models.sequential()
    model.compile(keras.optimizers.Adam(0.125), "mse", jit_compile=JIT)
    model.fit(X, ZEROS, batch_size=4, verbose=0)
    optimizer, state = model.optimizer, oracles.all_values(model.optimizer.variables)
    again(model)
    assert int(model.optimizer.iterations) == 0, "a new optimizer begins anew"
    oracles.assert_same(oracles.all_values(optimizer.variables), state)


def test_weight_decay_of_the_groups_comes_back_where_frozen_layers_joined_them():
    """After `load_model` the optimizer's groups know what trained alone. Other groups have no such factors."""
    model = models.sequential()
    groups = kadence.split(model, ["b", "c"])
    inner = keras.optimizers.AdamW(0.1, weight_decay=0.01)
    optimizer = kadence.DiscriminativeOptimizer(inner, groups, [1, 1, 1], weight_decay_multipliers=[0.0, 1.0, 0.5])
    model.compile(optimizer, "mse", jit_compile=JIT)
    compiled = Compiled(model)
    for chosen, decay in (
        (kadence.split(model, ["b", "c"]), [0.0, 1.0, 0.5]),
        (kadence.split(model, ["c"]), [1.0] * 2),
    ):
        compiled.compile(model, kadence.Constant(PEAK), chosen, [PEAK] * len(chosen))
        assert list(model.optimizer.get_config()["weight_decay_multipliers"]) == decay


def test_rates_and_multipliers():
    model = models.sequential()
    model.compile("sgd", "mse", jit_compile=JIT)
    compiled = Compiled(model)
    assert compiled.groups is None
    groups = kadence.split(model, ["b", "c"])
    compiled.compile(model, kadence.Cosine(PEAK, 10), groups, [0.0, PEAK / 5, PEAK])
    assert model.optimizer.lr_multipliers == pytest.approx((0.0, 0.2, 1.0))
    assert list(model.optimizer.learning_rates.values()) == pytest.approx([0.0, PEAK / 5, PEAK])
    compiled.compile(model, kadence.Cosine(PEAK, 10), groups, multipliers=[0.5, 1.0, 2.0])
    assert list(model.optimizer.learning_rates.values()) == pytest.approx([PEAK / 2, PEAK, PEAK * 2])
    with pytest.raises(ValueError, match="`rates` must be exactly one of the two"):
        compiled.compile(model, kadence.Constant(PEAK), groups)
    with pytest.raises(ValueError, match="`lr_multipliers` must have one value per group, 3"):
        compiled.compile(model, kadence.Constant(PEAK), groups, multipliers=[1.0])


def test_a_discriminative_optimizer_comes_back_with_its_weight_decay():
    """One step without a gradient: what moves, moves by weight decay alone."""
    model = oracles.randomize(models.sequential())
    groups = kadence.split(model, ["b", "c"])
    inner = keras.optimizers.SGD(0.5, weight_decay=0.5)
    decay = {"weight_decay_multipliers": [0.0, 1.0, 2.0], "no_weight_decay": ["bias"]}
    model.compile(kadence.DiscriminativeOptimizer(inner, groups, [1.0, 1.0, 1.0], **decay), "mse", jit_compile=JIT)
    compiled = Compiled(model)
    assert compiled.groups is groups
    assert compiled.is_plain, "a part of the model has the groups to decay by"
    compiled.compile(model, kadence.Constant(PEAK), groups, [PEAK] * 3)
    before = oracles.all_values(model.trainable_variables)
    model.optimizer.apply(oracles.tensors([np.zeros_like(a) for a in before]), model.trainable_variables)
    after = oracles.all_values(model.trainable_variables)
    factors = [1.0, 1.0, 1 - 0.5 * PEAK, 1.0, 1 - PEAK, 1.0]
    for old, new, factor in zip(before, after, factors, strict=True):
        np.testing.assert_allclose(new, old * factor, rtol=1e-6)
    others = kadence.split(model, ["c"])
    compiled.compile(model, kadence.Constant(PEAK), others, [PEAK] * 2)
    assert model.optimizer.get_config()["weight_decay_multipliers"] == [1.0, 1.0], "they were those of other groups"
    compiled.compile(model, kadence.Constant(PEAK))
    model.optimizer.apply(oracles.tensors([np.zeros_like(a) for a in before]), model.trainable_variables)
    moved = [not tiny.same(old, new) for old, new in zip(after, oracles.all_values(model.weights), strict=True)]
    assert moved == [True, False] * 3, "biases are left alone without groups too"


@pytest.mark.parametrize("with_groups", [False, True], ids=["one rate", "groups"])
def test_variables_that_the_user_excluded_from_weight_decay_stay_so(with_groups):
    model = oracles.randomize(models.sequential())
    groups = kadence.split(model, ["b", "c"])
    inner = keras.optimizers.SGD(0.5, weight_decay=0.5)
    inner.exclude_from_weight_decay(var_list=[model.get_layer("a").kernel])
    optimizer = kadence.DiscriminativeOptimizer(inner, groups, [1.0] * 3, no_weight_decay=["bias"])
    model.compile(optimizer, "mse", jit_compile=JIT)
    Compiled(model).compile(model, kadence.Constant(PEAK), *([groups, [PEAK] * 3] if with_groups else []))
    before = oracles.all_values(model.weights)
    model.optimizer.apply(oracles.tensors([np.zeros_like(a) for a in before]), model.trainable_variables)
    moved = [not tiny.same(old, new) for old, new in zip(before, oracles.all_values(model.weights), strict=True)]
    assert moved == [False, False, True, False, True, False]


@pytest.mark.parametrize("grouped", [False, True], ids=["plain", "grouped"])
def test_a_loss_scale_comes_back_once(grouped):
    keras.config.set_dtype_policy("mixed_float16")
    model = models.sequential()
    groups = kadence.split(model, ["b", "c"])
    inner = keras.optimizers.SGD(0.1)
    if grouped:
        inner = kadence.DiscriminativeOptimizer(inner, groups, [1.0, 1.0, 1.0])
    scale = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0, dynamic_growth_steps=3)
    model.compile(scale, "mse", jit_compile=JIT)
    again(model, groups, rates=[0.0, PEAK, PEAK])
    optimizer = model.optimizer
    assert type(optimizer) is keras.optimizers.LossScaleOptimizer
    assert (optimizer.initial_scale, optimizer.dynamic_growth_steps) == (8.0, 3)
    assert type(optimizer.inner_optimizer) is kadence.DiscriminativeOptimizer
    assert isinstance(optimizer.inner_optimizer.inner_optimizer, keras.optimizers.SGD)
    before = oracles.all_values(model.weights)
    model.fit(X, ZEROS + 1, batch_size=8, verbose=0)
    moved = [not tiny.same(old, new) for old, new in zip(before, oracles.all_values(model.weights), strict=True)]
    assert moved[:2] == [False, False]
    assert any(moved[2:])


def test_mixed_precision_gets_its_loss_scale_from_keras_once():
    keras.config.set_dtype_policy("mixed_float16")
    model = models.sequential()
    model.compile("sgd", "mse", jit_compile=JIT)
    assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    again(model)
    assert isinstance(model.optimizer.inner_optimizer, keras.optimizers.SGD)


def test_mixed_precision_without_a_loss_scale_stays_without():
    keras.config.set_dtype_policy("mixed_float16")
    model = models.sequential()
    model.compile("sgd", "mse", jit_compile=JIT, auto_scale_loss=False)
    assert isinstance(again(model).optimizer, keras.optimizers.SGD)


def test_metric_objects_begin_anew():
    """What they have seen before is not in the first epoch after."""
    model = models.sequential()
    metrics = [keras.metrics.MeanAbsoluteError(name="own")], [keras.metrics.MeanSquaredError(name="weighted")]
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=metrics[0], weighted_metrics=metrics[1], jit_compile=JIT)
    wanted = model.evaluate(X, ZEROS, verbose=0, return_dict=True)
    model.evaluate(X, ZEROS + 1000, verbose=0)
    again(model)
    history = model.fit(X, ZEROS, batch_size=8, verbose=0).history
    assert history["own"] == pytest.approx([wanted["own"]])
    assert history["weighted"] == pytest.approx([wanted["weighted"]])


class OwnCompile(keras.Sequential):
    def compile(self, optimizer, penalty):
        super().compile(optimizer=optimizer, loss="mse", jit_compile=JIT)
        self.penalty = penalty


class OwnStep(OwnCompile):
    def train_step(self, *arguments):
        return super().train_step(*arguments)


class OwnLoss(keras.Model):
    def compute_loss(self, *arguments, **named):
        return super().compute_loss(*arguments, **named)


def test_a_subclass_with_a_compile_of_its_own_keeps_what_it_was_given():
    model = OwnCompile([keras.Input((2,)), models.dense("a")])
    model.compile("adam", penalty=2.0)
    loss = model.evaluate(X, ZEROS, verbose=0)
    again(model)
    assert model.penalty == 2.0
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == PEAK
    assert model.evaluate(X, ZEROS, verbose=0) == pytest.approx(loss)


def test_is_plain():
    """Training a part would not go through what a subclass does in a step."""
    plain = models.subclassed()
    plain.compile("sgd", "mse")
    assert Compiled(plain).is_plain
    own = OwnCompile([keras.Input((2,)), models.dense("a")])
    own.compile("sgd", 1.0)
    assert Compiled(own).is_plain
    step = OwnStep([keras.Input((2,)), models.dense("a")])
    step.compile("sgd", 1.0)
    assert not Compiled(step).is_plain
    inputs = keras.Input((2,))
    loss = OwnLoss(inputs, models.dense("a")(inputs))
    loss.compile("sgd", "mse")
    assert not Compiled(loss).is_plain


@pytest.mark.parametrize("model", [models.sequential, object], ids=["a model", "no model"])
def test_what_is_not_compiled_is_one_clear_error(model):
    with pytest.raises(
        ValueError, match=r"^`model` must be compiled\. Received: model=.*\. `model\.compile\('adam', loss"
    ):
        Compiled(model())


# It tells two runs apart


@keras.saving.register_keras_serializable(package="kadence_tests")
class Distance(keras.losses.Loss):
    """A loss that keeps what it was given to itself."""

    def __init__(self, power=2):
        super().__init__()
        self.power = power

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** self.power)


class Callable:
    """No Keras object at all: only its memory address is its own."""

    def __call__(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred))


class Broken(Distance):
    def get_config(self):
        raise NotImplementedError


class Holder(Distance):
    """A config with something that is no JSON."""

    def get_config(self):
        return {
            "inner": Callable(),
            "powers": np.arange(2),
            "one": np.float32(0.5),
            "pair": (1, None),
            "kind": Callable,
        }


def loss_function(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"loss": "mse"}, {"loss": "mae"}),
        (
            {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1)},
            {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.2)},
        ),
        ({"loss": loss_function}, {"loss": Callable()}),
        ({"loss": Distance()}, {"loss": Callable()}),
        ({"loss_weights": [1.0]}, {"loss_weights": [2.0]}),
        ({"loss_weights": [1.0]}, {}),
        ({"metrics": ["mae"]}, {"metrics": ["mse"]}),
        ({"metrics": ["mae"]}, {"weighted_metrics": ["mae"]}),
        (
            {"metrics": [keras.metrics.TopKCategoricalAccuracy(k=1)]},
            {"metrics": [keras.metrics.TopKCategoricalAccuracy(k=2)]},
        ),
        ({"optimizer": "sgd"}, {"optimizer": "adam"}),
        ({"optimizer": keras.optimizers.SGD(momentum=0.5)}, {"optimizer": keras.optimizers.SGD(momentum=0.9)}),
    ],
)
def test_other_settings_are_another_description(one, other):
    first, second = described(**one), described(**other)
    assert first != second
    assert {name for name in first if first[name] != second[name]} == {*one, *other}


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"loss": Distance()},
        lambda: {"loss": Callable()},
        lambda: {"loss": Broken()},
        lambda: {"loss": Holder()},
        lambda: {"loss": partial(loss_function)},
        lambda: {"loss": lambda y_true, y_pred: keras.ops.mean(y_pred)},
        lambda: {"loss": loss_function},
        lambda: {"metrics": [keras.metrics.MeanMetricWrapper(lambda y_true, y_pred: y_pred)]},
        lambda: {"metrics": [[loss_function, keras.metrics.MeanMetricWrapper(loss_function)]]},
        lambda: {"optimizer": keras.optimizers.SGD(0.1)},
        lambda: {"optimizer": keras.optimizers.SGD(kadence.Constant(0.2))},
    ],
)
def test_equal_settings_are_an_equal_description(make):
    assert described(**make()) == described(**make())


def test_the_rate_is_not_described():
    assert described(optimizer=keras.optimizers.SGD(0.1)) == described(optimizer=keras.optimizers.SGD(0.2))
    schedule = kadence.Constant(0.2)
    assert described(optimizer=keras.optimizers.SGD(0.1)) == described(optimizer=keras.optimizers.SGD(schedule))


def test_weight_decay_by_group_is_described():
    def grouped(**decay):
        model = models.sequential()
        groups = kadence.split(model, ["c"])
        optimizer = kadence.DiscriminativeOptimizer(keras.optimizers.SGD(weight_decay=0.1), groups, [1, 1], **decay)
        model.compile(optimizer, "mse")
        return json.dumps(Compiled(model).describe())

    kinds = [{}, {"no_weight_decay": ["bias"]}, {"weight_decay_multipliers": [0.0, 1.0]}]
    assert len({grouped(**kind) for kind in kinds}) == 3


def several():
    loss = [Distance() for _ in range(3)][-1]  # Keras numbers their names
    return described(optimizer="adam", loss=loss, metrics=[[Callable(), keras.metrics.MeanSquaredError()]])


def test_another_process_describes_it_alike():
    """Neither addresses in memory nor numbers that Keras gives are in it."""
    several()
    done = tiny.python("import json, test_compiled; print(json.dumps(test_compiled.several()))")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == several()
