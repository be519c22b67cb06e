"""No false alarms, nothing changed, and bad input; `test_traps.py` has the traps."""

import json
import sys
import zipfile

import keras
import numpy as np
import pytest
from bad_input import assert_integer
from keras import layers, optimizers
from keras.optimizers import schedules

import kadence
from kadence.doctor import Finding, check, check_file

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(3.0, 2.0, (8, 4)).astype("float32")
Y = np.zeros((8, 1), "float32")

needs_multi = pytest.mark.skipif(not hasattr(optimizers, "MultiOptimizer"), reason="Keras has no MultiOptimizer yet")
needs_schedule_free = pytest.mark.skipif(
    not hasattr(optimizers, "ScheduleFreeAdamW"), reason="Keras has no ScheduleFreeAdamW yet"
)


def backbone(name="backbone"):
    pixels = keras.Input((4,))
    x = layers.Dense(4, name="dense")(pixels)
    return keras.Model(pixels, layers.BatchNormalization(name="norm")(x), name=name)


def nested(trainable=True, training=None):
    """A functional model in a functional model, as the transfer-learning guide of Keras builds it."""
    base = backbone()
    base.trainable = trainable
    inputs = keras.Input((4,))
    x = base(inputs) if training is None else base(inputs, training=training)
    return keras.Model(inputs, layers.Dense(1, name="head")(x), name="classifier")


def compiled(optimizer="sgd", model=None, **arguments):
    model = nested() if model is None else model
    model.compile(optimizer, "mse", **arguments)
    return model


def fit(model, **arguments):
    return model.fit(X, Y, **{"batch_size": 8, "verbose": 0, **arguments})


def values(variables):
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def check_saved(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return check_file(tmp_path / "model.keras")


def only(findings):
    """The one finding, with every part of it filled in."""
    (finding,) = findings
    assert all([finding.name, finding.what, finding.seen, finding.change])
    assert str(finding).startswith(f"{finding.name}: {finding.what}")
    return finding


def names(findings):
    return [finding.name for finding in findings]


# No false alarms


class Subclassed(keras.Model):
    """Here the argument of the call does hold."""

    def __init__(self):
        super().__init__()
        self.base, self.head = backbone(), layers.Dense(1)

    def call(self, inputs):
        return self.head(self.base(inputs, training=False))


class OwnSchedule(schedules.LearningRateSchedule):
    """Cannot be serialized, as many a user's schedule."""

    def __call__(self, step):
        return 0.1


def subclassed():
    model = Subclassed()
    model(X)
    return compiled(model=model)


def grouped(lr=0.01, multipliers=(0.1, 1.0), **arguments):
    model = nested()
    optimizer = optimizers.Adam(lr, **arguments)
    groups = kadence.split(model, at=["head"])
    return compiled(kadence.DiscriminativeOptimizer(optimizer, groups, multipliers), model)


def loss_scaled():
    model = nested()
    inner = optimizers.SGD(kadence.WarmRestarts(0.1, 83), gradient_accumulation_steps=2)
    optimizer = kadence.DiscriminativeOptimizer(inner, kadence.split(model, at=["head"]), [kadence.Linear(0, 1, 5), 1])
    return compiled(optimizers.LossScaleOptimizer(optimizer), model)


def multi():
    inner = {"head/.*": optimizers.SGD(0.1), "dense/kernel": optimizers.SGD(0.2)}
    return compiled(optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD(0.3), inner)))


CLEAN = {
    "constant": lambda: compiled(optimizers.Adam(0.1, gradient_accumulation_steps=2, use_ema=True)),
    "cosine": lambda: compiled(optimizers.SGD(schedules.CosineDecay(0.0, 100, warmup_target=0.1, warmup_steps=10))),
    "harmless integers": lambda: compiled(optimizers.SGD(schedules.PolynomialDecay(0.1, 100, 0, power=1))),
    "restarts": lambda: compiled(optimizers.SGD(schedules.CosineDecayRestarts(0.1, 1000, t_mul=2, m_mul=0.9))),
    "restarts to a floor": lambda: compiled(optimizers.SGD(schedules.CosineDecayRestarts(0.1, 1000, alpha=0.1))),
    "frozen": lambda: compiled(model=nested(trainable=False, training=False)),
    "training=True": lambda: compiled(model=nested(training=True)),
    "groups": lambda: grouped(),
    "groups, schedule, accumulation": lambda: grouped(kadence.WarmRestarts(0.1, 83), gradient_accumulation_steps=2),
    "groups, loss scale": loss_scaled,
}


