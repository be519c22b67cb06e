"""`kadence compare` as a user meets it: photos in, a table and three files out, and a message for each mistake."""

import io
import json
import re
import subprocess
import sys

import compare_models
import keras
import pytest
import tiny
from command import command, one_message
from rich.console import Console

from kadence import Comparison, _compare_command, _engines, classifier
from kadence._compare_command import _TrialBar, build_network
from kadence.backbones import load_backbone

pytestmark = pytest.mark.filterwarnings("default", "ignore:__array__ implementation:DeprecationWarning")

FILES = {"comparison.csv", "comparison.json", "comparison.png"}


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setattr(classifier, "load_backbone", tiny.load_backbone)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def no_training(monkeypatch):
    ran = []

    def run(problem, trial):
        ran.append(trial)
        return compare_models.outcome(0.5 + trial.seed % 1000 / 1000)

    monkeypatch.setattr(_engines, "run_trial", run)
    return ran


def compare(photos, out, *words):
    small = ["--image-size", "32", "--batch-size", "6", "--epochs", "2", "--no-augment"]
    return command("compare", photos, "--out", out, *small, *words)


def test_from_photos_to_table_and_files(photos, tmp_path, capsys):
    words = ["--strategies", "constant,frozen", "--seeds", "1", "--rates", "1e-2"]
    assert compare(photos, tmp_path / "out", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"1/2  constant  rate 0\.01  judge  seed 0  done [01]\.\d{4}  \d+ s$", lines[0]), lines
    assert lines[2].split()[:4] == ["strategy", "rate", "n", "accuracy"]
    assert "One seed: no interval and no probability." in " ".join(lines)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, "trials.sqlite"}
    found = Comparison.from_json((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert [row.strategy for row in found.rows] == ["constant", "frozen"]
    assert found.judged_on == "test"
    assert compare(photos, tmp_path / "out", *words) == 0
    assert "1/2" not in capsys.readouterr().out, "nothing is repeated"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, "trials.sqlite"}


def test_the_results_of_another_comparison_are_kept(photos, tmp_path, capsys, no_training):
    out = tmp_path / "out"
    for n_seeds in (1, 2, 3):
        earlier = {path.name: path.read_bytes() for path in out.glob("comparison.*")}
        words = ["--strategies", "constant,frozen", "--seeds", str(n_seeds), "--rates", "1e-2"]
        assert compare(photos, out, *words) == 0
        for name, content in earlier.items():
            assert (out / name.replace(".", f"-{n_seeds - 1}.")).read_bytes() == content
    assert "the earlier ones are named comparison-2 now" in capsys.readouterr().out
    assert len([*out.glob("comparison*")]) == 9


def test_the_bar_shows_what_is_known():
    """Before the first trial that is how many there are, but not how many a store has."""
    screen = io.StringIO()
    with _TrialBar(Console(file=screen, force_terminal=True, width=100), 12) as bar:
        assert "12 trials" in screen.getvalue()
        assert "left -:--:--" in re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", screen.getvalue())
        bar.show(compare_models.trial(), compare_models.outcome(0.5), 7, 12)
        bar._bar.refresh()
    assert "trial 7/12" in screen.getvalue()
    assert "7/12  constant  rate 0.01  judge  seed 0  done 0.5000  2 s" in screen.getvalue()
    assert "?" not in re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", screen.getvalue())


def test_six_strategies_and_held_out_photos_by_default(photos, tmp_path, no_training):
    assert compare(photos, tmp_path / "out", "--seeds", "2", "--search", "2") == 0
    assert len({trial.strategy.name for trial in no_training}) == 6
    assert len(no_training) == 6 * 4


def test_folders_may_be_given(photos, tmp_path, no_training, capsys):
    folders = [tiny.write_photos(tmp_path / name, n=2, seed=seed) for seed, name in ((1, "val"), (2, "test"))]
    words = ["--strategies", "constant,cosine", "--search", "1", "--seeds", "1"]
    given = ["--validation", folders[0], "--test", folders[1]]
    assert compare(photos, tmp_path / "out", *words, *given) == 0
    assert compare(photos, tmp_path / "out2", *words, "--validation", folders[0], "--test-fraction", "0") == 0
    said = json.loads((tmp_path / "out2" / "comparison.json").read_text(encoding="utf-8"))["conclusions"]
    assert said[0].startswith("Judged on the validation data")
    capsys.readouterr()
    assert compare(photos, tmp_path / "out3", *words, "--validation", folders[0], "--test", folders[0]) == 1
    one_message(capsys, "`test` must share nothing with validation", "apfel/00.png")


def test_copies_are_left_out_before_photos_are_held_out(photos, tmp_path, no_training, capsys):
    twins = tiny.write_photos(tmp_path / "twins")
    for number in range(5):
        (twins / "apfel" / f"copy {number}.png").write_bytes((twins / "apfel" / "00.png").read_bytes())
    words = ["--strategies", "constant,cosine", "--search", "1", "--seeds", "1"]
    assert compare(twins, tmp_path / "out", *words) == 0
    assert "warning: 5 photos in" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(photos, tmp_path, monkeypatch, capsys, no_training):
    def run(problem, trial):
        raise KeyboardInterrupt

    monkeypatch.setattr(_engines, "run_trial", run)
    assert compare(photos, tmp_path / "my out", "--seeds", "1") == 130
    said = capsys.readouterr().err
    assert "kadence: Stopped. Finished trials are in" in said
    assert f"Go on with the same command: kadence compare {photos} --out '{tmp_path / 'my out'}'" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategies", "constant,cosin"], "Did you mean 'cosine'"),
        (["--strategies", "constant"], "at least two strategies"),
        (["--seeds", "0"], "`seeds` must be an integer from 1"),
        (["--epochs", "0"], "`epochs` must be an integer >= 1"),
        (["--split", "conv3"], "Did you mean 'tiny/conv1', 'tiny/conv2'"),
        (["--jobs", "0"], "`jobs` must"),
        (["--rates", "0"], "`rates` must"),
        (["--ray-address", "auto"], "`ray_address` must be None unless"),
    ],
)
def test_mistakes_are_one_message(photos, tmp_path, capsys, no_training, words, said):
    assert compare(photos, tmp_path / "new" / "out", *words) == 1
    one_message(capsys, said)
    assert not no_training
    assert not list(tmp_path.iterdir()), "not even a folder above it"


