"""The whole recipe: what a run does and leaves, what it refuses, and that one killed at any moment ends as another."""

import errno
import json
import shutil

import keras
import numpy as np
import pytest
import tiny
from bad_input import assert_integer, assert_rejects
from fine_tuning import BATCH_SIZE, build, data, fine_tune

import kadence
from kadence import FindPhase, HeadPhase, TrainPhase, _job, backbones, split, split_evenly
from kadence.data import ImageBatches, scan_folder
from kadence.digits import write_digits

BACKEND = keras.backend.backend()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with everything in it, and the model that was given."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    model = build()
    return model, fine_tune(model, snapshots=2, batch_norm="train", run_dir=folder)


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[1].run_dir, tmp_path / "copy")


# What a run does


def test_the_phases_of_a_run(whole):
    model, result = whole
    assert result.model is model
    assert [row["phase"] for row in result.history] == ["head", "head", "train", "train"]
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert [type(phase) for phase in result.phases] == [HeadPhase, FindPhase, TrainPhase]
    assert list(result.groups.names) == ["group_1", "group_2", "group_3"]
    assert result.rates == pytest.approx([result.rates[2] / 100, result.rates[2] / 10, result.rates[2]])
    assert result.best_epoch == min(result.history, key=lambda row: row["val_loss"])["epoch"]
    assert len(result.record) == 4 * 3
    for name, peak in zip(result.groups.names, result.rates, strict=True):
        assert max(result.record.rates[name][6:]) == pytest.approx(peak)
    assert max(result.record.rates["group_1"][:6]) == 0.0
    assert result.range_test is not None
    assert {type(model.optimizer.inner_optimizer).__name__} == {"Adam"}
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_the_last_epoch_has_the_scores_of_the_new_statistics(whole):
    model, result = whole
    scores = model.evaluate(*data(24, seed=1), batch_size=20, verbose=0, return_dict=True)
    assert {name: result.history[-1][f"val_{name}"] for name in scores} == pytest.approx(scores, rel=1e-5)


def test_what_a_run_leaves(whole):
    _, result = whole
    names = {path.name for path in result.run_dir.iterdir()}
    files = {"run.json", "start.weights.h5", "phases", "snapshots", "model.keras", "history.csv", "rates.json"}
    assert names == files | {"curves.png", "rates.png", "range_test.json", "range_test.png"}
    assert len(list((result.run_dir / "snapshots").glob("*.weights.h5"))) == 2
    saved = keras.saving.load_model(result.run_dir / "model.keras")
    assert all(tiny.same(a, b) for a, b in zip(saved.get_weights(), result.model.get_weights(), strict=True))
    assert result.ensemble().predict(data(6)[0]).shape == (6, 3)


def test_in_memory_it_leaves_nothing_and_tells_what_it_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    told = []
    result = fine_tune(validation=None, rates=1e-2, freeze_epochs=0, epochs=1, tell=told.append)
    assert list(tmp_path.iterdir()) == []
    assert (result.run_dir, result.best_epoch, result.range_test) == (None, None, None)
    assert "Without validation data there is no best epoch." in str(result)
    assert told == ["train: 1 epoch, cosine, peak rates group_1 0.0001, group_2 0.001, group_3 0.01"]
    assert capsys.readouterr().out == ""


def test_a_seed_repeats_a_run_and_another_one_does_not():
    if BACKEND == "torch":
        pytest.skip("PyTorch may sum in another order")
    first, again, other = (fine_tune(rates=1e-2, epochs=3, seed=seed).model.get_weights() for seed in (1, 1, 2))
    assert all(map(tiny.same, first, again))
    assert not all(map(tiny.same, first, other))


@pytest.mark.parametrize("kept", [True, False], ids=["in a folder", "in memory"])
def test_a_metric_with_a_value_per_class_counts_as_their_mean(tmp_path, kept):
    x, y = data()
    train = x, keras.ops.convert_to_numpy(keras.ops.one_hot(y, 3))
    model = build()
    model.compile("adam", "categorical_crossentropy", metrics=[keras.metrics.F1Score()])
    folder = {"run_dir": tmp_path / "run"} if kept else {}
    result = fine_tune(model, train, train, epochs=2, freeze_epochs=1, batch_norm="train", **folder)
    scores = model.evaluate(*train, batch_size=BATCH_SIZE, verbose=0, return_dict=True)["f1_score"]
    assert scores.shape == (3,)
    assert result.history[-1]["val_f1_score"] == pytest.approx(np.mean(scores), abs=1e-5)


