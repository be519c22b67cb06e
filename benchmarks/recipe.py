"""What `fine_tune` gives beside the usual ways to fine-tune, and what each of its ingredients adds.

    KERAS_BACKEND=tensorflow python benchmarks/recipe.py --data FOLDER --budget-minutes 60

FOLDER holds the data sets of `problems.py`; without it, the results that were measured before are printed. All train
EfficientNet-Lite0 at 64 px for the same epochs on the same pictures, without augmentation, with Adam. The usual ways
look for their rate on `val`, in the same way: three half a decade apart, and further while the first or last is best.
`fine_tune` finds its own, from the training data. Each is then trained with the same five seeds and judged on `test`.
`--quick` judges `fine_tune` and one rate with a cosine with one seed, in about ten minutes. Seconds are those of a
machine that other work may have kept busy, compilation and range tests included; `--seconds 3` measures the time to an
accuracy, on a quiet one. Results are appended to a CSV as they come, and not measured again.
"""

# backends: tensorflow

import argparse
import dataclasses
import gc
import inspect
import itertools
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
import numpy as np
from problems import DATA, LONGER, SEEDS, make_problem, strategy
from trials import Bench, Results, Row, between, figures, gains_over, key_of, running

from kadence import FindPhase, HeadPhase, TrainPhase
from kadence._problem import Problem
from kadence._recipe import make_phases
from kadence._trial_plan import SEARCH_SEED
from kadence._trials import Trial, run_trial

NETWORK = "lite0"
GROUPS = kadence.LayerGroups([kadence.LayerGroup(f"group_{number}", (str(number),)) for number in (1, 2, 3)])
COSINE = strategy("adam", "one rate", "cosine")
#: The usual ways, which look for their rate.
USUAL = {
    "one constant rate": kadence.Strategy("recipe/constant", batch_norm="train"),
    "one rate, cosine": COSINE,
    "the same, BatchNorm trained": kadence.Strategy(
        "recipe/cosine, BatchNorm trained", schedule="cosine", warmup="10%", batch_norm="train"
    ),
    "frozen backbone": kadence.Strategy("recipe/frozen", schedule="cosine", warmup="10%", phases=((1, "100%"),)),
}


@dataclasses.dataclass(frozen=True)
class Way:
    """A call of `fine_tune`.

    Args:
        make: Epochs and a rate -> arguments of `fine_tune`.
        ensemble: Whether the snapshots are judged together, instead of the last weights. Ways that differ in nothing
            else are judged from one training.
        searched: Whether the rate is looked for on `val`.
        share: Share of the epochs that the others have.
    """

    make: Callable[[int, float], dict[str, Any]] = dataclasses.field(default=lambda epochs, rate: {})
    ensemble: bool = False
    searched: bool = False
    share: float = 1.0

    def trains_like(self, other: "Way") -> bool:
        """Whether another way differs in nothing but what is judged."""
        return dataclasses.replace(self, ensemble=other.ensemble) == other


def _phases(*phases: Any) -> dict[str, Any]:
    return {"phases": phases}


def _snapshots(epochs: int, rate: float) -> dict[str, Any]:
    return {"snapshots": 3}


WAYS = {
    "fine_tune": Way(),
    "fine_tune, half the epochs": Way(share=0.5),
    "head first, then all at 1e-5": Way(
        lambda epochs, rate: _phases(
            HeadPhase(2, rate, "constant"), TrainPhase(epochs - 2, (1e-5,) * 3, schedule="constant")
        ),
        searched=True,
    ),
    "- groups": Way(
        lambda epochs, rate: _phases(HeadPhase(1), TrainPhase(epochs - 1, (rate,) * 3)),
        searched=True,
    ),
    "- range tests": Way(lambda epochs, rate: {"rates": 1e-2}),
    "rates of the range test": Way(
        lambda epochs, rate: _phases(HeadPhase(1), FindPhase(rule="valley"), TrainPhase(epochs - 1))
    ),
    "- head phase": Way(lambda epochs, rate: {"freeze_epochs": 0}),
    "one cycle": Way(lambda epochs, rate: {"schedule": "one-cycle"}),
    "restarts": Way(_snapshots),
    "restarts, snapshots": Way(_snapshots, ensemble=True),
    "BatchNorm trained": Way(lambda epochs, rate: {"batch_norm": "train"}),
    "a gentler ladder": Way(
        lambda epochs, rate: _phases(HeadPhase(1), FindPhase(spread=2.6**2), TrainPhase(epochs - 1))
    ),
}


#: Those that are `fine_tune` but for one thing.
INGREDIENTS = [way for way in WAYS if way not in ("fine_tune", "head first, then all at 1e-5")]
#: Ways that are no more, whose results are kept: the first defaults of `fine_tune`, a ladder of 2.6 at the rate of the
#: range test, or at 1e-3 where that was unclear; and restarts that began at full rate.
FORMER = ("fine_tune, as it was first", "restarts without a rise", "restarts without a rise, snapshots")


