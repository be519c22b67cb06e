"""`kadence schedule` and `kadence plan`: every schedule, from flags to tables, findings and pictures."""

import json
import re

import numpy as np
import pytest
from command import command, one_message
from PIL import Image

import kadence
from kadence._schedule_commands import _MAKERS

# `main` prints warnings itself; as errors they would not reach it.
pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("default", "ignore:__array__ implementation:DeprecationWarning"),
]

#: Flags -> the schedule they say, over 100 steps of 10 an epoch.
COMMANDS = {
    "constant --lr-max 0.1": kadence.Constant(0.1),
    "cosine --lr-min 1e-4": kadence.Cosine(0.01, 100, lr_min=1e-4),
    "cyclical --up-steps 1ep --mode triangular2": kadence.Cyclical(0.01, 10, mode="triangular2"),
    "exponential --factor 0.9 --every-steps 5st": kadence.Exponential(0.01, 0.9, every_steps=5),
    "from-points --points 0,50%,100 --point-rates 0,1,0.1": kadence.from_points([0, 50, 100], [0.0, 1.0, 0.1]),
    "inverse-square-root --timescale-steps 10%": kadence.InverseSquareRoot(0.01, 10),
    "linear --lr-start 0.1 --lr-end 0": kadence.Linear(0.1, 0.0, 100),
    "one-cycle --three-phase --curve linear": kadence.OneCycle(0.01, 100, curve="linear", three_phase=True),
    "polynomial --power 2 --warmup 1ep": kadence.warmup(kadence.Polynomial(0.01, 90, power=2), 10),
    "slanted-triangular": kadence.SlantedTriangular(0.01, 100),
    "step --at-steps 30%,6ep": kadence.Step(0.01, [30, 60]),
    "step --at-steps 30%,60%,90% --warmup 10%": kadence.warmup(kadence.Step(0.01, [20, 50, 80]), 10),
    "step --at-steps 30": kadence.Step(0.01, 30),
    "step --at-steps 2ep --warmup 1ep": kadence.warmup(kadence.Step(0.01, 20), 10),
    "from-points --points 10,50%,100 --point-rates 1,1,0 --warmup 10": kadence.warmup(
        kadence.from_points([0, 40, 90], [1.0, 1.0, 0.0]), 10
    ),
    "warm-restarts --cycles 2 --cycle-mult 4": kadence.WarmRestarts(0.01, 20, cycle_mult=4),
    "warm-restarts --first-cycle-steps 1ep": kadence.WarmRestarts(0.01, 10),
    "warm-restarts": kadence.WarmRestarts(0.01, 100),
    "warmup-stable-decay --warmup-steps 10% --decay-steps 20%": kadence.WarmupStableDecay(0.01, 100, 10, 20),
}


def test_every_schedule_has_a_command():
    assert {words.split()[0] for words in COMMANDS} == set(_MAKERS)
    made = {type(schedule).__name__ for schedule in COMMANDS.values()}
    classes = {name for name in kadence.__all__ if isinstance(getattr(kadence, name), type)}
    schedules = {name for name in classes if issubclass(getattr(kadence, name), kadence.Schedule)} - {"Schedule"}
    assert schedules - made == {"Polynomial"}, "behind a warm-up"


@pytest.mark.parametrize("words", COMMANDS)
def test_the_plan_is_of_the_schedule_that_the_flags_say(words, tmp_path, capsys):
    run = ["--epochs", 10, "--samples", 320, "--json", tmp_path / "plan.json"]
    if "--lr-max" not in words:
        run += ["--rates", "0.01"] if not words.startswith(("from-points", "linear")) else []
    assert command("plan", *words.split(), *run) == 0
    out = capsys.readouterr().out
    rates = json.loads((tmp_path / "plan.json").read_text())["rates"]["all"]
    np.testing.assert_allclose(rates, COMMANDS[words].sample(100))
    assert repr(COMMANDS[words]) in out


@pytest.mark.parametrize("words", COMMANDS)
def test_every_schedule_is_drawn(words, tmp_path, capsys):
    run = ["--steps", 100, "--steps-per-epoch", 10, "--png", tmp_path / "a.png"]
    assert command("schedule", *words.split(), *run) == 0
    assert "(cut short)" not in capsys.readouterr().out or words.startswith("cyclical")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"


def table_rows(text):
    return [line.split() for line in text.splitlines() if re.match(r"\s*\d", line)]


def test_schedule_of_the_readme(tmp_path, capsys):
    picture = tmp_path / "schedule.png"
    words = ["--lr-max", "0.01", "--first-cycle-steps", "100", "--cycle-mult", "2", "--steps", "700", "--png"]
    assert command("schedule", "warm-restarts", *words, picture) == 0
    output = capsys.readouterr()
    assert output.err == ""
    starts, lengths = [0, 100, 300], [100, 200, 400]
    last = [0.005 * (1 + np.cos(np.pi * (length - 1) / length)) for length in lengths]
    assert table_rows(output.out) == [
        [str(i + 1), str(start), str(start + length - 1), "0.01", f"{rate:.4g}"]
        for i, (start, length, rate) in enumerate(zip(starts, lengths, last, strict=True))
    ]
    assert str(picture) in output.out.replace("\n", "")
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 500
    assert [path.name for path in tmp_path.iterdir()] == ["schedule.png"]