def test_rate_zero_freezes_a_group_and_its_statistics():
    model = build()
    still = [model.get_layer(name) for name in ("conv1", "norm1")]
    before = [np.array(value) for layer in still for value in layer.get_weights()]
    groups = split(model, ["conv2", "head"])
    fine_tune(model, groups=groups, rates=(0.0, 1e-3, 1e-2), batch_norm="train", freeze_epochs=0, epochs=1)
    assert all(map(tiny.same, before, [value for layer in still for value in layer.get_weights()]))
    assert not model.get_layer("conv1").trainable
    assert model.get_layer("conv2").trainable


def test_groups_join_one_by_one():
    model, at_ends = build(), []
    layers = [model.get_layer(name) for name in ("conv1", "conv2")]

    def look(epoch, logs):
        model.jax_state_sync() if BACKEND == "jax" else None
        at_ends.append([np.array(layer.get_weights()[0]) for layer in layers])

    start = [np.array(layer.get_weights()[0]) for layer in layers]
    phases = [TrainPhase(3, (1e-3, 1e-3, 1e-2), unfreeze_every=1)]
    watching = keras.callbacks.LambdaCallback(on_epoch_end=look)
    result = fine_tune(model, epochs=3, freeze_epochs=1, phases=phases, callbacks=[watching])
    still = [[tiny.same(*pair) for pair in zip(start, seen, strict=True)] for seen in at_ends]
    assert still == [[True, True], [True, False], [False, False]]
    assert len(result.record) == 9


JOINING = {"epochs": 5, "freeze_epochs": 1, "seed": 3}


def joining(**changes):
    return [TrainPhase(5, (1e-3, 1e-3, 1e-2), unfreeze_every=2, **changes)]


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_what_is_frozen_while_groups_join_runs_once(monkeypatch, batch_norm):
    cuts = []

    def spy(model, at, batches):
        cuts.append(at.name)
        return kadence.cache_features(model, at, batches)

    monkeypatch.setattr(_job, "cache_features", spy)
    stored = fine_tune(phases=joining(), batch_norm=batch_norm, **JOINING)
    assert cuts == ["group_3", "group_2"], "in the last epoch all groups train"
    whole = fine_tune(phases=joining(cached=False), batch_norm=batch_norm, **JOINING)
    assert len(cuts) == 2
    assert stored.rates == whole.rates
    for mine, other in zip(stored.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
    for mine, other in zip(stored.history, whole.history, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert mine["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)
    assert stored.record.steps.tolist() == whole.record.steps.tolist() == list(range(15))
    for name, rates in whole.record.rates.items():
        np.testing.assert_allclose(stored.record.rates[name], rates)


def test_a_group_joins_in_which_nothing_trains():
    options = {"epochs": 7, "freeze_epochs": 1, "seed": 3}
    weights = []
    for cached in (True, False):
        model = build()
        groups = split(model, ["norm1", "conv2", "head"])
        phases = [TrainPhase(7, (1e-3, 1e-3, 1e-3, 1e-2), unfreeze_every=2, cached=cached)]
        weights.append(fine_tune(model, groups=groups, phases=phases, **options).model.get_weights())
    for mine, other in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)


def test_a_group_of_rate_zero_runs_once(monkeypatch):
    cuts = []
    monkeypatch.setattr(
        _job, "cache_features", lambda *given: cuts.append(given[1].name) or kadence.cache_features(*given)
    )
    model = build()
    before = model.get_layer("conv1").get_weights()
    fine_tune(model, rates=(0.0, 1e-3, 1e-2), freeze_epochs=0, epochs=2)
    assert cuts == ["group_2"]
    assert all(map(tiny.same, before, model.get_layer("conv1").get_weights()))


@pytest.mark.parametrize("last", range(1, 5))
def test_groups_that_join_are_resumed_after_any_epoch(tmp_path, last):
    def stop(epoch, logs):
        if epoch + 1 == last:
            raise KeyboardInterrupt

    expected = fine_tune(phases=joining(), **JOINING)
    stopping = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    options = {"phases": joining(), "run_dir": tmp_path / "run", **JOINING}
    with pytest.raises(KeyboardInterrupt):
        fine_tune(callbacks=[stopping], **options)
    result = fine_tune(resume=True, **options)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5]
    assert len(result.record) == 15
    for mine, other in zip(result.model.get_weights(), expected.model.get_weights(), strict=True):
        assert np.allclose(mine, other, rtol=1e-4, atol=1e-5) if BACKEND == "torch" else tiny.same(mine, other)


def test_phases_of_one_kind_have_names_of_their_own(tmp_path):
    chosen = [HeadPhase(1, rate=1e-2), TrainPhase(1, (0.0, 1e-3, 1e-2)), TrainPhase(1, (1e-4, 1e-3, 1e-2), "constant")]
    result = fine_tune(epochs=3, phases=chosen, run_dir=tmp_path / "run", freeze_epochs=1)
    assert [row["phase"] for row in result.history] == ["head", "train", "train-2"]
    assert {path.name for path in (tmp_path / "run" / "phases").iterdir()} == {"head", "train", "train-2"}


def two_heads():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Dense(8, activation="relu")(inputs))
    outputs = {"a": keras.layers.Dense(3, activation="softmax", name="a")(x), "b": keras.layers.Dense(1, name="b")(x)}
    model = keras.Model(inputs, outputs)
    model.compile(
        "sgd", loss={"a": "sparse_categorical_crossentropy", "b": own_loss}, loss_weights={"a": 1.0, "b": 0.1}
    )
    return model, "a"


