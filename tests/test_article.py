"""examples/article.py: the numbers it draws, and the cases in which the article's own code goes wrong.

That code switches groups by a running state over the parameters: with the split layer frozen it never switches, and
the layers after it keep the low rate. It looks at the layers of the outer model only, and forgets the groups on saving.
"""

import importlib.util
import itertools
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import kadence

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

ARTICLE = Path(__file__).parents[1] / "examples" / "article.py"
spec = importlib.util.spec_from_file_location("article", ARTICLE)
article = importlib.util.module_from_spec(spec)
spec.loader.exec_module(article)

SHAPE = (article.IMAGE_SIZE, article.IMAGE_SIZE, 3)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

#: Lengths of the cycles in each of the article's pictures.
CYCLES = {"one_cosine": [200], "equal_cycles": [100, 100, 100], "doubling_cycles": [100, 200, 400]}
#: Beginning of a layer's name -> peak rate, by the stages of ResNet50.
PEAKS = {"conv1": 1e-7, "conv2": 1e-7, "conv3": 1e-7, "conv4": 1e-4, "conv5": 1e-4, "fc": 1e-2}


def cosines(lengths, peak=1e-2):
    """A cosine from `peak` down to 0 for each length."""
    return np.array([peak * (1 + math.cos(math.pi * i / length)) / 2 for length in lengths for i in range(length)])


def small_backbone(**_):
    """A stand-in for ResNet50 that trains in no time."""
    x = inputs = keras.Input(SHAPE)
    for name in ("conv1_conv", "conv3_conv", "conv4_block1_1_conv", "conv5_conv"):
        x = keras.layers.Conv2D(4, 3, strides=3, padding="same", name=name)(x)
        x = keras.layers.BatchNormalization(name=name.replace("_conv", "_bn"))(x)
        x = keras.layers.ReLU(name=name.replace("_conv", "_relu"))(x)
    return keras.Model(inputs, x, name="backbone")


def head():
    return [
        keras.layers.GlobalAveragePooling2D(name="pool"),
        keras.layers.Dense(8, name="fc_start"),
        keras.layers.Dense(article.N_CLASSES, name="fc_end"),
    ]


def nested_in_functional(backbone):
    inputs = keras.Input(SHAPE)
    x = backbone(inputs)
    for layer in head():
        x = layer(x)
    return keras.Model(inputs, x)


def nested_in_sequential(backbone):
    return keras.Sequential([keras.Input(SHAPE), backbone, *head()])


WIRINGS = pytest.mark.parametrize("wire", [article.build_model, nested_in_functional, nested_in_sequential])


def layers_with_weights(model):
    return [layer for layer in model._flatten_layers() if layer.weights and not layer._layers]


def peak_of(layer):
    return next(peak for stage, peak in PEAKS.items() if layer.name.startswith(stage))


def all_values(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(ops.convert_to_numpy(ops.copy(ops.convert_to_tensor(variable)))) for variable in variables]


def compiled(model):
    model.compile(article.build_optimizer(model), LOSS)
    return model


def one_step(model):
    images, labels = article.generate_pictures()
    model.train_on_batch(images[: article.BATCH_SIZE], labels[: article.BATCH_SIZE])


def assert_layers_move_by_their_rates(model, frozen=()):
    """Adam's first step moves a weight by its rate, whatever the gradient."""
    layers = layers_with_weights(model)
    before = [[np.array(weight) for weight in layer.get_weights()] for layer in layers]
    one_step(model)
    for layer, weights in zip(layers, before, strict=True):
        trainable = {id(variable) for variable in layer.trainable_variables}
        moved = [
            # Where the weight is small enough for its last digit not to count beside a rate of 1e-7.
            np.abs(after - weight)[np.abs(weight) < 0.03].max(initial=0.0)
            for variable, weight, after in zip(layer.weights, weights, layer.get_weights(), strict=True)
            if id(variable) in trainable
        ]
        if layer.name in frozen:
            assert not moved
        else:
            assert max(moved) == pytest.approx(peak_of(layer), rel=0.05), layer.name


def assert_goes_on_as_if_never_saved(model, path, go_on):
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert list(loaded.optimizer.groups) == list(model.optimizer.groups)
    assert str(loaded.optimizer.groups) == str(model.optimizer.groups)
    results = [go_on(model), go_on(loaded)]
    assert results[0] == results[1]
    for one, other in zip(all_values(model), all_values(loaded), strict=True):
        np.testing.assert_array_equal(one, other)


# --- the pictures ----------------------------------------------------------------------------------------------------


def line(axes):
    (drawn,) = axes.get_lines()
    return tuple(map(np.asarray, drawn.get_data()))