def _said(phase: Any) -> str:
    """A phase with the fields that are not the usual ones, so that a further field changes no key."""
    given = [(part.name, getattr(phase, part.name), part.default) for part in dataclasses.fields(phase)]
    told = ", ".join(f"{name}={value!r}" for name, value, usual in given if value != usual)
    return f"{type(phase).__name__}({told})"


def tune(problem: Problem, built: Any, epochs: int, seed: int, **options: Any) -> kadence.FineTuneResult:
    """What `fine_tune` makes of a model and its groups, as `problem.build` gives them."""
    model, groups = built
    model.compile("adam", problem.loss, metrics=["accuracy"])
    train, held_out = (part and part.arrays for part in (problem.train, problem.validation))
    return kadence.fine_tune(model, train, held_out, epochs=epochs, groups=groups, seed=seed, verbose=0, **options)


def run(bench: Bench, data: str, way: str, rate: float, seed: int, phase: str) -> Row:
    """The row of a call of `fine_tune`, which is made unless it is in the results."""
    name, problem = make_problem(bench.root, data, NETWORK)
    epochs = round(WAYS[way].share * problem.epochs)
    options = WAYS[way].make(epochs, rate)
    given = {name: value for name, value in options.items() if name in inspect.signature(make_phases).parameters}
    phases = options.get("phases") or make_phases(epochs, GROUPS, **given)
    settings = json.dumps([_said(phase) for phase in phases])
    known = bench.results.rows.get(key_of(name, f"{way} {settings}", rate, seed, phase))
    if known is not None:
        return known
    bench.check_time()
    built = problem.build(seed)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        options |= {"run_dir": Path(folder) / "run"} if options.get("snapshots") else {}
        result = tune(problem, built, epochs, seed, **options)
        seconds = round(time.perf_counter() - began, 1)
        alike = {other: told for other, told in WAYS.items() if told.trains_like(WAYS[way])}
        judged = {other: result.ensemble() if told.ensemble else result.model for other, told in alike.items()}
        test = problem.test and problem.test.arrays
        accuracy = {other: _accuracy(by, test) if phase == "judge" else None for other, by in judged.items()}
    curve = [row["val_accuracy"] for row in result.history]
    rows = {
        other: Row(
            *(name, f"recipe/{other}", f"{other} {settings}", rate, seed, phase),
            *("done", curve[-1], accuracy[other], seconds),
            *(keras.backend.backend(), result.history[-1]["val_loss"], " ".join(f"{value:.3f}" for value in curve)),
            f"rates {' '.join(f'{rate:.2g}' for rate in result.rates)} {' '.join(result.notes)}".strip(),
        )
        for other in alike
    }
    for other, row in rows.items():
        bench.results.add(row)
        print(f"{data:10} {other:28} {rate:<8.3g} {phase} {seed}  {curve[-1]:.3f}", end="  ")
        print(f"{'' if row.test is None else f'test {row.test:.3f}'}  {seconds:.0f} s {row.reason}", flush=True)
    del built, result, judged
    gc.collect()
    return rows[way]


def _accuracy(model: Any, data: Any) -> float:
    x, y = data
    quiet = {"verbose": 0} if isinstance(model, keras.Model) else {}
    predicted = np.asarray(model.predict(x.astype("float32"), **quiet))
    return float((predicted.argmax(-1) == y).mean())


def search(bench: Bench, data: str, way: str) -> float:
    """The rate of a way with the best accuracy on `val`; 0 where it looks for none."""
    if way in USUAL:
        return bench.best_rate(data, NETWORK, USUAL[way])
    if not WAYS[way].searched:
        return 0.0
    return bench.best_of(lambda rate: run(bench, data, way, rate, SEARCH_SEED, "search"), "adam")


def measure(bench: Bench, names: Sequence[str], ways: Sequence[str], seeds: Sequence[int]) -> None:
    """A data set at a time, seed by seed, so that a stop leaves whole comparisons."""
    for data in names:
        rates = {way: search(bench, data, way) for way in ways}
        for seed, way in itertools.product(seeds, ways):
            if way in USUAL:
                bench.judge(data, NETWORK, USUAL[way], rates[way], seed)
            else:
                run(bench, data, way, rates[way], seed, "judge")