def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.body = keras.layers.Dense(8, activation="relu")
        self.head = keras.layers.Dense(3, activation="softmax")

    def call(self, inputs):
        return self.head(self.body(inputs))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 4), np.float32))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, None


def sequential():
    layers = [keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("rmsprop", "sparse_categorical_crossentropy")
    return model, None


@pytest.mark.parametrize("make", [two_heads, subclassed, sequential])
def test_other_kinds_of_models(make):
    model, head = make()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)).astype(np.float32), rng.integers(0, 3, 32)
    targets = {"a": y, "b": x[:, :1]} if head else y
    result = kadence.fine_tune(model, (x, targets), epochs=3, freeze_epochs=2, head=head, rates=1e-2, seed=0, verbose=0)
    assert len(result.history) == 3
    assert all(np.isfinite(row["loss"]) for row in result.history)


# Resuming


def test_a_finished_run_is_resumed_to_the_same(whole, copy):
    expected = tiny.snapshot(whole[1].run_dir)
    result = fine_tune(snapshots=2, batch_norm="train", run_dir=copy, resume=True)
    assert result.history == whole[1].history
    assert result.rates == whole[1].rates
    assert result.notes == whole[1].notes
    assert all(map(tiny.same, result.model.get_weights(), whole[1].model.get_weights()))
    for path, content in expected.items():
        if path.suffix in (".json", ".csv", ".h5"):
            assert (copy / path.relative_to(whole[1].run_dir)).read_bytes() == content, path


def test_a_kill_before_the_start_is_kept_loses_nothing(whole, copy):
    (copy / "start.weights.h5").unlink()
    shutil.rmtree(copy / "phases")
    shutil.rmtree(copy / "snapshots")
    result = fine_tune(snapshots=2, batch_norm="train", run_dir=copy, resume=True)
    if BACKEND != "torch":
        assert all(map(tiny.same, result.model.get_weights(), whole[1].model.get_weights()))


def test_a_kill_in_the_first_file_leaves_a_new_folder(tmp_path):
    (tmp_path / "run.json.123.part").write_text("{")
    assert fine_tune(rates=1e-2, epochs=1, freeze_epochs=0, run_dir=tmp_path).run_dir == tmp_path
    assert not list(tmp_path.rglob("*.part*"))


KILLED = """
import os, random, signal, sys, time, traceback
import fine_tuning

def begin(folder):
    process = os.fork()
    if process == 0:
        status = 1
        try:
            seconds = fine_tuning.go_on(folder)
            print(seconds, flush=True)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return process

def finish(folder):
    began = time.perf_counter()
    assert os.waitpid(begin(folder), 0)[1] == 0
    return time.perf_counter() - began

root = sys.argv[1]
finish(root + "/first")  # compiles what the others find compiled
duration = finish(root + "/whole")
chance, kills, runs = random.Random(0), 0, 0
while kills < 20:
    folder = f"{root}/killed{runs}"
    for _ in range(5):
        process = begin(folder)
        time.sleep(chance.uniform(0.0, duration / 2))
        os.kill(process, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(process, 0)[1])
    duration = min(duration, finish(folder))
    runs += 1
    assert runs < 20, "they end before they are killed"
print("kills", kills)
"""