@pytest.mark.parametrize(("name", "lengths"), CYCLES.items())
def test_the_numbers_in_the_pictures(name, lengths):
    assert list(article.schedules()) == list(CYCLES)
    steps, rates = line(kadence.plot_schedule(*article.schedules()[name]))
    assert steps.tolist() == list(range(sum(lengths)))
    np.testing.assert_allclose(rates, cosines(lengths), 1e-12, 1e-17)
    starts = [0, *itertools.accumulate(lengths)][:-1]
    assert np.flatnonzero(rates == 0.01).tolist() == starts
    assert (np.flatnonzero(np.diff(rates) > 0) + 1).tolist() == starts[1:]
    for start, length in zip(starts, lengths, strict=True):
        assert rates[start + length // 2] == pytest.approx(0.005, rel=1e-12)
        # A cycle ends one step before 0, at sin(pi / (2 length))^2: 0 itself is where the next one begins.
        assert rates[start + length - 1] == pytest.approx(0.01 * math.sin(math.pi / 2 / length) ** 2, rel=1e-12)


def test_main_draws_all_pictures_and_prints_the_groups(tmp_path, monkeypatch, capsys):
    from matplotlib import pyplot

    monkeypatch.setattr(keras.applications, "ResNet50", small_backbone)
    article.main(tmp_path / "new" / "folder")
    drawn = {figure.axes[0].get_title(): figure.axes[0] for figure in map(pyplot.figure, pyplot.get_fignums())}
    assert list(drawn) == ["one cosine", "equal cycles", "doubling cycles", "rates of the run"]
    for (name, lengths), axes in zip(CYCLES.items(), drawn.values(), strict=False):
        np.testing.assert_allclose(line(axes)[1], cosines(lengths), 1e-12, 1e-17, err_msg=name)
    lines = drawn["rates of the run"].get_lines()
    assert [drawn_line.get_label() for drawn_line in lines] == ["group_1", "group_2", "group_3"]
    for drawn_line, peak in zip(lines, [1e-7, 1e-4, 1e-2], strict=True):
        np.testing.assert_array_equal(drawn_line.get_xdata(), np.arange(28))
        np.testing.assert_allclose(drawn_line.get_ydata(), cosines([4, 8, 16], peak), 1e-12)

    out = capsys.readouterr().out
    table = [row.split() for row in out.splitlines()[:4]]
    assert [row[1] for row in table[2:]] == ["conv4_block1_1_conv", "fc_start"]
    assert [row[-1] for row in table[1:]] == ["1e-07", "0.0001", "0.01"]
    pictures = sorted((tmp_path / "new" / "folder").iterdir())
    assert sorted(out.splitlines()[-4:]) == [str(path) for path in pictures]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


# --- the groups of ResNet50, not trained -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    return keras.applications.ResNet50(include_top=False, weights=None, input_shape=SHAPE)


@WIRINGS
def test_the_groups_are_the_stages_of_resnet50(resnet, wire):
    model = wire(resnet)
    optimizer = article.build_optimizer(model)
    optimizer.build(model.trainable_variables)
    assert list(optimizer.learning_rates.values()) == pytest.approx([1e-7, 1e-4, 1e-2], rel=1e-6)
    expected = {rate: [] for rate in (1e-7, 1e-4, 1e-2)}
    for layer in layers_with_weights(model):
        expected[peak_of(layer)] += [id(variable) for variable in layer.trainable_variables]
    assert sum(map(len, expected.values())) == len(model.trainable_variables)
    for group, members in zip(optimizer.groups, expected.values(), strict=True):
        assert {id(variable) for variable in group.variables} == set(members)
    weights = [sum(math.prod(variable.shape) for variable in group.variables) for group in optimizer.groups]
    assert weights[:2] == [1_449_984, 22_084_608]  # together, the 23,534,592 of ResNet50 without its top


# --- training, on a small stand-in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [(), ("conv4_block1_1_conv",)], ids=["trained", "split layer frozen"])
@WIRINGS
def test_every_layer_moves_by_the_rate_of_its_group(wire, frozen):
    backbone = small_backbone()
    for name in frozen:
        backbone.get_layer(name).trainable = False
    assert_layers_move_by_their_rates(compiled(wire(backbone)), frozen)


@WIRINGS
def test_a_saved_model_goes_on_in_its_cycle_bit_for_bit(wire, tmp_path):
    model = compiled(wire(small_backbone()))
    assert article.train(model, epochs=2).steps.tolist() == list(range(8))  # cycles of 4 and 8: in the second

    def go_on(model):
        record = article.train(model, epochs=2)
        assert record.steps.tolist() == list(range(8, 16))
        for rates, peak in zip(record.rates.values(), article.RATES, strict=True):
            np.testing.assert_allclose(rates, cosines([4, 8, 16], peak)[8:16], 1e-12)
        return record

    assert_goes_on_as_if_never_saved(model, tmp_path / "model.keras", go_on)


# --- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_article_with_resnet50(tmp_path, capsys):
    article.main(tmp_path)
    words = next(text for text in capsys.readouterr().out.splitlines() if text.startswith("loss")).split()
    first, last = float(words[5].rstrip(",")), float(words[-1])
    assert last < first / 2
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.mark.slow
def test_resnet50_with_its_split_layer_frozen_saved_and_loaded(resnet, tmp_path):
    """Nested in a Sequential, whose paths change when it is loaded; the stand-in above is wired in every way."""
    backbone = keras.models.clone_model(resnet)
    backbone.get_layer("conv4_block1_1_conv").trainable = False
    model = compiled(nested_in_sequential(backbone))
    assert_layers_move_by_their_rates(model, frozen=["conv4_block1_1_conv"])
    assert_goes_on_as_if_never_saved(model, tmp_path / "model.keras", one_step)