class _Clock(keras.callbacks.Callback):
    """Seconds since it was made, at the end of each epoch, and the accuracy on `val` there."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.perf_counter()
        self.reached: list[tuple[float, float]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.reached.append((time.perf_counter() - self._began, (logs or {})["val_accuracy"]))


def time_to_accuracy(root: Path, results: Results, names: Sequence[str], n_rounds: int) -> None:
    """Prints the time of `fine_tune` until it is as accurate on `val` as one rate with a cosine at its end.

    As a share of the time of that, compilation included, in alternation. For a quiet machine.
    """
    for data in names:
        rate = next(iter(results.judged(data, NETWORK, COSINE.name).values())).rate
        name, problem = make_problem(root, data, NETWORK)
        shares: dict[str, list[float]] = {"fine_tune": [], "fine_tune, half the epochs": []}
        for number in range(-1, n_rounds):  # the first one is to warm up
            seed = max(number, 0)
            base = run_trial(problem, Trial(COSINE, rate, seed, "search", name))
            for way, measured in shares.items():
                built, clock = problem.build(seed), _Clock()
                tune(problem, built, round(WAYS[way].share * problem.epochs), seed, callbacks=[clock])
                share = [at / base.seconds for at, accuracy in clock.reached if accuracy >= (base.validation or 0.0)]
                if number >= 0:
                    measured.append(min(share, default=math.inf))
                    ended = f"{clock.reached[-1][0]:.1f} s, {clock.reached[-1][1]:.3f}"
                    print(f"{data} {seed}: {base.seconds:.1f} s, {base.validation:.3f}; {way} {ended}", flush=True)
        for way, measured in shares.items():
            told = ", ".join(f"{share:.2f}" for share in sorted(measured))
            print(f"{data}: {way}, share of the seconds to its accuracy: {statistics.median(measured):.2f} ({told})")


def lines(results: Results) -> Iterator[str]:
    """A line for each way that is measured: mean and interval, and the difference to one rate with a cosine."""
    for data in (*DATA, *LONGER):
        if not results.judged(data, NETWORK, COSINE.name):
            continue
        yield f"{data}: accuracy on test, mean and 95% interval; difference to one rate with a cosine, seed by seed"
        base = results.judged(data, NETWORK, COSINE.name)
        names = {way: USUAL[way].name if way in USUAL else f"recipe/{way}" for way in (*USUAL, *WAYS, *FORMER)}
        for way, name in names.items():
            rows = results.judged(data, NETWORK, name)
            if rows:
                seconds = sorted(row.seconds for row in rows.values())[len(rows) // 2]
                yield f"  {way:28} {seconds:4.0f} s  {figures(rows, base)}"
        ours = results.judged(data, NETWORK, names["fine_tune"])
        if ours:
            yield f"  difference to fine_tune, seed by seed, and on val, where its loss is {_mean_loss(ours):.2f}:"
        for way in INGREDIENTS:
            rows = results.judged(data, NETWORK, names[way])
            if gains := gains_over(ours, rows):
                shown = f"{sum(gains) / len(gains):+.3f} {between(gains, '+')} ({len(gains)} seeds)"
                yield f"    {way:28} {shown}{'' if WAYS[way].ensemble else _on_val(rows, ours)}"
        for way in WAYS:
            tried = sorted(_searched(results, data, names[way]).items())
            if tried:
                yield f"  {way}: on val, " + ", ".join(f"{value:.3f} at {rate:g}" for rate, value in tried)
        epochs = [_epochs_until(row, base[seed].validation or 0.0) for seed, row in ours.items() if seed in base]
        yield f"  epochs until fine_tune is as accurate on val as that at its end: {', '.join(epochs)}"


def _mean_loss(rows: dict[int, Row]) -> float:
    return sum(row.val_loss or 0.0 for row in rows.values()) / len(rows)


def _on_val(rows: dict[int, Row], ours: dict[int, Row]) -> str:
    gains = [(row.validation or 0.0) - (ours[seed].validation or 0.0) for seed, row in rows.items() if seed in ours]
    return f"  {sum(gains) / len(gains):+.3f}, loss {_mean_loss(rows):.2f}"


def _searched(results: Results, data: str, name: str) -> dict[float, float]:
    """Rate -> accuracy on `val`, of the rates that a way tried."""
    wanted = (data, NETWORK, name, "search")
    rows = [row for row in results.rows.values() if (row.data, row.network, row.strategy, row.phase) == wanted]
    return {row.rate: row.validation or 0.0 for row in rows}


def _epochs_until(row: Row, accuracy: float) -> str:
    curve = [float(value) for value in row.val_curve.split()]
    reached = [epoch for epoch, value in enumerate(curve, start=1) if value >= round(accuracy, 3)]
    return f"{reached[0]} of {len(curve)}" if reached else f"none of {len(curve)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("KADENCE_DATA"), help="folder of the data sets")
    parser.add_argument("--only", nargs="+", default=list(DATA), choices=[*DATA, *LONGER], help="data sets")
    everything = [*USUAL, *WAYS]
    parser.add_argument("--ways", nargs="+", default=everything, choices=everything, help="which of them")
    parser.add_argument("--quick", action="store_true", help="one seed, of two ways, on groceries")
    parser.add_argument("--seconds", type=int, metavar="ROUNDS", help="measure the time to an accuracy, so many times")
    parser.add_argument("--budget-minutes", type=float, default=float("inf"), help="begin no trial after so long")
    options = parser.parse_args()
    results = Results()
    if options.data is None:
        print("No --data: these are the results that were measured before.")
    elif options.seconds:
        time_to_accuracy(Path(options.data), results, options.only, options.seconds)
        return
    else:
        with running(Path(options.data), results, options.budget_minutes) as bench:
            if options.quick:
                measure(bench, ["grocery"], ["one rate, cosine", "fine_tune"], [0])
            else:
                measure(bench, options.only, options.ways, SEEDS)
    print("\n".join(lines(results)))


if __name__ == "__main__":
    main()