@pytest.mark.slow
def test_a_run_killed_at_20_random_moments_ends_as_one_that_was_not(tmp_path):
    done = tiny.python(KILLED, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 20
    whole = tmp_path / "whole"
    for folder in tmp_path.glob("killed*"):
        assert not [path for path in folder.rglob("*") if "part" in path.name]
        files = [path.relative_to(whole) for path in whole.rglob("*.weights.h5")]
        assert len(files) == 1 + 2 * 2 + 2
        for file in files:
            found, expected = tiny.weights_of(folder / file), tiny.weights_of(whole / file)
            assert found.keys() == expected.keys()
            for name in expected:
                if BACKEND == "torch":
                    np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-5)
                else:
                    assert tiny.same(found[name], expected[name]), (file, name)
        if BACKEND != "torch":
            assert (folder / "rates.json").read_bytes() == (whole / "rates.json").read_bytes()


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_later(tmp_path, monkeypatch):
    real = _job.save_weights
    expected = fine_tune(rates=1e-2, epochs=3, run_dir=tmp_path / "whole")

    def full(model, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(_job, "save_weights", full)
        with pytest.raises(OSError, match=r"`run_dir` must be on a disk that is not full\..*Make room.*`resume`"):
            fine_tune(rates=1e-2, epochs=3, run_dir=tmp_path / "run")
    assert _job.save_weights is real
    result = fine_tune(rates=1e-2, epochs=3, run_dir=tmp_path / "run", resume=True)
    assert len(result.history) == 3
    if BACKEND != "torch":
        assert all(map(tiny.same, result.model.get_weights(), expected.model.get_weights()))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": lambda: build(filters=5)}, "model"),
        ({"train": lambda: data(60, seed=9)}, "data"),
        ({"validation": None}, "data"),
        ({"model": lambda: build(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))}, "loss"),
        ({"model": lambda: build(keras.optimizers.Adam(beta_1=0.5))}, "optimizer"),
        ({"augment": lambda: keras.layers.RandomFlip()}, "augment"),
        ({"seed": 4}, "seed"),
        ({"epochs": 5}, "phases"),
        ({"batch_norm": "frozen"}, "batch_norm"),
        ({"batch_size": 10}, "batch_size"),
        ({"head": "norm2"}, "groups"),
    ],
)
def test_a_run_goes_on_with_nothing_else(copy, changes, named):
    given = {name: value() if callable(value) else value for name, value in changes.items()}
    before = tiny.snapshot(copy)
    model = given.pop("model", None) or build()
    weights = model.get_weights()
    with pytest.raises(ValueError, match=rf"`resume` must go on with the same model.*Changed: .*{named}"):
        fine_tune(model, **{"snapshots": 2, "batch_norm": "train", "run_dir": copy, "resume": True, **given})
    assert tiny.snapshot(copy) == before
    assert all(map(tiny.same, model.get_weights(), weights))


def test_another_setting_of_an_augmentation_is_another_run(tmp_path):
    options = {"rates": 1e-2, "epochs": 1, "freeze_epochs": 0, "run_dir": tmp_path / "run"}
    fine_tune(augment=keras.layers.RandomTranslation(0.1, 0.1, seed=1), **options)
    fine_tune(augment=keras.layers.RandomTranslation(0.1, 0.1, seed=1), resume=True, **options)
    with pytest.raises(ValueError, match="Changed: augment"):
        fine_tune(augment=keras.layers.RandomTranslation(0.3, 0.1, seed=1), resume=True, **options)


# Bad input


