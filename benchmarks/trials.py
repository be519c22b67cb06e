"""Trials of `kadence.compare` one by one, and the CSV in which the benchmarks of accuracy keep all results.

A row holds all that another machine needs to go on from it: problem, strategy, rate, seed, phase, and what came of it.
"""

import contextlib
import csv
import dataclasses
import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kadence  # before Keras: it picks an installed backend

# isort: split
from problems import MIDDLE, N_TEST, make_problem, rate_at

from kadence._engines import ProcessEngine
from kadence._problem import Problem
from kadence._statistics import grain_of, interval, probability
from kadence._trial_plan import SEARCH_SEED
from kadence._trials import Outcome, Trial

RESULTS = Path(__file__).with_name("results") / "trials.csv"
COLUMNS = ("problem", "strategy", "settings", "rate", "seed", "phase", "status", "validation", "test", "seconds")
COLUMNS += ("backend", "val_loss", "val_curve", "reason")
#: Smallest difference in accuracy on the pictures of `test`.
GRAIN = grain_of("accuracy", N_TEST)
#: A worker is replaced after so many trials: TensorFlow keeps some memory of each model.
TRIALS_PER_WORKER = 20


class OutOfTimeError(Exception):
    """The budget of time is used up."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A finished trial."""

    problem: str
    strategy: str
    settings: str
    rate: float
    seed: int
    phase: str
    status: str
    validation: float | None
    test: float | None
    seconds: float
    backend: str
    val_loss: float | None
    val_curve: str
    reason: str

    @classmethod
    def of(cls, trial: Trial, outcome: Outcome) -> "Row":
        """The row of a trial."""
        losses, curve = (outcome.curves.get(name, ()) for name in ("val_loss", "val_accuracy"))
        return cls(
            *(trial.problem, trial.strategy.name, settings_of(trial.strategy), trial.rate, trial.seed, trial.phase),
            *(outcome.status, outcome.validation, outcome.test, round(outcome.seconds, 1)),
            str(outcome.versions.get("backend")),
            losses[-1] if losses else None,
            " ".join("nan" if value is None else f"{value:.3f}" for value in curve),
            outcome.reason,
        )

    @property
    def key(self) -> tuple[str, ...]:
        """What tells a trial from the others."""
        return key_of(self.problem, self.settings, self.rate, self.seed, self.phase)

    def make_strategy(self) -> kadence.Strategy:
        """The strategy of the trial."""
        return kadence.Strategy.from_json(json.dumps({"name": self.strategy, **json.loads(self.settings)}))

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self.problem.split("/")[0]

    @property
    def network(self) -> str:
        """Name of the network."""
        return self.problem.split("/")[1]


def settings_of(chosen: kadence.Strategy) -> str:
    """The fields of a strategy that are not the default ones, as JSON."""
    usual = kadence.Strategy("usual").content
    return json.dumps({name: value for name, value in chosen.content.items() if value != usual[name]}, sort_keys=True)


def key_of(problem: str, settings: str, rate: float, seed: int, phase: str) -> tuple[str, ...]:
    """The key of a row."""
    return problem, settings, f"{rate:.4g}", str(seed), phase


class Results:
    """The finished trials in a CSV, one row each, which grows."""

    def __init__(self, path: Path = RESULTS):
        self.path = path
        self.rows: dict[tuple[str, ...], Row] = {}
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                for cells in csv.DictReader(file):
                    row = _row(cells)
                    self.rows[row.key] = row

    def find(self, trial: Trial) -> Row | None:
        """The row of a trial, if it is finished."""
        return self.rows.get(key_of(trial.problem, settings_of(trial.strategy), trial.rate, trial.seed, trial.phase))

    def add(self, row: Row) -> None:
        """Keep a row: it is on the disk when this returns."""
        self.rows[row.key] = row
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            cells = dataclasses.asdict(row)
            writer.writerow({name: _text(cells[name]) for name in COLUMNS})
            file.flush()
            os.fsync(file.fileno())

    def judged(self, data: str, network: str, name: str) -> dict[int, Row]:
        """Seed -> row of the judged trials of a strategy."""
        wanted = (data, network, name, "judge", "done")
        rows = [r for r in self.rows.values() if (r.data, r.network, r.strategy, r.phase, r.status) == wanted]
        return {row.seed: row for row in sorted(rows, key=lambda row: row.seed)}


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(cells: dict[str, str]) -> Row:
    numbers = {name: float(cells[name]) if cells[name] else None for name in ("validation", "test", "val_loss")}
    exact = {"rate": float(cells["rate"]), "seed": int(cells["seed"]), "seconds": float(cells["seconds"])}
    return Row(**{**cells, **numbers, **exact})  # type: ignore[arg-type]


