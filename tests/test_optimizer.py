"""The updates against oracles that know nothing of Kadence: NumPy in float64, and plain Keras optimizers per group."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops
from optimizer_oracles import (
    FORMULAS,
    GROUP_RATES,
    MULTIPLIERS,
    RESTARTS,
    SCALES,
    STEPS,
    adam,
    all_values,
    apply_to_layers,
    assert_close,
    assert_same,
    batch_gradients,
    batches,
    branches,
    by_layer,
    chain,
    fit,
    linear_loss,
    oracle,
    random_like,
    randomize,
    sgd,
    sgd_momentum,
    tensors,
    three_groups,
    values,
)

import kadence
from kadence import DiscriminativeOptimizer

BACKEND = keras.backend.backend()

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("way", ["apply", "fit"])
def test_updates_equal_the_published_formulas(name, way):
    cls, arguments, formula = FORMULAS[name]
    model = branches()
    optimizer = DiscriminativeOptimizer(cls(RESTARTS, **arguments), three_groups(model), MULTIPLIERS)
    x, y = batches(STEPS)
    gradients = batch_gradients(x, y)
    expected = oracle(formula, by_layer(model), gradients, weight_decay=arguments.get("weight_decay", 0.0))
    if way == "fit":
        fit(model, optimizer, x, y)
    else:
        apply_to_layers(optimizer, model, gradients)
    assert_close(model, expected, rtol=1e-4 if name == "Muon" else 1e-5)
    assert int(optimizer.iterations) == STEPS


@pytest.mark.skipif(BACKEND != "tensorflow", reason="on JAX every fit is compiled by XLA, on PyTorch none")
def test_updates_compiled_by_xla():
    model = branches()
    x, y = batches(STEPS)
    expected = oracle(adam, by_layer(model), batch_gradients(x, y), weight_decay=0.3)
    inner = keras.optimizers.AdamW(RESTARTS, weight_decay=0.3)
    model.compile(DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS), linear_loss, jit_compile=True)
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    assert_close(model, expected)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_weight_decay_scales_with_the_rate_of_the_group(name):
    cls, arguments, formula = FORMULAS[name]
    model = branches()
    gradients = batch_gradients(*batches(STEPS))
    expected = oracle(formula, by_layer(model), gradients, weight_decay=0.5)
    inner = cls(RESTARTS, weight_decay=0.5, **arguments)
    apply_to_layers(DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS), model, gradients)
    assert_close(model, expected)


@pytest.mark.parametrize("excluder", ["inner", "outer"])
def test_variables_can_be_excluded_from_weight_decay(excluder):
    model = chain()
    inner = keras.optimizers.SGD(0.1, weight_decay=0.5)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), [0.1, 1.0, 2.0])
    chosen = inner if excluder == "inner" else optimizer
    chosen.exclude_from_weight_decay(var_names=["bias"], var_list=[model.get_layer("head").kernel])
    before = by_layer(model)
    optimizer.build(model.trainable_variables)
    optimizer.apply([ops.zeros(v.shape) for v in model.trainable_variables])
    after = by_layer(model)
    for layer, factor in {"low": 1 - 0.005, "middle": 1 - 0.05, "head": 1.0}.items():
        np.testing.assert_allclose(after[layer][0], before[layer][0] * factor, 1e-6)
        np.testing.assert_array_equal(after[layer][1], before[layer][1])


@pytest.mark.parametrize("excluder", ["inner", "outer", "built"])
def test_exclusions_by_variable_and_by_name_add_up(excluder):
    """Keras forgets the ones when it is told the others."""
    model = chain()
    inner = keras.optimizers.SGD(0.1, weight_decay=0.5)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), [1.0, 1.0, 1.0], no_weight_decay=["bias", "b.a"])
    chosen = inner if excluder == "inner" else optimizer
    if excluder == "built":
        optimizer.build(model.trainable_variables)
    chosen.exclude_from_weight_decay(var_list=[model.get_layer("head").kernel], var_names=["nothing", "bi"])
    optimizer.build(model.trainable_variables)
    for _ in range(3):  # each of which builds it again
        kadence.rebuild_optimizer(optimizer, model.get_layer("head").weights)
        kadence.rebuild_optimizer(optimizer, model.trainable_variables)
    before = by_layer(model)
    optimizer.apply([ops.zeros(v.shape) for v in model.trainable_variables])
    after = by_layer(model)
    for layer, factor in {"low": 0.95, "middle": 0.95, "head": 1.0}.items():
        np.testing.assert_allclose(after[layer][0], before[layer][0] * factor, 1e-6)
        np.testing.assert_array_equal(after[layer][1], before[layer][1])
    assert inner._exclude_from_weight_decay_pattern.pattern == r"bias|b\.a|bi|nothing" or (
        inner._exclude_from_weight_decay_pattern.pattern == r"bias|b\.a|nothing|bi"
    )


@pytest.mark.parametrize("decays", [(None, 0.5), (0.5, None), (None, None)], ids=str)
def test_each_decay_of_muon_counts_by_itself(decays):
    matrix, adams = decays
    model = chain()
    if "adam_weight_decay" not in inspect.signature(keras.optimizers.Muon).parameters:
        pytest.skip("not in this Keras")
    inner = keras.optimizers.Muon(0.1, weight_decay=matrix, adam_weight_decay=adams)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), [0.5, 1.0, 1.0])
    before = by_layer(model)
    optimizer.build(model.trainable_variables)
    optimizer.apply([ops.zeros(v.shape) for v in model.trainable_variables])
    after = by_layer(model)
    for layer, rate in {"low": 0.05, "middle": 0.1, "head": 0.1}.items():
        for i, decay in enumerate((matrix, adams)):
            np.testing.assert_allclose(after[layer][i], before[layer][i] * (1 - rate * (decay or 0.0)), 1e-5, 1e-7)


def test_apply_gradients_gives_the_number_of_updates():
    model = chain()
    optimizer = DiscriminativeOptimizer(keras.optimizers.SGD(0.1), three_groups(model), [1.0, 1.0, 1.0])
    for step in (1, 2):
        gradients = [ops.zeros(v.shape) for v in model.trainable_variables]
        count = optimizer.apply_gradients(list(zip(gradients, model.trainable_variables, strict=True)))
        assert int(values(count)) == step


def test_the_global_norm_is_taken_over_all_groups():
    """Gradients 3 and 4 with norm 1 become .6 and .8; an optimizer per group would make them 1 and 1."""
    inputs = keras.Input((1,))
    x = keras.layers.Dense(1, use_bias=False, name="low")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, name="head")(x))
    groups = kadence.split(model, at="head")
    optimizer = DiscriminativeOptimizer(keras.optimizers.SGD(1.0, global_clipnorm=1.0), groups, [0.5, 1.0])
    before = all_values(model.trainable_variables)
    optimizer.apply([ops.full((1, 1), 3.0), ops.full((1, 1), 4.0)], model.trainable_variables)
    moved = [(b - a).item() for b, a in zip(before, all_values(model.trainable_variables), strict=True)]
    assert moved == pytest.approx([0.6 * 0.5, 0.8], rel=1e-6)


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_comes_before_the_rates(clip):
    limit = 0.2

    def clipped(layers):
        if clip == "clipvalue":
            return {name: [np.clip(g, -limit, limit) for g in layer] for name, layer in layers.items()}
        norms = {name: [np.linalg.norm(g) for g in layer] for name, layer in layers.items()}
        if clip == "global_clipnorm":
            total = np.sqrt(sum(n**2 for layer in norms.values() for n in layer))
            norms = {name: [total for _ in layer] for name, layer in norms.items()}
        return {
            name: [g * min(1.0, limit / n) for g, n in zip(layer, norms[name], strict=True)]
            for name, layer in layers.items()
        }

    model = branches()
    gradients = batch_gradients(*batches(STEPS))
    expected = oracle(sgd_momentum, by_layer(model), [clipped(layers) for layers in gradients])
    inner = keras.optimizers.SGD(RESTARTS, momentum=0.9, **{clip: limit})
    apply_to_layers(DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS), model, gradients)
    assert_close(model, expected)


def test_a_schedule_counts_updates_and_not_the_batches_of_an_accumulated_gradient():
    model = branches()
    x, y = batches(STEPS * 3 + 1)  # the last batch waits for an update that does not come
    micro = batch_gradients(x, y)
    gradients = [
        {
            name: [np.mean(gs, axis=0) for gs in zip(*(m[name] for m in micro[i : i + 3]), strict=True)]
            for name in SCALES
        }
        for i in range(0, STEPS * 3, 3)
    ]
    expected = oracle(adam, by_layer(model), gradients, weight_decay=0.3)
    inner = keras.optimizers.AdamW(RESTARTS, weight_decay=0.3, gradient_accumulation_steps=3)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS)
    fit(model, optimizer, x, y)
    assert_close(model, expected)
    assert int(optimizer.iterations) == STEPS
    assert optimizer.learning_rates["head"] == pytest.approx(RESTARTS.sample(1, STEPS).item(), rel=1e-6)


@pytest.mark.parametrize("overwrite", [None, 2])
def test_moving_average_of_the_weights(overwrite):
    model = branches()
    x, y = batches(STEPS)
    weights = {name: [w.astype("float64") for w in layer] for name, layer in by_layer(model).items()}
    average = {name: [w.copy() for w in layer] for name, layer in weights.items()}
    for step, layers in enumerate(batch_gradients(x, y)):
        for name in SCALES:
            for i, g in enumerate(layers[name]):
                weights[name][i] = weights[name][i] - GROUP_RATES[name][step] * g
                momentum = 0.9 if step else 0.0
                average[name][i] = momentum * average[name][i] + (1 - momentum) * weights[name][i]
                if overwrite and (step + 1) % overwrite == 0:
                    weights[name][i] = average[name][i].copy()
    inner = keras.optimizers.SGD(RESTARTS, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=overwrite)
    fit(model, DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS), x, y)
    assert_close(model, average)  # Keras puts the averages into the model at the end of fit


def test_a_loss_scale_around_it_changes_nothing():
    model = branches()
    x, y = batches(STEPS)
    expected = oracle(adam, by_layer(model), batch_gradients(x, y))
    inner = DiscriminativeOptimizer(keras.optimizers.Adam(RESTARTS), three_groups(model), MULTIPLIERS)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0, dynamic_growth_steps=2)
    fit(model, optimizer, x, y)
    assert_close(model, expected)
    assert float(values(optimizer.dynamic_scale)) == 1024 * 2 ** (STEPS // 2)
    assert float(values(optimizer.learning_rate)) == pytest.approx(RESTARTS.sample(1, STEPS).item())


def test_a_static_loss_scale_is_that_of_the_inner_optimizer():
    model = branches()
    x, y = batches(STEPS)
    expected = oracle(sgd, by_layer(model), batch_gradients(x, y))
    inner = keras.optimizers.SGD(RESTARTS, loss_scale_factor=256.0)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS)
    assert optimizer.loss_scale_factor == 256.0
    assert float(values(optimizer.scale_loss(ops.convert_to_tensor(2.0)))) == 512.0
    fit(model, optimizer, x, y)
    assert_close(model, expected)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_moves_each_group_at_its_rate(policy):
    keras.config.set_dtype_policy(policy)
    x, y = batches(3)
    model = branches()
    for variable in model.trainable_variables:
        variable.assign(ops.zeros(variable.shape))
    optimizer = DiscriminativeOptimizer(keras.optimizers.SGD(0.5), three_groups(model), [0.25, 0.5, 1.0])
    fit(model, optimizer, x, y)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    assert int(model.optimizer.iterations) == 3
    for name, rate in {"low": 0.125, "middle": 0.25, "head": 0.5}.items():
        moves = [-rate * sum(g) for g in zip(*(layers[name] for layers in batch_gradients(x, y)), strict=True)]
        for got, want in zip(by_layer(model)[name], moves, strict=True):
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, want, 0.02, 0.02 * rate)


# Plain Keras optimizers as oracles.

NAMES = [
    name
    for name in (
        *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam"),
        *("RMSprop", "SGD", "ScheduleFreeAdamW"),
    )
    if hasattr(keras.optimizers, name)
]
EVERYTHING = {
    "weight_decay": 0.1,
    "global_clipnorm": 1.0,
    "use_ema": True,
    "ema_momentum": 0.9,
    "ema_overwrite_frequency": 2,
    "gradient_accumulation_steps": 2,
}


def make(name, rate=0.05, **arguments):
    if name == "SGD":
        arguments["momentum"] = 0.9
    return getattr(keras.optimizers, name)(rate, **arguments)


def apply_all(optimizer, variables, gradients):
    """The values of the variables after the updates."""
    for grads in gradients:
        optimizer.apply(tensors(grads), variables)
    return all_values(variables)


def apply_compiled(optimizer, variables, gradients):
    """As `apply_all`, but on JAX compiled as in fit: eager, each branch of an accumulation is compiled at each step."""
    if BACKEND != "jax":
        return apply_all(optimizer, variables, gradients)
    import jax

    optimizer.build(variables)
    step = jax.jit(optimizer.stateless_apply)
    weights, state = [v.value for v in variables], [v.value for v in optimizer.variables]
    for grads in gradients:
        weights, state = step(state, tensors(grads), weights)
    for variable, value in zip([*variables, *optimizer.variables], [*weights, *state], strict=True):
        variable.assign(value)
    return all_values(variables)


def plain_or_skip(name, call, *arguments):
    try:
        return call(*arguments)
    except AttributeError as error:  # Muon of Keras 3.12 on TensorFlow
        return pytest.skip(f"This Keras's own {name} fails here: {error}")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [*((name, {"weight_decay": 0.1}) for name in NAMES), ("Nadam", EVERYTHING)],
)
def test_groups_with_multiplier_1_equal_the_plain_optimizer_bit_for_bit(name, arguments):
    model = chain()
    gradients = random_like(model.trainable_variables, seed=1, count=6)
    plain = make(name, **arguments)
    expected = plain_or_skip(name, apply_compiled, plain, model.trainable_variables, gradients)
    model = chain()
    optimizer = DiscriminativeOptimizer(make(name, **arguments), three_groups(model), [1.0, 1, np.float32(1.0)])
    assert_same(apply_compiled(optimizer, model.trainable_variables, gradients), expected)
    # Nor does it need more state than two scalars.
    assert_same(all_values(optimizer.variables[2:]), all_values(plain.variables))
    assert [tuple(v.shape) for v in optimizer.variables[:2]] == [(), ()]


@pytest.mark.parametrize(("name", "arguments"), [("Adam", {}), ("AdamW", EVERYTHING)])
def test_fit_with_multiplier_1_equals_the_plain_optimizer_bit_for_bit(name, arguments):
    x, y = batches(5)
    results = []
    for n_groups in (0, 1, 3):
        model = chain()
        # Where gradients are accumulated, a schedule counts updates with groups and batches without.
        optimizer = make(name, 0.05 if arguments else RESTARTS, **arguments)
        if n_groups:
            optimizer = DiscriminativeOptimizer(optimizer, kadence.split_evenly(model, n_groups), [1.0] * n_groups)
        losses = fit(model, optimizer, x, y, loss="mse", epochs=2).history["loss"]
        state = optimizer.variables[2:] if n_groups else optimizer.variables
        results.append([*all_values(model.trainable_variables), *all_values(state), np.array(losses)])
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@pytest.mark.parametrize("name", NAMES)
def test_each_group_equals_a_plain_optimizer_with_its_rate_on_its_variables_only(name):
    multipliers = {"low": 0.125, "middle": 1.0, "head": 2.0}  # powers of 2: float32 holds the rate exactly
    arguments = {"weight_decay": 0.1, "clipnorm": 1.0}
    model = chain()
    gradients = random_like(model.trainable_variables, seed=2, count=3)
    expected = []
    for i, (layer, factor) in enumerate(multipliers.items()):
        own = [grads[2 * i : 2 * i + 2] for grads in gradients]
        plain = make(name, 0.05 * factor, **arguments)
        expected += plain_or_skip(name, apply_all, plain, model.get_layer(layer).trainable_variables, own)
    model = chain()
    optimizer = DiscriminativeOptimizer(make(name, **arguments), three_groups(model), list(multipliers.values()))
    for got, want in zip(apply_all(optimizer, model.trainable_variables, gradients), expected, strict=True):
        np.testing.assert_allclose(got, want, 1e-6, 1e-7)


def test_a_scheduled_momentum_is_that_of_the_formula():
    momentum = kadence.Linear(0.5, 0.9, n_steps=4)

    def formula(state, g, w, lr, t):
        state["m"] = (0.5, 0.6, 0.7, 0.8, 0.9)[t - 1] * state.get("m", 0.0) - lr * g
        return -state["m"]

    model = branches()
    x, y = batches(STEPS)
    expected = oracle(formula, by_layer(model), batch_gradients(x, y))
    inner = keras.optimizers.SGD(RESTARTS, momentum=0.9)
    fit(model, DiscriminativeOptimizer(inner, three_groups(model), MULTIPLIERS, schedules={"momentum": momentum}), x, y)
    assert_close(model, expected)
    assert inner.momentum == 0.9


def hyperparameters(optimizer):
    """Those of an optimizer that can be scheduled."""
    left_out = ("learning_rate", "loss_scale_factor", "ema_momentum", "initial_accumulator_value")
    found = {name: value for name, value in optimizer.get_config().items() if isinstance(value, float) and value > 0}
    return {name: value for name, value in found.items() if name not in left_out}


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_a_scheduled_clip(name, clip):
    model = chain()
    gradients = random_like(model.trainable_variables, seed=4, count=2)
    expected = apply_compiled(make(name, **{clip: 0.5}), model.trainable_variables, gradients)
    model = chain()
    schedules = {clip: kadence.join([kadence.Constant(0.5), kadence.Constant(0.1)], at_steps=[100])}
    inner = make(name, **{clip: 0.5})
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), [1, 1, 1], schedules=schedules)
    for got, want in zip(apply_compiled(optimizer, model.trainable_variables, gradients), expected, strict=True):
        np.testing.assert_allclose(got, want, 1e-5, 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_hyperparameters_on_a_constant_schedule_are_as_without_one(name):
    model = chain()
    gradients = random_like(model.trainable_variables, seed=4, count=2)
    arguments = {"weight_decay": 0.1, **({"momentum": 0.9} if name == "RMSprop" else {})}
    plain = make(name, **arguments)
    scheduled = hyperparameters(plain)
    expected = plain_or_skip(name, apply_compiled, plain, model.trainable_variables, gradients)
    model = chain()
    schedules = {key: kadence.Constant(value) for key, value in scheduled.items()}
    inner = make(name, **arguments)
    optimizer = DiscriminativeOptimizer(inner, three_groups(model), [1, 1, 1], schedules=schedules)
    for got, want in zip(apply_compiled(optimizer, model.trainable_variables, gradients), expected, strict=True):
        np.testing.assert_allclose(got, want, 1e-5, 1e-6)
    assert hyperparameters(inner) == scheduled


def test_an_embedding_whose_gradient_is_sparse():
    def net():
        inputs = keras.Input((2,), dtype="int32")
        x = keras.layers.Flatten()(keras.layers.Embedding(5, 3, name="table")(inputs))
        return randomize(keras.Model(inputs, keras.layers.Dense(2, name="head")(x)))

    x, y = np.array([[0, 1], [1, 4]] * 4), np.ones((8, 2), "float32")
    results = []
    for multipliers in (None, [1.0, 1.0], [0.0, 1.0]):
        model, optimizer = net(), keras.optimizers.Adam(0.05, clipnorm=1.0)
        before = values(model.trainable_variables[0])
        if multipliers:
            optimizer = DiscriminativeOptimizer(optimizer, kadence.split(model, at="head"), multipliers)
        fit(model, optimizer, x, y, loss="mse", eager=True)
        results.append(all_values(model.trainable_variables))
    assert_same(results[0], results[1])
    np.testing.assert_array_equal(results[2][0], before)
