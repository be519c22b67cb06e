"""Strategies against each other on one's own data: the same budget for each, and a verdict with its uncertainty."""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from kadence import _checks
from kadence._compare_checks import check_numbers, check_problem, check_rates, check_strategies, mode_of
from kadence._engines import Engine, LocalEngine, ProcessEngine
from kadence._problem import Problem, make_data
from kadence._ray_engine import RayEngine
from kadence._store import Store
from kadence._trial_plan import TrialPlan
from kadence._trials import Outcome, Trial
from kadence.comparison import Comparison
from kadence.strategies import Strategy

ENGINES = ("local", "ray")

#: Called after each trial with it, its outcome, the number of finished trials, and that of all.
OnTrial = Callable[[Trial, Outcome, int, int], None]


def compare(
    build_model: Callable[[], Any],
    train: Any,
    validation: Any,
    strategies: Sequence[Strategy | str],
    *,
    epochs: int,
    test: Any = None,
    seeds: int = 5,
    search: int = 5,
    rates: Sequence[float] | None = None,
    batch_size: int = 32,
    loss: str = "sparse_categorical_crossentropy",
    metric: str = "accuracy",
    mode: str | None = None,
    target: float | None = None,
    engine: str = "local",
    jobs: int | None = None,
    ray_address: str | None = None,
    store: str | os.PathLike[str] | None = None,
    retry_failed: bool = False,
    on_trial: OnTrial | None = None,
) -> Comparison:
    """Strategies against each other, on the same data, in the same orders, from the same seeds, for the same time.

    Each strategy, the first one, which is the baseline, too, tries as many base rates on the validation data, from a
    seed of its own; the best is then judged on the test data from fresh seeds. What counts is the metric after the last
    epoch. Finished trials are kept in `store`: the same call goes on where it was stopped, several processes may share
    the file, and more seeds or strategies add to what is there.

    Args:
        build_model: Makes a new built `keras.Model`, not compiled, or the pair of one and its `LayerGroups`, without
            arguments. Random weights have to come from Keras's seed, which is set before each call. With `jobs` or
            Ray, a function of a module that other processes can import, or a `functools.partial` of one.
        train: Training data: arrays (x, y) or (x, y, sample_weight), an `ImageBatches`, or another dataset of batches
            that can be gone through again. With `jobs` or Ray, arrays, or images that fit into memory.
        validation: Data of the same kind, to choose the rates on.
        strategies: At least two `Strategy` records or names such as "constant", "discriminative+cosine".
        epochs: Length of each trial, in epochs. Integer >= 1.
        test: Data of the same kind, to judge on. None for the validation data, and the result says so.
        seeds: Number of seeds to judge with. Integer >= 1; one gives no interval, six and more an honest one.
        search: Number of rates that each strategy tries, half a decade apart. Integer >= 1; with 1 nothing is chosen.
        rates: Instead, the base rates themselves, for all strategies. Floats > 0.
        batch_size: Rows in a batch, for arrays. Integer >= 1.
        loss: Name of the Keras loss.
        metric: Name of the Keras metric, or "loss".
        mode: "max" if more of the metric is better, "min" if less is; None to tell by its name.
        target: Value of the metric whose time is reported; None for what the baseline reaches in the mean.
        engine: "local" for this machine, or "ray".
        jobs: Worker processes, or trials that Ray runs at a time. Integer >= 1. None for one trial after another in
            this process, or, with Ray, as many as there are cores.
        ray_address: Address of a Ray cluster, or "auto" for the one that runs here. None starts one.
        store: SQLite file that keeps finished trials, or None for memory.
        retry_failed: Whether trials that failed before, as for want of memory, are tried again.
        on_trial: Called after each trial with it, its outcome, the number of finished trials, and that of all.

    Returns:
        `Comparison`.

    Raises:
        ValueError: If an argument is out of range, a strategy is unknown or twice there, validation and test data share
            rows, a strategy, the data, the loss or the metric do not fit the model or the length of the run, or every
            trial failed.
        TypeError: If an argument has the wrong type.
        ImportError: If SciPy is not installed, or Ray with `engine="ray"`.

    Example:
        >>> comparison = kadence.compare(
        ...     build_model, (x, y), (x_val, y_val), ["constant", "cosine", "discriminative+cosine"],
        ...     epochs=5, test=(x_test, y_test), store="trials.sqlite",
        ... )
        >>> print(comparison)
    """
    _checks.extra("scipy", "compare", "Comparing strategies")
    if not callable(build_model):
        raise TypeError(_checks.sentence("build_model", "be a function without arguments", build_model))
    if on_trial is not None and not callable(on_trial):
        raise TypeError(_checks.sentence("on_trial", "be a function, or None", on_trial))
    retry_failed = _checks.boolean("retry_failed", retry_failed)
    make_engine = _engine_maker(engine, jobs, ray_address)
    chosen = check_strategies(strategies)
    problem = Problem(
        build_model,
        *make_data(train, validation, test, _checks.integer("batch_size", batch_size, minimum=1, unit="in rows")),
        _checks.integer("epochs", epochs, minimum=1, unit="in epochs"),
        loss,
        metric,
    )
    counts = check_numbers(seeds, search)
    apart = engine == "ray" or jobs is not None
    plan = TrialPlan(
        chosen,
        *counts,
        None if rates is None else check_rates(rates),
        mode_of(metric, mode),
        check_problem(problem, chosen, other_processes=apart, stored=store is not None),
    )
    if plan.seeds == 1:
        warnings.warn("`seeds` is 1: no interval, and no difference that can be told from chance.", stacklevel=2)
    target = None if target is None else _checks.number("target", target)
    with Store(store) as trials:
        if retry_failed:
            trials.forget_failed(plan.known(trials.outcomes(plan.known({}))))
        outcomes = _run(plan, lambda: make_engine(problem), trials, on_trial)
    return plan.comparison(outcomes, problem, target)