def rejected(tmp_path, error, message, model=None, **changes):
    """Refused before anything is trained or written."""
    model = build() if model is None else model
    weights = model.get_weights()
    with pytest.raises(error, match=message):
        fine_tune(model, **{"run_dir": tmp_path / "run", **changes})
    assert not (tmp_path / "run").exists()
    assert all(map(tiny.same, model.get_weights(), weights))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"epochs": 2}, ValueError, r"`epochs` must be more than the 2 of `freeze_epochs`.*epochs=2"),
        ({"epochs": 0}, ValueError, r"`epochs` must be an integer >= 1"),
        ({"rates": "fast"}, ValueError, r"`rates` must be 'find', a rate, or one rate per group"),
        ({"rates": (1e-3, 1e-2)}, ValueError, r"`rates` must be .*one rate per group, 3"),
        ({"rates": (0, 0, 0)}, ValueError, r"`rates` must be"),
        ({"schedule": "linear"}, ValueError, r"`schedule` must be one of"),
        ({"schedule": "cosine", "snapshots": 2}, ValueError, r"`schedule` must be 'warm-restarts'"),
        ({"snapshots": 40}, ValueError, r"cycles"),
        ({"snapshots": 2, "run_dir": None}, ValueError, r"`run_dir` must be a folder, to keep snapshots"),
        ({"batch_norm": "off"}, ValueError, r"`batch_norm` must be"),
        ({"augment": "flip"}, TypeError, r"`augment` must be a keras layer"),
        ({"head": "hat"}, ValueError, r"hat"),
        ({"head": "head", "groups": split(build(), ["head"])}, ValueError, r"`head` must be None beside `groups`"),
        ({"groups": split_evenly(sequential()[0], 2)}, ValueError, r"`groups` must be the groups of this model"),
        ({"groups": ["head"]}, TypeError, r"`groups` must be LayerGroups"),
        ({"resume": True}, FileNotFoundError, r"`run_dir` must be the folder of a run.*Start it without `resume`"),
        ({"resume": True, "run_dir": None}, ValueError, r"`resume` must be False without a `run_dir`"),
        ({"seed": -1}, ValueError, r"`seed` must be"),
        ({"validation": 5}, TypeError, r"`validation` must be arrays"),
        ({"phases": []}, (ValueError, TypeError), r"`phases` must be|`epochs` must be"),
        ({"phases": ["train"]}, TypeError, r"`phases` must be phases: HeadPhase"),
        ({"phases": [HeadPhase(3)]}, ValueError, r"`epochs` must be the sum of those of the phases, 3"),
        ({"phases": [HeadPhase(4)], "rates": 1e-3}, ValueError, r"`rates` must be left out beside `phases`"),
        ({"phases": [TrainPhase(4)]}, ValueError, r"`rates` must be one rate per group, 3.*`FindPhase`"),
        ({"phases": [TrainPhase(4, (1e-3,))]}, ValueError, r"`rates` must be one rate per group, 3"),
    ],
)
def test_bad_input(tmp_path, changes, error, message):
    if "phases" in changes:
        changes = {"freeze_epochs": 1, **changes}
    rejected(tmp_path, error, message, **changes)


def test_bad_models(tmp_path):
    plain = build()
    plain.compiled = False
    rejected(tmp_path, ValueError, r"`model` must be compiled", model=plain)
    alone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    alone.compile("adam", "mse")
    rejected(tmp_path, ValueError, r"`model` must have .*head.*Give `head`", model=alone)
    empty = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    empty.compile("adam", "mse")
    rejected(tmp_path, ValueError, r"`model` must be built and have weights", model=empty)


def test_integers():
    assert_integer(lambda value: fine_tune(batch_size=value), "batch_size", 1)
    assert_rejects(lambda value: fine_tune(snapshots=value), "snapshots", -1, ValueError)


def test_a_folder_that_holds_something_is_never_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"`run_dir` must be a new or empty folder.*resume=True"):
        fine_tune(run_dir=tmp_path)
    assert tiny.snapshot(tmp_path) == {tmp_path / "mine.txt": b"mine"}


def test_augment_needs_data_that_can_be_gone_through_by_index(tmp_path):
    class Batches:
        def __len__(self):
            return 3

        def __iter__(self):
            x, y = data()
            return iter([(x[at : at + 20], y[at : at + 20]) for at in (0, 20, 40)])

    flip = keras.layers.RandomFlip()
    rejected(tmp_path, TypeError, r"`augment` must be None unless", train=Batches(), augment=flip)


def test_a_description_that_is_spoilt_is_a_clear_error(copy):
    for content in ("{", "[]", json.dumps({"settings": {}})):
        (copy / "run.json").write_text(content)
        with pytest.raises(ValueError, match=r"`run.json` must be of a run of `fine_tune`"):
            fine_tune(run_dir=copy, resume=True)


@pytest.mark.slow
def test_pictures_and_a_real_backbone(tmp_path):
    train = scan_folder(write_digits(tmp_path / "digits", n_train=120, n_test=40) / "train")
    keras.utils.set_random_seed(0)
    backbone = backbones.load_backbone("efficientnet_lite0", 64)
    x = keras.layers.GlobalAveragePooling2D()(backbone.model.output)
    model = keras.Model(backbone.model.input, keras.layers.Dense(10, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    batches = ImageBatches(train, 64, 20, shuffle=True, seed=0)
    result = kadence.fine_tune(model, batches, batches, epochs=5, freeze_epochs=4, run_dir=tmp_path / "run", seed=0)
    assert list(result.groups.names) == ["group_1", "group_2", "group_3"]
    assert result.history[3]["val_accuracy"] > 0.7, "of the head, on stored features"
    assert result.history[-1]["val_accuracy"] > 0.5