@pytest.mark.parametrize("make", list(CLEAN.values()), ids=list(CLEAN))
def test_a_clean_model_has_no_findings(make, tmp_path):
    assert check(make()) == ()
    assert check_saved(make(), tmp_path) == ()


@needs_multi
def test_patterns_that_match_are_no_trap(tmp_path):
    assert check(multi()) == ()
    assert check_saved(multi(), tmp_path) == ()


@pytest.mark.parametrize("make", [lambda: grouped(kadence.Cosine(0.1, 10)), loss_scaled], ids=["groups", "loss scale"])
def test_a_clean_model_has_no_findings_after_training_and_loading(make, tmp_path):
    model = make()
    fit(model, epochs=2)
    assert check(model, initial_epoch=1, steps_per_epoch=1) == ()
    assert check_saved(model, tmp_path) == ()
    assert check(keras.saving.load_model(tmp_path / "model.keras"), initial_epoch=1) == ()


@pytest.mark.parametrize(
    "optimizer",
    [lambda: optimizers.SGD(OwnSchedule()), lambda: optimizers.SGD(lambda: 0.1)],
    ids=["schedule", "lambda"],
)
def test_a_rate_that_cannot_be_saved_is_no_trap(optimizer):
    assert check(compiled(optimizer())) == ()


def test_training_false_holds_in_a_subclassed_model():
    model = subclassed()
    before = values(model.base.non_trainable_variables)
    fit(model)
    assert all(map(np.array_equal, before, values(model.base.non_trainable_variables)))
    assert check(model) == ()


@pytest.mark.parametrize("trained", [False, True])
def test_nothing_in_the_model_changes(trained):
    model = compiled(
        optimizers.Adam(schedules.CosineDecayRestarts(1, 83, 1.0, alpha=0.1), gradient_accumulation_steps=2),
        nested(training=False),
    )
    if trained and BACKEND != "tensorflow":  # there the integer rate raises
        fit(model)

    def state():
        variables = [*model.variables, *model.optimizer.variables]
        flags = [layer.trainable for layer in model._flatten_layers()]
        nodes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
        return [v.tobytes() for v in values(variables)], flags, nodes, model.optimizer.built, model.train_function

    before = state()
    assert {"integer-rate", "schedule-counts-micro-batches"} < set(names(check(model, initial_epoch=3)))
    assert state() == before


# Bad input


def test_check_refuses_what_is_no_trained_model():
    with pytest.raises(TypeError, match=r"^`model` must be a keras.Model. Received: model=3"):
        check(3)
    with pytest.raises(ValueError, match=r"^`model` must be compiled"):
        check(nested())
    with pytest.raises(ValueError, match=r"^`model` must be built"):
        check(compiled(model=keras.Sequential([layers.Dense(1)])))
    model = compiled()
    assert_integer(lambda value: check(model, initial_epoch=value), "initial_epoch", minimum=0)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be an integer >= 1"):
        check(model, steps_per_epoch=0)


def test_an_optimizer_without_compile_is_enough():
    model = nested()
    model.optimizer = optimizers.SGD(kadence.Cosine(0.1, 10), gradient_accumulation_steps=2)
    assert names(check(model)) == ["schedule-counts-micro-batches"]


