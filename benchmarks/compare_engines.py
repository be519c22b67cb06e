"""Speed-up of a comparison with two workers over one, by processes and, where Ray is installed, by Ray.

Both sides run the same trials in worker processes of the same kind, start included; a side is the median of its rounds.
A worker has its share of the cores, so that on a machine whose cores one trial fills, two workers can gain little.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import kadence

WORKERS = (1, 2)


def build_network() -> keras.Model:
    layers = [keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu") for _ in range(3)]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, activation="softmax")]
    return keras.Sequential([keras.Input((32, 32, 3)), *layers, *head])


def make_data(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 32, 32, 3)).astype("float32"), rng.integers(10, size=n)


def seconds(engine: str, jobs: int, n_seeds: int, epochs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        kadence.compare(
            build_network,
            make_data(2_000, 0),
            make_data(200, 1),
            ["constant", "cosine"],
            test=make_data(200, 2),
            epochs=epochs,
            seeds=n_seeds,
            rates=[1e-3],
            engine=engine,
            jobs=jobs,
            store=Path(folder) / "trials.sqlite",
        )
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the order of the sides changes")
    parser.add_argument("--seeds", type=int, default=4, help="half the number of trials")
    parser.add_argument("--epochs", type=int, default=8, help="length of a trial in epochs")
    parser.add_argument("--engines", nargs="+", default=["local", "ray"], help="local, ray")
    arguments = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{2 * arguments.seeds} trials on {keras.backend.backend()}, {os.cpu_count()} cores, load before: {load}")
    for engine in arguments.engines:
        if engine == "ray" and importlib.util.find_spec("ray") is None:
            print("ray is not installed")
            continue
        times: dict[int, list[float]] = {jobs: [] for jobs in WORKERS}
        for turn in range(arguments.rounds):
            for jobs in WORKERS if turn % 2 == 0 else reversed(WORKERS):
                times[jobs].append(seconds(engine, jobs, arguments.seeds, arguments.epochs))
        ratios = [one / two for one, two in zip(times[1], times[2], strict=True)]
        medians = {jobs: statistics.median(values) for jobs, values in times.items()}
        print(f"{engine:6} 1 worker {medians[1]:6.1f} s, 2 workers {medians[2]:6.1f} s", end="  ")
        print(f"speed-up {statistics.median(ratios):.2f}  range {min(ratios):.2f}..{max(ratios):.2f}", flush=True)


if __name__ == "__main__":
    # Workers import this file by its name, which `__main__` is not.
    from compare_engines import main as run

    run()
