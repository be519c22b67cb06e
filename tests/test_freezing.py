"""What moves and what stands still, before and after the optimizer goes on."""

import keras
import models
import numpy as np
import optimizer_oracles as oracles
import pytest
import tiny

import kadence
from kadence import freeze_to, unfreeze
from kadence.freezing import groups_of

BACKEND = keras.backend.backend()
JIT = "auto" if BACKEND == "jax" else False
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype("float32")
Y = RNG.normal(size=(12, 2)).astype("float32")
KINDS = ["plain", "grouped", "loss scale"]


def new_model():
    """A nested backbone of two groups with BatchNormalization in each, and a head."""
    keras.utils.set_random_seed(2)
    inner = keras.Input((3,), name="inner_in")
    x = inner
    for name in ("low", "middle"):
        x = keras.layers.BatchNormalization(name=f"{name}_norm")(keras.layers.Dense(4, name=name)(x))
    backbone = keras.Model(inner, x, name="backbone")
    inputs = keras.Input((3,), name="in")
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(backbone(inputs)))


def split(model):
    return kadence.split(model, ["middle", "head"])


def compiled(kind="grouped", **arguments):
    model = new_model()
    groups = split(model)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.1)
    if kind != "plain":
        optimizer = kadence.DiscriminativeOptimizer(optimizer, groups, [0.5, 1.0, 1.0])
    if kind == "loss scale":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)
    model.compile(optimizer, "mse", jit_compile=JIT, **arguments)
    return model, groups


def fit(model, epochs=1, **kwargs):
    return model.fit(X, Y, 6, epochs, 0, shuffle=False, **kwargs)


def weights(groups):
    return {group.name: [oracles.values(weight) for weight in group.weights] for group in groups}


def still(before, groups):
    """Names of the groups in which no bit moved, statistics included."""
    now = weights(groups)
    return [name for name in before if all(map(tiny.same, before[name], now[name]))]


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_groups_do_not_move_and_the_optimizer_goes_on(kind):
    model, groups = compiled(kind)
    fit(model)  # momentum gathers everywhere
    optimizer = model.optimizer
    n_all = len(optimizer.variables)
    before = weights(groups)
    assert freeze_to(model, "group_3", groups) == ("group_3",)
    fit(model)
    assert still(before, groups) == ["group_1", "group_2"]
    before = weights(groups)
    assert unfreeze(model, 1, groups) == ("group_2", "group_3")
    fit(model)
    assert still(before, groups) == ["group_1"]
    assert unfreeze(model, groups=groups) == ("group_1", "group_2", "group_3")
    fit(model)
    assert model.optimizer is optimizer
    assert int(optimizer.iterations) == 8
    assert len(optimizer.variables) == n_all - 4, "gamma and beta of two norms stay frozen"


def test_momentum_of_the_weights_that_stay_is_kept_and_the_loss_is_that_of_a_run_by_hand():
    """The same steps without Keras: SGD with momentum on the head, whose inputs stand still."""
    model, groups = compiled("plain")
    freeze_to(model, -1, groups)
    backbone = keras.Model(model.inputs, model.get_layer("head").input)
    features = backbone.predict(X, verbose=0).astype("float64")
    kernel, bias = (w.astype("float64") for w in oracles.all_values(model.get_layer("head").weights))
    momenta = [np.zeros_like(kernel), np.zeros_like(bias)]
    for epoch in range(3):
        if epoch:  # no state is lost by freezing what is frozen, or by a round trip
            unfreeze(model, groups=groups)
            freeze_to(model, "group_3", groups)
        fit(model)
        for start in (0, 6):
            x, y = features[start : start + 6], Y[start : start + 6].astype("float64")
            error = 2 * (x @ kernel + bias - y) / y.size
            for i, gradient in enumerate((x.T @ error, error.sum(0))):
                kernel, bias = (kernel * (1 - 0.005), bias) if i == 0 else (kernel, bias * (1 - 0.005))
                momenta[i] = 0.9 * momenta[i] - 0.05 * gradient
            kernel, bias = kernel + momenta[0], bias + momenta[1]
    np.testing.assert_allclose(oracles.values(model.get_layer("head").kernel), kernel, rtol=1e-4, atol=1e-6)


def test_batch_norm_policies():
    model, groups = compiled()
    freeze_to(model, -1, groups)
    low, middle = (model.get_layer("backbone").get_layer(f"{name}_norm") for name in ("low", "middle"))
    assert (low.trainable, middle.trainable) == (False, False)
    unfreeze(model, 1)
    assert not middle.trainable
    freeze_to(model, -1)
    assert unfreeze(model, batch_norm=["frozen", "train", "frozen"]) == ("group_1", "group_2", "group_3")
    assert (low.trainable, middle.trainable) == (False, True)
    before = [oracles.values(norm.moving_mean) for norm in (low, middle)]
    fit(model)
    now = [oracles.values(norm.moving_mean) for norm in (low, middle)]
    assert tiny.same(before[0], now[0])
    assert not tiny.same(before[1], now[1])