def write(path, config, name="config.json"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, config if isinstance(config, (str, bytes)) else json.dumps(config))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file with one trap."""
    path = tmp_path_factory.mktemp("whole") / "whole.keras"
    compiled(optimizers.SGD(schedules.CosineDecay(0, 10, warmup_target=0.1))).save(path)
    assert names(check_file(path)) == ["integer-rate"]
    return path


@pytest.fixture
def config(whole):
    with zipfile.ZipFile(whole) as archive:
        return json.loads(archive.read("config.json"))


def test_a_script_is_refused_and_not_run(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(
        ValueError, match=r"must name a \.keras file\. .*nothing is executed; in a script, call"
    ) as caught:
        check_file(script)
    assert "train.py" in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_nothing_in_a_file_is_imported_or_executed(config, tmp_path, monkeypatch):
    (tmp_path / "kadence_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    evil = {"module": "kadence_evil", "class_name": "Layer", "config": {"name": "evil"}, "registered_name": "Layer"}
    code = {"class_name": "__lambda__", "config": {"value": ["4wEAAA==", None, None]}}
    config["config"]["layers"] += [{**evil, "inbound_nodes": []}, {**code, "name": "code", "inbound_nodes": []}]
    config["compile_config"] |= {"loss": evil, "metrics": [code]}
    config["compile_config"]["optimizer"]["config"]["learning_rate"] = code
    config["module"] = "kadence_evil"
    assert check_file(write(tmp_path / "evil.keras", config)) == ()
    config["compile_config"]["optimizer"]["config"]["learning_rate"] = evil
    assert check_file(write(tmp_path / "evil.keras", config)) == ()
    assert "kadence_evil" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_a_broken_file_is_one_clear_error(whole, config, tmp_path):
    data = whole.read_bytes()
    broken = [b"", b"PK\x03\x04", data[: len(data) // 2], data[:60] + b"\0" * 60 + data[120:]]
    for number, content in enumerate(broken):
        (tmp_path / f"{number}.keras").write_bytes(content)
    paths = [tmp_path / f"{number}.keras" for number in range(len(broken))]
    texts = ["", "{", "[" * 100_000, b"\xff\xfe\xfa", '{"config": 1' + "0" * 5000 + "}", "null", "[]", "3", "{}"]
    texts += ['{"config": {}}', '{"config": {}, "compile_config": null}', '{"compile_config": {"optimizer": {}}}']
    texts += [json.dumps(config | {"compile_config": {"optimizer": value}}) for value in ("sgd", None, [], {}, 3)]
    for value in (float("inf"), "four", [4]):
        odd = json.loads(json.dumps(config))
        odd["compile_config"]["optimizer"]["config"]["gradient_accumulation_steps"] = value
        texts += [json.dumps(odd)]
    texts += [json.dumps(config | {"config": {"input_layers": [], "layers": value}}) for value in (3, [3], [{}])]
    texts += [
        '{"compile_config": {"optimizer": {"class_name": "A", "config": {}}}, "config": '
        + "[" * 5000
        + "]" * 5000
        + "}"
    ]
    paths += [write(tmp_path / f"text{number}.keras", text) for number, text in enumerate(texts)]
    paths += [write(tmp_path / "other.keras", config, name="other.json")]
    for path in paths:
        with pytest.raises(
            ValueError, match=r"^`path` must name (a \.keras file|the file of a compiled model)"
        ) as caught:
            check_file(path)
        assert type(caught.value) is ValueError
        assert f"Received: path='{tmp_path}"[:100] in str(caught.value)
    for value in (None, 3, b"model.keras", ["model.keras"]):
        with pytest.raises(TypeError, match="`path` must name"):
            check_file(value)
    with pytest.raises(FileNotFoundError):
        check_file(tmp_path / "none.keras")


def test_an_uncompiled_model_and_a_huge_config_are_errors(whole, tmp_path, monkeypatch):
    nested().save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="must name the file of a compiled model"):
        check_file(tmp_path / "model.keras")
    monkeypatch.setattr("kadence.doctor._LARGEST_CONFIG", 1000)
    with pytest.raises(ValueError, match=r"must name a \.keras file"):
        check_file(whole)


@pytest.mark.parametrize(
    "numbers",
    [
        {"decay_steps": 10**400},
        {"decay_steps": "10"},
        {"decay_steps": 0},
        {"decay_steps": None},
        {"decay_steps": float("nan")},
        {"decay_steps": [1] * 1000},
        {"initial_learning_rate": {"class_name": "__lambda__", "config": {}}},
        {"initial_learning_rate": [[0]]},
        {"unknown": 1},
    ],
)
def test_odd_numbers_in_a_file_are_no_finding(numbers, config, tmp_path):
    config["compile_config"]["optimizer"]["config"]["learning_rate"]["config"] |= numbers
    assert check_file(write(tmp_path / "odd.keras", config)) == ()


def test_a_finding_reads_as_three_lines():
    finding = Finding("short-name", "What happens.", "where", "Do this.")
    assert str(finding) == "short-name: What happens.\n  Seen: where\n  Change: Do this."
