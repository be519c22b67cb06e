"""What is wrong with a comparison is said before anything is trained."""

import functools
import re

import compare_models
import keras
import numpy as np
import pytest
import tiny
from bad_input import assert_rejects

from kadence import Strategy
from kadence._compare_checks import check_problem, check_rates, check_strategies, mode_of
from kadence._problem import Problem, make_data
from kadence.data import ImageBatches, scan_folder

PAIR = [Strategy.from_name("constant"), Strategy.from_name("cosine")]


LOSS = "sparse_categorical_crossentropy"


def check(builder=compare_models.build, parts=None, strategies=PAIR, epochs=5, metric="accuracy", loss=LOSS, **options):
    parts = parts or (compare_models.data(), compare_models.data(8, 1), compare_models.data(8, 2))
    problem = Problem(builder, *make_data(*parts, 8), epochs, loss, metric)
    return check_problem(problem, strategies, **{"other_processes": False, **options})


def test_strategies_are_two_different_ones():
    assert check_strategies(["constant", PAIR[1]]) == PAIR
    assert_rejects(check_strategies, "strategies", ["constant"], ValueError)
    assert_rejects(check_strategies, "strategies", "constant", TypeError)
    with pytest.raises(TypeError, match="be names or `Strategy` records"):
        check_strategies(["constant", 3])
    with pytest.raises(ValueError, match="have different names"):
        check_strategies(["constant", "constant"])
    with pytest.raises(ValueError, match="'constant' and 'adam' are the same"):
        check_strategies(["constant", "cosine", "adam"])


def test_rates_are_positive_and_different():
    assert check_rates((0.1, 1)) == [0.1, 1.0]
    for value in ([], [0.0], [0.1, 0.1], [float("nan")]):
        with pytest.raises(ValueError, match="`rates` must"):
            check_rates(value)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        *((name, "max") for name in ("accuracy", "AUC", "SparseCategoricalAccuracy", "CosineSimilarity", "f1_score")),
        *((name, "min") for name in ("loss", "mean_absolute_error", "MeanSquaredError", "MSE", "bce", "KLDivergence")),
        *((name, "min") for name in ("Poisson", "LogCoshError", "false_positives", "FalseNegatives", "huber")),
    ],
)
def test_the_mode_goes_by_the_name(metric, mode):
    assert mode_of(metric, None) == mode
    assert mode_of(metric, "max") == "max"


def test_the_mode_may_be_wrong():
    assert_rejects(lambda value: mode_of("accuracy", value), "mode", "up", ValueError)
    assert_rejects(lambda value: mode_of(value, None), "metric", 3, TypeError)


def test_a_builder_that_returns_the_same_model_is_refused():
    model = compare_models.build()
    with pytest.raises(ValueError, match="`build_model` must return a new model each time"):
        check(lambda: model)


def test_a_builder_that_shares_layers_is_refused():
    body = keras.layers.Dense(3, name="shared")

    def build():
        return keras.Sequential([keras.Input((4,)), body, keras.layers.Dense(2, "softmax")])

    with pytest.raises(ValueError, match=r"weights of their own.*share 2 weights, the first '.*shared/kernel'"):
        check(build)


def test_a_strategy_that_does_not_fit_is_named():
    def error(**fields):
        with pytest.raises(ValueError, match="`strategies` must fit the model") as caught:
            check(strategies=[*PAIR, Strategy("mine", **fields)], epochs=2)
        assert "strategies='mine'" in str(caught.value)
        return str(caught.value)

    assert "`phases` must fit into the run of 4 optimizer steps; they take 6" in error(phases=((1, "3ep"),))
    assert "Did you mean 'head'" in error(groups=("haed",))
    assert "one factor per group, 2" in error(lr_multipliers=(1.0,))
    assert "`n_steps` must" in error(schedule="warm-restarts")
    assert "`n_groups` must" in error(groups=5)


@pytest.mark.parametrize(
    "fields", [{"lr_multipliers": (1.0, 1.0)}, {"groups": 2}, {"cycles": 5}, {"batch_norm": "train"}, {"warmup": "0ep"}]
)
def test_strategies_that_train_the_model_alike_are_refused(fields):
    with pytest.raises(
        ValueError, match=r"`strategies` must be different strategies for this model.*'constant', 'mine'"
    ):
        check(strategies=[*PAIR, Strategy("mine", **fields)])