class Bench:
    """Runs the trials that are not in the results, one at a time, in a worker process."""

    def __init__(self, root: Path, results: Results, minutes: float = float("inf")):
        self.root, self.results = root, results
        self._end = time.monotonic() + 60 * minutes
        self._engine: ProcessEngine | None = None
        self._of, self._n_trials = "", 0

    def close(self) -> None:
        """End the worker."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def run(self, data: str, network: str, chosen: kadence.Strategy, rate: float, seed: int, phase: str) -> Row:
        """The row of a trial, which is trained unless it is in the results."""
        name, problem = make_problem(self.root, data, network)
        trial = Trial(chosen, rate, seed, phase, name)
        if (row := self.results.find(trial)) is not None:
            return row
        self.check_time()
        row = Row.of(trial, self._outcome(name, problem, trial))
        self.results.add(row)
        shown = f"{row.validation or 0:.3f}" + ("" if row.test is None else f"  test {row.test:.3f}")
        print(f"{data:10} {network:5} {chosen.name:26} {rate:<8.3g} {phase} {seed % SEARCH_SEED}", end="  ")
        print(f"{row.status} {shown}  {row.seconds:.0f} s {row.reason}", flush=True)
        return row

    def check_time(self) -> None:
        """Raise `OutOfTimeError` if the budget is used up."""
        if time.monotonic() > self._end:
            raise OutOfTimeError

    def _outcome(self, name: str, problem: Problem, trial: Trial) -> Outcome:
        if self._of != name or self._n_trials >= TRIALS_PER_WORKER:
            self.close()
        if self._engine is None:
            self._engine, self._of, self._n_trials = ProcessEngine(problem, jobs=1), name, 0
        self._n_trials += 1
        self._engine.submit(trial)
        while not (finished := self._engine.wait(1.0)):
            pass
        return finished[0][1]

    def best_rate(self, data: str, network: str, chosen: kadence.Strategy, near: float | None = None) -> float:
        """The rate of a strategy with the best accuracy on `val`, sought from `near` on."""
        trial = functools.partial(self.run, data, network, chosen, seed=SEARCH_SEED, phase="search")
        return self.best_of(lambda rate: trial(rate=rate), chosen.optimizer, near)

    def best_of(self, run: Callable[[float], Row], optimizer: str, near: float | None = None) -> float:
        """The rate with the best accuracy on `val`: of three half a decade apart, and beyond while an end is best."""
        middle = MIDDLE[optimizer] if near is None else round(2 * math.log10(near))
        tried: dict[int, tuple[float, float]] = {}
        while True:
            for place in (middle, middle - 1, middle + 1) if not tried else (min(tried) - 1, max(tried) + 1):
                best = max(tried, key=lambda place: tried[place]) if tried else place
                if tried and abs(best - place) != 1:
                    continue
                row = run(rate_at(place))
                tried[place] = (row.validation or 0.0, -(row.val_loss or 0.0)) if row.status == "done" else (-1.0, 0.0)
            best = max(tried, key=lambda place: tried[place])
            if min(tried) < best < max(tried):
                return rate_at(best)

    def judge(self, data: str, network: str, chosen: kadence.Strategy, rate: float, seed: int) -> Row:
        """A trial that is judged on `test`."""
        return self.run(data, network, chosen, rate, seed, "judge")


@contextlib.contextmanager
def running(root: Path, results: Results, minutes: float) -> Iterator[Bench]:
    """A `Bench`, of which Ctrl-C and the end of its time leave the results whole, to go on from."""
    bench = Bench(root, results, minutes)
    try:
        yield bench
    except KeyboardInterrupt:
        print("Stopped. The same command goes on.", flush=True)
    except OutOfTimeError:
        print("The time is used up. The same command goes on.", flush=True)
    finally:
        bench.close()


def gains_over(base: dict[int, Row], rows: dict[int, Row]) -> list[float]:
    """How much better `rows` are than `base` in accuracy on `test`, for the seeds that both have."""
    return [(row.test or 0.0) - (base[seed].test or 0.0) for seed, row in rows.items() if seed in base]


def figures(rows: dict[int, Row], base: dict[int, Row]) -> str:
    """Mean and 95% interval of the accuracy on `test`, and of the difference to `base`, seed by seed."""
    values = [row.test or 0.0 for row in rows.values()]
    text = f"{sum(values) / len(values):.3f} {between(values, '')} ({len(values)} seeds)"
    gains = gains_over(base, rows)
    if rows == base or not gains:
        return text
    sure = probability(gains, GRAIN)
    said = f"{text}  {sum(gains) / len(gains):+.3f} {between(gains, '+')}"
    return said if sure is None else f"{said} P(better) {sure:.3f}"


def between(values: list[float], sign: str) -> str:
    """The 95% interval of their mean, or nothing where there is none."""
    ends = interval(values, GRAIN)
    return "" if ends is None else f"[{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"
