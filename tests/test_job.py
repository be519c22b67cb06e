"""What the phases have in common: batches that repeat themselves, groups that train, and what a phase leaves."""

import fine_tuning
import numpy as np
import pytest
import tiny

from kadence._compiled import Compiled
from kadence._head import groups_with_head
from kadence._job import Job, TrainedPart
from kadence._trial_data import Data
from kadence.schedules import Constant


def new_job(**changes):
    model = fine_tuning.build()
    groups = groups_with_head(model)
    train = Data("train", fine_tuning.data(), fine_tuning.BATCH_SIZE)
    job = Job(model, Compiled(model), groups, train, None, **{"seed": 3, "verbose": 0, **changes})
    job.phase = "train"
    return job


def train(job, epochs=1):
    job.train_groups([True] * 3)
    job.compiled.compile(job.model, Constant(1e-2), job.groups, [1e-3, 1e-3, 1e-2])
    with job.stretches() as stretch:
        stretch(TrainedPart(job.model, job.train_batches(), None, True), range(epochs))


def test_the_order_follows_the_seed():
    first, same, other = (new_job(seed=seed).train_batches()[0][1] for seed in (1, 1, 2))
    assert tiny.same(first, same)
    assert not tiny.same(first, other)


@pytest.mark.parametrize("policy", ["frozen", "train"])
def test_batch_norm_before_the_head_follows_the_policy(policy):
    job = new_job(batch_norm=policy)
    assert job.policies == [policy, policy, "train"]
    job.train_groups([True, True, True])
    assert job.model.get_layer("norm1").trainable == (policy == "train")
    assert job.model.get_layer("conv1").trainable
    job.train_groups([False, True, True])
    assert not job.model.get_layer("conv1").trainable
    assert job.model.get_layer("conv2").trainable


def test_a_phase_leaves_rows_and_rates_of_all_groups():
    job = new_job()
    train(job, epochs=2)
    assert [(row["phase"], row["epoch"]) for row in job.rows] == [("train", 1), ("train", 2)]
    assert {"loss", "accuracy", "seconds", "learning_rate_group_1"} <= job.rows[0].keys()
    assert job.record.steps.tolist() == list(range(6))
    job.phase = "train-2"
    train(job)
    assert [row["epoch"] for row in job.rows] == [1, 2, 3]
    assert job.record.steps.tolist() == list(range(9))


def test_a_finished_phase_is_taken_over(tmp_path):
    job = new_job(folder=tmp_path)
    assert not job.finished()
    assert job.epochs_done == 0
    job.notes.append("before")
    with job.part():
        job.notes.append("within")
        train(job)
    assert job.epochs_done == 1
    other = new_job(folder=tmp_path)
    assert other.finished()
    assert other.notes == ["within"]
    assert (other.rows, other.record) == (job.rows, job.record)
    assert all(map(tiny.same, other.model.get_weights(), job.model.get_weights()))


def test_an_error_leaves_a_phase_unfinished(tmp_path):
    job = new_job(folder=tmp_path)
    with pytest.raises(KeyError), job.part():
        raise KeyError
    assert not job.finished()


def test_a_spoilt_record_is_a_clear_error(tmp_path):
    job = new_job(folder=tmp_path)
    with job.part():
        train(job)
    (job.place / "rates.json").write_text("{")
    with pytest.raises(ValueError, match=r"`rates.json` must be the record of a run"):
        new_job(folder=tmp_path).finished()


def test_without_a_folder_nothing_is_kept():
    job = new_job()
    assert job.place is None
    with job.part():
        pass
    assert not job.finished()
    assert np.size(job.record.losses) == 0
