"""The command as a user meets it: exit code, one clear message, nothing written by mistake, and what it prints."""

import csv
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny
from command import command, one_message
from PIL import Image

import kadence
import kadence.digits
from kadence import _setup, classifier, cli
from kadence.backbones import backbone_names

# `main` prints warnings itself; as errors they would not reach it.
pytestmark = pytest.mark.filterwarnings("default", "ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setattr(classifier, "load_backbone", tiny.load_backbone)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder whose model takes the brightest channel."""
    folder = tmp_path_factory.mktemp("run")
    pixels = keras.Input((32, 32, 3))
    head = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(pixels, head(keras.layers.GlobalAveragePooling2D()(pixels)))
    head.set_weights([np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    model.save(folder / "model.keras")
    (folder / "labels.json").write_text(json.dumps(list(tiny.COLOURS), ensure_ascii=False), encoding="utf-8")
    return folder


def finetune(photos, out, *words, **changes):
    return command("finetune", photos, "--out", out, *tiny.flags(**changes), *words)


def hide(monkeypatch, package):
    """As if a package were not installed."""
    for name in [package, *(name for name in sys.modules if name.startswith(package + "."))]:
        monkeypatch.setitem(sys.modules, name, None)


# finetune


def test_finetune_from_photos_to_summary(tmp_path, capsys):
    photos = tiny.write_photos(tmp_path / "photos")
    held_out = tiny.write_photos(tmp_path / "held out", classes=["apfel", "birnen"], n=2, seed=1)
    good, noise = photos / "birnen", np.random.default_rng(0).integers(0, 255, (40, 40, 4)).astype(np.uint8)
    Image.fromarray(noise, "RGBA").save(good / "alpha.png")
    Image.fromarray(noise[..., 0], "L").save(good / "grey.png")
    Image.fromarray(noise, "CMYK").save(good / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise[:30, :, :3]).save(good / "früh.JPG", exif=exif)
    (good / "empty.jpg").write_bytes(b"")
    (good / "text.jpg").write_text("not a photo")
    (photos / "apfel" / "cut.jpg").write_bytes((good / "cmyk.jpg").read_bytes()[:-300])

    out = tmp_path / "runs" / "first run"
    code = finetune(photos, out, "--validation", held_out, validation_fraction=None, cycles=None, epochs=2)
    output = capsys.readouterr()
    assert code == 0, output.err
    skipped, mid_cycle = output.err.splitlines()
    assert re.match(r"kadence: warning: In '.*photos': 3 image files cannot be used: ", skipped)
    for name in ("empty.jpg", "text.jpg", "cut.jpg"):
        assert name in skipped
    assert mid_cycle.startswith("kadence: warning: The run of 2 epochs ends in the middle of a cycle")
    assert "1 epoch and 3 epochs" in mid_cycle
    assert {path.name for path in out.iterdir()} == tiny.RUN_FILES
    described = json.loads((out / "run.json").read_text(encoding="utf-8"))["photos"]
    assert {name: described[name] for name in ("train", "validation", "skipped")} == {
        "train": 28,
        "validation": 4,
        "skipped": 3,
    }

    lines = output.out.splitlines()
    with (out / "history.csv").open(encoding="utf-8") as file:
        history = list(csv.DictReader(file))
    for number, row in enumerate(history, 1):
        shown = "  ".join(f"{name} {float(row[name]):.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
        assert any(line.startswith(f"epoch {number}/2  {shown}  ") for line in lines), output.out
    table = " ".join(lines[2:])
    best = max(history, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    for words in ("validation accuracy", "epoch kept", "seconds", "group_3", "0.001", "0.003", "0.01"):
        assert words in table or all(word in table for word in words.split()), table
    assert f"{float(best['val_accuracy']):.4f}" in table
    assert str(out) in lines[-1]


def test_snapshots_of_a_run_predict_together(photos, tmp_path, capsys):
    out = tmp_path / "run"
    assert finetune(photos, out, "--snapshots", batch_norm="train") == 0
    index = json.loads((out / "snapshots" / "snapshots.json").read_text(encoding="utf-8"))["snapshots"]
    assert [(entry["step"], entry["epoch"]) for entry in index] == [(3, 1), (9, 3)]
    assert {path.name for path in out.iterdir()} == {*tiny.RUN_FILES, "snapshots"}
    capsys.readouterr()
    assert command("predict", out, photos, "--ensemble", "--tta", 2, "--csv", tmp_path / "all.csv") == 0
    assert re.fullmatch(
        r"24 photos: .*\naccuracy \d\.\d{4} on the 24 photos in class folders\n", capsys.readouterr().out
    )
    # A run that began with snapshots goes on with them.
    assert finetune(photos, out, "--resume", batch_norm="train") == 0
    assert len(list((out / "snapshots").glob("*.weights.h5"))) == 2


def test_no_snapshots_and_no_views(run, photos, capsys):
    assert command("predict", run, photos, "--ensemble") == 1
    one_message(capsys, "`run` must hold snapshots", "`kadence finetune --snapshots` keeps them")
    assert command("predict", run, photos, "--tta", 0) == 1
    one_message(capsys, "`tta` must be an integer >= 1", "tta=0")
    assert command("predict", run, photos, "--tta", "many") == 2


def test_ctrl_c_says_how_to_go_on_and_resume_does(photos, tmp_path, monkeypatch, capsys):
    class Interrupted(cli.ProgressDisplay):
        async_safe = False

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if (self._epoch, batch) == (1, 1):
                signal.raise_signal(signal.SIGINT)

        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            self._epoch = epoch

    monkeypatch.chdir(tmp_path)
    words = ["finetune", photos, *tiny.flags()]
    with monkeypatch.context() as patch:
        patch.setattr(cli, "ProgressDisplay", Interrupted)
        assert command(*words) == 130
    output = capsys.readouterr()
    folder = Path("runs") / photos.name  # where it goes without --out
    assert output.err == f"kadence: Stopped. Go on with the same command and --resume (run folder {folder}).\n"
    assert "epoch 1/3" in output.out
    assert "epoch 2/3" not in output.out
    assert {path.name for path in folder.iterdir()} == tiny.RUN_FILES

    assert command(*words) == 1
    one_message(capsys, "`out` must be a new or empty folder", "--resume", str(folder))
    assert command(*words, "--resume") == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "epoch 1/3" not in output.out
    assert "epoch 3/3" in output.out
    assert len((folder / "history.csv").read_text(encoding="utf-8").splitlines()) == 4
    before = tiny.snapshot(folder)
    assert command(*words, "--resume") == 0
    assert tiny.snapshot(folder) == before
    assert "epoch kept" in capsys.readouterr().out


def test_rates_can_be_found_first(photos, tmp_path, monkeypatch, capsys):
    asked = []

    def train(settings, folder, *, find_callbacks, **options):
        asked.append((settings.find_rates, settings.rates, len(find_callbacks)))
        raise ValueError("enough")

    monkeypatch.setattr(cli, "train_classifier", train)
    assert finetune(photos, tmp_path / "run", rates="find") == 1
    assert finetune(photos, tmp_path / "run", rates="1,2,3") == 1
    assert asked == [(True, None, 1), (False, (1.0, 2.0, 3.0), 1)]
    capsys.readouterr()
    assert finetune(photos, tmp_path / "run", rates="finde") == 2
    one_message(capsys, "--rates", "must be numbers with commas between them")


def test_ctrl_c_before_there_is_a_run_does_not_speak_of_resuming(photos, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(_setup, "scan_folder", interrupted)
    assert finetune(photos, tmp_path / "run") == 130
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == "kadence: Stopped.\n"


def test_rates_that_are_too_large_stop_with_step_and_rates(photos, tmp_path, capsys):
    assert finetune(photos, tmp_path / "run", rates="1e30,1e30,1e30") == 1
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("kadence: error: `loss` must stay finite; at optimizer step ")
    assert "group_3 " in line
    assert "e+30" in line or "e+29" in line
    assert not (tmp_path / "run" / "model.keras").exists()


def test_rates_that_are_too_large_where_an_epoch_is_one_batch(photos, tmp_path, capsys):
    # The loss of the only batch is finite; the update after it is what spoils the weights.
    changes = {"rates": "1e30,1e30,1e30", "batch_size": 32, "cycles": None, "epochs": 1}
    assert finetune(photos, tmp_path / "run", **changes) == 1
    assert "finite" in one_message(capsys)
    assert not (tmp_path / "run" / "model.keras").exists()


BAD_SETTINGS = {
    "--split konv2": ["konv2", "Did you mean 'tiny/conv2', "],
    "--split conv2,conv1": ["`split` must", "'conv1' comes before 'conv2'"],
    "--split conv2,conv2": ["`split` must", "conv2"],
    "--split ,": ["split"],
    "--rates 1e-3": ["`rates` must have one rate per group", "3 groups", "[0.001]"],
    "--rates 1e-5,1e-4,1e-3,1e-2": ["`rates` must have one rate per group", "3 groups"],
    "--rates=-1e-3,1e-3,1e-2": ["`rates` must be a finite number >= 0", "rates=-0.001"],
    "--rates -1e-3,1e-3,1e-2": ["-0.001"],
    "--rates nan,1e-3,1e-2": ["`rates` must be a finite number", "rates=nan"],
    "--rates inf,1e-3,1e-2": ["`rates` must be a finite number", "rates=inf"],
    "--rates 0,0,0": ["`rates` must hold at least one rate > 0"],
    "--rates ,": ["`rates` must hold at least one rate > 0"],
    "--rates fast": ["--rates", "numbers with commas between them", "'fast'"],
    "--rates 1e-3;1e-2": ["--rates", "numbers with commas between them"],
    "--optimizer adm": ["--optimizer", "'adm'", "adamw"],
    "--schedule step": ["--schedule", "'step'", "warm-restarts"],
    "--batch-norm on": ["--batch-norm", "'on'", "frozen"],
    "--epochs 0": ["`epochs` must be an integer >= 1, in epochs. Received: epochs=0."],
    "--epochs 1.5": ["--epochs", "'1.5'"],
    "--epochs 2 --cycles 4": ["--cycles", "not allowed with", "--epochs"],
    "--cycles 0": ["`cycles` must", "cycles=0"],
    "--cycles 2000": ["`"],
    "--cycles 60": ["`"],
    "--image-size 16": ["`image_size` must be an integer >= 32, in pixels. Received: image_size=16."],
    "--batch-size 0": ["`batch_size` must", "batch_size=0"],
    "--weight-decay -1": ["`weight_decay` must", "weight_decay=-1.0"],
    "--weight-decay -1e-2": ["`weight_decay` must", "weight_decay=-0.01"],
    "--weight-decay nan": ["`weight_decay` must", "weight_decay=nan"],
    "--first-cycle-epochs 0": ["`first_cycle_epochs` must", "first_cycle_epochs=0.0"],
    "--first-cycle-epochs 0.01": ["`first_cycle_epochs` must"],
    "--cycle-mult 0.5": ["`cycle_mult` must", "cycle_mult=0.5"],
    "--validation-fraction 0": ["`validation_fraction` must", "validation_fraction=0.0"],
    "--validation-fraction 1": ["`validation_fraction` must", "validation_fraction=1.0"],
    "--validation-fraction nan": ["`validation_fraction` must", "validation_fraction=nan"],
    "--seed -1": ["`seed` must", "seed=-1"],
    "--validation x --validation-fraction 0.2": ["--validation-fraction", "not allowed with", "--validation"],
    "--resume": ["`out` must be the folder of a run", "without --resume"],
    "--learning-rate 1": ["unrecognized arguments", "--learning-rate"],
}


@pytest.mark.parametrize(("words", "fragments"), list(BAD_SETTINGS.items()), ids=list(BAD_SETTINGS))
def test_bad_settings(photos, tmp_path, capsys, words, fragments):
    out = tmp_path / "run"
    assert command("finetune", photos, "--out", out, "--image-size", 32, *words.split()) in (1, 2)
    one_message(capsys, *fragments)
    assert not out.exists()


def _folder(tmp_path, *names):
    for number, name in enumerate(names):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        elif name.endswith(".png"):
            Image.new("RGB", (40, 40), (number, 0, 0)).save(path)
        else:
            path.write_text("not a photo")
    return tmp_path / "photos"


BAD_PHOTOS = {
    "missing": ([], ["must be an existing folder", "nothing at that path"]),
    "empty": (["./"], ["one sub-folder per class", "It holds no sub-folder."]),
    "empty classes": (["cat/", "dog/"], ["readable images of each class", "'cat', 'dog'"]),
    "loose photos": (["a.png", "b.png"], ["one sub-folder per class", "Put its 2 photos into"]),
    "one class": (["cat/a.png"], ["at least two classes", "'cat'"]),
    "a class without images": (["cat/a.png", "cat/b.png", "dog/", "emu/a.png"], ["each class", "'dog'"]),
    "a class of broken images": (["cat/a.png", "dog/a.jpg"], ["each class", "'dog'", "a.jpg"]),
    "one photo a class": (["cat/a.png", "dog/a.png"], ["at least two images of some class"]),
    "parts of a dataset": (["train/a.png", "test/b.png"], ["one sub-folder per class", "'test'"]),
}


def test_cycles_of_a_schedule_without_any(photos, tmp_path, capsys):
    words = ["--schedule", "cosine", "--first-cycle-epochs", "2", "--cycle-mult", "3"]
    assert command("finetune", photos, "--out", tmp_path / "run", "--epochs", "5", *words) == 1
    one_message(capsys, "`schedule` must be 'warm-restarts' beside --first-cycle-epochs and --cycle-mult")


@pytest.mark.parametrize(("names", "fragments"), list(BAD_PHOTOS.values()), ids=list(BAD_PHOTOS))
def test_bad_photos(tmp_path, capsys, names, fragments):
    assert finetune(_folder(tmp_path, *names), tmp_path / "run") == 1
    one_message(capsys, *fragments, str(tmp_path / "photos"))
    assert not (tmp_path / "run").exists()


def test_photos_that_are_a_file(tmp_path, capsys):
    (tmp_path / "photos.zip").write_text("")
    assert finetune(tmp_path / "photos.zip", tmp_path / "run") == 1
    one_message(capsys, "must be an existing folder", "That is a file.")


def test_strict_names_the_broken_photo(tmp_path, capsys):
    photos = tiny.write_photos(tmp_path / "photos", n=4)
    (photos / "apfel" / "empty.jpg").write_bytes(b"")
    assert finetune(photos, tmp_path / "run", "--strict") == 1
    one_message(capsys, "hold only images that can be used", "empty.jpg")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("classes", "fragments"),
    [
        (["apfel", "banane"], ["only classes of the training", "'banane' is not one of them"]),
        ([], ["existing folder"]),
    ],
    ids=["new class", "missing"],
)
def test_bad_validation(photos, tmp_path, capsys, classes, fragments):
    held_out = tiny.write_photos(tmp_path / "held out", classes=classes, n=1)
    assert finetune(photos, tmp_path / "run", "--validation", held_out, validation_fraction=None) == 1
    one_message(capsys, *fragments, str(held_out))
    assert not (tmp_path / "run").exists()


def test_unknown_backbone(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(classifier, "load_backbone", kadence.load_backbone)
    assert finetune(photos, tmp_path / "run", backbone="resnet51") == 1
    one_message(capsys, "must be the name of a backbone", "Did you mean 'ResNet50'")
    assert not (tmp_path / "run").exists()


def test_an_existing_folder_is_refused_and_untouched(photos, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    assert finetune(photos, tmp_path / "run") == 1
    one_message(capsys, "`out` must be a new or empty folder", str(tmp_path / "run"))
    assert finetune(photos, tmp_path / "run", "--resume") == 1
    one_message(capsys, "`out` must be the folder of a run")
    assert finetune(photos, tmp_path / "run" / "thesis.txt") == 1
    one_message(capsys, "`out` must be a new or empty folder")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_an_unwritable_folder(photos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "run", Path("/proc/run")):
        assert finetune(photos, out) == 1
        one_message(capsys, str(out))


def test_a_spoilt_run_is_one_message(photos, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    for text in ("", "{}", "[]", '{"settings": 1}'):
        (tmp_path / "run" / "run.json").write_text(text)
        assert finetune(photos, tmp_path / "run", "--resume") == 1
        one_message(capsys, "run.json")


def test_a_traceback_on_request(photos, tmp_path):
    with pytest.raises(ValueError, match="`epochs` must"):
        command("--traceback", "finetune", photos, "--out", tmp_path / "run", "--epochs", 0)


def test_brackets_are_printed_as_they_are(photos, tmp_path, monkeypatch, capsys):
    # rich takes [/x] for the end of a style, and :cat: for a picture.
    folder = tmp_path / "[bold] [/x] :cat:"
    groups = classifier.build_classifier(tiny.settings(photos), 2)[1]
    result = kadence.FineTuneRun(folder, 1, 0.5, 1.0, groups, (1e-5, 1e-4, 1e-3))
    monkeypatch.setattr(cli, "train_classifier", lambda *arguments, **options: result)
    assert finetune(photos, folder) == 0
    assert "[bold] [/x] :cat:" in capsys.readouterr().out


# What is not installed


@pytest.mark.parametrize(
    ("package", "extra"),
    [("rich", "cli"), ("PIL", "cli"), ("matplotlib", "plot")],
    ids=["rich", "Pillow", "matplotlib"],
)
def test_finetune_without_an_extra(photos, tmp_path, monkeypatch, capsys, package, extra):
    hide(monkeypatch, package)
    assert finetune(photos, tmp_path / "run", cycles=None, epochs=1) == 1
    one_message(capsys, f"`{package}`", f'pip install "kadence[{extra}]"')
    assert not (tmp_path / "run").exists()


def test_predict_and_schedule_without_an_extra(run, photos, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        hide(patch, "PIL")
        assert command("predict", run, photos) == 1
    one_message(capsys, '`PIL`. Install it with: pip install "kadence[cli]"')
    with monkeypatch.context() as patch:
        hide(patch, "rich")
        assert command("predict", run, photos) == 1
        one_message(capsys, '`rich`. Install it with: pip install "kadence[cli]"')
        assert command("schedule", "constant", "--steps", 3) == 1
        one_message(capsys, '`rich`. Install it with: pip install "kadence[cli]"')
    hide(monkeypatch, "matplotlib")
    assert command("schedule", "constant", "--steps", 3, "--png", tmp_path / "a.png") == 1
    assert 'pip install "kadence[plot]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# groups


def test_groups_table(capsys):
    assert command("groups", "--split", "conv2,head", "--image-size", 32, "--rates", "0,1e-4,1e-3") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    for word in ("group", "first layer", "last layer", "layers", "trainable weights", "learning rate"):
        assert word in header
    assert [row.split()[0] for row in rows] == ["group_1", "group_2", "group_3"]
    assert [row.split()[-1] for row in rows] == ["0", "0.0001", "0.001"]
    assert rows[1].split()[1] == "tiny/conv2"
    assert [row.split()[-2] for row in rows] == ["0", str(3 * 3 * 4 * 8 + 8), str(8 * 2 + 2)]


def test_groups_are_those_that_finetune_trains(photos, tmp_path, capsys):
    assert command("groups", "--image-size", 32) == 0
    shown = [row.split()[-2].replace(",", "") for row in capsys.readouterr().out.splitlines()[1:]]
    groups = classifier.build_classifier(tiny.settings(photos, rates=None), 2)[1]
    sizes = [sum(int(np.prod(weight.shape)) for weight in group.variables) for group in groups]
    assert shown == [str(size) for size in sizes]


def test_groups_list(capsys):
    assert command("groups", "--list") == 0
    assert capsys.readouterr().out.split() == list(backbone_names())
    assert "efficientnet_lite0" in backbone_names()


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ("--split konv2", ["Did you mean 'tiny/conv2'"]),
        ("--rates 1e-3", ["`rates` must have one rate per group"]),
        ("--image-size 16", ["`image_size` must"]),
    ],
)
def test_bad_groups(capsys, words, fragments):
    assert command("groups", *words.split()) == 1
    one_message(capsys, *fragments)


# predict


def test_predict_prints_a_table_and_the_accuracy(run, photos, capsys):
    assert command("predict", run, photos) == 0
    output = capsys.readouterr()
    assert output.err == "kadence: accuracy 1.0000 on the 24 photos in class folders\n"
    header, *rows = (line.split("\t") for line in output.out.splitlines())
    assert header == ["photo", "class", "probability"]
    assert len(rows) == 24, "a pipe gets the table and nothing else"
    assert {row[1] for row in rows} == set(tiny.COLOURS)


def test_work_that_broke_off_is_an_error(photos, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(cli, "train_classifier", broken)
    assert command("finetune", photos, "--out", tmp_path / "run", *tiny.flags()) == 1
    assert "the output is no longer read, and the command broke off" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nowhere/out.csv", "."])
def test_predict_looks_where_it_is_to_write_first(run, photos, tmp_path, capsys, name, monkeypatch):
    monkeypatch.setattr(cli, "predict_photos", lambda *_: pytest.fail("predicted"))
    assert command("predict", run, photos, "--csv", tmp_path / name) == 1
    one_message(capsys, "`csv` must name a file in a folder that exists")


def test_an_output_that_nobody_reads_on_is_no_error():
    words = [sys.executable, "-c", "from kadence.cli import command; command()", "groups", "--list"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    said = done.stderr.decode()
    assert done.returncode == 0
    assert "kadence" not in said
    assert "Broken" not in said


def test_predict_writes_csv(run, tmp_path, capsys):
    names = ["a, ä.png", "c.png", "りんご.png"]
    for name, colour in zip(names, tiny.COLOURS.values(), strict=True):
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    (tmp_path / "broken.png").write_text("")
    assert command("predict", run, tmp_path, "--csv", tmp_path / "out.csv") == 0
    output = capsys.readouterr()
    assert output.err == "kadence: warning: 1 photo could not be read: broken.png\n"
    assert output.out == f"3 photos: {tmp_path / 'out.csv'}\n"
    content = (tmp_path / "out.csv").read_bytes().decode("utf-8")
    header, *rows = csv.reader(io.StringIO(content))
    assert header == ["photo", "class", "probability"]
    assert [row[:2] for row in rows] == [[str(tmp_path / n), c] for n, c in zip(names, tiny.COLOURS, strict=True)]
    assert all(re.fullmatch(r"[01]\.\d{4}", row[2]) for row in rows)
    assert "\r" not in content
    assert not list(tmp_path.glob("*.part"))


def test_predict_prints_names_as_they_are(run, tmp_path, capsys):
    folder = tmp_path / "[red] a["
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(folder / "b] :cat:.png")
    assert command("predict", run, tmp_path) == 0
    assert "[red]a[/b]:cat:.png" in re.sub(r"\s+", "", capsys.readouterr().out)


def test_predict_into_a_pipe_keeps_a_photo_on_a_line(run, tmp_path, capsys):
    # `kadence predict RUN PHOTOS | grep apfel`: nobody's terminal is 80 columns wide here.
    path = tmp_path / ("long name " * 12 + ".png")
    Image.new("RGB", (40, 40), tiny.COLOURS["apfel"]).save(path)
    assert command("predict", run, path) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "apfel" in line)
    assert str(path) in line


def test_predict_a_photo_whose_name_is_not_unicode(run, tmp_path, capsys):
    photo = tmp_path / os.fsdecode(b"caf\xe9.png")  # Latin-1, as old archives have it
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(photo)
    assert command("predict", run, tmp_path, "--csv", tmp_path / "out.csv") == 0, capsys.readouterr().err
    assert "caf" in (tmp_path / "out.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["none", "photos"], ["`run` must be a run folder of `kadence finetune`", "none"]),
        (["run", "missing.jpg"], ["`photos` must name existing photos or folders", "missing.jpg"]),
        (["run", "empty"], ["`photos` must hold at least one readable photo", "empty"]),
        (["run", "broken.jpg"], ["`photos` must hold at least one readable photo", "broken.jpg"]),
        (["run"], ["PHOTO_OR_FOLDER"]),
    ],
)
def test_bad_predictions(run, photos, tmp_path, monkeypatch, capsys, words, fragments):
    monkeypatch.chdir(tmp_path)
    Path("run").symlink_to(run)
    Path("photos").symlink_to(photos)
    Path("empty").mkdir()
    Path("broken.jpg").write_text("not a photo")
    assert command("predict", *words, "--csv", "out.csv") in (1, 2)
    one_message(capsys, *fragments)
    assert not Path("out.csv").exists()


# The recipe


def test_finetune_runs_the_recipe_by_default(photos, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["finetune", photos, "--out", out, "--no-augment", "--batch-size", 6, "--image-size", tiny.SIZE]
    assert command(*words, "--epochs", 3, "--snapshots", "--validation-fraction", 0.25) == 0
    printed = capsys.readouterr().out
    for fragment in ("head: ", "find: ", "train: ", "head epoch 1/1", "train epoch 2/2", "peak rate"):
        assert fragment in printed, fragment
    assert {"model.keras", "labels.json", "history.csv", "rates.png", "curves.png", "range_test.png"} <= {
        path.name for path in out.iterdir()
    }
    assert len(list((out / "snapshots").glob("*.h5"))) == 3
    assert command("predict", out, photos, "--ensemble") == 0
    before = (out / "model.keras").read_bytes()
    capsys.readouterr()
    assert command(*words, "--epochs", 3, "--snapshots", "--validation-fraction", 0.25) == 1
    one_message(capsys, "`out` must be a new or empty folder")
    assert (out / "model.keras").read_bytes() == before
    assert command(*words, "--epochs", 4, "--snapshots", "--validation-fraction", 0.25, "--resume") == 1
    one_message(capsys, "`resume` must go on with the same model, data and settings", "phases")


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("--recipe auto --rates 1,2,3", "`recipe` must be 'plain' beside --rates"),
        ("--recipe auto --cycle-mult 1 --warmup 5%", "beside --cycle-mult, --warmup"),
        ("--epochs 1", "`epochs` must be at least 2"),
    ],
)
def test_a_recipe_that_cannot_be(photos, tmp_path, capsys, words, fragment):
    out = tmp_path / "run"
    assert command("finetune", photos, "--out", out, "--image-size", tiny.SIZE, *words.split()) == 1
    one_message(capsys, fragment)
    assert not out.exists()


# Help

FLAGS = {
    "finetune": "PHOTOS --recipe --validation --validation-fraction --backbone --split --rates --optimizer "
    "--weight-decay "
    "--schedule --first-cycle-epochs --cycle-mult --cycles --epochs --batch-size --image-size --augment --no-augment "
    "--batch-norm --warmup --seed --out --resume --strict",
    "schedule": "warm-restarts cosine constant one-cycle from-points",
    "schedule warm-restarts": "--lr-max --first-cycle-steps --cycles --cycle-mult --warmup --steps --png",
    "plan": "warm-restarts cosine constant one-cycle from-points",
    "plan one-cycle": "--rates --epochs --minutes --samples --batch-size --accumulation --optimizer --png --json",
    "doctor": "MODEL.keras",
    "find": "PHOTOS --rates --per-group --steps --runs --lr-min --lr-max --backbone --split --seed --out",
    "groups": "--backbone --split --list",
    "predict": "RUN PHOTO_OR_FOLDER --csv",
}


@pytest.mark.parametrize("name", FLAGS)
def test_help_names_every_flag(capsys, name):
    assert command(*name.split(), "--help") == 0
    text = capsys.readouterr().out
    for flag in FLAGS[name].split():
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text, re.IGNORECASE), flag


def test_help_says_the_defaults(capsys):
    assert command("finetune", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for default in ("efficientnet_lite0", "0.2", "adam", "warm-restarts", "128", "32", "frozen", "3", "1.0", "2.0"):
        assert f"(default: {default})" in text, default
    assert "default: None" not in text
    assert "1e-5" in text, "the default rates"


def test_help_of_all(capsys):
    assert command("--help") == 0
    text = capsys.readouterr().out
    for name in FLAGS:
        assert name.split()[0] in text
    assert command() == 2
    one_message(capsys, "COMMAND")


# The real thing


@pytest.mark.slow
def test_the_installed_command_on_real_photos(tmp_path):
    digits = kadence.digits.write_digits(tmp_path / "digits", n_train=100, n_test=50)
    program = Path(sys.executable).with_name("kadence")

    def kadence_command(*words):
        arguments = [program, *map(str, words)]
        return subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=900)

    words = ["--image-size", 48, "--epochs", 3, "--cycle-mult", 2, "--batch-size", 10, "--rates", "2e-4,4e-4,2e-3"]
    words = ["finetune", digits / "train", "--validation", digits / "test", "--no-augment", "--out", "run", *words]
    done = kadence_command(*words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == tiny.RUN_FILES
    assert "epoch 3/3" in done.stdout

    done = kadence_command("predict", "run", digits / "test", "--csv", "out.csv")
    assert done.returncode == 0, done.stderr
    (share,) = re.findall(r"accuracy ([\d.]+) on the 50 photos", done.stdout)
    with (tmp_path / "run" / "history.csv").open(encoding="utf-8") as file:
        best = max(float(row["val_accuracy"]) for row in csv.DictReader(file))
    assert float(share) == pytest.approx(best, abs=1e-4)
    assert best > 0.25, "ten classes: guessing gives 0.1"
    assert len((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()) == 51

    before = tiny.snapshot(tmp_path / "run")
    assert kadence_command(*words).returncode == 1
    assert kadence_command(*words, "--resume").returncode == 0
    assert tiny.snapshot(tmp_path / "run") == before


@pytest.mark.parametrize("code", [0, 1, 130])
def test_the_process_ends_with_the_exit_code(code):
    """After Ctrl-C without taking Python down, which would call what is registered here."""
    script = f"import atexit, sys; from kadence import cli; cli.main = lambda: {code}; atexit.register(print, 'down'); "
    done = subprocess.run(
        [sys.executable, "-c", script + "print('said', end=' '); cli.command()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout.split() == ["said"] + ["down"] * (code != 130)


def test_python_dash_m_kadence_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kadence", "groups", "--list"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("kadence", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.splitlines() == list(backbone_names())
