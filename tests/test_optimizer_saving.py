"""A saved file is enough: a new process, this backend or another, goes on training as if nothing had been saved.

Run as a program, this file is that new process: it loads every model in a folder, goes on training, and writes what
came of it.
"""

import importlib.util
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from optimizer_oracles import all_values, assert_same, batches, chain, randomize, three_groups

import kadence
from kadence import DiscriminativeOptimizer

BACKEND = keras.backend.backend()
BACKENDS = ("jax", "tensorflow", "torch")

# Keras hands torch tensors to NumPy >= 2.4 in a way that NumPy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SCHEDULE = kadence.WarmRestarts(0.05, first_cycle_steps=2, cycle_mult=1.5)
X, Y = batches(3)


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body = keras.Sequential([keras.layers.Dense(3, activation="tanh", name="first")], name="body")
        self.head = keras.layers.Dense(3, name="head")

    def call(self, inputs):
        return self.head(self.body(inputs))


@keras.saving.register_keras_serializable("tests")
class SignSGD(keras.optimizers.Optimizer):
    """An optimizer of the user's own, with an argument of its own."""

    def __init__(self, learning_rate=0.1, power=1.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.power = power

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.seen = self.add_optimizer_variables(variables, "seen")

    def update_step(self, gradient, variable, learning_rate):
        seen = self.seen[self._get_variable_index(variable)]
        self.assign_add(seen, keras.ops.abs(gradient))
        step = keras.ops.sign(gradient) * keras.ops.cast(learning_rate, variable.dtype) * self.power
        self.assign_sub(variable, step / (1.0 + seen))

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable("tests")
class TunedAdam(keras.optimizers.Adam):
    """A subclass of a Keras optimizer, fused on PyTorch or not."""

    def __init__(self, *args, half=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.half = half

    def get_config(self):
        return {**super().get_config(), "half": self.half}


def nested(frozen=False):
    backbone = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, "tanh", name="one"), keras.layers.Dense(3, "tanh", name="two")],
        name="inner",
    )
    inputs = keras.Input((3,))
    middle = keras.Model(inputs, backbone(inputs), name="backbone")
    inputs = keras.Input((3,))
    model = randomize(keras.Model(inputs, keras.layers.Dense(3, name="head")(middle(inputs))))
    if frozen:
        middle.get_layer("inner").get_layer("two").trainable = False
    return model


def sequential():
    inner = keras.Sequential([keras.layers.Dense(3, "tanh", name="one"), keras.layers.Dense(3, "tanh")], name="inner")
    model = keras.Sequential([inner, keras.layers.Dense(3, name="head")])
    model.build((None, 3))
    return randomize(model)


def subclassed():
    model = Subclassed()
    model(X)
    return randomize(model)


def grouped(model, at, inner, *args, **kwargs):
    return model, DiscriminativeOptimizer(inner, kadence.split(model, at=at), *args, **kwargs)


def two_rates(model, at, inner):
    return grouped(model, at, inner, learning_rates=[1e-3, 1e-2])


CASES = {
    "functional": lambda: two_rates(nested(), "backbone/inner/two", keras.optimizers.Adam(SCHEDULE, amsgrad=True)),
    "sequential": lambda: two_rates(
        sequential(),
        "head",
        keras.optimizers.AdamW(SCHEDULE, weight_decay=0.1),
    ),
    "subclassed": lambda: grouped(
        subclassed(),
        "head",
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True, global_clipnorm=1.0),
        [kadence.join([kadence.Constant(0.0), kadence.Cosine(1.0, 4)], at_steps=[2]), 1.0],
    ),
    "frozen": lambda: two_rates(nested(frozen=True), "backbone/inner/two", keras.optimizers.Adam(SCHEDULE)),
    "accumulating": lambda: two_rates(nested(), "head", keras.optimizers.Lion(SCHEDULE, gradient_accumulation_steps=2)),
    "scaled": lambda: in_loss_scale(*two_rates(nested(), "head", keras.optimizers.RMSprop(SCHEDULE, momentum=0.9))),
    "own": lambda: two_rates(nested(), "head", SignSGD(SCHEDULE, power=2.0)),
    "tuned": lambda: two_rates(nested(), "head", TunedAdam(0.01, half=False)),
    "never fitted": lambda: two_rates(sequential(), "head", keras.optimizers.Nadam(SCHEDULE)),
}
#: What is not run eagerly; on JAX, branches that are run eagerly are compiled again at each step.
COMPILED = ["functional", "accumulating", "scaled"]
#: What goes to another backend: classes of Keras, with and without state, a wrapper and groups with a frozen layer.
ABROAD = ["sequential", "subclassed", "frozen", "scaled"]


