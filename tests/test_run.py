"""Whole runs on tiny photos: what they leave behind, and that one killed at any moment ends as if it had not been."""

import csv
import dataclasses
import json
import math
import re
import shutil
import signal
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

import kadence
from kadence import WarmRestarts, classifier, run, train_classifier
from kadence._setup import load_photos
from kadence.classifier import build_classifier
from kadence.data import ImageBatches, scan_folder, split_validation
from kadence.records import held
from kadence.settings import BATCH_NORM, OPTIMIZERS, SCHEDULES

BACKEND = keras.backend.backend()
STEPS_PER_EPOCH, RATES = 3, (1e-3, 3e-3, 1e-2)
METRICS = ["accuracy", "loss", "val_accuracy", "val_loss"]
GROUPS = ["group_1", "group_2", "group_3"]


@pytest.fixture(scope="module", autouse=True)
def tiny_backbone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "load_backbone", tiny.load_backbone)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A run that nothing interrupts, with augmentation and dropout."""
    return train_classifier(tiny.settings(photos, augment=True), tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def copy(whole, tmp_path):
    """The folder of that run, to be spoilt."""
    return Path(shutil.copytree(whole.folder, tmp_path / "copy"))


@pytest.fixture
def nothing_changed(copy):
    before = tiny.snapshot(copy)
    yield
    assert tiny.snapshot(copy) == before


def rows(folder):
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_seconds(folder):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows(folder)]


def held_out(settings):
    train, validation = split_validation(scan_folder(settings.photos), settings.validation_fraction, settings.seed)
    return tuple(
        ImageBatches(part, settings.image_size, settings.batch_size, shuffle=False) for part in (train, validation)
    )


def evaluate(model, batches):
    scores = model.evaluate(batches, verbose=0, return_dict=True)
    return pytest.approx(scores["accuracy"], abs=1e-6), pytest.approx(scores["loss"], rel=1e-5)


def initial_weights(settings):
    """Path -> value of every weight at the start of a run."""
    keras.utils.set_random_seed(settings.seed)
    return weights(build_classifier(settings, len(tiny.COLOURS))[0])


def weights(model):
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights if "seed" not in weight.path}


def restart_rates(peak, lengths):
    """The cosine of each cycle, written out."""
    return [peak * (1 + math.cos(math.pi * i / length)) / 2 for length in lengths for i in range(length)]


# What a run leaves behind


def test_the_folder_holds_what_is_promised_and_no_more(whole):
    assert {path.name for path in whole.folder.iterdir()} == tiny.RUN_FILES
    assert not [path for path in whole.folder.rglob("*") if "part" in path.name]


def test_labels_are_readable_and_in_the_order_of_the_outputs(whole, photos):
    text = (whole.folder / "labels.json").read_text(encoding="utf-8")
    assert json.loads(text) == list(scan_folder(photos).class_names) == ["apfel", "birnen", "りんご"]
    assert "りんご" in text


def test_run_json_holds_every_setting_and_version(whole, photos):
    content = json.loads((whole.folder / "run.json").read_text(encoding="utf-8"))
    expected = dataclasses.asdict(tiny.settings(photos, augment=True))
    assert content["settings"] == {**expected, "rates": list(expected["rates"])}
    assert content["settings"]["seed"] == 0
    counts = {name: content["photos"][name] for name in ("train", "validation", "skipped")}
    assert counts == {"train": 18, "validation": 6, "skipped": 0}
    versions = content["versions"]
    assert versions["backend"] == BACKEND
    assert {name: versions[name] for name in ("kadence", "keras", "numpy")} == {
        name: version(name) for name in ("kadence", "keras", "numpy")
    }
    assert versions["python"].startswith("3.")


def test_run_json_holds_the_version_of_the_backend(whole):
    # Weights are the same bit for bit under the same jaxlib only.
    versions = json.loads((whole.folder / "run.json").read_text(encoding="utf-8"))["versions"]
    assert version(BACKEND) in versions.values()


def test_history_has_a_row_per_epoch(whole):
    found = rows(whole.folder)
    assert [row["epoch"] for row in found] == ["1", "2", "3"]
    assert list(found[0]) == ["epoch", "seconds", *METRICS, *(f"learning_rate_{name}" for name in GROUPS)]
    assert all(math.isfinite(float(value)) for row in found for value in row.values())
    assert whole.seconds == pytest.approx(sum(float(row["seconds"]) for row in found))
    ends = restart_rates(1.0, [3, 6])[2::3]
    for name, rate in zip(GROUPS, RATES, strict=True):
        assert [float(row[f"learning_rate_{name}"]) for row in found] == pytest.approx([rate * end for end in ends])


def test_rates_json_holds_the_rates_of_every_step(whole):
    record = kadence.RateRecord.from_json((whole.folder / "rates.json").read_text(encoding="utf-8"))
    assert record.steps.tolist() == list(range(9))
    assert list(record.rates) == GROUPS == whole.groups.names
    for name, rate in zip(GROUPS, RATES, strict=True):
        np.testing.assert_allclose(record.rates[name], restart_rates(rate, [3, 6]), rtol=1e-12)
        schedule = WarmRestarts(max(RATES), first_cycle_steps=STEPS_PER_EPOCH, cycle_mult=2)
        np.testing.assert_allclose(record.rates[name], schedule.sample(9) * (rate / max(RATES)), rtol=1e-12)
    means = record.losses.reshape(3, 3).mean(1)
    np.testing.assert_allclose(means, [float(row["loss"]) for row in rows(whole.folder)], rtol=1e-5)


@pytest.mark.parametrize(("name", "wide"), [("rates.png", False), ("curves.png", True)])
def test_pictures_are_pictures(whole, name, wide):
    with Image.open(whole.folder / name) as picture:
        picture.load()
        assert picture.format == "PNG"
        width, height = picture.size
        assert 800 <= width <= 3000
        assert 300 <= height <= 1200
        assert (width > 2.5 * height) == wide
        assert len(picture.convert("RGB").getcolors(2**24)) > 20


def test_model_keras_is_the_best_epoch(whole, photos):
    model = keras.saving.load_model(whole.folder / "model.keras")
    _, validation = held_out(tiny.settings(photos))
    accuracy, loss = evaluate(model, validation)
    best = max(rows(whole.folder), key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert (whole.best_epoch, whole.accuracy) == (int(best["epoch"]), accuracy)
    assert (float(best["val_accuracy"]), float(best["val_loss"])) == (accuracy, loss)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 3 * whole.best_epoch
    assert whole.rates == RATES


def test_a_new_process_loads_the_model_and_trains_on(whole):
    code = """