def _engine_maker(engine: str, jobs: int | None, ray_address: str | None) -> Callable[[Problem], Engine]:
    _checks.one_of("engine", engine, ENGINES)
    if jobs is not None:
        jobs = _checks.integer("jobs", jobs, minimum=1, maximum=10_000, unit="trials at a time")
    if engine == "ray":
        _checks.extra("ray", "ray", "The engine 'ray'")
        return lambda problem: RayEngine(problem, ray_address, jobs)
    if ray_address is not None:
        raise ValueError(_checks.sentence("ray_address", "be None unless the engine is 'ray'", ray_address))
    return LocalEngine if jobs is None else lambda problem: ProcessEngine(problem, jobs)


def _run(
    plan: TrialPlan, make_engine: Callable[[], Engine], store: Store, on_trial: OnTrial | None
) -> dict[str, Outcome]:
    """Run what is not finished, until all is: here, or in other processes that share the store."""
    outcomes: dict[str, Outcome] = {}
    engine: Engine | None = None
    running = 0
    try:
        while due := _due(plan, store, outcomes):
            engine = engine or make_engine()
            while engine.free_slots() > 0 and (trial := store.claim(due)) is not None:
                engine.submit(trial)
                running += 1
            if not running:
                time.sleep(0.5)
                continue
            for trial, outcome in engine.wait(1.0):
                running -= 1
                store.finish(trial, outcome)
                outcomes[trial.key] = outcome
                if on_trial is not None:
                    on_trial(trial, outcome, len(outcomes), plan.n_trials)
    finally:
        if engine is not None:
            engine.close()
    return outcomes


def _due(plan: TrialPlan, store: Store, outcomes: dict[str, Outcome]) -> list[Trial]:
    """The trials to be done next; takes over into `outcomes` what the store has."""
    while True:
        missing = [trial for trial in plan.known(outcomes) if trial.key not in outcomes]
        found = store.outcomes(missing)
        if not found:
            return missing
        outcomes |= found
