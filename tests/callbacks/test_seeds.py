import keras
import numpy as np
import pytest
from bad_input import assert_integer

from kadence.callbacks import EpochSeeds


def dropout_model():
    """Two Dropout layers of equal shape, one of them nested: both outputs are their masks."""
    inner_input = keras.Input((64,))
    inner = keras.Model(inner_input, keras.layers.Dropout(0.5)(inner_input), name="inner")
    pixels = keras.Input((64,))
    return keras.Model(pixels, [keras.layers.Dropout(0.5)(pixels), inner(pixels)])


def masks(model):
    return [keras.ops.convert_to_numpy(mask) for mask in model(np.ones((8, 64), np.float32), training=True)]


def seeded(model, seed):
    callback = EpochSeeds(seed)
    callback.set_model(model)
    return callback


def test_an_epoch_draws_the_same_masks_however_it_is_reached():
    model = dropout_model()
    callback = seeded(model, 3)
    drawn = []
    for epoch in range(3):
        callback.on_epoch_begin(epoch)
        drawn.append([masks(model), masks(model)])
    for epoch in (2, 0, 1, 1):
        callback.on_epoch_begin(epoch)
        np.testing.assert_array_equal([masks(model), masks(model)], drawn[epoch])
    other = dropout_model()
    seeded(other, 3).on_epoch_begin(2)
    np.testing.assert_array_equal([masks(other), masks(other)], drawn[2])


def test_epochs_seeds_layers_and_calls_differ():
    model = dropout_model()
    drawn = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        seeded(model, seed).on_epoch_begin(epoch)
        drawn += [*masks(model), *masks(model)]
    assert len({mask.tobytes() for mask in drawn}) == len(drawn) == 16
    for mask in drawn:
        assert 0.3 < (mask == 0).mean() < 0.7


def test_a_model_without_random_layers():
    pixels = keras.Input((4,))
    model = keras.Model(pixels, keras.layers.Dense(1)(pixels))
    before = model.get_weights()
    seeded(model, 0).on_epoch_begin(0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_in_fit_an_epoch_that_is_resumed_is_the_one_it_would_have_been():
    x = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)

    def trained(*stretches):
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
        model.compile("sgd", loss="mse")
        for first, last in stretches:
            model(x, training=True)  # draws from the seed generator, as an interrupted epoch does
            model.fit(x, x[:, :1], 8, last, 0, [EpochSeeds(7)], initial_epoch=first, shuffle=False)
        return model.get_weights()[0]

    whole = trained((0, 3))
    np.testing.assert_array_equal(trained((0, 1), (1, 3)), whole)
    assert (trained((0, 1), (2, 4)) != whole).any()


def test_the_seed_is_checked():
    assert_integer(EpochSeeds, "seed", 0)


@pytest.mark.parametrize("seed", [0, 2**31 - 1, np.int64(4)])
def test_every_seed_can_be_used(seed):
    seeded(dropout_model(), seed).on_epoch_begin(10**6)
