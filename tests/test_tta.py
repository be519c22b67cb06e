import bad_input
import keras
import numpy as np
import pytest

from kadence import predict_augmented
from kadence._snapshot_files import arrays_of
from kadence.tta import augmentation_of

IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 1)).astype("float32")


def flipping_model():
    """Left half against right half, behind a flip of its own and before a dropout that must stay off."""
    layers = [keras.layers.RandomFlip("horizontal", seed=1), keras.layers.Flatten(), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((8, 8, 1)), layers[0], layers[1], keras.layers.Dropout(0.9), layers[2]])
    left = (np.arange(64) % 8 < 4).astype("float32")
    model.get_layer("head").set_weights([left[:, None], np.zeros(1)])
    return model


@pytest.fixture(scope="module")
def model():
    return flipping_model()


def test_the_photo_itself_counts_as_one(model):
    np.testing.assert_array_equal(predict_augmented(model, IMAGES, 1), model.predict(IMAGES, verbose=0))


def test_views_are_the_models_own_augmentation_and_nothing_else_is_random(model):
    seen = []

    def predict(images):
        seen.append(np.array(images))
        return model.predict(images, verbose=0)

    mean = predict_augmented(model, IMAGES, 5, predict=predict)
    np.testing.assert_array_equal(seen[0], IMAGES)
    flipped = IMAGES[:, :, ::-1]
    for view in seen[1:]:
        for got, image, turned in zip(view, IMAGES, flipped, strict=True):
            assert np.array_equal(got, image) or np.array_equal(got, turned)
    assert any(np.array_equal(got, turned) for view in seen for got, turned in zip(view, flipped, strict=True))
    left = [view[:, :, :4].sum((1, 2)) for view in seen]
    np.testing.assert_allclose(mean, np.mean(left, axis=0), rtol=1e-4)


def test_a_seed_decides_and_the_models_own_state_is_as_before(model):
    before = arrays_of(model.variables)
    first, again, other = (predict_augmented(model, IMAGES, 4, seed) for seed in (0, 0, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    for old, new in zip(before, arrays_of(model.variables), strict=True):
        np.testing.assert_array_equal(old, new)

    def broken(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_augmented(model, IMAGES, 4, predict=broken)


def test_a_model_without_augmentation_is_shown_shifts():
    model = keras.Sequential([keras.Input((40, 20, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
    assert augmentation_of(model) == []
    rows, columns = np.meshgrid(np.arange(40.0), np.arange(20.0), indexing="ij")
    image = (100 * rows + columns)[None, ..., None]
    seen = []
    predict_augmented(model, image, 30, predict=lambda images: seen.append(images[0, 20, 10, 0]) or images[:, 0, 0])
    shifts = {divmod(int(pixel) - 2010 + 5050, 100) for pixel in seen[1:]}
    assert {down - 50 for down, _ in shifts} == {-2, -1, 0, 1, 2}
    assert {right - 50 for _, right in shifts} == {-1, 0, 1}


def test_which_layers_are_augmentation():
    flip, zoom, head = keras.layers.RandomFlip(), keras.layers.RandomZoom(0.1), keras.layers.Dense(1)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(zoom(flip(inputs)))
    x = head(keras.layers.Flatten()(keras.layers.RandomContrast(0.1)(x)))
    assert augmentation_of(keras.Model(inputs, x)) == [flip, zoom]
    block = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.RandomFlip()])
    assert augmentation_of(keras.Model(inputs, keras.layers.Dense(1)(block(inputs)))) == [block]


def test_errors(model):
    bad_input.assert_rejects(lambda n: predict_augmented(model, IMAGES, n), "n_views", 0, ValueError)
    bad_input.assert_rejects(lambda n: predict_augmented(model, IMAGES, n), "n_views", 1.5, TypeError)
    bad_input.assert_rejects(lambda n: predict_augmented(model, IMAGES, 2, n), "seed", -1, ValueError)
    with pytest.raises(ValueError, match=r"`images` must have the shape .* Received: images=\(8, 8, 1\)"):
        predict_augmented(model, IMAGES[0], 2)
