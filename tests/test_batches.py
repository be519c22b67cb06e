import sys
import types

import keras
import numpy as np
import pytest

from kadence._batches import begun, check_not_empty, one_batch

X, Y = np.arange(100.0).reshape(50, 2), np.repeat(np.arange(5), 10)


class Dataset(keras.utils.PyDataset):
    """Ten batches of five, sorted by class."""

    def __init__(self, n=10):
        super().__init__()
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return X[index * 5 : index * 5 + 5], Y[index * 5 : index * 5 + 5]


def generator(n=10):
    dataset = Dataset(n)
    yield from (dataset[index] for index in range(n))


def datasets():
    yield Dataset()
    yield generator()
    if torch := sys.modules.get("torch"):
        parts = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
        yield torch.utils.data.DataLoader(parts, batch_size=5)
    if tensorflow := sys.modules.get("tensorflow"):
        yield tensorflow.data.Dataset.from_tensor_slices((X, Y)).batch(5)


@pytest.mark.parametrize("data", [pytest.param(data, id=type(data).__name__) for data in datasets()])
def test_a_batch_of_a_dataset_has_samples_from_all_over_it(data):
    (x, y, weights), notes = one_batch(data, None)
    assert notes == []
    assert x.shape == (5, 2)
    assert y.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(x[:, 0] // 20, y)
    assert weights is None


def test_a_batch_of_arrays():
    (x, y, weights), notes = one_batch((X, Y, X[:, 0]), 10)
    assert notes == []
    assert y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    np.testing.assert_array_equal(weights, x[:, 0])
    assert len(one_batch((X, Y), None)[0][0]) == 32
    assert len(one_batch((X, Y), 1000)[0][0]) == 50
    assert one_batch((X, Y, None), 2)[0][2] is None


def test_several_inputs_keep_their_structure():
    (x, y, _), _ = one_batch(({"a": X, "b": X[:, :1]}, Y), 5)
    assert {name: array.shape for name, array in x.items()} == {"a": (5, 2), "b": (5, 1)}
    assert len(y) == 5


class Padded(Dataset):
    """Every batch as wide as its longest text."""

    def __getitem__(self, index):
        return np.full((5, 3 + index), index), np.full(5, index)


def test_batches_of_several_shapes_are_not_joined():
    (x, y, weights), notes = one_batch(Padded(), None)
    assert (x.shape, y.tolist(), weights) == ((5, 3), [0] * 5, None)
    assert notes == ["The batches of `validation_data` differ in shape: the losses are those of its first batch alone."]


@pytest.mark.parametrize("data", [(X[:0], Y[:0]), Dataset(0), generator(0)], ids=["arrays", "PyDataset", "generator"])
def test_nothing_to_validate_on(data):
    with pytest.raises(ValueError, match="`validation_data` must hold at least one"):
        one_batch(data, None)


@pytest.mark.parametrize(
    "x", [X[:0], {"a": X[:0]}, [X[:0], X[:0]], Dataset(0)], ids=["array", "dict", "list", "PyDataset"]
)
def test_no_data(x):
    with pytest.raises(ValueError, match="`x` must hold at least one batch"):
        check_not_empty(x)


@pytest.mark.parametrize("x", [X, [X, Y], {"a": X, "b": None}, Dataset(), generator()])
def test_some_data(x):
    check_not_empty(x)


def test_the_first_batch_of_a_generator_is_not_lost():
    found = begun(generator())
    assert isinstance(found, types.GeneratorType)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), X)
    assert begun(X) is X
    with pytest.raises(ValueError, match="`x` must hold at least one batch"):
        begun(generator(0))


def test_data_is_not_used_up_by_the_look_at_it():
    x = generator()
    check_not_empty(x)
    assert len(list(x)) == 10
