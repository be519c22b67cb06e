import keras
import numpy as np
import pytest

from kadence._arrays import batches_of, check_repeatable, is_dataset, length_of, slice_of, to_numpy, unpack

X, Y = np.arange(12.0).reshape(6, 2), np.arange(6)


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[2 * index : 2 * index + 2], Y[2 * index : 2 * index + 2], np.full(2, index)


def test_batches_of_iterables_and_py_datasets():
    assert [batch[1].tolist() for batch in batches_of("x", Pairs())] == [[0, 1], [2, 3], [4, 5]]
    assert list(batches_of("x", iter([1, 2]))) == [1, 2]
    for wrong in (3, "x", {"a": X}):
        with pytest.raises(TypeError, match="`x` must be an iterable of input batches"):
            batches_of("x", wrong)


def test_what_is_a_dataset():
    assert is_dataset(Pairs())
    assert is_dataset(iter([]))
    for arrays in (X, [X, X], (X,), {"a": X}, keras.ops.ones((2, 2))):
        assert not is_dataset(arrays)


def test_an_iterator_cannot_be_read_twice():
    check_repeatable("x", X)
    check_repeatable("x", [X])
    for iterator in (iter([X]), (x for x in [X])):
        with pytest.raises(TypeError, match="`x` must be data that can be read more than once"):
            check_repeatable("x", iterator)


def test_unpack_arrays_and_datasets():
    x, y, weights = unpack(X, Y.tolist())
    assert x is X
    assert isinstance(y, np.ndarray)
    assert weights is None
    x, y, weights = unpack(data := Pairs())
    assert x is data
    assert y.tolist() == [0, 1, 2, 3, 4, 5]
    assert weights.tolist() == [0, 0, 1, 1, 2, 2]
    assert unpack(X)[1:] == (None, None)
    _, targets, _ = unpack(X, {"a": keras.ops.ones(6), "b": Y})
    assert length_of(targets) == 6
    assert slice_of(targets, 4, 9)["b"].tolist() == [4, 5]
    assert slice_of(None, 0, 1) is None


def test_to_numpy_of_a_list_is_one_array_or_several():
    assert to_numpy([1, 2]).shape == (2,)
    assert [array.shape for array in to_numpy([X, Y])] == [(6, 2), (6,)]
    assert to_numpy(None) is None
