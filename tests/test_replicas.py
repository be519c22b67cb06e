"""Runs that share each batch out to two devices: the same weights as one device with the whole batch."""

import json
import math

import keras
import pytest
import tiny
from command import command, one_message

from kadence import classifier, scale_for_batch
from kadence.replicas import Replicas, batch_rule, find_replicas

BACKEND = keras.backend.backend()
only_jax = pytest.mark.skipif(BACKEND != "jax", reason="Keras shares batches out on JAX only")
TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}

# 21 photos to train on in batches of 8: the last batch of an epoch has 5; 3 to validate on.
RUN = """
import sys
import keras
import numpy as np
import tiny
from kadence import classifier, cli

classifier.load_backbone = tiny.load_backbone
photos, out = sys.argv[1:3]

def run(name, *words, **changes):
    flags = tiny.flags(**{"validation_fraction": 0.125, "warmup": "2st"} | changes)
    code = cli.main(["finetune", photos, "--out", f"{out}/{name}", *flags, *words])
    assert code == 0, code
    assert keras.distribution.distribution() is None
    model = keras.saving.load_model(f"{out}/{name}/model.keras")
    return {weight.path: np.asarray(weight.value) for weight in model.weights if "seed" not in weight.path}
"""
COMPARE = """
sgd = {"optimizer": "sgd", "cycles": 2}
two = run("two", **sgd, batch_size=4, replicas="auto", rates="1e-3,3e-3,1e-2")
one = run("one", **sgd, batch_size=8, rates="2e-3,6e-3,2e-2")
assert list(two) == list(one)
for path, weight in two.items():
    np.testing.assert_allclose(weight, one[path], rtol=1e-4, atol=1e-6, err_msg=path)
run("two", "--resume", **sgd, batch_size=4, replicas=2, rates="1e-3,3e-3,1e-2")
"""
TRAIN_BATCH_NORM = """
run("train", "--batch-norm", "train", batch_size=4, replicas=2, cycles=1)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    done = tiny.python(RUN + COMPARE, photos, out, **TWO_DEVICES)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def described(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def history(folder):
    header, *rows = (line.split(",") for line in (folder / "history.csv").read_text(encoding="utf-8").splitlines())
    return [dict(zip(header, map(float, row), strict=True)) for row in rows]


@only_jax
def test_two_replicas_train_as_one_device_with_the_whole_batch(trained):
    out, _ = trained
    two, one = history(out / "two"), history(out / "one")
    assert len(two) == len(one) == 3
    for name in ("val_loss", "val_accuracy", "learning_rate_group_1", "learning_rate_group_3"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-4), name
    # The last batch, of 5, is filled up to 6 and counts as 6.
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=0.05)


@only_jax
def test_the_scaled_rates_are_said_and_stored(trained):
    out, output = trained
    assert "2 replicas on cpu:0, cpu:1: 2 x 4 = 8 photos in a step, all rates times 2 (linear" in output
    description = described(out / "two")
    assert description["settings"]["replicas"] == 2
    assert description["settings"]["rates"] == [1e-3, 3e-3, 1e-2]
    wanted = {"devices": ["cpu:0", "cpu:1"], "images_per_step": 8, "rate_factor": 2.0, "rule": "linear"}
    assert description["replicas"] == wanted
    rates = json.loads((out / "two" / "rates.json").read_text(encoding="utf-8"))["rates"]
    assert max(rates["group_3"]) == pytest.approx(2e-2)


@only_jax
@pytest.mark.slow
def test_batch_norm_may_be_trained_on_two_replicas(photos, tmp_path):
    done = tiny.python(RUN + TRAIN_BATCH_NORM, photos, tmp_path, **TWO_DEVICES)
    assert done.returncode == 0, done.stderr
    assert "all rates times 1.414 (sqrt, as is usual for adam)" in done.stdout
    assert described(tmp_path / "train")["replicas"]["rate_factor"] == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(("optimizer", "rule"), [("sgd", "linear"), ("adam", "sqrt"), ("lion", "sqrt")])
def test_rates_are_scaled_by_the_rule_for_the_optimizer(optimizer, rule):
    three = Replicas(("gpu:0", "gpu:1", "gpu:2"))
    assert batch_rule(optimizer) == rule
    assert three.rate_factor(optimizer) == scale_for_batch(1.0, 3 * 32, 32, rule)
    assert Replicas().rate_factor(optimizer) == 1.0


def test_one_replica_is_no_distribution():
    with find_replicas(1).scope():
        assert keras.distribution.distribution() is None


@only_jax
def test_auto_on_one_device_is_one_replica(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    assert find_replicas("auto") == find_replicas(1)
    assert find_replicas("auto").sentence("adam", 32) == "1 replica: there is one device"


@pytest.mark.parametrize(
    ("replicas", "fragments"),
    [
        ("0", ["`replicas` must be an integer >= 1", "Received: replicas=0"]),
        ("two", ['`replicas` must be "auto" or an integer >= 1', "Received: replicas='two'"]),
        ("-1", ["`replicas` must", "-1"]),
        ("1.5", ["`replicas` must", "1.5"]),
    ],
)
def test_bad_replicas(photos, tmp_path, capsys, replicas, fragments):
    assert command("finetune", photos, "--out", tmp_path / "run", "--replicas", replicas) == 1
    one_message(capsys, *fragments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("replicas", ["4096", *(["auto"] if BACKEND != "jax" else [])])
def test_more_replicas_than_there_can_be(photos, tmp_path, monkeypatch, capsys, replicas):
    monkeypatch.setattr(classifier, "load_backbone", tiny.load_backbone)
    assert command("finetune", photos, "--out", tmp_path / "run", "--replicas", replicas) == 1
    reason = "number of devices that JAX sees, 1 (cpu:0)" if BACKEND == "jax" else f"be 1 with the backend {BACKEND}"
    one_message(capsys, "`replicas` must", reason, f"Received: replicas={replicas}".replace("=auto", "='auto'"))
    assert not (tmp_path / "run").exists()
