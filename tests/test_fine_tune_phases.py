"""The phases of a fine-tuning, each alone on a job of a few steps."""

import keras
import numpy as np
import optimizer_oracles as oracles
import pytest
import tiny
from bad_input import NOT_FINITE, NOT_INTEGERS, NOT_NUMBERS, assert_integer, assert_number, assert_rejects

import kadence
from kadence._compiled import Compiled
from kadence._job import Job
from kadence._phase_schedules import SCHEDULES, make_schedule
from kadence._snapshot_files import load_weights
from kadence._trial_data import Data
from kadence.phases import FindPhase, HeadPhase, TrainPhase, check_phases, run_phases

JIT = "auto" if keras.backend.backend() == "jax" else False
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype("float32")
#: Far from what a new model says, so that the loss of every batch falls.
Y = 3.0 + 0.3 * X @ RNG.normal(size=(3, 2)).astype("float32")
HELD_OUT = Data("validation", (X[:6], Y[:6]), 6)
BATCHES = 4


class Unlike(keras.Model):
    """A model that defines a step of its own."""

    def train_step(self, *arguments):
        return super().train_step(*arguments)


def new_model(between=(), cls=keras.Model):
    """A nested backbone of two groups with BatchNormalization in each, and a head."""
    keras.utils.set_random_seed(2)
    x = inner = keras.Input((3,), name="inner_in")
    for name in ("low", "middle"):
        x = keras.layers.BatchNormalization(name=f"{name}_norm")(keras.layers.Dense(4, name=name)(x))
    for layer in between:
        x = layer(x)
    backbone = keras.Model(inner, x, name="backbone")
    inputs = keras.Input((3,), name="in")
    model = cls(inputs, keras.layers.Dense(2, name="head")(backbone(inputs)))
    for norm in ("low_norm", "middle_norm"):
        layer = backbone.get_layer(norm)
        layer.moving_mean.assign([0.5, -0.5, 0.25, 0.0])
    return model


def new_job(model=None, optimizer=None, loss="mse", **changes):
    """A job on 4 batches an epoch, in 3 groups."""
    model = new_model() if model is None else model
    model.compile(optimizer or keras.optimizers.SGD(0.5, momentum=0.5), loss, jit_compile=JIT)
    groups = kadence.split(model, ["middle", "head"])
    fields = {"train": Data("train", (X, Y), 6), "validation": None, "seed": 3, "verbose": 0, **changes}
    return Job(model, Compiled(model), groups, **fields)


def weights(job):
    return {group.name: [oracles.values(weight) for weight in group.weights] for group in job.groups}


def still(before, job):
    """Names of the groups in which no bit moved, statistics included."""
    now = weights(job)
    return [name for name in before if all(map(tiny.same, before[name], now[name]))]


def flat(y_true, y_pred):
    """A loss that nothing changes."""
    return 1.0 + 0.0 * keras.ops.mean(y_pred, axis=-1)


# What they are given


@pytest.mark.once
@pytest.mark.parametrize("phase", [HeadPhase, TrainPhase])
def test_lengths_and_schedules(phase):
    assert_integer(phase, "epochs", 1)
    for value in (None, 1, ("cosine",)):
        assert_rejects(lambda value: phase(2, schedule=value), "schedule", value, TypeError)
    assert_rejects(lambda value: phase(2, schedule=value), "schedule", "auto", ValueError)
    for name in SCHEDULES:
        assert phase(2, schedule=name).schedule == name


@pytest.mark.once
def test_values_of_the_head_phase():
    assert HeadPhase(2) == HeadPhase(2, None, "cosine", True)
    for value in [value for value in NOT_NUMBERS if value is not None]:
        assert_rejects(lambda value: HeadPhase(2, value), "rate", value, TypeError)
    for value in [*NOT_FINITE, 0.0, -0.1]:
        assert_rejects(lambda value: HeadPhase(2, value), "rate", value, ValueError)
    for value in (None, 1, "yes"):
        assert_rejects(lambda value: HeadPhase(2, cached=value), "cached", value, TypeError)