import sys
import keras, numpy as np
import kadence
model = keras.saving.load_model(sys.argv[1])
print(*model.optimizer.groups.names, int(model.optimizer.iterations.numpy() if hasattr(
    model.optimizer.iterations, "numpy") else model.optimizer.iterations))
pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
before = model.get_weights()[0].copy()
loss = model.fit(pixels, np.array([0, 1, 2, 0]), batch_size=2, verbose=0).history["loss"][0]
print(np.isfinite(loss), (model.get_weights()[0] != before).any())
print(*model.optimizer.learning_rates.values())
"""
    done = tiny.python(code, whole.folder / "model.keras")
    assert done.returncode == 0, done.stderr
    groups, trained, rates = done.stdout.splitlines()
    first = 3 * whole.best_epoch
    assert groups.split() == [*GROUPS, str(first)]
    assert trained == "True True"
    restarts = restart_rates(1.0, [3, 6, 12])[first + 2]
    assert [float(rate) for rate in rates.split()] == pytest.approx([rate * restarts for rate in RATES], rel=1e-5)


def test_batch_norm_stands_still_unless_asked(whole):
    norms = [layer for layer in _layers(whole.folder) if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 2
    for layer in norms:
        assert not layer.trainable
        gamma, beta, mean, variance = layer.get_weights()
        assert [set(values.ravel().tolist()) for values in (gamma, beta, mean, variance)] == [
            {1.0},
            {0.0},
            {0.0},
            {1.0},
        ]


def _layers(folder):
    return keras.saving.load_model(folder / "model.keras").get_layer("tiny").layers


def test_trained_batch_norm_has_the_statistics_of_the_training_photos(photos, tmp_path):
    settings = tiny.settings(photos, augment=False, batch_norm="train")
    result = train_classifier(settings, tmp_path / "run")
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    train, validation = held_out(settings)
    backbone = model.get_layer("tiny")
    features = keras.Model(backbone.input, backbone.get_layer("conv1").output)
    pooled = np.mean([features.predict_on_batch(train[i][0]).mean((0, 1, 2)) for i in range(len(train))], 0)
    np.testing.assert_allclose(backbone.get_layer("norm1").get_weights()[2], pooled, rtol=1e-4, atol=1e-5)
    accuracy, _ = evaluate(model, validation)
    assert result.accuracy == accuracy
    assert result.best_epoch == 3
    # Going on with a finished run must not shuffle the photos into other batches.
    again = train_classifier(settings, tmp_path / "run", resume=True)
    resumed = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert again.accuracy == result.accuracy
    changed = [path for path, value in weights(resumed).items() if not tiny.same(value, weights(model)[path])]
    assert changed == []


def test_a_frozen_group_keeps_its_statistics_where_batch_norm_is_trained(photos, tmp_path):
    settings = tiny.settings(photos, augment=False, batch_norm="train", rates=(0.0, 1e-3, 1e-2), epochs=1)
    train_classifier(settings, tmp_path / "run")
    first, second = (layer for layer in _layers(tmp_path / "run") if isinstance(layer, keras.layers.BatchNormalization))
    assert not first.get_weights()[2].any()
    assert second.get_weights()[2].all()


@pytest.mark.parametrize(("optimizer", "schedule"), list(zip(OPTIMIZERS, SCHEDULES * 2, strict=True)))
def test_every_optimizer_and_schedule_runs(photos, tmp_path, capsys, optimizer, schedule):
    rates = (0.0, 1e-3, 1e-2)
    fields = {"augment": False, "optimizer": optimizer, "schedule": schedule, "rates": rates, "weight_decay": 0.1}
    settings = tiny.settings(photos, **fields, epochs=1)
    result = train_classifier(settings, tmp_path / "run")
    assert capsys.readouterr() == ("", "")
    assert [math.isfinite(float(row["val_loss"])) for row in rows(tmp_path / "run")] == [True]
    record = kadence.RateRecord.from_json((tmp_path / "run" / "rates.json").read_text(encoding="utf-8"))
    shape = [1.0, 1.0, 1.0] if schedule == "constant" else restart_rates(1.0, [3])
    for name, rate in zip(GROUPS, rates, strict=True):
        np.testing.assert_allclose(record.rates[name], [rate * part for part in shape], rtol=1e-12)
    before, after = initial_weights(settings), weights(keras.saving.load_model(tmp_path / "run" / "model.keras"))
    moved = {path.split("/")[-2] for path, value in after.items() if not tiny.same(value, before[path])}
    assert moved == {"conv2", "head"}, "a group at rate 0 stands still, weight decay or not"
    assert result.rates == rates


def test_an_empty_folder_may_be_the_run_folder(photos, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(StoppedError):
        train_classifier(tiny.settings(photos, augment=False), tmp_path / "run", callbacks=[StopAtOnce()])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"labels.json", "run.json"}


class StoppedError(Exception):
    pass


class StopAtOnce(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise StoppedError


# A run that ends in the middle of a cycle


@pytest.mark.parametrize(
    ("first", "mult", "epochs", "nearest"),
    [
        (1, 2, 2, "1 epoch and 3 epochs"),
        (1, 2, 5, "3 epochs and 7 epochs"),
        (1, 2, 8, "7 epochs and 15 epochs"),
        (2, 2, 1, "2 epochs"),
        (3, 1, 7, "6 epochs and 9 epochs"),
        (1.5, 1, 2, "3 epochs"),
    ],
)
def test_mid_cycle_warning_names_the_nearest_budgets(first, mult, epochs, nearest):
    schedule = WarmRestarts(1.0, int(first * 10), mult)
    with pytest.warns(UserWarning, match=rf"ends in the middle of a cycle.* do not: {nearest}\.$"):
        run.warn_of_mid_cycle(schedule, epochs, 10)


@pytest.mark.parametrize(("first", "mult", "epochs"), [(1, 2, 1), (1, 2, 3), (1, 2, 7), (0.5, 1, 4), (4, 1, 12)])
def test_no_warning_where_the_run_ends_with_a_cycle(first, mult, epochs):
    run.warn_of_mid_cycle(WarmRestarts(1.0, int(first * 10), mult), epochs, 10)


def test_other_schedules_have_no_cycles():
    run.warn_of_mid_cycle(kadence.Cosine(1.0, 7), 5, 10)
    run.warn_of_mid_cycle(kadence.Constant(1.0), 5, 10)


def test_mid_cycle_warning_where_no_whole_number_of_epochs_fits():
    with pytest.warns(UserWarning, match=r"none of a whole number of epochs\.$"):
        run.warn_of_mid_cycle(WarmRestarts(1.0, 15, 2), 2, 10)


# Resuming


KILLED = """
import os, signal, sys
import keras, tiny
import kadence.callbacks.run_folder as run_folder
from kadence import classifier, train_classifier

