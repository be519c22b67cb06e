"""What trials have in common: found again in another process, and known by its content."""

import functools
import json

import compare_models
import keras
import numpy as np
import pytest

import kadence
from kadence._problem import Problem, default_groups, make_data, reference, resolve


def fingerprint(problem):
    return problem.fingerprint(problem.build(0), problem.build(1), ["data"])


def sequential(*layers):
    return keras.Sequential([keras.Input((4,)), *layers])


def test_another_process_finds_builder_and_data():
    problem = compare_models.problem(compare_models.build_or_die, flag="somewhere")
    text, arrays = problem.to_parts()
    again = Problem.from_parts(text, arrays)
    assert again.build_model.func is compare_models.build_or_die
    assert again.build_model.keywords == {"flag": "somewhere"}
    assert (again.epochs, again.loss, again.metric) == (problem.epochs, problem.loss, problem.metric)
    for name in ("train", "validation", "test"):
        one, other = getattr(problem, name), getattr(again, name)
        assert one.digests() == other.digests()
        assert one.batch_size == other.batch_size
    assert Problem.from_parts(*compare_models.problem(test=False).to_parts()).test is None


def test_a_builder_that_others_cannot_import_is_refused():
    def inner():
        return compare_models.build()

    alone = functools.partial(compare_models.build_or_die, flag=object())
    for builder in (inner, lambda: 1, alone, functools.partial(compare_models.build_or_die, "positional"), 3):
        with pytest.raises(ValueError, match="`build_model` must be a function of a module"):
            reference(builder)
    assert resolve(reference(compare_models.build)) is compare_models.build


def test_data_that_others_cannot_have_are_refused():
    class Stream(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return compare_models.data()

    parts = make_data(Stream(), compare_models.data(), None, 8)
    with pytest.raises(TypeError, match=r"`train` must be arrays \(x, y\)"):
        Problem(compare_models.build, *parts, 1, "mse", "loss").to_parts()


def test_the_fingerprint_is_that_of_the_content():
    known = fingerprint(compare_models.problem())
    assert fingerprint(compare_models.problem()) == known, "layer names and random weights differ from model to model"
    assert fingerprint(compare_models.problem(epochs=3)) != known
    assert fingerprint(compare_models.problem(metric="mse")) != known
    assert fingerprint(compare_models.problem(compare_models.build_with_norm)) != known


def test_the_fingerprint_knows_groups_and_batches():
    """Equal models in other groups, or on other batches of the same rows, are other trials."""

    def grouped(number):
        model = compare_models.build()
        return model, kadence.split_evenly(model, number)

    def print_of(number=1, batch_size=8):
        parts = make_data(compare_models.data(), compare_models.data(8, 1), None, batch_size)
        return fingerprint(Problem(functools.partial(grouped, number), *parts, 1, "mse", "loss"))

    assert print_of() == print_of()
    prints = {print_of(), print_of(2), print_of(batch_size=4), print_of(batch_size=16)}
    assert len(prints) == 4

    class Stream(keras.utils.PyDataset):
        def __init__(self, size):
            super().__init__()
            self.size = size

        def __len__(self):
            return 16 // self.size

        def __getitem__(self, index):
            return tuple(a[index * self.size :][: self.size] for a in compare_models.data())

    streams = [make_data(Stream(size), compare_models.data(8, 1), None, 32) for size in (4, 4, 8)]
    one, same, other = (fingerprint(Problem(compare_models.build, *parts, 1, "mse", "loss")) for parts in streams)
    assert one == same != other


def test_another_process_computes_in_the_same_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        text, arrays = compare_models.problem().to_parts()
        keras.config.set_dtype_policy(before)
        Problem.from_parts(text, arrays)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
    content = json.loads(text)
    assert content["floatx"] == keras.config.floatx()
    assert content["image_data_format"] == keras.config.image_data_format()


def test_the_fingerprint_knows_weights_that_are_not_random():
    def pretrained(value):
        return sequential(keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(1.0))), value

    def made(value):
        model, value = pretrained(value)
        model.set_weights([np.full(weight.shape, value) for weight in model.get_weights()])
        return model

    prints = [fingerprint(compare_models.problem(functools.partial(made, value))) for value in (1.0, 1.0, 2.0)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(("n_layers", "sizes"), [(1, [1]), (2, [1, 1]), (3, [1, 1, 1]), (5, [2, 2, 1])])
def test_default_groups_set_the_head_apart(n_layers, sizes):
    groups = default_groups(sequential(*(keras.layers.Dense(2) for _ in range(n_layers))))
    assert [len(group.weights) // 2 for group in groups] == sizes


def test_a_builder_may_bring_its_groups():
    def both():
        model = compare_models.build()
        return model, kadence.split_evenly(model, 1)

    assert len(compare_models.problem(both).build(0)[1]) == 1
    assert len(compare_models.problem().build(0)[1]) == 2
    with pytest.raises(TypeError, match="`build_model` must return a built keras"):
        compare_models.problem(lambda: "model").build(0)


def test_the_seed_makes_the_weights():
    problem = compare_models.problem()
    one, other, third = (problem.build(seed)[0].get_weights()[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)
    assert json.loads(problem.to_parts()[0])["builder"]["function"] == "compare_models:build"