def test_a_group_that_trains_stays_as_it_is():
    model = new_model()
    norm = model.get_layer("backbone").get_layer("middle_norm")
    freeze_to(model, "group_2", split(model))
    assert norm.trainable, "it trained before"
    norm.trainable = False
    freeze_to(model, "group_2", split(model), batch_norm="train")
    assert not norm.trainable, "and was frozen by hand"


def test_layers_of_equal_shape_change_places():
    """The compiled step of before would fit, and train the wrong layer."""
    model = models.sequential(("a", "b"))
    groups = kadence.split(model, ["b"])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=JIT)
    x = np.ones((2, 2), "float32")
    freeze_to(model, "group_2", groups)
    model.fit(x, 3 * x, verbose=0)
    unfreeze(model, "group_1", groups)
    kadence.freezing._change(model, groups, [None, False], "frozen", False)
    before = weights(groups)
    model.fit(x, 3 * x, verbose=0)
    assert still(before, groups) == ["group_2"]


@pytest.mark.parametrize("build", models.BUILDERS, ids=lambda build: build.__name__)
def test_every_kind_of_model(build):
    model = build()
    model.trainable = True
    groups = kadence.split_evenly(model, 2)
    assert freeze_to(model, -1, groups) == (groups.names[-1],)
    trained = {id(v) for v in model.trainable_variables}
    assert trained
    assert trained <= {id(w) for w in groups[-1].weights}
    assert set(unfreeze(model, groups=groups, batch_norm="train")) == {g.name for g in groups if g.variables}


def test_no_gradient_is_asked_for_frozen_groups():
    model, groups = compiled()
    freeze_to(model, "group_3")
    assert model.trainable_variables == model.get_layer("head").weights
    if BACKEND == "torch":
        assert not any(weight.value.requires_grad for group in groups[:2] for weight in group.weights)
        unfreeze(model)
        assert model.get_layer("backbone").get_layer("low").kernel.value.requires_grad


def freeze_all_again(model):
    freeze_to(model, 0, restart=True)


def unfreeze_all(model):
    unfreeze(model, restart=True)


def test_restart():
    model, _ = compiled()
    fit(model)
    freeze_to(model, -1, restart=True)
    assert int(model.optimizer.iterations) == 0
    unfreeze(model, restart=True)
    fit(model)
    assert int(model.optimizer.iterations) == 2


@pytest.mark.parametrize("change", [freeze_all_again, unfreeze_all], ids=["freeze_to", "unfreeze"])
def test_restart_where_all_trains_already_updates_the_new_state(change):
    model, _ = compiled()
    fit(model)
    change(model)
    fit(model)
    momenta = oracles.all_values(model.optimizer.inner_optimizer.momentums)
    assert all(momentum.any() for momentum in momenta), "the step that was traced before goes on with the old ones"


def test_lora_trains_after_freezing_as_before():
    model, groups = compiled()
    middle = model.get_layer("backbone").get_layer("middle")
    middle.enable_lora(2)
    groups = split(model)
    model.compile(kadence.DiscriminativeOptimizer(keras.optimizers.SGD(0.1), groups, [1.0] * 3), "mse", jit_compile=JIT)
    before = [v.path for v in model.trainable_variables]
    freeze_to(model, -1)
    unfreeze(model, batch_norm="train")
    assert [v.path for v in model.trainable_variables] == before
    kernel = oracles.values(middle._kernel)
    fit(model)
    assert tiny.same(oracles.values(middle._kernel), kernel)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="strategies are TensorFlow's")
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_a_strategy_goes_on_in_it(kind):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model, groups = compiled(kind)
    fit(model)
    before = weights(groups)
    freeze_to(model, -1, groups)
    fit(model)
    assert still(before, groups) == ["group_1", "group_2"]
    unfreeze(model, groups=groups)
    fit(model, 3, callbacks=[kadence.GradualUnfreeze(groups)])
    slots = [v for v in model.optimizer.variables if v.path.endswith("momentum")]
    assert slots
    assert all(slot.value.distribute_strategy is strategy for slot in slots)