def in_loss_scale(model, optimizer):
    return model, keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)


def compile_it(model, optimizer, run_eagerly=True):
    """Eager, where compiling takes most of the time and nothing depends on it."""
    model.compile(optimizer, "mse", run_eagerly=run_eagerly, jit_compile="auto" if BACKEND == "jax" else False)


def train(model):
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)


def state(model):
    """Everything that training has left: weights, optimizer variables, the next rates."""
    optimizer = model.optimizer
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    rates = np.array(list(optimizer.learning_rates.values()))
    return [*all_values(model.weights), rates, *all_values(model.optimizer.variables)]


def go_on(folder, out):
    """Load each model in a folder, train it, write its state."""
    for file in Path(folder).glob("*.keras"):
        model = keras.saving.load_model(file)
        # Keras writes JAX's jit_compile=True into the file, with which PyTorch would call its compiler, for minutes.
        model.jit_compile = BACKEND == "jax"
        train(model)
        np.savez(Path(out) / file.stem, *state(model))


def in_a_new_process(folder, out, backend=BACKEND):
    """`go_on` in a new process."""
    paths = [str(Path(kadence.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(paths)}
    out.mkdir()
    command = [sys.executable, __file__, str(folder), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def read(file):
    with np.load(file) as archive:
        return [archive[name] for name in archive.files]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with every case saved after three steps (or none), and the state after three more without saving."""
    folder = tmp_path_factory.mktemp("saved")
    expected = {}
    for name, case in CASES.items():
        model, optimizer = case()
        compile_it(model, optimizer, run_eagerly=name not in COMPILED)
        if name != "never fitted":
            train(model)
        model.save(folder / f"{name}.keras")
        train(model)
        expected[name] = state(model)
    return folder, expected


@pytest.fixture(scope="module")
def continued(saved, tmp_path_factory):
    folder, _ = saved
    out = tmp_path_factory.mktemp("continued") / BACKEND
    in_a_new_process(folder, out)
    return out


@pytest.mark.parametrize("name", CASES)
def test_a_new_process_goes_on_bit_for_bit(name, saved, continued):
    _, expected = saved
    assert_same(read(continued / f"{name}.npz"), expected[name])


@pytest.mark.parametrize("other", [name for name in BACKENDS if name != BACKEND])
def test_another_backend_goes_on_to_float_tolerance(other, saved, tmp_path):
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    folder, expected = saved
    abroad = tmp_path / "models"
    abroad.mkdir()
    for name in ABROAD:
        (abroad / f"{name}.keras").write_bytes((folder / f"{name}.keras").read_bytes())
    in_a_new_process(abroad, tmp_path / "out", backend=other)
    for name in ABROAD:
        for got, want in zip(read(tmp_path / "out" / f"{name}.npz"), expected[name], strict=True):
            np.testing.assert_allclose(got, want, 1e-4, 1e-6, err_msg=name)


def config_of(file):
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("config.json"))


@pytest.mark.parametrize("name", CASES)
def test_the_file_names_classes_that_every_process_has(name, saved):
    text = json.dumps(config_of(saved[0] / f"{name}.keras")["compile_config"])
    assert "kadence>DiscriminativeOptimizer" in text
    assert "keras.src" not in text
    assert "backend" not in text
    assert f'"{__name__}"' not in text or name in ("own", "tuned")
    optimizer = config_of(saved[0] / f"{name}.keras")["compile_config"]["optimizer"]["config"]
    if name in ABROAD and name != "scaled":
        assert optimizer["inner_optimizer"]["module"] == "keras.optimizers"


def stored(file):
    """Path -> shape of every array of the optimizer in a .keras file."""
    h5py = pytest.importorskip("h5py")
    found = {}
    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        weights["optimizer"].visititems(
            lambda path, item: found.update({path: item.shape}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_the_optimizer_is_stored_once(saved, tmp_path):
    file = saved[0] / "functional.keras"
    model = nested()
    model.compile(keras.optimizers.Adam(SCHEDULE, amsgrad=True), "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "plain.keras")
    plain, ours = stored(tmp_path / "plain.keras"), stored(file)
    assert sorted(ours.values()) == sorted([*plain.values(), ()])  # the factor on the schedule
    assert file.stat().st_size < (tmp_path / "plain.keras").stat().st_size + 6000


def crafted(file, folder, change):
    """A copy of a .keras file with another configuration of the groups' variables."""
    config = config_of(file)
    change(config["compile_config"]["optimizer"]["config"]["groups"])
    target = folder / "crafted.keras"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(target, "w") as copied:
        for name in source.namelist():
            copied.writestr(name, json.dumps(config) if name == "config.json" else source.read(name))
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda groups: groups["variables"].pop(),
            r"as many trainable variables as in the saved groups, 5.*variables=6",
        ),
        (lambda groups: groups["variables"][0].__setitem__(2, [3, 4]), r"'kernel' of shape \(3, 4\) at position 0"),
        (lambda groups: groups["variables"][1].__setitem__(1, "gamma"), r"'gamma' of shape \(3,\) at position 1"),
        (lambda groups: groups["variables"].reverse(), "'bias'.* at position 0.*'kernel'"),
    ],
    ids=["fewer", "shape", "name", "order"],
)
def test_a_model_that_does_not_match_its_saved_groups(change, words, saved, tmp_path):
    file = crafted(saved[0] / "functional.keras", tmp_path, change)
    with pytest.raises(ValueError, match=words + ".*The model is not the one that was saved"):
        keras.saving.load_model(file)
    assert keras.saving.load_model(file, compile=False).count_params() == nested().count_params()