@pytest.mark.once
def test_values_of_the_find_phase():
    assert FindPhase() == FindPhase(100.0, None, "bold")
    assert FindPhase(1).spread == 1
    assert_number(FindPhase, "spread", out_of_range=[0.0, -0.1, 0.9])
    for value in [value for value in NOT_INTEGERS if value is not None]:
        assert_rejects(lambda value: FindPhase(n_steps=value), "n_steps", value, TypeError)
    for value in (19, 0, -1):
        assert_rejects(lambda value: FindPhase(n_steps=value), "n_steps", value, ValueError)
    for value, error in (("boldest", ValueError), (None, TypeError)):
        assert_rejects(lambda value: FindPhase(rule=value), "rule", value, error)


@pytest.mark.once
def test_values_of_the_train_phase():
    assert TrainPhase(2) == TrainPhase(2, None, "cosine", 3, False)
    assert_integer(lambda value: TrainPhase(2, cycles=value), "cycles", 1)
    assert_integer(lambda value: TrainPhase(2, unfreeze_every=value), "unfreeze_every", 0)
    assert TrainPhase(2, [0, 0.5]).rates == (0.0, 0.5)
    with pytest.raises(ValueError, match=r"^`snapshots` must be False unless `schedule` is 'warm-restarts'"):
        TrainPhase(2, snapshots=True)
    for rates in ((), (0.0, 0.0), (-0.1, 0.1), (np.nan, 0.1)):
        with pytest.raises((ValueError, TypeError), match=r"^`rates` must be"):
            TrainPhase(2, rates)
    with pytest.raises(ValueError, match="`unfreeze_every` trains all groups in the end"):
        TrainPhase(2, (0.0, 0.1), unfreeze_every=1)


# The head


@pytest.fixture(scope="module")
def trained_heads():
    """The jobs after a head phase of 2 epochs, with stored features and without."""
    jobs = [new_job(validation=HELD_OUT) for _ in range(2)]
    before = weights(jobs[0])
    for job, cached in zip(jobs, (True, False), strict=True):
        run_phases(job, [HeadPhase(2, 0.05, cached=cached)])
    return before, *jobs


def test_the_head_phase_trains_the_head_alone(trained_heads):
    before, *jobs = trained_heads
    for job in jobs:
        assert still(before, job) == ["group_1", "group_2"]
        assert job.rows[1]["loss"] < job.rows[0]["loss"]
        assert job.notes == []
        assert job.rates is None