def test_strategies_that_differ_in_one_thing_are_not():
    strategies = [
        *PAIR,
        Strategy("norm", batch_norm="train"),
        Strategy("decay", optimizer="adamw", weight_decay=0.1),
        Strategy("adamw", optimizer="adamw"),
        Strategy("layers", layer_decay=0.5),
        Strategy("first", phases=((1, "1ep"),)),
        Strategy("second", phases=((1, "2ep"),)),
    ]
    assert len(check(compare_models.build_with_norm, strategies=strategies)) == 64


def test_a_loss_is_the_name_of_one():
    assert_rejects(lambda value: check(loss=value), "loss", keras.losses.MeanSquaredError(), TypeError)
    with pytest.raises(
        ValueError, match=r"`loss` must be the name of a Keras loss.*Did you mean 'sparse_categorical_cr"
    ):
        check(loss="sparse_categorical")


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_rows_that_do_not_fit_the_model_are_found_in_each_part(name):
    """Before all is trained, also where only the test data are wrong."""
    parts = dict(zip(("train", "validation", "test"), (compare_models.data(8, seed) for seed in range(3)), strict=True))
    parts[name] = np.zeros((8, 5), np.float32), np.zeros(8, np.int32)
    rule = f"`{name}` must have rows that fit the model and the loss '{LOSS}'. Received: {name}=((5,), ())."
    with pytest.raises(ValueError, match=re.escape(rule)) as caught:
        check(parts=tuple(parts.values()))
    assert "\x1b" not in str(caught.value)


def test_targets_that_do_not_fit_the_loss_are_not_laid_to_the_metric():
    with pytest.raises(
        ValueError, match="`train` must have rows that fit the model and the loss 'binary_crossentropy'"
    ):
        check(loss="binary_crossentropy")


@pytest.mark.parametrize("metric", ["acuracy", "mean_io_u"])
def test_a_metric_that_the_model_does_not_have_is_refused(metric):
    with pytest.raises(ValueError, match=f"`metric` must be a metric that the model has. Received: metric='{metric}'"):
        check(metric=metric)


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_a_sound_problem_has_a_fingerprint(metric):
    assert len(check(metric=metric, other_processes=True)) == 64


def test_other_processes_have_to_find_the_builder():
    with pytest.raises(ValueError, match="`build_model` must be a function of a module"):
        check(functools.partial(lambda: compare_models.build()), other_processes=True)


def test_parts_of_the_data_that_are_the_same_are_refused():
    train, held_out = compare_models.data(), compare_models.data(8, 1)
    with pytest.raises(ValueError, match=r"`test` must share nothing with validation.*8 of 8 are in both: row 0 of"):
        check(parts=(train, held_out, held_out))
    with pytest.raises(ValueError, match="`validation` must share nothing with train"):
        check(parts=(train, (train[0][3:7], train[1][3:7]), None))


def test_rows_that_are_twice_in_one_part_are_counted_once():
    (x, y), train = compare_models.data(8, 1), compare_models.data()
    held_out = np.concatenate([x, x[:1]]), np.append(y, y[0])
    with pytest.raises(ValueError, match="`test` must share nothing with validation"):
        check(parts=(train, held_out, held_out))


class _Augmenting(keras.utils.PyDataset):
    """Other rows each time, as a dataset that augments has them."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        x, y = compare_models.data()
        return x + self.rng.normal(size=x.shape).astype(np.float32), y


def test_a_store_that_would_not_know_its_trials_again_is_a_warning(recwarn):
    parts = (_Augmenting(), compare_models.data(8, 1), compare_models.data(8, 2))
    check(parts=parts)
    assert not [str(one.message) for one in recwarn if "other rows" in str(one.message)]
    with pytest.warns(UserWarning, match="`train` gives other rows each time, so the store does not know its trials"):
        check(parts=parts, stored=True)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_some_equal_rows_are_a_warning():
    train, (x, y) = compare_models.data(), compare_models.data(8, 1)
    x = np.concatenate([x, train[0][:1]])
    with pytest.warns(UserWarning, match="train and validation data share rows. 1 of 9 are in both: row 0 of train is"):
        check(parts=(train, (x, np.append(y, 0)), None))


def test_photos_in_validation_and_test_are_found_by_content(tmp_path):
    folders = {name: tiny.write_photos(tmp_path / name, n=2, seed=seed) for seed, name in enumerate("abc")}
    twin = folders["c"] / "apfel" / "another name.png"
    twin.write_bytes((folders["b"] / "birnen" / "01.png").read_bytes())
    parts = [ImageBatches(scan_folder(folder), 32, 4, shuffle=False) for folder in folders.values()]
    with pytest.raises(ValueError, match="`test` must share nothing with validation") as caught:
        check(parts=parts)
    assert repr(str(twin)) in str(caught.value)
    assert "1 of 7" in str(caught.value)