def test_a_group_that_the_file_does_not_have(saved, tmp_path):
    file = crafted(saved[0] / "functional.keras", tmp_path, lambda groups: groups["variables"][0].__setitem__(0, 7))
    with pytest.raises(ValueError, match="group"):
        keras.saving.load_model(file)


@keras.saving.register_keras_serializable("tests")
class Rebuilt(keras.layers.Layer):
    """Keras makes its sublayers anew, with numbers of its own in their names, and all of them trainable."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dense(3)]

    def build(self, shape):
        self.scale = self.add_weight(shape=(3,), initializer="ones")
        for part in self.parts:
            part.build((None, 3))

    def call(self, x, training=None):
        first, norm, second = self.parts
        return second(norm(first(x), training=training)) * self.scale


def rebuilt():
    inputs = keras.Input((3,))
    x = keras.layers.Dense(3, name="middle")(Rebuilt(name="low")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(Rebuilt(name="high")(x)))
    optimizer = DiscriminativeOptimizer(
        keras.optimizers.Adam(SCHEDULE), kadence.split(model, ["middle", "high", "head"]), [0.1, 0.5, 1.0, 1.0]
    )
    compile_it(model, optimizer)
    return randomize(model)


def freeze_low(model):
    model.get_layer("low").trainable = False


def freeze_the_ends(model):
    """Of "middle" Keras keeps the flag, of what is in "low" and "high" not."""
    for name in ("low", "middle", "high"):
        model.get_layer(name).trainable = False
    model.get_layer("high").parts[2].trainable = True


THAWED = {
    "all but the head": (lambda model: kadence.freeze_to(model, -1), 12),
    "only BatchNorm": (kadence.freeze_batch_norm, 4),
    "one layer": (freeze_low, 6),
    "parts": (freeze_the_ends, 10),
}


@pytest.mark.parametrize("name", THAWED)
def test_what_keras_loads_trainable_is_frozen_as_it_was_and_goes_on(name, tmp_path):
    freeze, count = THAWED[name]
    model = rebuilt()
    freeze(model)
    train(model)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match=f"^{count} variables were frozen when the model was saved"):
        again = keras.saving.load_model(tmp_path / "model.keras")
    assert [weight.trainable for weight in again.weights] == [weight.trainable for weight in model.weights]
    assert_same(state(again), state(model))
    assert [len(group.variables) for group in again.optimizer.groups] == [
        len(group.variables) for group in model.optimizer.groups
    ]
    # The warning says it: the flags of layers are lost, and with them what BatchNormalization does.
    kadence.freeze_batch_norm(again)
    if name == "one layer":
        again.get_layer("high").parts[1].trainable = True
    train(model)
    train(again)
    assert_same(state(again), state(model))
    again.save(tmp_path / "again.keras")
    with pytest.warns(UserWarning, match="variables were frozen"):
        third = keras.saving.load_model(tmp_path / "again.keras")
    assert_same(state(third), state(model))
    if name != "parts":  # Keras loads "high" frozen, and a wholly frozen layer trains with all its weights
        for one in (model, third):
            kadence.unfreeze(one)
        owners = [owners_of(one) for one in (model, third)]
        assert owners[0] == owners[1]


def owners_of(model):
    """Of each weight of a model, the group, and whether it trains."""
    groups = [{id(weight) for weight in group.weights} for group in kadence.freezing.groups_of(model, None)]
    return [([id(weight) in ids for ids in groups].index(True), weight.trainable) for weight in model.weights]


def test_what_was_frozen_again_can_be_unfrozen(tmp_path):
    inputs = keras.Input((2, 3))
    x = keras.layers.Flatten()(keras.layers.MultiHeadAttention(1, 2, name="low")(inputs, inputs))
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    compile_it(*two_rates(model, "head", keras.optimizers.Adam(0.1)))
    kadence.freeze_to(model, -1)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="^8 variables were frozen"):
        again = keras.saving.load_model(tmp_path / "model.keras")
    kadence.unfreeze(again)
    assert len(again.trainable_variables) == len(again.optimizer._trainable_variables) == 10


def test_a_clone_is_frozen_as_the_model():
    model = rebuilt()
    kadence.freeze_to(model, -1)
    train(model)
    with pytest.warns(UserWarning, match="^12 variables were frozen"):
        clone = keras.models.clone_model(model)
    assert [weight.trainable for weight in clone.weights] == [weight.trainable for weight in model.weights]


def as_before(groups):
    """What files held before they had frozen weights and paths."""
    del groups["frozen"]
    groups["variables"] = [entry[:3] for entry in groups["variables"]]


def test_a_file_of_before(saved, tmp_path):
    for name in ("functional", "frozen"):
        model = keras.saving.load_model(crafted(saved[0] / f"{name}.keras", tmp_path, as_before))
        assert_same(state(model), state(keras.saving.load_model(saved[0] / f"{name}.keras")))
    model = rebuilt()
    kadence.freeze_to(model, -1)
    model.save(tmp_path / "thawed.keras")
    file = crafted(tmp_path / "thawed.keras", tmp_path, as_before)
    with pytest.raises(ValueError, match=r"load it with `compile=False`, then `kadence.freeze_to`, then compile it"):
        keras.saving.load_model(file)
    again = keras.saving.load_model(file, compile=False)
    groups = kadence.split(again, ["middle", "high", "head"])
    kadence.freeze_to(again, -1, groups)
    compile_it(again, DiscriminativeOptimizer(keras.optimizers.Adam(SCHEDULE), groups, [0.1, 0.5, 1.0, 1.0]))
    train(again)


def test_weights_of_equal_shape_that_cannot_be_told_apart_are_an_error(tmp_path):
    """Which of two parts lost its flag, where the file of another code gives all of them other names."""
    model = rebuilt()
    kadence.freeze_to(model, -1)
    model.save(tmp_path / "model.keras")

    def rename(groups):
        for entry in [*groups["variables"], *groups["frozen"]]:
            entry[-1] = "other"

    with pytest.raises(ValueError, match="as many trainable variables as in the saved groups, 2"):
        keras.saving.load_model(crafted(tmp_path / "model.keras", tmp_path, rename))


def test_factors_on_a_decay_that_is_not_there_do_not_make_an_older_file_unreadable():
    optimizer = DiscriminativeOptimizer(keras.optimizers.Adam(0.1), three_groups(chain()), [1.0, 1.0, 1.0])
    config = {**optimizer.get_config(), "weight_decay_multipliers": [0.0, 1.0, 1.0], "no_weight_decay": ["bias"]}
    again = DiscriminativeOptimizer.from_config(config)
    assert again.get_config()["no_weight_decay"] == []


def test_groups_that_alternate_survive_without_training(tmp_path):
    """Not fitted, the optimizer does not know the order of the model's variables yet."""
    model = chain()
    groups = kadence.group_by(model, {"outer": ["low", "head"], "inner": "middle"})
    compile_it(model, DiscriminativeOptimizer(keras.optimizers.SGD(0.1), groups, [0.1, 1.0]))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    train(model)
    train(again)
    assert_same(all_values(again.weights), all_values(model.weights))
    assert [len(group.variables) for group in again.optimizer.groups] == [4, 2]