def test_stored_features_train_the_same_head(trained_heads):
    _, cached, whole = trained_heads
    steps = [int(job.model.optimizer.iterations) for job in (cached, whole)]
    assert steps == [0, 2 * BATCHES], "the first trained a part of the model"
    for one, other in zip(weights(cached)["group_3"], weights(whole)["group_3"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    for one, other in zip(cached.rows, whole.rows, strict=True):
        assert one.keys() == other.keys()
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)


def test_the_record_of_the_head_phase_has_all_groups(trained_heads):
    _, *jobs = trained_heads
    wanted = make_schedule("cosine", 0.05, 2 * BATCHES).sample(2 * BATCHES)
    for job in jobs:
        assert [(row["phase"], row["epoch"]) for row in job.rows] == [("head", 1), ("head", 2)]
        assert job.record.steps.tolist() == list(range(2 * BATCHES))
        np.testing.assert_allclose(job.record.rates["group_3"], wanted, rtol=1e-6)
        assert not job.record.rates["group_1"].any()
        assert not job.record.rates["group_2"].any()
        assert np.isfinite(job.record.losses).all()


def test_the_rate_of_the_head_is_looked_for():
    """With the weights untouched by the search: the first loss of the phase is that of the start."""
    lines = []
    job = new_job(tell=lines.append)
    before = weights(job)
    start = job.model.evaluate(X, Y, verbose=0)
    run_phases(job, [HeadPhase(2, schedule="constant")])
    assert lines == ["head: group_3 alone for 2 epochs", "head: range test of 60 steps"]
    assert still(before, job) == ["group_1", "group_2"]
    rates = job.record.rates["group_3"]
    assert len(set(rates)) == 1
    assert 1e-7 < rates[0] < 10
    assert job.rows[-1]["loss"] < start
    assert job.found is None, "it is that of the model"


@pytest.mark.parametrize(
    ("phase", "stored", "test"),
    [
        (HeadPhase(1), True, "60"),
        (HeadPhase(1, 0.02), False, None),
        (HeadPhase(1, cached=False), False, "20"),
    ],
    ids=["a test and an epoch", "an epoch", "told not to"],
)
def test_features_are_stored_where_they_are_used_twice(phase, stored, test):
    lines = []
    job = new_job(loss=flat, tell=lines.append)
    run_phases(job, [phase])
    assert int(job.model.optimizer.iterations) == (0 if stored else BATCHES)
    told = [f"head: range test of {test} steps"] if test else []
    assert lines == ["head: group_3 alone for 1 epoch", *told]


def test_one_epoch_without_stored_features_is_no_note():
    """The range test and it would run on them; but augmentation in a model is no reason to say anything."""
    job = new_job(new_model([keras.layers.Dropout(0.5)]), loss=flat)
    run_phases(job, [HeadPhase(1)])
    assert int(job.model.optimizer.iterations) == BATCHES, "not those of a part"
    assert job.notes == []


@pytest.mark.parametrize(
    ("model", "note"),
    [
        (
            lambda: new_model([keras.layers.Dropout(0.5)]),
            "Features could not be stored: `model` must hold nothing random",
        ),
        (lambda: new_model(cls=Unlike), None),
    ],
    ids=["random", "own step"],
)
def test_where_features_cannot_be_stored_the_whole_model_runs(model, note):
    job = new_job(model())
    before = weights(job)
    run_phases(job, [HeadPhase(2, 0.02)])
    assert still(before, job) == ["group_1", "group_2"]
    assert int(job.model.optimizer.iterations) == 2 * BATCHES, "not those of a part"
    assert [text.partition(" before")[0] for text in job.notes] == ([] if note is None else [note])


class Noisy(keras.utils.PyDataset):
    """A dataset that augments, in batches of its own size."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        x = X[index * 8 : (index + 1) * 8]
        return x + self.rng.normal(size=x.shape).astype("float32"), Y[index * 8 : (index + 1) * 8]


def test_what_a_dataset_gives_is_not_stored():
    """It may augment: another pass gives other rows, and it has a batch size of its own."""
    job = new_job(train=Data("train", Noisy(), 32))
    run_phases(job, [HeadPhase(2, 1e-12), TrainPhase(2, (0.0, 0.01, 0.02))])
    assert [text.partition(",")[0] for text in job.notes] == ["Features could not be stored: `train` is a dataset"]
    assert job.rows[0]["loss"] != pytest.approx(job.rows[1]["loss"], rel=1e-3)
    assert len(job.record.steps) == 4 * 3
    assert int(job.model.optimizer.iterations) == 2 * 3
    wanted = make_schedule("cosine", 0.02, 6).sample(6)
    np.testing.assert_allclose(job.record.rates["group_3"][6:], wanted, rtol=1e-6)


def test_an_augmented_head_phase_sees_other_data_every_epoch():
    """So that nothing is stored; a rate near 0 leaves the model as it is, and the losses differ by the data alone."""
    job = new_job(augment=keras.layers.GaussianNoise(1.0, seed=1))
    before = weights(job)
    run_phases(job, [HeadPhase(2, 1e-12)])
    assert still(before, job)[:2] == ["group_1", "group_2"]
    assert job.rows[0]["loss"] != pytest.approx(job.rows[1]["loss"], rel=1e-3)


# The rates


def test_the_find_phase_leaves_all_as_it_was():
    lines = []
    job = new_job(tell=lines.append)
    before = weights(job)
    run_phases(job, [FindPhase(4.0, n_steps=40, rule="valley")])
    assert still(before, job) == job.groups.names
    assert lines == ["find: range test of 40 steps"]
    test = job.found
    assert (test.n_steps, test.names) == (40, ["all"])
    assert list(test.multipliers.values()) == [0.25, 0.5, 1.0]
    base = test.suggest().rates["all"]
    assert base is not None, "the task is easy"
    assert job.rates == pytest.approx([base / 4, base / 2, base])
    assert job.notes == []
    assert job.rows == []
    assert all(group.variables for group in job.groups), "and all groups train from here on"


@pytest.mark.parametrize(("spread", "rates"), [(100.0, (3e-4, 3e-3, 3e-2)), (4.0, (1.5e-3, 3e-3, 6e-3))])
def test_the_find_phase_is_bold(spread, rates):
    job = new_job(loss=flat)
    run_phases(job, [FindPhase(spread)])
    assert job.found.n_steps == 20, "the fewest"
    assert job.found.lr_max == pytest.approx(10 * rates[-1]), "a rise beyond is no bound"
    assert job.rates == pytest.approx(rates)
    assert job.notes == []


def test_a_test_that_answers_takes_more_decades_and_steps():
    job = new_job()
    run_phases(job, [FindPhase(rule="valley")])
    assert (job.found.n_steps, job.found.lr_max) == (30, 10.0)


def test_the_head_is_trained_at_the_bold_rate():
    job = new_job(loss=flat)
    run_phases(job, [HeadPhase(1, schedule="constant")])
    assert job.record.rates["group_3"] == pytest.approx([3e-2] * BATCHES)
    assert job.notes == []


# All groups


def test_the_train_phase_trains_each_group_at_its_rate():
    lines = []
    job = new_job(tell=lines.append, validation=HELD_OUT)
    before = weights(job)
    run_phases(job, [TrainPhase(3, (0.0, 0.01, 0.04))])
    assert still(before, job) == ["group_1"]
    assert job.groups[0].variables == [], "no gradient is computed for it"
    norm = job.model.get_layer("backbone").get_layer("middle_norm")
    assert tiny.same(oracles.values(norm.moving_mean), np.array([0.5, -0.5, 0.25, 0.0], "float32"))
    assert lines == ["train: 3 epochs, cosine, peak rates group_1 0, group_2 0.01, group_3 0.04"]
    assert job.rates == [0.0, 0.01, 0.04]
    wanted = make_schedule("cosine", 0.04, 3 * BATCHES).sample(3 * BATCHES)
    for name, share in zip(job.groups.names, (0.0, 0.25, 1.0), strict=True):
        np.testing.assert_allclose(job.record.rates[name], share * wanted, rtol=1e-5)
    assert [row["epoch"] for row in job.rows] == [1, 2, 3]
    assert job.rows[-1]["loss"] < job.rows[0]["loss"]
    assert job.rows[-1]["val_loss"] < job.rows[0]["val_loss"]


def test_under_gradient_accumulation_a_schedule_counts_updates():
    """That of the head too, which trains as a part, on stored features."""
    job = new_job(optimizer=keras.optimizers.SGD(0.5, gradient_accumulation_steps=2))
    run_phases(job, [HeadPhase(4, 0.05), TrainPhase(4, (0.01, 0.01, 0.02), "cosine")])
    wanted = [make_schedule("cosine", peak, 2 * BATCHES).sample(2 * BATCHES).repeat(2) for peak in (0.05, 0.02)]
    np.testing.assert_allclose(job.record.rates["group_3"], np.concatenate(wanted), rtol=1e-6)


def test_under_gradient_accumulation_a_range_test_counts_updates():
    """Of 60 batches an epoch, two each: not more data than without."""
    lines = []
    train = Data("train", (np.tile(X, (5, 1)), np.tile(Y, (5, 1))), 2)
    optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    job = new_job(optimizer=optimizer, loss=flat, train=train, tell=lines.append)
    run_phases(job, [FindPhase()])
    assert lines == ["find: range test of 30 steps"]


def test_batch_norm_that_trains_is_computed_anew_at_the_end():
    job = new_job(batch_norm="train")
    run_phases(job, [TrainPhase(1, (0.01, 0.01, 0.01), "cosine")])
    backbone = job.model.get_layer("backbone")
    seen = keras.Model(backbone.inputs, backbone.get_layer("low").output).predict(X, verbose=0)
    norm = backbone.get_layer("low_norm")
    np.testing.assert_allclose(oracles.values(norm.moving_mean), seen.mean(0), atol=0.05)


def test_the_rates_that_were_found_before_are_taken():
    job = new_job()
    job.rates = [0.001, 0.01, 0.02]
    run_phases(job, [TrainPhase(1, schedule="constant")])
    assert [rates[0] for rates in job.record.rates.values()] == pytest.approx([0.001, 0.01, 0.02])


@pytest.mark.parametrize("rates", [None, (0.1,), (0.1,) * 4])
def test_rates_that_are_neither_given_nor_found(rates):
    rule = (
        r"^`rates` must be one rate per group, 3: group_1, group_2, group_3; or a `FindPhase` comes before\. Received: "
    )
    with pytest.raises(ValueError, match=rule):
        check_phases(new_job(), [HeadPhase(1), TrainPhase(2, rates), FindPhase()])
    check_phases(new_job(), [FindPhase(), TrainPhase(2)])


def test_groups_that_would_never_join():
    with pytest.raises(ValueError, match=r"^`unfreeze_every` must let all 3 groups join within the 4 epochs.* after 4"):
        check_phases(new_job(), [TrainPhase(4, (0.1,) * 3, unfreeze_every=2)])
    check_phases(new_job(), [TrainPhase(5, (0.1,) * 3, unfreeze_every=2)])


def test_cycles_that_do_not_fit():
    with pytest.raises(ValueError, match="`n_steps` must be a length that 9 cycles can fill"):
        check_phases(new_job(), [TrainPhase(2, (0.1,) * 3, "warm-restarts", cycles=9)])


def test_snapshots_are_kept_at_the_end_of_every_cycle(tmp_path):
    job = new_job(folder=tmp_path)
    run_phases(job, [TrainPhase(2, (0.01, 0.01, 0.02), "warm-restarts", cycles=2, snapshots=True)])
    ensemble = kadence.SnapshotEnsemble.load(tmp_path / "snapshots", job.model)
    assert len(ensemble) == 2
    last = weights(job)
    load_weights(job.model, ensemble.files[-1])
    assert still(last, job) == job.groups.names
    load_weights(job.model, ensemble.files[0])
    assert still(last, job) == []


def test_snapshots_have_the_statistics_of_the_data_too(tmp_path):
    job = new_job(folder=tmp_path, batch_norm="train")
    run_phases(job, [TrainPhase(2, (0.0, 0.01, 0.02), "warm-restarts", cycles=2, snapshots=True)])
    ensemble = kadence.SnapshotEnsemble.load(tmp_path / "snapshots", job.model)
    last = [oracles.values(weight) for weight in job.model.weights]
    load_weights(job.model, ensemble.files[-1])
    assert all(map(tiny.same, last, [oracles.values(weight) for weight in job.model.weights]))
    load_weights(job.model, ensemble.files[0])
    backbone = job.model.get_layer("backbone")
    seen = keras.Model(backbone.inputs, backbone.get_layer("middle").output).predict(X, verbose=0)
    np.testing.assert_allclose(oracles.values(backbone.get_layer("middle_norm").moving_mean), seen.mean(0), atol=0.05)


def test_the_snapshots_of_one_phase_are_not_those_of_another():
    phase = TrainPhase(2, (0.01, 0.01, 0.02), "warm-restarts", cycles=2, snapshots=True)
    with pytest.raises(ValueError, match="`phases` must keep snapshots in one of them at most"):
        check_phases(new_job(), [phase, phase])


# One after another


def test_phases_that_are_finished_are_not_run_again(tmp_path):
    """Their weights, rates, history and record are taken from the folder."""
    phases = (HeadPhase(1, 0.05), FindPhase(n_steps=40), TrainPhase(1, schedule="cosine"))
    jobs, lines = [], []
    for _ in range(2):
        jobs.append(new_job(folder=tmp_path, tell=lines.append))
        run_phases(jobs[-1], phases)
        lines.append("end")
    first, second = jobs
    assert [line.partition(":")[0] for line in lines] == ["head", "find", "train", "end", "end"]
    assert still(weights(first), second) == first.groups.names
    assert second.rates == first.rates
    assert second.found == first.found
    assert second.record == first.record
    assert second.rows == first.rows
    assert [(row["phase"], row["epoch"]) for row in first.rows] == [("head", 1), ("train", 2)]
    assert first.record.steps.tolist() == list(range(2 * BATCHES))