def test_the_store_may_be_elsewhere(photos, tmp_path, no_training):
    """The new folder of the results is empty until they are there."""
    words = ["--strategies", "constant,cosine", "--search", "1", "--seeds", "1", "--store", tmp_path / "s"]
    assert compare(photos, tmp_path / "out", *words) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert (tmp_path / "s").is_file()


def test_a_stop_between_the_files_is_gone_on_from(photos, tmp_path, no_training, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    words = ["--strategies", "constant,cosine", "--search", "1", "--seeds", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(_compare_command, "save_comparison_picture", stopped)
        assert compare(photos, tmp_path / "out", *words) == 130
    assert compare(photos, tmp_path / "out", *words) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, "trials.sqlite"}
    assert len(no_training) == 2


COMMAND = """
import sys, tiny
from kadence import classifier, cli
classifier.load_backbone = tiny.load_backbone
cli.command()
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="no backend takes part in it, but each is slow to import")
def test_two_commands_at_once_share_the_trials(photos, tmp_path):
    words = ["compare", photos, "--out", tmp_path / "out", "--image-size", "32", "--batch-size", "6", "--no-augment"]
    words += ["--epochs", "1", "--strategies", "constant,frozen", "--rates", "1e-2", "--seeds", "2"]
    command = [sys.executable, "-c", COMMAND, *map(str, words)]
    both = [
        subprocess.Popen(
            command, env=compare_models.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    trials = [re.findall(r"^\d/4  (.*)  done", out, re.MULTILINE) for out, _ in said]
    assert len(trials[0]) + len(trials[1]) == len({*trials[0], *trials[1]}) == 4
    tables = [out.partition("strategy ")[2] for out, _ in said]
    assert tables[0] == tables[1] != ""
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, "trials.sqlite"}
    found = Comparison.from_json((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert [row.n for row in found.rows] == [2, 2]


def test_nothing_of_the_user_is_overwritten(photos, tmp_path, capsys, no_training):
    (tmp_path / "comparison.csv").write_text("mine")
    assert compare(photos, tmp_path) == 1
    one_message(capsys, "`out` must be new, or the folder of a comparison")
    (tmp_path / "comparison.json").write_text("mine")
    assert compare(photos, tmp_path) == 1
    one_message(capsys, "`text` must be JSON of a comparison")
    assert compare(photos, photos / "apfel") == 1
    one_message(capsys, "`out` must not be in the folder of the photos")
    assert compare(photos, tmp_path / "comparison.csv") == 1
    one_message(capsys, "`out` must be a folder")


def test_the_network_is_found_by_its_name():
    model, groups = build_network("tiny", None, 32, False, 3)
    assert model.output_shape == (None, 3)
    assert groups.names == ["group_1", "group_2", "group_3"]
    assert all(layer.trainable for layer in model._flatten_layers())


@pytest.mark.slow
def test_the_real_backbone_in_two_workers(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(classifier, "load_backbone", load_backbone)
    words = ["--strategies", "discriminative+cosine,frozen", "--seeds", "1", "--rates", "3e-3", "--jobs", "2"]
    words += ["--image-size", "64", "--epochs", "2", "--batch-size", "4"]
    assert command("compare", photos, "--out", tmp_path / "out", *words) == 0
    found = Comparison.from_json((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert [row.n for row in found.rows] == [1, 1]
    assert max(row.mean for row in found.rows) > 0.5, capsys.readouterr().out