@keras.saving.register_keras_serializable("kadence_tests")
class Numbered(keras.layers.Layer):
    """Its sublayers have names that Keras numbers anew."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.layers.Dense(3) for _ in range(2)]

    def build(self, shape):
        for part in self.parts:
            part.build((None, 3))

    def call(self, x):
        return self.parts[1](self.parts[0](x))


@pytest.mark.parametrize("given", [False, True], ids=["its own groups", "new groups"])
@pytest.mark.parametrize("old", [False, True], ids=["file", "older file"])
def test_a_loaded_model_with_layers_of_other_names_is_frozen_and_unfrozen(old, given, tmp_path):
    inputs = keras.Input((3,), name="in")
    x = keras.layers.BatchNormalization(name="norm")(Numbered(name="r1")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(Numbered(name="r2")(x)))
    groups = kadence.group_by(model, {"outer": ["r1*", "head"], "inner": "*"})
    optimizer = kadence.DiscriminativeOptimizer(keras.optimizers.SGD(0.1), groups, [1.0, 1.0])
    model.compile(optimizer, "mse", jit_compile=JIT)
    fit(model)
    if old:
        config = groups.get_config()
        entries = [entry[:3] for entry in config["variables"]]
        groups.get_config = lambda variables=None: {"groups": config["groups"], "variables": entries}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("r1").parts[0].name != model.get_layer("r1").parts[0].name
    again = kadence.group_by(loaded, {"outer": ["r1*", "head"], "inner": "*"})
    freeze_to(loaded, -1, again if given else None)
    assert [v.path.split("/")[0] for v in loaded.trainable_variables] == ["norm"] * 2 + ["r2"] * 4
    unfreeze(loaded, groups=again if given else None, batch_norm="train")
    fit(loaded)
    found = groups_of(loaded, None)
    assert [[w.path for w in group.weights] for group in found] == [[w.path for w in group.weights] for group in again]


def test_a_frozen_model_is_saved_loaded_unfrozen_and_goes_on(tmp_path):
    """A file knows only the groups' weights that trained when it was written."""
    model, _ = compiled()
    freeze_to(model, "group_3")
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        if one is loaded:
            one.compile(one.optimizer, "mse", jit_compile=JIT)
        unfreeze(one)
        fit(one)
    assert len(groups_of(loaded, None)[0].weights) == 6
    for old, new in zip(model.weights, loaded.weights, strict=True):
        assert tiny.same(oracles.values(old), oracles.values(new))


def test_a_model_that_is_not_compiled_and_one_that_has_not_trained():
    model = new_model()
    assert freeze_to(model, "group_2", split(model)) == ("group_2", "group_3")
    model.compile("adam", "mse", jit_compile=False)
    assert freeze_to(model, "group_3", split(model)) == ("group_3",)
    assert not model.optimizer.built


def test_errors_leave_the_model_as_it_was():
    model, _ = compiled()
    flags = [variable.trainable for variable in model.weights]
    with pytest.raises(ValueError, match=r"`group` must be the name of a group.*Did you mean 'group_3'"):
        freeze_to(model, "group3")
    with pytest.raises(ValueError, match="`group` must be an integer from -3 to 2, or the name of a group"):
        freeze_to(model, 3)
    with pytest.raises(TypeError, match="`group` must"):
        unfreeze(model, 1.5)
    with pytest.raises(ValueError, match="`batch_norm` must be one of 'frozen', 'train'"):
        unfreeze(model, batch_norm="recompute")
    with pytest.raises(ValueError, match="`batch_norm` must be 'frozen' or 'train', or one of them per group, 3"):
        unfreeze(model, batch_norm=["train"])
    with pytest.raises(TypeError, match="`groups` must be LayerGroups"):
        freeze_to(model, 0, ["group_1"])
    with pytest.raises(ValueError, match="`groups` must be the groups of this model"):
        freeze_to(model, 0, kadence.split_evenly(models.functional(), 2))
    with pytest.raises(ValueError, match="`groups` must be given, or the model compiled"):
        freeze_to(new_model(), 0)
    assert flags == [variable.trainable for variable in model.weights]
    kadence.freeze_batch_norm(model)
    flags = [variable.trainable for variable in model.weights]
    norms_last = kadence.group_by(model, {"others": ["*low", "*middle", "head"], "norms": "*norm"})
    with pytest.raises(ValueError, match="`group` must leave something to train"):
        freeze_to(model, "norms", norms_last)
    assert flags == [variable.trainable for variable in model.weights]
    assert model.get_layer("head").trainable


class HiddenSlots(keras.optimizers.SGD):
    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.box = {"sum": self.add_variable_from_reference(variables[0], "sum")}


def test_an_optimizer_that_cannot_go_on_freezes_nothing():
    model = new_model()
    model.compile(HiddenSlots(0.1), "mse", jit_compile=JIT)
    model.optimizer.build(model.trainable_variables)
    flags = [variable.trainable for variable in model.weights]
    with pytest.raises(ValueError, match="`optimizer` must keep its state in attributes"):
        freeze_to(model, -1, split(model))
    assert flags == [variable.trainable for variable in model.weights]
    assert all(layer.trainable for layer in model._flatten_layers())