@pytest.mark.parametrize(
    ("steps", "cut"), [(700, False), (701, True), (99, True), (100, False), (50, True), (350, True)]
)
def test_a_cycle_that_is_cut_short_is_said(capsys, steps, cut):
    words = ["warm-restarts", "--first-cycle-steps", 100, "--cycle-mult", 2, "--steps", steps]
    assert command("schedule", *words) == 0
    out = capsys.readouterr().out
    assert ("cut short" in " ".join(out.split())) == cut
    assert str(steps - 1) in out


def test_floor_and_decay_reach_the_schedule(capsys):
    words = ["--lr-max", "1", "--lr-min", "0.1", "--first-cycle-steps", "10", "--peak-decay", "0.5", "--steps", "20"]
    assert command("schedule", "warm-restarts", *words) == 0
    first, second = table_rows(capsys.readouterr().out)
    expected = kadence.WarmRestarts(1.0, 10, lr_min=0.1, peak_decay=0.5).sample(20)
    assert [float(first[3]), float(first[4])] == pytest.approx([1.0, expected[9]], rel=1e-3)
    assert [float(second[3]), float(second[4])] == pytest.approx([0.5, expected[19]], rel=1e-3)


@pytest.mark.parametrize(("name", "last"), [("cosine", 0.005 * (1 + np.cos(np.pi * 0.9))), ("constant", 0.01)])
def test_schedules_without_cycles(capsys, name, last):
    assert command("schedule", name, "--lr-max", 0.01, "--steps", 10) == 0
    assert table_rows(capsys.readouterr().out) == [["1", "0", "9", "0.01", f"{last:.4g}"]]


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ("warm-restarts --steps 0", ["`steps` must be an integer >= 1", "steps=0"]),
        ("warm-restarts --steps 2147483648", ["`steps` must", "2**31 - 1"]),
        ("warm-restarts", ["--steps"]),
        ("warm-restart --steps 10", ["warm-restarts"]),
        ("warm-restarts --steps 10 --lr-max 0", ["`lr_max` must"]),
        ("warm-restarts --steps 10 --lr-max nan", ["`lr_max` must"]),
        ("warm-restarts --steps 10 --lr-max 0.1 --lr-min 0.2", ["lr_min"]),
        ("warm-restarts --steps 10 --first-cycle-steps 0", ["`first_cycle_steps` must"]),
        ("warm-restarts --steps 10 --cycle-mult 0.5", ["`cycle_mult` must"]),
        ("warm-restarts --steps 10 --peak-decay 2", ["`peak_decay` must"]),
    ],
)
def test_bad_schedules(capsys, words, fragments):
    assert command("schedule", *words.split()) in (1, 2)
    one_message(capsys, *fragments)


def test_a_picture_that_cannot_be_written(tmp_path, capsys):
    assert command("schedule", "constant", "--steps", 5, "--png", tmp_path / "none" / "a.png") == 1
    one_message(capsys, "`png` must name a file in a folder that exists", str(tmp_path / "none"))


@pytest.mark.parametrize("words", ["step", "exponential", "cyclical", "warmup-stable-decay", "linear --lr-end 1"])
def test_what_is_missing_is_said(capsys, words):
    assert command("schedule", *words.split(), "--steps", 10) == 1
    one_message(capsys, " must be given, as --")


# plan


def test_a_plan_in_groups_with_its_findings(tmp_path, capsys):
    words = [
        "--rates",
        "1e-5,1e-3",
        "--first-cycle-steps",
        "1ep",
        "--cycle-mult",
        "2",
        "--epochs",
        "5",
        "--samples",
        "2640",
    ]
    assert command("plan", "warm-restarts", *words, "--png", tmp_path / "plan.png") == 0
    out = capsys.readouterr().out
    assert "5 epochs of 83 updates: 415 updates" in out
    assert "Nearest budgets that do not: 3 epochs and 7 epochs." in out
    assert re.search(r"group_1 +1e-05", out)
    assert (tmp_path / "plan.png").stat().st_size > 1000


def test_minutes_become_whole_epochs_and_cycles_that_end_there(capsys):
    words = ["--minutes", "10", "--seconds-per-step", "0.5", "--samples", "3200", "--cycles", "3", "--cycle-mult", "2"]
    assert command("plan", "warm-restarts", *words) == 0
    out = capsys.readouterr().out
    assert "12 epochs of 100 updates: 1,200 updates" in out
    assert "cut short" not in out
    assert "warning" not in out


