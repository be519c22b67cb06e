import keras
import numpy as np
import pytest
from optimizer_oracles import assert_same, batches, chain, fit, three_groups, values
from range_tests import bits

import kadence
from kadence._sweep import Sweep, layers_of
from kadence._updates import innermost

RATES = np.geomspace(1e-4, 1.0, 20)
OPTIMIZERS = {
    "Adam": lambda: keras.optimizers.Adam(0.1, beta_1=0.8, amsgrad=True),
    "AdamW": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.2, clipnorm=1.0),
    "SGD": lambda: keras.optimizers.SGD(kadence.Cosine(0.1, 10), momentum=0.7, nesterov=True),
    "Nadam": lambda: keras.optimizers.Nadam(0.1),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.3),
    "Lion": lambda: keras.optimizers.Lion(0.1, use_ema=True),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.1, momentum=0.5, centered=True),
    "Ftrl": lambda: keras.optimizers.Ftrl(0.1),
}


def trained(optimizer):
    model = chain()
    fit(model, optimizer(model), *batches(3), loss="mse", eager=True)
    return model


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stand_in_has_the_class_the_settings_and_the_state(name):
    model = trained(lambda model: OPTIMIZERS[name]())
    original = model.optimizer
    before = [bits(v) for v in original.variables]
    sweep = Sweep(original, RATES)
    sweep.build(model.trainable_variables)
    stand_in = sweep.optimizer
    assert isinstance(stand_in, type(original))
    config = {**stand_in.get_config(), "learning_rate": 0}
    assert config == {**original.get_config(), "learning_rate": 0}
    n = len(original.variables)
    assert [v.shape for v in stand_in.variables[:n]] == [v.shape for v in original.variables]
    assert [bits(v) for v in stand_in.variables[:n]] == before
    assert not {id(v) for v in stand_in.variables} & {id(v) for v in original.variables}
    stand_in.apply([keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    assert [bits(v) for v in original.variables] == before
    sweep.begin([1.0], [0.0])
    assert [bits(v) for v in stand_in.variables[:n]] == before


def test_a_stand_in_for_an_optimizer_without_state_goes_back_to_its_first():
    model = chain()
    sweep = Sweep(keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.3), RATES)
    sweep.build(model.trainable_variables)
    before = [bits(v) for v in sweep.optimizer.variables]
    sweep.begin([1.0], [0.5])
    sweep.optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    assert [bits(v) for v in sweep.optimizer.variables] != before
    sweep.begin([0.0], [0.0])
    assert [bits(v) for v in sweep.optimizer.variables] == before


def rates_of(sweep):
    rates = innermost(sweep.optimizer)._rates_of_groups()[1]
    return [float(keras.ops.convert_to_numpy(rate)) for rate in rates]


def test_the_rate_of_a_group_is_factor_times_swept_plus_still():
    model = chain()
    optimizer = kadence.DiscriminativeOptimizer(keras.optimizers.SGD(0.1), three_groups(model), [0.1, 0.5, 1.0])
    sweep = Sweep(optimizer, RATES)
    sweep.build(model.trainable_variables)
    sweep.begin([0.0, 2.0, 1.0], [0.3, 0.0, 0.5])
    ones = [keras.ops.ones(v.shape) for v in model.trainable_variables]
    for step in range(25):
        before = {name: values(model.get_layer(name).bias) for name in ("low", "middle", "head")}
        rate = RATES[min(step, 19)]
        expected = [0.3, 2 * rate, rate + 0.5]
        np.testing.assert_allclose(rates_of(sweep), expected, rtol=1e-6)
        sweep.optimizer.apply(ones, model.trainable_variables)
        moved = [float((before[name] - values(model.get_layer(name).bias))[0]) for name in before]
        np.testing.assert_allclose(moved, expected, rtol=1e-3)
    assert not optimizer.built


def test_weight_decay_leaves_alone_what_it_left_alone():
    model = chain()
    inner = keras.optimizers.SGD(0.1, weight_decay=0.5)
    optimizer = kadence.DiscriminativeOptimizer(inner, three_groups(model), [1.0] * 3, no_weight_decay=["bias"])
    optimizer.build(model.trainable_variables)
    sweep = Sweep(optimizer, RATES)
    sweep.build(model.trainable_variables)
    sweep.begin([0.0] * 3, [0.1] * 3)
    before = [values(v) for v in model.trainable_variables]
    sweep.optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    expected = [w if v.name == "bias" else w * 0.95 for v, w in zip(model.trainable_variables, before, strict=True)]
    for variable, wanted in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(values(variable), wanted, rtol=1e-6)


def test_scheduled_hyperparameters_stay_at_their_present_value():
    model = trained(
        lambda model: kadence.DiscriminativeOptimizer(
            keras.optimizers.SGD(0.1, momentum=0.9),
            three_groups(model),
            [1.0] * 3,
            schedules={"momentum": kadence.Linear(0.9, 0.6, 6)},
        )
    )
    assert Sweep(model.optimizer, RATES).optimizer.momentum == pytest.approx(0.75)


def test_the_loss_scale_is_taken_over():
    model = trained(lambda model: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=16.0))
    model.optimizer.dynamic_scale.assign(4.0)
    sweep = Sweep(model.optimizer, RATES)
    sweep.build(model.trainable_variables)
    assert values(sweep.optimizer.dynamic_scale) == 4.0
    assert_same([values(sweep.optimizer.step_counter)], [values(model.optimizer.step_counter)])
    assert sweep.optimizer.dynamic_growth_steps == model.optimizer.dynamic_growth_steps


def test_layers_around_an_optimizer():
    inner = keras.optimizers.SGD()
    assert layers_of(inner) == (None, None)
    grouped = kadence.DiscriminativeOptimizer(inner, three_groups(chain()), [1.0] * 3)
    scaled = keras.optimizers.LossScaleOptimizer(grouped)
    assert layers_of(scaled) == (grouped, scaled)


def test_a_wrapper_that_is_not_known():
    class Wrapper(keras.optimizers.Optimizer):
        def __init__(self, inner):
            super().__init__(0.1)
            self.inner_optimizer = inner

    with pytest.raises(TypeError, match=r"`model.optimizer` must be one Keras optimizer.*'Wrapper'"):
        layers_of(Wrapper(keras.optimizers.SGD()))
