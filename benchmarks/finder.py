"""What a range test costs beside `fit`, how much its suggestion varies, and how much memory it takes.

    KERAS_BACKEND=tensorflow python benchmarks/finder.py

Cost: wall time of `lr_range_test` over that of `model.fit` for as many steps, each on a fresh model, so that compiling
is in both. On TensorFlow Keras's `fit` traces its step twice where the optimizer is fresh; `fit` with an optimizer that
was built beforehand stands beside it. All take turns, in an order that is turned round every round; shown are the
median of the ratios within a round and the range. Spread: the suggestion of each rule over seeds, on one dense model
and its data, and over lengths of the sweep. Memory: the largest resident size of a process that tests ResNet50 with
random weights.
"""

# backends: tensorflow jax torch

import argparse
import gc
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
import numpy as np

TARGET, MEMORY_TARGET = 1.15, 4.0
RULES = ("valley", "steepest", "minimum", "slide")
#: A sweep that goes through: low rates, and no end before the last step.
THROUGH = {"lr_min": 1e-7, "lr_max": 1e-3, "stop_factor": 1e9}


def dense_model() -> keras.Model:
    layers = [keras.layers.Dense(128, activation="relu", name=f"dense_{i}") for i in range(1, 5)]
    return keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10, name="head")])


def lite0_model() -> keras.Model:
    backbone = kadence.backbones.efficientnet_lite0(image_size=64, weights=None)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    return keras.Model(backbone.input, keras.layers.Dense(10, name="head")(x))


def compiled(build: Callable[[], keras.Model], seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = build()
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def noise(model: keras.Model, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, *model.input_shape[1:])).astype("float32"), rng.integers(10, size=n)


def blobs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes that overlap, in 64 dimensions."""
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=n)
    return (rng.normal(size=(10, 64))[y] * 0.6 + rng.normal(size=(n, 64))).astype("float32"), y


def seconds(run: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def cost(name: str, build: Callable[[], keras.Model], batch_size: int, n_steps: int, rounds: int) -> None:
    def fit(built: bool) -> float:
        model = compiled(build)
        if built:
            model.optimizer.build(model.trainable_variables)
        x, y = noise(model, n_steps * batch_size)
        return seconds(lambda: model.fit(x, y, batch_size=batch_size, verbose=0))

    def test() -> float:
        model = compiled(build)
        x, y = noise(model, n_steps * batch_size)
        return seconds(lambda: kadence.lr_range_test(model, x, y, batch_size=batch_size, n_steps=n_steps, **THROUGH))

    runs: dict[str, Callable[[], float]] = {"fit": lambda: fit(False), "built": lambda: fit(True), "test": test}
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {side: [] for side in runs}
    for turn in range(rounds):
        for side in runs if turn % 2 == 0 else reversed(runs):
            times[side].append(runs[side]())
    medians = {side: statistics.median(values) for side, values in times.items()}
    print(f"{name}, batches of {batch_size}, {n_steps} steps, {rounds} rounds, compiling included")
    print(f"  range test {medians['test']:.2f} s", flush=True)
    for side, said in (("fit", "fit"), ("built", "fit with an optimizer built beforehand")):
        ratios = [own / base for base, own in zip(times[side], times["test"], strict=True)]
        got = statistics.median(ratios)
        print(f"  {said} {medians[side]:.2f} s, ratio {got:.3f} ({min(ratios):.3f}..{max(ratios):.3f});", end=" ")
        print(f"target at most {TARGET}: {'met' if got <= TARGET else 'missed'}", flush=True)


def spread(seeds: int, lengths: tuple[int, ...]) -> None:
    model = compiled(dense_model)
    x, y = blobs(2048)
    found: dict[int, list[kadence.RangeTest]] = {
        n_steps: [kadence.lr_range_test(model, x, y, n_steps=n_steps, seed=seed) for seed in range(seeds)]
        for n_steps in lengths
    }
    print(f"Suggestions over {seeds} seeds, dense model, 2,048 samples of 10 blobs: median (lowest..highest)")
    for rule in RULES:
        cells = []
        for n_steps, tests in found.items():
            rates = [rate for test in tests if (rate := test.suggest(rule).rate) is not None]
            text = f"{statistics.median(rates):.1e} ({min(rates):.1e}..{max(rates):.1e})" if rates else "none"
            cells.append(f"{n_steps} steps {text}" + (f", {seeds - len(rates)} without" if len(rates) < seeds else ""))
        print(f"  {rule:9} {'; '.join(cells)}", flush=True)


def memory() -> None:
    """Of this process: run it in one of its own."""
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    x, y = noise(model, 32)
    kadence.lr_range_test(model, x, y, batch_size=8, n_steps=20, n_runs=2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"ResNet50, {model.count_params():,} weights, Adam, 2 runs of 20 steps: at most {peak:.2f} GiB;", end=" ")
    print(f"target below {MEMORY_TARGET:g}: {'met' if peak < MEMORY_TARGET else 'missed'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few short rounds, to see that it runs")
    parser.add_argument("--only", choices=("cost", "spread", "memory"), help="one part of it")
    arguments = parser.parse_args()
    quick = arguments.quick
    print(f"Range tests on {keras.backend.backend()}; Keras {keras.__version__}, Python {platform.python_version()},")
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}", flush=True)
    if arguments.only in (None, "cost"):
        cost("Dense, 4 layers of 128", dense_model, 32, 50 if quick else 100, 1 if quick else 7)
        cost("EfficientNet-Lite0, 64 px", lite0_model, 8, 20 if quick else 100, 1 if quick else 3)
    if arguments.only in (None, "spread"):
        spread(2 if quick else 10, (50,) if quick else (50, 100, 300))
    if arguments.only == "memory":
        memory()
    elif arguments.only is None and not quick:
        subprocess.run([sys.executable, __file__, "--only", "memory"], check=True)


if __name__ == "__main__":
    main()
