import keras
import numpy as np
import pytest
import tiny

import kadence
from kadence import classifier
from kadence.classifier import HEAD, build_classifier, rates_of

ADDRESSES = [f"tiny/{kind}{number}" for number in (1, 2) for kind in ("conv", "norm", "relu")]


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setattr(classifier, "load_backbone", tiny.load_backbone)


def build(n_classes=3, **changes):
    return build_classifier(tiny.settings("photos", **{"augment": False, **changes}), n_classes)


def names(model):
    return [layer.name for layer in model.layers]


def trainable(model):
    return [variable.path for variable in model.trainable_variables]


def test_a_config_with_the_channels_first_changes_nothing(monkeypatch):
    backbone = tiny.load_backbone("tiny", tiny.SIZE)  # real ones fix their format
    monkeypatch.setattr(classifier, "load_backbone", lambda *_, **__: backbone)
    keras.config.set_image_data_format("channels_first")
    try:
        model, _ = build(augment=True)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert model.get_layer("head").kernel.shape == (8, 3)
    formats = {layer.data_format for layer in model.layers if layer.name.startswith(("random_", HEAD))}
    assert formats == {"channels_last"}


def test_raw_pixels_in_probabilities_out():
    model, _ = build(n_classes=4, image_size=40)
    assert (model.input_shape, model.output_shape) == ((None, 40, 40, 3), (None, 4))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3)).astype(np.float32)
    probabilities = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)


def test_default_groups_are_the_backbone_s_and_the_head():
    _, groups = build()
    assert groups.names == ["group_1", "group_2", "group_3"]
    assert groups[0].layers[-3:] == tuple(ADDRESSES[:3])
    assert groups[1].layers == tuple(ADDRESSES[3:])
    assert groups[2].layers == (HEAD, "head_dropout", "head")


def test_split_replaces_the_default_points():
    _, groups = build(split=("norm1", "tiny/conv2", "head"), rates=(1e-4, 1e-3, 1e-2, 1e-1))
    assert [group.layers[0] for group in groups[1:]] == ["tiny/norm1", "tiny/conv2", "head"]


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (("konv2",), ["Did you mean 'tiny/conv2'", "konv2"]),
        (("conv2", "conv1"), ["'conv1' comes before 'conv2'"]),
        (("conv2", "conv2"), ["'conv2' begins where 'conv2' does"]),
        (("conv1",), ["at least one layer with weights", "before 'conv1'"]),
    ],
)
def test_bad_split_points(at, words):
    with pytest.raises(ValueError, match=r"`split` must ") as caught:
        build(split=at, rates=None)
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_layer_names_the_three_closest():
    with pytest.raises(ValueError, match=r"Did you mean '[^']+', '[^']+', '[^']+'\?$"):
        build(split=("konv2",))


def test_augmentation_only_when_asked():
    random_layers = {"random_flip", "random_translation", "random_zoom"}
    assert random_layers.isdisjoint(names(build(augment=False)[0]))
    assert random_layers < set(names(build(augment=True)[0]))


def test_augmentation_moves_pixels_in_training_only():
    model, _ = build(augment=True)
    model.get_layer("head_dropout").rate = 0.0
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    still, again, moved = (model(pixels, training=training) for training in (False, False, True))
    assert tiny.same(keras.ops.convert_to_numpy(still), keras.ops.convert_to_numpy(again))
    assert not np.allclose(keras.ops.convert_to_numpy(still), keras.ops.convert_to_numpy(moved))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow compiles a graph, PyTorch runs eagerly")
def test_augmentation_does_not_make_jax_run_eagerly(tmp_path):
    # Keras marks RandomZoom and RandomTranslation as not fit for XLA; on JAX that turns the jit of the whole model off.
    model, _ = build(augment=True)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        each.compile("adam", loss="sparse_categorical_crossentropy")
        assert each.jit_compile


def test_batch_norm_frozen_or_trained():
    frozen, trained = trainable(build(batch_norm="frozen")[0]), trainable(build(batch_norm="train")[0])
    assert not [path for path in frozen if "norm" in path]
    assert len(trained) == len(frozen) + 4


def test_a_rate_of_zero_freezes_the_group():
    model, groups = build(rates=(0.0, 1e-3, 1e-2), batch_norm="train")
    assert not [path for path in trainable(model) if "1/" in path]
    assert [bool(group.variables) for group in groups] == [False, True, True]
    assert [layer.trainable for layer in model.get_layer("tiny").layers if layer.name == "conv2"] == [True]


def test_only_the_head_trained():
    model, _ = build(rates=(0, 0, 1e-2), batch_norm="train")
    assert len(model.trainable_variables) == 2
    assert model.get_layer("tiny").trainable_variables == []


def test_the_settings_reach_the_backbone(monkeypatch):
    seen = []

    def load_backbone(name, image_size, weights):
        seen.append((name, image_size, weights))
        return tiny.load_backbone(name, image_size)

    monkeypatch.setattr(classifier, "load_backbone", load_backbone)
    build(backbone="any", image_size=48)
    build_classifier(tiny.settings("photos"), 2, weights=None)
    assert seen == [("any", 48, "imagenet"), ("efficientnet_lite0", 32, None)]


def test_an_unknown_backbone_names_the_closest(monkeypatch):
    monkeypatch.setattr(classifier, "load_backbone", kadence.load_backbone)
    with pytest.raises(ValueError, match="Did you mean 'efficientnet_lite0'"):
        build(backbone="efficientnet_light0")


def test_default_rates_rise_by_ten_to_the_head():
    _, groups = build()
    assert rates_of(tiny.settings("photos", rates=None), groups) == pytest.approx([1e-5, 1e-4, 1e-3], rel=1e-12)
    _, two = build(split=("head",), rates=None)
    assert rates_of(tiny.settings("photos", rates=None), two) == pytest.approx([1e-4, 1e-3], rel=1e-12)


@pytest.mark.parametrize("rates", [(1e-3,), (1e-3, 1e-3), (1e-4, 1e-3, 1e-2, 1e-1)])
def test_rates_must_match_the_groups(rates):
    with pytest.raises(ValueError, match=r"`rates` must have one rate per group; .* makes 3 groups\. Received: rates="):
        build(rates=rates)


def test_the_seed_alone_decides_the_weights():
    first, second, other = (keras.utils.set_random_seed(seed) or build()[0].get_weights() for seed in (3, 3, 4))
    assert all(map(tiny.same, first, second))
    assert not all(map(tiny.same, first, other))