def test_rates_for_a_larger_batch(capsys):
    words = ["--rates", "0.1", "--epochs", "1", "--samples", "1000", "--batch-size", "100", "--base-batch-size", "50"]
    for rule, peak in (("linear", "0.2"), ("sqrt", "0.141")):
        assert command("plan", "constant", *words, "--batch-rule", rule) == 0
        assert re.search(rf"all +{re.escape(peak)} ", capsys.readouterr().out)


def test_a_drop_is_where_the_flag_says_behind_a_warm_up(tmp_path, capsys):
    words = ["--lr-max", 1, "--at-steps", "30%,60%,90%", "--warmup", "10%", "--steps", 100]
    assert command("plan", "step", *words, "--json", tmp_path / "plan.json") == 0
    rates = np.array(json.loads((tmp_path / "plan.json").read_text())["rates"]["all"])
    assert (1 + np.flatnonzero(np.diff(rates) < 0)).tolist() == [30, 60, 90]
    capsys.readouterr()


@pytest.mark.parametrize("peak", ["--lr-max 0.1", "--rates 0.01,0.1"])
def test_a_larger_batch_scales_the_floor_too(peak, tmp_path, capsys):
    words = ["--lr-min", 0.01, "--steps", 4, "--batch-size", 100, "--base-batch-size", 50, "--json"]
    assert command("plan", "cosine", *peak.split(), *words, tmp_path / "plan.json") == 0
    rates = json.loads((tmp_path / "plan.json").read_text())["rates"]
    np.testing.assert_allclose(list(rates.values())[-1], 2 * kadence.Cosine(0.1, 4, lr_min=0.01).sample(4))
    capsys.readouterr()


def test_a_larger_batch_scales_a_schedule_without_rates(tmp_path, capsys):
    words = ["--steps", 4, "--batch-size", 100, "--base-batch-size", 50, "--json", tmp_path / "plan.json"]
    for name, schedule in {"cosine --lr-max 0.1": kadence.Cosine(0.1, 4), "cosine": kadence.Cosine(1e-3, 4)}.items():
        assert command("plan", *name.split(), *words) == 0
        rates = json.loads((tmp_path / "plan.json").read_text())["rates"]["all"]
        np.testing.assert_allclose(rates, 2 * schedule.sample(4))
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ("cosine", ["--epochs"]),
        ("cosine --epochs 3", ["`epochs` must come with --samples"]),
        ("cosine --steps 10 --batch-size 0", ["`batch_size` must be an integer >= 1"]),
        ("cosine --steps 10 --base-batch-size 0", ["`base_batch_size` must be an integer >= 1"]),
        ("cosine --steps 10 --png none/a.png", ["`png` must name a file in a folder that exists", "none/a.png"]),
        ("cosine --steps 10 --json none/a.json", ["`json` must name a file in a folder that exists"]),
        ("cosine --minutes 3", ["`minutes` must be given together with `seconds_per_step`"]),
        ("cosine --steps 10 --warmup 2ep", ["`warmup` must not be in epochs", "500st"]),
        ("cosine --steps 10 --warmup 100%", ["`warmup` must be shorter than the run of 10 steps"]),
        ("cosine --steps 10 --rates -1", ["`rates` must be a finite number >= 0", "-1"]),
        ("cosine --steps 10 --rates 0,0", ["`rates` must have a rate above 0"]),
        ("cosine --steps 10 --lr-max 0.1 --rates 1e-3", ["`lr_max` must be left out beside --rates", "lr_max=0.1"]),
        ("cosine --steps 10 --batch-rule sqrt", ["`batch_rule` must come with --base-batch-size", "'sqrt'"]),
        ("constant --steps 10 --lr-max -1", ["`lr_max` must be a finite number >= 0. Received: lr_max=-1.0"]),
        ("from-points --points 50,0 --point-rates 1,2 --steps 100", ["`points` must be strictly", "points=[50, 0]"]),
        (
            "from-points --points 0,50 --point-rates 1 --steps 100",
            ["`point_rates` must be a sequence of 2 rates, one per step. Received: point_rates=(1.0,)"],
        ),
        ("from-points --points 0,50 --point-rates 1,-2 --steps 100", ["`point_rates` must", "point_rates=-2.0"]),
        (
            "from-points --points 0,50% --point-rates 1,2 --steps 100 --warmup 10%",
            ["`points` must be after the warm-up, which ends at step 10. Received: points='0,50%'"],
        ),
        ("step --at-steps 10,50 --steps 100 --warmup 10", ["`at_steps` must be after the warm-up", "at_steps='10,50'"]),
        ("step --at-steps 0 --steps 100", ["`at_steps` must be an integer >= 1"]),
        ("step --at-steps 0,5 --steps 100", ["`at_steps` must be an integer >= 1"]),
        ("warm-restarts --steps 10 --cycles 0", ["`n_cycles` must be an integer from 1 to 1000"]),
        ("warm-restarts --steps 10 --cycles 2 --first-cycle-steps 3", ["not allowed with"]),
    ],
)
def test_bad_plans(capsys, words, fragments):
    assert command("plan", *words.split()) in (1, 2)
    one_message(capsys, *fragments)
