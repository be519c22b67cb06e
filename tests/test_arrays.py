import keras
import numpy as np
import pytest

from kadence import _arrays
from kadence._arrays import batches_of, check_repeatable, chunks_of, is_dataset, length_of, slice_of, to_numpy

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


def test_arrays_are_one_chunk():
    (((x, y, weights, rows),),) = chunks_of(X, Y.tolist())
    assert rows is None
    assert x is X
    assert isinstance(y, np.ndarray)
    assert weights is None
    assert list(chunks_of(X)) == [[(X, None, None, None)]]
    (((_, targets, _, _),),) = chunks_of(X, {"a": keras.ops.ones(6), "b": Y})
    assert length_of(targets) == 6
    assert slice_of(targets, 4, 9)["b"].tolist() == [4, 5]
    assert slice_of(None, 0, 1) is None


def test_a_dataset_is_read_once_in_chunks_of_joined_batches(monkeypatch):
    (((x, y, weights, rows),),) = chunks_of(Pairs())
    assert rows == 2, "of its batches"
    np.testing.assert_array_equal(x, X)
    assert y.tolist() == [0, 1, 2, 3, 4, 5]
    assert weights.tolist() == [0, 0, 1, 1, 2, 2]
    monkeypatch.setattr(_arrays, "_CHUNK_BYTES", 2 * sum(array.nbytes for array in Pairs()[0]))
    assert [[part[1].tolist() for part in chunk] for chunk in chunks_of(Pairs())] == [[[0, 1, 2, 3]], [[4, 5]]]
    assert [part[2] for chunk in chunks_of((X[:2], Y[:2]) for _ in range(3)) for part in chunk] == [None]
    assert list(chunks_of(iter([]))) == []


def test_batches_of_other_shapes_are_parts_of_a_chunk():
    (chunk,) = chunks_of((np.ones((2, width)), np.ones(2)) for width in (3, 3, 4))
    assert [(x.shape, y.shape) for x, y, _, _ in chunk] == [((4, 3), (4,)), ((2, 4), (2,))]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="texts are tensors of TensorFlow")
def test_texts_stay_tensors():
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((["a", "b", "c"], [1, 2, 3])).batch(2)
    (chunk,) = chunks_of(dataset)
    assert [x.numpy().tolist() for x, _, _, _ in chunk] == [[b"a", b"b"], [b"c"]]
    assert [y.tolist() for _, y, _, _ in chunk] == [[1, 2], [3]]


def test_to_numpy_of_a_list_is_one_array_or_several():
    assert to_numpy([1, 2]).shape == (2,)
    assert [array.shape for array in to_numpy([X, Y])] == [(6, 2), (6,)]
    assert to_numpy(None) is None
