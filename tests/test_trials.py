"""A trial: what it trains and leaves still, what it measures, and that whatever happens is an outcome."""

import dataclasses

import compare_models
import keras
import numpy as np
import pytest

from kadence import Constant, Strategy
from kadence import _trials as trials
from kadence._trial_data import Data
from kadence._trials import Outcome, Trial, fit_strategy, run_trial


def keeping(builder, models):
    """A builder that also hands its models to the test."""

    def build():
        models.append(builder())
        return models[-1]

    return build


def test_a_trial_is_measured_and_repeats_itself():
    problem = compare_models.problem()
    trial = compare_models.trial("discriminative+cosine", seed=3)
    outcome, again = run_trial(problem, trial), run_trial(problem, trial)
    assert outcome.status == "done", outcome.reason
    assert set(outcome.curves) == {"seconds", "loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(curve) == 2 for curve in outcome.curves.values())
    assert outcome.validation == pytest.approx(outcome.curves["val_accuracy"][-1])
    assert 0.0 <= outcome.test <= 1.0
    assert 0.0 < outcome.curves["seconds"][0] < outcome.curves["seconds"][1] <= outcome.seconds
    assert outcome.versions["keras"] == keras.__version__
    assert again.curves["loss"] == outcome.curves["loss"]
    assert run_trial(problem, dataclasses.replace(trial, seed=4)).curves["loss"] != outcome.curves["loss"]
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_a_search_does_not_look_at_the_test_data():
    problem = compare_models.problem(epochs=1)
    problem.test.batches = None
    assert run_trial(problem, compare_models.trial(phase="search")).test is None
    assert run_trial(problem, compare_models.trial(phase="judge")).status == "failed"


@pytest.mark.parametrize("name", ["frozen", "train-batch-norm"])
def test_what_is_frozen_stays_and_statistics_are_computed_anew(name):
    models = []
    problem = compare_models.problem(keeping(compare_models.build_with_norm, models), epochs=1)
    before = {weight.path: keras.ops.convert_to_numpy(weight) for weight in problem.build(0)[0].weights}
    outcome = run_trial(problem, compare_models.trial(name))
    assert outcome.status == "done"
    scores = models[-1].evaluate(problem.validation.batches(), verbose=0, return_dict=True)
    assert outcome.curves["val_loss"] == [pytest.approx(scores["loss"], rel=1e-5)], "of the statistics at the end"
    assert outcome.curves["val_accuracy"] == [outcome.validation]
    changed = models[-1].get_weights()
    moved = [not np.array_equal(old, new) for old, new in zip(before.values(), changed, strict=True)]
    names = [path.split("/")[-2] + "/" + path.split("/")[-1] for path in before]
    assert [n for n, m in zip(names, moved, strict=True) if m and n.startswith("head")] == ["head/kernel", "head/bias"]
    if name == "frozen":
        assert sum(moved) == 2
    else:
        inputs = compare_models.data()[0]
        body = keras.Model(models[-1].inputs, models[-1].get_layer("body").output)
        halves = [body.predict(inputs[half], verbose=0) for half in np.split(problem_order(), 2)]
        np.testing.assert_allclose(
            models[-1].get_layer("norm").get_weights()[2], np.mean([half.mean(0) for half in halves], 0), atol=1e-5
        )


def test_a_norm_that_the_builder_froze_keeps_its_statistics():
    models = []

    def build():
        model = compare_models.build_with_norm()
        model.get_layer("norm").trainable = False
        return model

    problem = compare_models.problem(keeping(build, models), epochs=1)
    assert run_trial(problem, compare_models.trial("train-batch-norm")).status == "done"
    assert not models[-1].get_layer("norm").get_weights()[2].any()


def problem_order():
    """The order of the rows in the first epoch from seed 0."""
    return np.random.default_rng([0, 0]).permutation(16)


def test_memory_that_runs_out_is_an_outcome():
    outcome = run_trial(compare_models.problem(compare_models.build_without_memory), compare_models.trial())
    assert outcome.status == "failed"
    assert outcome.reason == "out of memory: MemoryError: Out of memory allocating 1 EiB"


def test_an_error_is_an_outcome_and_ctrl_c_is_not():
    def raising(error):
        def build():
            raise error

        return compare_models.problem(build)

    outcome = run_trial(raising(RuntimeError("two\nlines")), compare_models.trial())
    assert (outcome.status, outcome.reason) == ("failed", "RuntimeError: two lines")
    with pytest.raises(KeyboardInterrupt):
        run_trial(raising(KeyboardInterrupt()), compare_models.trial())


def test_a_loss_that_is_not_finite_ends_the_trial():
    problem = compare_models.problem(compare_models.build_with_norm, epochs=3)  # ReLU of NaN is 0 on TensorFlow
    problem.train.arrays[0][:] = np.nan
    outcome = run_trial(problem, compare_models.trial())
    assert outcome.status == "diverged"
    assert outcome.curves["loss"] == [None]
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_a_test_metric_that_is_not_finite_is_no_value():
    """It must not be taken for a trial without test data, which is judged on the validation data."""
    problem = compare_models.problem(compare_models.build_with_norm, epochs=1, metric="loss")
    problem.test.arrays[0][:] = np.nan  # ReLU of NaN is 0 on TensorFlow
    outcome = run_trial(problem, compare_models.trial())
    assert (outcome.status, outcome.test) == ("diverged", None)
    assert outcome.reason == "the metric on the test data is not finite"
    assert outcome.validation is not None


def test_statistics_are_of_whole_batches():
    """A last batch of one row has a variance of 0, and would count as much as the others."""
    models = []
    problem = compare_models.problem(keeping(compare_models.build_with_norm, models), epochs=1)
    x, y = compare_models.data(17)
    problem = dataclasses.replace(problem, train=Data("train", (x, y), 8))
    assert run_trial(problem, compare_models.trial("train-batch-norm")).status == "done"
    body = keras.Model(models[-1].inputs, models[-1].get_layer("body").output)
    order = np.random.default_rng([0, 0]).permutation(17)[:16]
    halves = [body.predict(x[half], verbose=0) for half in np.split(order, 2)]
    variance = models[-1].get_layer("norm").get_weights()[3]
    np.testing.assert_allclose(variance, np.mean([half.var(0) for half in halves], 0), rtol=1e-4)


def test_a_metric_with_a_value_per_class_counts_as_their_mean():
    assert trials.finite(np.array([0.25, 0.75])) == 0.5
    assert trials.finite(np.array([0.25, np.nan])) is None


def test_the_key_is_that_of_what_decides():
    trial = compare_models.trial()
    others = [{"rate": 0.02}, {"seed": 1}, {"phase": "search"}, {"problem": "x"}, {"strategy": Strategy("x", cycles=4)}]
    keys = {trial.key, *(dataclasses.replace(trial, **change).key for change in others)}
    assert len(keys) == 6
    renamed = dataclasses.replace(trial, strategy=dataclasses.replace(trial.strategy, name="other"))
    assert renamed.key == trial.key
    assert Trial.from_json(trial.to_json()) == trial
    # A change of this line makes all stores start anew.
    known = "25ae57"
    assert trial.key.startswith(known), trial.key


def test_a_strategy_is_fitted_to_model_and_run():
    problem = compare_models.problem(epochs=5)
    model, own = problem.build(0)
    groups, multipliers, schedule = fit_strategy(problem, Strategy("x", layer_decay=0.1), 0.5, model, own)
    assert (groups.names, multipliers) == (["group_1", "group_2"], [0.1, 1.0])
    assert schedule == Constant(0.5)
    assert trials.finite(np.float32(0.5)) == 0.5
    assert trials.finite(np.inf) is None