photos, folder, moment = sys.argv[1:]
classifier.load_backbone = tiny.load_backbone

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

class AtBatch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if moment == "batch" and (self.epoch, batch) == (1, 1):
            kill()

write_backup, save_weights = run_folder.RunFolder._write_backup, keras.Model.save_weights

def before_backup(self, epoch):
    if moment == "before backup" and epoch == 1:
        kill()
    write_backup(self, epoch)

def half_of_backup(self, filepath, **options):
    save_weights(self, filepath, **options)
    if moment == "in backup" and "epoch_00002" in os.listdir(folder + "/backup"):
        with open(filepath, "r+b") as file:
            file.truncate(os.path.getsize(filepath) // 2)
        kill()

run_folder.RunFolder._write_backup, keras.Model.save_weights = before_backup, half_of_backup
settings = tiny.settings(photos, augment=True)
train_classifier(settings, folder, resume=os.path.exists(folder), callbacks=[AtBatch()])
"""


def test_a_run_killed_three_times_ends_as_one_that_was_not(whole, photos, tmp_path):
    folder = tmp_path / "killed"
    finished = {"batch": 1, "before backup": 1, "in backup": 2}
    for moment, epochs in finished.items():
        done = tiny.python(KILLED, photos, folder, moment)
        assert done.returncode == -signal.SIGKILL, done.stderr
        backups = {path.name for path in (folder / "backup").iterdir()}
        assert backups - {"part"} == {f"epoch_{epochs:05d}"}
        keras.saving.load_model(folder / "model.keras")
    assert "part" in backups
    assert len(rows(folder)) == 3, "the history is written before the backup"
    result = train_classifier(tiny.settings(photos, augment=True), folder, resume=True)

    assert {path.name for path in folder.iterdir()} == tiny.RUN_FILES
    assert not [path for path in folder.rglob("*") if "part" in path.name]
    backups = (tiny.weights_of(path / "backup/epoch_00003/latest.weights.h5") for path in (folder, whole.folder))
    assert_equal_weights(*backups)
    models = (weights(keras.saving.load_model(path / "model.keras")) for path in (folder, whole.folder))
    assert_equal_weights(*models)
    if BACKEND == "torch":
        return
    assert without_seconds(folder) == without_seconds(whole.folder)
    assert (folder / "rates.json").read_text() == (whole.folder / "rates.json").read_text()
    assert (folder / "rates.png").read_bytes() == (whole.folder / "rates.png").read_bytes()
    assert (result.best_epoch, result.accuracy) == (whole.best_epoch, whole.accuracy)


def assert_equal_weights(found, expected):
    """Bit for bit, except on PyTorch, whose kernels may sum in another order."""
    assert list(found) == list(expected)
    for path, value in expected.items():
        if BACKEND == "torch":
            np.testing.assert_allclose(found[path], value, rtol=1e-4, atol=1e-6, err_msg=path)
        else:
            assert tiny.same(found[path], value), path


def test_resuming_a_finished_run_changes_nothing(whole, photos, copy, nothing_changed):
    result = train_classifier(tiny.settings(photos, augment=True), copy, resume=True)
    assert dataclasses.replace(result, groups=whole.groups) == dataclasses.replace(whole, folder=copy)
    assert result.groups.names == whole.groups.names


def test_a_run_of_a_version_without_a_setting_is_resumed(photos, copy):
    description = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    del description["settings"]["replicas"]
    (copy / "run.json").write_text(json.dumps(description), encoding="utf-8")
    train_classifier(tiny.settings(photos, augment=True), copy, resume=True)
    assert json.loads((copy / "run.json").read_text(encoding="utf-8")) == description, "what it was begun with stays"


def test_the_photos_of_a_run_may_be_named_otherwise(photos, copy, monkeypatch):
    monkeypatch.chdir(photos.parent)
    train_classifier(tiny.settings(photos.name, augment=True), copy, resume=True)


def test_a_run_that_goes_on_with_another_backend_says_so(photos, copy):
    description = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    description["versions"] |= {"backend": "other", "keras": "1.0"}
    (copy / "run.json").write_text(json.dumps(description), encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_classifier(tiny.settings(photos, augment=True), copy, resume=True)
    said = " ".join(str(warning.message) for warning in caught)
    assert re.search(r"begun with keras 1\.0, now .*; backend other, now .*bit for bit", said)


def test_snapshots_cannot_be_asked_for_in_mid_run(photos, copy, nothing_changed):
    with pytest.raises(ValueError, match="it was begun without snapshots"):
        train_classifier(tiny.settings(photos, augment=True), copy, resume=True, snapshots=True)


def test_a_run_of_a_version_that_did_not_say_whether_it_keeps_snapshots(photos, copy):
    description = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    del description["snapshots"], description["photos"]["skipped"]
    (copy / "run.json").write_text(json.dumps(description), encoding="utf-8")
    train_classifier(tiny.settings(photos, augment=True), copy, resume=True, snapshots=True)


def test_two_processes_do_not_train_in_one_folder(photos, copy, nothing_changed):
    with held("out", copy), pytest.raises(FileExistsError, match="in which no other process trains"):
        train_classifier(tiny.settings(photos, augment=True), copy, resume=True)


def test_a_run_that_began_while_photos_were_read_is_left_alone(photos, tmp_path, monkeypatch):
    def load(settings):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "run.json").write_text("of another")
        return load_photos(settings)

    monkeypatch.setattr("kadence.run.load_photos", load)
    with pytest.raises(FileExistsError, match="`out` must be a new or empty folder"):
        train_classifier(tiny.settings(photos), tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_text() == "of another"


def test_resuming_draws_the_pictures_that_a_kill_prevented(copy, photos):
    for name in ("rates.png", "curves.png"):
        (copy / name).unlink()
    train_classifier(tiny.settings(photos, augment=True), copy, resume=True)
    assert {path.name for path in copy.iterdir()} == tiny.RUN_FILES


def test_resuming_leaves_no_half_written_files(copy, photos):
    # A kill in `Model.save` leaves this; the epochs after it may not be better, so that it is not written again.
    (copy / "model.part.keras").write_bytes(b"half")
    train_classifier(tiny.settings(photos, augment=True), copy, resume=True)
    assert {path.name for path in copy.iterdir()} == tiny.RUN_FILES


def test_without_resume_a_run_is_never_touched(photos, copy, nothing_changed):
    with pytest.raises(FileExistsError, match=r"`out` must be a new or empty folder\..*--resume"):
        train_classifier(tiny.settings(photos, augment=True), copy)


def test_resume_needs_a_run(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=r"`out` must be the folder of a run.*Start it without --resume"):
            train_classifier(tiny.settings(photos), folder, resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"cycles": 3},
        {"epochs": 4},
        {"rates": (1e-3, 3e-3, 2e-2)},
        {"rates": None},
        {"optimizer": "sgd"},
        {"batch_size": 9},
        {"augment": False},
        {"batch_norm": BATCH_NORM[1]},
        {"split": ("conv2", "head")},
        {"weight_decay": 0.01},
    ],
    ids=str,
)
def test_resume_with_another_setting_is_refused(photos, copy, nothing_changed, change):
    ((name, value),) = change.items()
    shown = re.escape(repr(list(value) if isinstance(value, tuple) else value))
    with pytest.raises(ValueError, match=rf"same settings and photos\..* {name} was .*, is {shown}") as caught:
        train_classifier(tiny.settings(photos, **{"augment": True, **change}), copy, resume=True)
    assert str(caught.value).count(" was ") == 1, "only what changed is named"


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "other size"])
def test_resume_with_other_photos_is_refused(photos, copy, tmp_path, change):
    others = Path(shutil.copytree(photos, tmp_path / "photos"))
    description = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    description["settings"]["photos"] = str(others)
    (copy / "run.json").write_text(json.dumps(description), encoding="utf-8")
    photo = others / "birnen" / "00.png"
    if change == "added":
        Image.new("RGB", (9, 9)).save(photo.with_name("99.png"))
    elif change == "removed":
        photo.unlink()
    elif change == "renamed":
        photo.rename(photo.with_name("00b.png"))
    else:
        Image.new("RGB", (9, 9)).save(photo)
    before = tiny.snapshot(copy)
    with pytest.raises(ValueError, match=r"`resume` must go on with the same settings and photos\..* photos"):
        train_classifier(tiny.settings(others, augment=True), copy, resume=True)
    assert tiny.snapshot(copy) == before


def _drop(name):
    return lambda folder: (folder / name).unlink()


def _write(name, text):
    return lambda folder: (folder / name).write_text(text)


def _halve(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:2000])


WEIGHTS, META = "backup/epoch_00003/latest.weights.h5", "backup/epoch_00003/training_metadata.json"


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_write("run.json", ""), "run.json"),
        (_write("run.json", "[]"), "run.json"),
        (_write("run.json", "{}"), "run.json"),
        (_write("run.json", '{"settings": 3}'), "run.json"),
        (_write("run.json", '{"settings": '), "run.json"),
        (_write("rates.json", '{"kadence": "rat'), "rates.json"),
        (_write("rates.json", "[]"), "rates.json"),
        (_write("history.csv", "epoch,loss\none,two\n"), "history.csv"),
        (_write("history.csv", ""), "history.csv"),
        (_drop("history.csv"), "history.csv"),
        (_halve(WEIGHTS), "backup"),
        (_drop(WEIGHTS), "backup"),
        (_drop(META), "backup"),
        (_write(META, ""), "backup"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_spoilt_run_folder_is_a_clear_error(photos, copy, spoil, named):
    spoil(copy)
    before = tiny.snapshot(copy)
    with pytest.raises((ValueError, OSError), match=re.escape(named)):
        train_classifier(tiny.settings(photos, augment=True), copy, resume=True)
    assert tiny.snapshot(copy) == before


# Loss that turns NaN


class SpoilWeights(keras.callbacks.Callback):
    """Sets a weight to NaN after a batch, counted from 0 over the run."""

    def __init__(self, batch):
        super().__init__()
        self.left = batch

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == -1:
            bias = self.model.get_layer("head").bias
            bias.assign(np.full(bias.shape, np.nan))


def finite(folder):
    model = keras.saving.load_model(folder / "model.keras")
    return all(np.isfinite(value).all() for value in weights(model).values())


def test_nan_stops_the_run_and_the_best_model_stays(photos, tmp_path):
    folder, settings = tmp_path / "run", tiny.settings(photos, augment=False)
    with pytest.raises(kadence.LossNotFiniteError, match=r"step 2 \(epoch 1, batch 3\)"):
        train_classifier(settings, folder, callbacks=[SpoilWeights(1)])
    assert {path.name for path in folder.iterdir()} == {"labels.json", "run.json"}, "no epoch was finished"

    with pytest.raises(kadence.LossNotFiniteError) as caught:
        train_classifier(settings, folder, resume=True, callbacks=[SpoilWeights(3)])
    assert "step 4 (epoch 2, batch 2)" in str(caught.value)
    for name, rate in zip(GROUPS, RATES, strict=True):
        assert f"{name} {rate * restart_rates(1.0, [3, 6])[4]:.3g}" in str(caught.value)
    assert finite(folder)
    assert len(rows(folder)) == 1
    assert {path.name for path in folder.iterdir()} == tiny.RUN_FILES

    train_classifier(settings, folder, resume=True)
    assert len(rows(folder)) == 3
    assert finite(folder)


def test_nan_after_the_last_batch_of_an_epoch_is_not_kept(photos, tmp_path):
    # No batch of the epoch has a loss of NaN: only the validation shows that the weights are spoilt.
    folder, settings = tmp_path / "run", tiny.settings(photos, augment=False)
    with pytest.raises(kadence.LossNotFiniteError):
        train_classifier(settings, folder, callbacks=[SpoilWeights(5)])
    assert finite(folder)
    assert all(math.isfinite(float(row["val_loss"])) for row in rows(folder))
    backups = [path.name for path in (folder / "backup").iterdir()]
    assert backups == ["epoch_00001"], "a run that goes on from spoilt weights never ends"


# Refusals before anything is written


def test_a_run_folder_among_the_photos_would_become_a_class(tmp_path):
    photos = tiny.write_photos(tmp_path / "photos", n=4)
    with pytest.raises(ValueError, match=r"`out` must .*photos"):
        train_classifier(tiny.settings(photos, augment=False), photos / "run", callbacks=[StopAtOnce()])
    assert not (photos / "run").exists()


def test_matplotlib_is_missed_before_the_training(photos, tmp_path, monkeypatch):
    hide(monkeypatch, "matplotlib")
    with pytest.raises(ImportError, match=r'pip install "kadence\[plot\]"'):
        train_classifier(tiny.settings(photos, augment=False), tmp_path / "run", callbacks=[StopAtOnce()])
    assert not (tmp_path / "run").exists()


def hide(monkeypatch, package):
    for name in [package, *(name for name in sys.modules if name.startswith(package + "."))]:
        monkeypatch.setitem(sys.modules, name, None)


def test_a_photo_with_a_name_that_is_not_unicode(tmp_path):
    photos = tiny.write_photos(tmp_path / "photos", n=4)
    (photos / "birnen" / "00.png").rename(photos / "birnen" / "caf\udce9.png")  # Latin-1, as old archives have it
    with pytest.raises(StoppedError):
        train_classifier(tiny.settings(photos, augment=False), tmp_path / "run", callbacks=[StopAtOnce()])
