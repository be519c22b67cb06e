"""What a run was begun with: it is written before anything else, and nothing else goes on with it."""

import json
from pathlib import Path

import fine_tuning
import keras
import numpy as np
import pytest
import tiny

import kadence
from kadence._run_description import begin_run, digest_of_data, digest_of_groups, digest_of_model
from kadence._trial_data import Data
from kadence._walk import Layers
from kadence.data import ImageBatches, scan_folder

DESCRIBED = {"phases": ["a"], "data": [1, None]}


def test_a_new_run_is_described_and_its_start_kept(tmp_path):
    model = fine_tuning.build()
    assert begin_run(tmp_path / "a" / "run", False, DESCRIBED, 5, model) == 5
    assert {path.name for path in (tmp_path / "a" / "run").iterdir()} == {"run.json", "start.weights.h5"}
    content = json.loads((tmp_path / "a" / "run" / "run.json").read_text())
    assert content["fine_tune"] == DESCRIBED
    assert {"kadence", "keras", "numpy", "backend", "python"} <= content["versions"].keys()


def test_a_run_that_is_resumed_begins_from_its_own_start(tmp_path):
    model, other = fine_tuning.build(), fine_tuning.build()
    seed = begin_run(tmp_path, False, DESCRIBED, None, model)
    other.set_weights([value + 1.0 for value in other.get_weights()])
    assert begin_run(tmp_path, True, DESCRIBED, None, other) == seed
    assert all(map(tiny.same, other.get_weights(), model.get_weights()))
    with pytest.raises(ValueError, match=r"Changed: data"):
        begin_run(tmp_path, True, {**DESCRIBED, "data": [2, None]}, seed, other)
    with pytest.raises(ValueError, match=r"Changed: seed"):
        begin_run(tmp_path, True, DESCRIBED, seed + 1, other)


def test_in_memory_there_is_a_seed_only():
    assert begin_run(None, False, DESCRIBED, 7, None) == 7
    assert begin_run(None, False, DESCRIBED, None, None) >= 0


def digest_of_arrays(x, y, batch_size=4):
    return digest_of_data(Data("train", (x, y), batch_size))


def test_arrays_count_by_their_content():
    x, y = fine_tuning.data(12)
    assert digest_of_arrays(x, y) == digest_of_arrays(x.copy(), y)
    assert digest_of_arrays(x, y) != digest_of_arrays(x, y[::-1])
    assert digest_of_arrays(x, y) != digest_of_arrays(np.where(x == x[0, 0, 0, 0], 0.0, x), y)


def test_photos_count_by_class_name_and_size(tmp_path):
    def digest():
        return digest_of_data(Data("train", ImageBatches(scan_folder(photos), tiny.SIZE, 4, shuffle=False), 4))

    photos = tiny.write_photos(tmp_path, n=4)
    before = digest()
    assert digest() == before
    first, second = (photos / name for name in sorted(tiny.COLOURS)[:2])
    for name in ("00.png", "01.png"):  # the two change places
        (first / name).rename(tmp_path / "moved")
        (second / name).rename(first / name)
        (tmp_path / "moved").rename(second / name)
    (second / "02.png").rename(second / "99.png")
    assert digest() != before


def test_photos_in_nested_folders_count_by_their_class(tmp_path):
    def digest():
        return digest_of_data(Data("train", ImageBatches(scan_folder(tmp_path), tiny.SIZE, 4, shuffle=False), 4))

    tiny.write_photos(tmp_path, n=2)
    first, second = (tmp_path / name / "x" for name in sorted(tiny.COLOURS)[:2])
    first.mkdir()
    second.mkdir()
    (first.parent / "00.png").rename(first / "00.png")
    before = digest()
    (first / "00.png").rename(second / "00.png")
    assert digest() != before


def test_other_datasets_count_by_their_length():
    class Batches:
        def __len__(self):
            return 3

        def __iter__(self):
            return iter([])

    assert digest_of_data(Data("train", Batches(), 4)) == "Batches of 3 batches"


def test_models_count_by_layers_and_shapes_groups_by_place():
    layers = Layers(fine_tuning.build())
    assert digest_of_model(layers) == digest_of_model(Layers(fine_tuning.build()))
    assert digest_of_model(layers) != digest_of_model(Layers(fine_tuning.build(filters=5)))
    unnamed = [keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)]) for _ in range(2)]
    digests = [digest_of_groups(kadence.split_evenly(model, 2), Layers(model)) for model in unnamed]
    assert digests[0] == digests[1]
    assert [name for name, _ in digests[0]] == ["group_1", "group_2"]
    assert len({places[0] for _, places in digests[0]}) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fine_tune": {}}', '{"fine_tune": {}, "seed": "x"}'])
def test_a_spoilt_description_is_left_as_it_is(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"`run.json` must be of a run of `fine_tune`"):
        begin_run(tmp_path, True, DESCRIBED, None, None)
    assert Path(tmp_path / "run.json").read_text() == content
