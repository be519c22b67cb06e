"""What rates per layer group give, near ImageNet and far from it, beside one rate for all and fixed ladders.

    KERAS_BACKEND=tensorflow python benchmarks/rates_per_group.py --data FOLDER

FOLDER holds two data sets, `grocery` (near) and `fashion` (far), each with `train`, `val` and `test` folders; without
it, the results that were measured before are printed. All train EfficientNet-Lite0 at 64 px, BatchNorm frozen, for 8
epochs on the same 640 pictures, with Adam, a warm-up of a tenth and a cosine, without augmentation. A fixed ladder gets
the best rate of a grid half a decade apart, which grows while the best is its first or last, judged with one seed on
300 pictures of `val`. The rates that Kadence finds, by a range test for each group and by a test of the three ladders
on `val`, are found once, with the seed of the grid. Each way is then trained with the same five other seeds and judged
on 1,000 pictures of `test`. Results are appended to a CSV as they come, and not measured again.
"""

# backends: tensorflow

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
import numpy as np
from problems import LADDERS, SEEDS, make_problem, rate_at, strategy
from trials import Bench, Results, figures, running

from kadence._trial_plan import SEARCH_SEED

DATA, NETWORK = ("grocery", "fashion"), "lite0"
FIXED = {ladder: strategy("adam", ladder, "cosine") for ladder in LADDERS}
#: Base rates of the ladder test, and its length in optimizer steps: half of a run.
TRIED, TEST_STEPS = [rate_at(place) for place in (-7, -6, -5)], 80
Arrays = tuple[np.ndarray, np.ndarray]


def range_test(model: keras.Model, train: Arrays, validation: Arrays) -> list[float]:
    """Rates by a range test for each group while the others train on."""
    found = kadence.lr_range_test(
        model, *train, batch_size=32, lr_min=1e-6, lr_max=1.0, per_group=True, seed=SEARCH_SEED
    )
    return found.suggest().learning_rates(fallback=model.optimizer.learning_rates)


def ladder_test(model: keras.Model, train: Arrays, validation: Arrays) -> list[float]:
    """Rates by short trainings with the three ladders."""
    found = kadence.lr_ladder_test(
        model,
        *train,
        validation_data=validation,
        rates=TRIED,
        batch_size=32,
        n_steps=TEST_STEPS,
        seed=SEARCH_SEED,
    )
    return found.learning_rates()


#: How a test of Kadence finds the rates.
FOUND: dict[str, Callable[..., list[float]]] = {"ladder test": ladder_test, "range test per group": range_test}


def find(bench: Bench, data: str, way: str, base: float) -> tuple[kadence.Strategy, float]:
    """The strategy and base rate that a test finds; before it, all groups have the rate `base`."""
    for row in bench.results.judged(data, NETWORK, way).values():
        return row.make_strategy(), row.rate
    _, problem = make_problem(bench.root, data, NETWORK)
    model, groups = problem.build(SEARCH_SEED)
    optimizer = kadence.DiscriminativeOptimizer(keras.optimizers.Adam(base), groups, lr_multipliers=[1.0] * len(groups))
    model.compile(optimizer, loss="sparse_categorical_crossentropy")
    train, validation = ((x.astype(np.float32), y) for x, y in (problem.train.arrays, problem.validation.arrays))
    start = time.perf_counter()
    rates = FOUND[way](model, train, validation)
    print(
        f"{data} {way}: {' '.join(f'{rate:.3g}' for rate in rates)} in {time.perf_counter() - start:.0f} s", flush=True
    )
    factors = tuple(float(f"{rate / rates[-1]:.4g}") for rate in rates)
    chosen = kadence.Strategy(way, lr_multipliers=factors, schedule="cosine", warmup="10%")
    return chosen, float(f"{rates[-1]:.4g}")


def measure(bench: Bench, names: Sequence[str]) -> None:
    for data in names:
        best = {way: (chosen, bench.best_rate(data, NETWORK, chosen)) for way, chosen in FIXED.items()}
        for seed in SEEDS:
            for chosen, rate in best.values():
                bench.judge(data, NETWORK, chosen, rate, seed)
    for way in FOUND:
        for data in names:
            chosen, rate = find(bench, data, way, bench.best_rate(data, NETWORK, FIXED["one rate"]))
            for seed in SEEDS:
                bench.judge(data, NETWORK, chosen, rate, seed)


def lines(results: Results) -> Iterator[str]:
    for data in DATA:
        yield f"{data}: accuracy on test, mean and 95% interval; difference to one rate, seed by seed"
        base = results.judged(data, NETWORK, FIXED["one rate"].name)
        for way in (*FIXED, *FOUND):
            rows = results.judged(data, NETWORK, FIXED[way].name if way in FIXED else way)
            if rows:
                row = next(iter(rows.values()))
                factors = layer_factors(row.make_strategy())
                rates = " ".join(f"{row.rate * factor:.2g}" for factor in factors)
                yield f"  {way:22} {rates:24} {figures(rows, base)}"


def layer_factors(chosen: kadence.Strategy) -> tuple[float, ...]:
    decay = chosen.layer_decay
    return chosen.lr_multipliers or (decay**2, decay, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("KADENCE_DATA"), help="folder of the data sets")
    parser.add_argument("--only", nargs="+", default=DATA, choices=DATA, help="data sets")
    parser.add_argument("--budget-minutes", type=float, default=float("inf"), help="begin no trial after so long")
    options = parser.parse_args()
    results = Results()
    if options.data is None:
        print("No --data: these are the results that were measured before.")
    else:
        with running(Path(options.data), results, options.budget_minutes) as bench:
            measure(bench, options.only)
    print("\n".join(lines(results)))


if __name__ == "__main__":
    main()
