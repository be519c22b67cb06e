import json

import keras
import models
import numpy as np
import pytest
import tiny

from kadence._snapshot_files import (
    Snapshot,
    arrays_of,
    check_files,
    check_shares,
    files_of,
    load_weights,
    own_weights,
    read_index,
    save_weights,
    write_index,
)


def filled(model, value):
    for weight in model.weights:
        weight.assign(np.full(weight.shape, value))
    return model


def values(model):
    return {float(np.ravel(array)[0]) for array in arrays_of(model.weights)}


@pytest.mark.parametrize(
    "build",
    [models.nested_sequential, models.subclassed, models.tied, models.composite],
    ids=lambda build: build.__name__,
)
def test_weights_round_trip_for_every_kind_of_model(build, tmp_path):
    file = tmp_path / "a.weights.h5"
    save_weights(filled(build(), 3.0), file)
    other = filled(build(), 1.0)
    load_weights(other, file)
    assert values(other) == {3.0}
    assert [path.name for path in tmp_path.iterdir()] == ["a.weights.h5"]


def test_the_optimizer_is_neither_written_nor_touched(tmp_path):
    model = filled(models.functional(), 3.0)
    model.compile("adam", "mse", metrics=["mae"], jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    save_weights(model, tmp_path / "a.weights.h5")
    assert sum(a.size for a in tiny.weights_of(tmp_path / "a.weights.h5").values()) == model.count_params()
    model.optimizer.iterations.assign(7)
    load_weights(model, tmp_path / "a.weights.h5")
    assert int(model.optimizer.iterations) == 7


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path, monkeypatch):
    file, model = tmp_path / "a.weights.h5", models.sequential()
    save_weights(filled(model, 1.0), file)
    before = file.read_bytes()

    def full(model, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.saving, "save_weights", full)
    with pytest.raises(OSError, match="No space left on device"):
        save_weights(model, file)
    assert tiny.snapshot(tmp_path) == {file: before}


def test_other_weights_are_refused(tmp_path):
    save_weights(models.sequential(), tmp_path / "a.weights.h5")
    (tmp_path / "b.weights.h5").write_bytes(b"no such thing")
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=rf"`file` must hold weights of this model.*{name}\.weights\.h5"):
            load_weights(models.nested_functional(), tmp_path / f"{name}.weights.h5")


def test_index_round_trip_and_refusals(tmp_path):
    assert read_index(tmp_path) == []
    listed = [Snapshot("snapshot_0001.weights.h5", 3, 1), Snapshot("snapshot_0002.weights.h5", 9, 2, provisional=True)]
    write_index(tmp_path, listed)
    assert read_index(tmp_path) == listed
    older = json.loads((tmp_path / "snapshots.json").read_text())
    for entry in older["snapshots"]:
        del entry["provisional"]
    (tmp_path / "snapshots.json").write_text(json.dumps(older))
    assert read_index(tmp_path) == [listed[0], Snapshot("snapshot_0002.weights.h5", 9, 2)]
    entry = {"file": "../a.weights.h5", "step": 1, "epoch": 1}
    for content in (
        {"kadence": "rates", "version": 1, "snapshots": []},
        {"kadence": "snapshots", "version": 2, "snapshots": []},
        {"kadence": "snapshots", "version": 1, "snapshots": [{"file": "a"}]},
        {"kadence": "snapshots", "version": 1, "snapshots": [entry]},
        [],
        3,
    ):
        (tmp_path / "snapshots.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"`snapshots\.json` must be a list of snapshots"):
            read_index(tmp_path)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_own_weights_come_back_with_the_seeds(error):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)])
    before = arrays_of(model.variables)

    def spoil():
        with own_weights(model):
            for variable in model.variables:
                variable.assign(np.full(variable.shape, 7))
            raise error

    with pytest.raises(error):
        spoil()
    for old, new in zip(before, arrays_of(model.variables), strict=True):
        assert tiny.same(old, new)
    assert len(before) == 3


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="modules of PyTorch")
def test_buffers_of_modules_come_back_too(tmp_path):
    model = models.torch_module()
    (norm,) = [layer.module for layer in model.layers if hasattr(layer, "module")]
    save_weights(model, tmp_path / "a.weights.h5")
    norm.running_mean.fill_(7.0)
    with own_weights(model):
        load_weights(model, tmp_path / "a.weights.h5")
        assert norm.running_mean.tolist() == [0.0, 0.0]
    assert norm.running_mean.tolist() == [7.0, 7.0]


def test_files_of_a_folder_and_of_a_sequence(tmp_path):
    write_index(tmp_path, [Snapshot(f"s{i}.weights.h5", i, 1) for i in range(3)])
    assert [path.name for path in files_of(tmp_path, None)] == ["s0.weights.h5", "s1.weights.h5", "s2.weights.h5"]
    assert [path.name for path in files_of(str(tmp_path), 2)] == ["s1.weights.h5", "s2.weights.h5"]
    assert files_of([tmp_path / "a.weights.h5"], None) == [tmp_path / "a.weights.h5"]
    with pytest.raises(ValueError, match="`last` must be an integer from 1 to 3"):
        files_of(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match=r"`source` must be a folder with snapshots.*snapshots\.json"):
        files_of(tmp_path / "none", None)
    with pytest.raises(ValueError, match="`source` must be a folder, or a sequence of at least one file"):
        files_of([], None)


def test_check_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="`files` must exist"):
        check_files([tmp_path / "a.weights.h5"])
    (tmp_path / "model.keras").write_text("")
    with pytest.raises(ValueError, match=r"`files` must be .* that ends in \.weights\.h5"):
        check_files([tmp_path / "model.keras"])


def test_shares():
    assert check_shares(None, 4).tolist() == [0.25] * 4
    assert check_shares([3, 1], 2).tolist() == [0.75, 0.25]
    for wrong, error in (([1], ValueError), ([0, 0], ValueError), ([-1, 2], ValueError), (["a", 1], TypeError)):
        with pytest.raises(error, match="`weights` must"):
            check_shares(wrong, 2)