def test_groups_that_alternate_survive_after_training(tmp_path):
    model = chain()
    groups = kadence.group_by(model, {"outer": ["low", "head"], "inner": "middle"})
    compile_it(model, DiscriminativeOptimizer(keras.optimizers.SGD(0.1), groups, [0.1, 1.0]))
    train(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    train(model)
    train(again)
    assert_same(all_values(again.weights), all_values(model.weights))


@pytest.mark.parametrize("trainable", [False, True], ids=["frozen", "unfrozen"])
def test_a_layer_frozen_or_unfrozen_after_training_does_not_make_the_file_unreadable(trainable, tmp_path):
    """Keras warns that it skips the state of a plain optimizer here, and loads the model."""
    model = chain()
    model.get_layer("low").trainable = not trainable
    compile_it(model, DiscriminativeOptimizer(keras.optimizers.Adam(0.1), three_groups(model), [0.1, 1.0, 1.0]))
    train(model)
    model.get_layer("low").trainable = trainable
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        again = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(all_values(again.weights), all_values(model.weights))
    assert [len(group.variables) for group in again.optimizer.groups] == [2 * trainable, 2, 2]


def test_a_second_save_and_load_changes_nothing(saved, tmp_path):
    model = keras.saving.load_model(saved[0] / "functional.keras")
    model.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    assert_same(state(again), state(model))
    first, second = (
        config_of(file)["compile_config"] for file in (saved[0] / "functional.keras", tmp_path / "again.keras")
    )
    assert first == second
    assert [group.layers for group in again.optimizer.groups] == [
        group.layers for group in kadence.split(model, at="backbone/inner/two")
    ]


def test_the_table_of_a_loaded_model_is_that_of_the_saved_one(saved):
    model, optimizer = CASES["functional"]()
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(3)
    loaded = keras.saving.load_model(saved[0] / "functional.keras").optimizer
    ours, theirs = str(optimizer.groups).splitlines(), str(loaded.groups).splitlines()
    assert [row.split()[-2:] for row in theirs] == [row.split()[-2:] for row in ours]


# Configurations.


@pytest.mark.parametrize("name", CASES)
def test_the_configuration_is_json_and_makes_an_equal_optimizer_every_time(name):
    _, optimizer = CASES[name]()
    text = json.dumps(keras.optimizers.serialize(optimizer))
    for _ in range(2):
        copied = keras.optimizers.deserialize(json.loads(text))
        assert json.dumps(keras.optimizers.serialize(copied)) == text


def test_an_own_optimizer_keeps_its_class_and_arguments(saved):
    own = keras.saving.load_model(saved[0] / "own.keras").optimizer.inner_optimizer
    assert isinstance(own, SignSGD)
    assert own.power == 2.0
    tuned = keras.saving.load_model(saved[0] / "tuned.keras").optimizer.inner_optimizer
    assert isinstance(tuned, TunedAdam)
    assert tuned.half is False


def test_a_class_that_is_not_registered_comes_by_custom_objects(tmp_path):
    class Unregistered(keras.optimizers.SGD):
        pass

    model = chain()
    optimizer = DiscriminativeOptimizer(Unregistered(0.1), three_groups(model), [0.1, 1.0, 1.0])
    compile_it(model, optimizer)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Unregistered": Unregistered})
    assert isinstance(again.optimizer.inner_optimizer, Unregistered)
    with pytest.raises(TypeError, match="Unregistered"):
        keras.saving.load_model(tmp_path / "model.keras")


def test_a_clone_compiled_from_the_configuration_trains_alike():
    model, optimizer = CASES["functional"]()
    compile_it(model, optimizer)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile_from_config(model.get_compile_config())
    assert clone.optimizer is not optimizer
    train(model)
    train(clone)
    assert_same(state(clone), state(model))


def test_copies_of_the_model_are_independent():
    model, optimizer = CASES["functional"]()
    compile_it(model, optimizer)
    train(model)
    pickled = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert_same(state(pickled), state(model))
    before = state(pickled)
    train(model)
    assert_same(state(pickled), before)
    train(pickled)
    assert_same(state(pickled), state(model))


# Weights and checkpoints.


def test_weights_alone_restore_the_step_of_the_schedule(tmp_path):
    model, optimizer = CASES["functional"]()
    compile_it(model, optimizer)
    train(model)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh, optimizer = CASES["functional"]()
    compile_it(fresh, optimizer)
    optimizer.build(fresh.trainable_variables)
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert int(optimizer.iterations) == 3
    train(model)
    train(fresh)
    assert_same(state(fresh), state(model))


class Crash(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_backup_and_restore_goes_on_at_the_epoch_and_the_step(tmp_path):
    results, rates = [], []
    for crash in (False, True):
        backup = keras.callbacks.BackupAndRestore(tmp_path / f"backup_{crash}")
        model, optimizer = CASES["functional"]()
        compile_it(model, optimizer)
        arguments = {"epochs": 4, "batch_size": 4, "shuffle": False, "verbose": 0}
        recorder = kadence_recorder(tmp_path / "rates.json" if crash else None)
        if crash:
            with pytest.raises(KeyboardInterrupt):
                model.fit(X, Y, callbacks=[backup, recorder, Crash()], **arguments)
            written = kadence.records.RateRecord.from_json((tmp_path / "rates.json").read_text())
            assert len(written) == 6
            backup = keras.callbacks.BackupAndRestore(tmp_path / f"backup_{crash}")
            model, optimizer = CASES["functional"]()
            compile_it(model, optimizer)
            recorder = kadence_recorder(previous=written)
        model.fit(X, Y, callbacks=[backup, recorder], **arguments)
        assert int(optimizer.iterations) == 12
        results.append(state(model))
        rates.append(recorder.record)
    assert_same(*results)
    assert rates[0] == rates[1]


def kadence_recorder(*args, **kwargs):
    from kadence.callbacks import RateRecorder

    return RateRecorder(*args, **kwargs)


if __name__ == "__main__":
    go_on(*sys.argv[1:])
