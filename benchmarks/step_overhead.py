"""What a learning rate per group costs: time per step of `model.fit`, beside a plain optimizer at a constant rate.

    KERAS_BACKEND=jax python benchmarks/step_overhead.py

Every variant trains a model of its own, alike in all but what is measured, on the same batches, one epoch per `fit`.
All are warmed up, so that nothing compiles while the clock runs. Then they take turns, in an order that is turned
round every round, with Python's garbage collector off. A ratio is that of two neighbours in one round; shown are the
median over the rounds and the range. The baseline is there twice: how far its twin is from 1 is the noise.
"""

# backends: jax tensorflow torch

import argparse
import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
import numpy as np

TARGET = 1.03
BASELINE = "plain optimizer, constant rate"
TWIN = "the same again (the noise)"
THREE_GROUPS = "3 groups + WarmRestarts + RateRecorder"
RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """A model, the layers at which its second and third group begin, and how much of it to run."""

    name: str
    build: Callable[[], keras.Model]
    split: Sequence[str]
    batch_size: int
    n_steps: int
    rounds: int


@dataclass(frozen=True)
class Variant:
    """A compiled model, and the callbacks that it is trained with; each `fit` has new ones."""

    model: keras.Model
    make_callbacks: Callable[[], list[keras.callbacks.Callback]]


class RateSetter(keras.callbacks.Callback):
    """Sets the rate before every batch, as schedules were done before they ran in the compiled step."""

    def __init__(self, rates: np.ndarray):
        super().__init__()
        self.rates = rates.tolist()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: D102
        self.model.optimizer.learning_rate = self.rates[batch]


def dense_model() -> keras.Model:
    layers = [keras.layers.Dense(128, activation="relu", name=f"dense_{i}") for i in range(1, 5)]
    return keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10, name="head")])


def lite0_model() -> keras.Model:
    backbone = kadence.backbones.efficientnet_lite0(image_size=64, weights=None)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    return keras.Model(backbone.input, keras.layers.Dense(10, name="head")(x))


def restarts() -> kadence.Schedule:
    return kadence.WarmRestarts(RATE, first_cycle_steps=50, cycle_mult=2)


def multi_optimizer(groups: kadence.LayerGroups) -> keras.optimizers.Optimizer:
    optimizers = [
        keras.optimizers.Adam(kadence.scale(restarts(), factor)) for factor in kadence.layer_decay(groups, 0.1)
    ]
    owner = {
        id(variable): optimizer
        for group, optimizer in zip(groups, optimizers, strict=True)
        for variable in group.variables
    }
    return keras.optimizers.MultiOptimizer(lambda variable: owner[id(variable)])


def make_variants(case: Case) -> dict[str, Variant]:
    """Name -> variant; the baseline comes first."""

    def variant(make_optimizer: Callable[[keras.Model], Any], *make_callbacks: Callable[[], Any]) -> Variant:
        keras.utils.set_random_seed(0)
        model = case.build()
        model.compile(make_optimizer(model), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return Variant(model, lambda: [make() for make in make_callbacks])

    def plain(model: keras.Model) -> Any:
        return keras.optimizers.Adam(RATE)

    def grouped(make_groups: Callable[[keras.Model], kadence.LayerGroups], decay: float) -> Callable[..., Any]:
        def make(model: keras.Model) -> Any:
            groups = make_groups(model)
            multipliers = kadence.layer_decay(groups, decay)
            return kadence.DiscriminativeOptimizer(keras.optimizers.Adam(restarts()), groups, multipliers)

        return make

    def three(model: keras.Model) -> kadence.LayerGroups:
        return kadence.split(model, at=case.split)

    n_layers = sum(bool(layer.weights) for layer in case.build().layers)
    variants = {
        BASELINE: variant(plain),
        TWIN: variant(plain),
        THREE_GROUPS: variant(grouped(three, 0.1), kadence.RateRecorder),
        f"{n_layers} groups, one per layer, + the same two": variant(
            grouped(lambda model: kadence.split_evenly(model, n_layers), 0.95), kadence.RateRecorder
        ),
        "a callback that sets the rate per batch": variant(plain, lambda: RateSetter(restarts().sample(case.n_steps))),
    }
    if hasattr(keras.optimizers, "MultiOptimizer"):  # Keras 3.15
        variants["Keras MultiOptimizer, 3 groups, + WarmRestarts"] = variant(
            lambda model: multi_optimizer(three(model))
        )
    return variants


def make_data(case: Case, model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n = case.n_steps * case.batch_size
    return rng.normal(size=(n, *model.input_shape[1:])).astype("float32"), rng.integers(10, size=n)


def seconds_per_step(case: Case, variant: Variant, x: np.ndarray, y: np.ndarray) -> float:
    callbacks = variant.make_callbacks()
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        variant.model.fit(x, y, batch_size=case.batch_size, shuffle=False, verbose=0, callbacks=callbacks)
        return (time.perf_counter() - start) / case.n_steps
    finally:
        gc.enable()


def measure(case: Case, variants: dict[str, Variant]) -> dict[str, list[float]]:
    """Name of a variant -> seconds per step in each round."""
    x, y = make_data(case, variants[BASELINE].model)
    for variant in variants.values():
        seconds_per_step(case, variant, x, y)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(case.rounds):
        names = list(variants)
        for name in names if turn % 2 == 0 else reversed(names):
            times[name].append(seconds_per_step(case, variants[name], x, y))
    return times


def state(variant: Variant) -> tuple[int, int]:
    """Number and bytes of the optimizer's variables."""
    variables = variant.model.optimizer.variables
    sizes = [math.prod(v.shape) * np.dtype(keras.backend.standardize_dtype(v.dtype)).itemsize for v in variables]
    return len(variables), sum(sizes)


def report(case: Case, variants: dict[str, Variant], times: dict[str, list[float]]) -> None:
    print(f"\n{case.name}, Adam, batches of {case.batch_size}, {case.n_steps} steps a fit, {case.rounds} rounds")
    print(f"  {'':50} {'ms/step':>8} {'ratio':>7}   range")
    for name, seconds in times.items():
        ratios = [own / base for own, base in zip(seconds, times[BASELINE], strict=True)]
        text = f"{statistics.median(ratios):7.3f}   {min(ratios):.3f}..{max(ratios):.3f}" if name != BASELINE else ""
        print(f"  {name:50} {1e3 * statistics.median(seconds):8.3f} {text}".rstrip())
    got = statistics.median(o / b for o, b in zip(times[THREE_GROUPS], times[BASELINE], strict=True))
    print(f"  target with 3 groups: at most {TARGET}; got {got:.3f}: {'met' if got <= TARGET else 'missed'}")
    (n_plain, plain_bytes), (n_grouped, grouped_bytes) = state(variants[BASELINE]), state(variants[THREE_GROUPS])
    print(f"  optimizer state: plain {n_plain} variables, {plain_bytes:,} bytes;", end=" ")
    print(f"3 groups {n_grouped} variables, {grouped_bytes - plain_bytes:+,} bytes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few short rounds, to see that it runs")
    parser.add_argument("--rounds", type=int, help="rounds with the dense model; a sixth of it with EfficientNet-Lite0")
    parser.add_argument("--only", default="", metavar="MODEL", help="a part of the model's name")
    parser.add_argument("--brief", action="store_true", help="the plain optimizer, its twin and 3 groups only")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (3 if arguments.quick else 41)
    n_steps = (50, 2) if arguments.quick else (100, 10)
    cases = [
        Case("Dense, 4 layers of 128", dense_model, ["dense_3", "head"], 32, n_steps[0], rounds),
        Case(
            "EfficientNet-Lite0, 64 px", lite0_model, ["block5_0_expand_conv", "pool"], 8, n_steps[1], -(-rounds // 6)
        ),
    ]
    print(f"Time per step of model.fit on {keras.backend.backend()}; Keras {keras.__version__},", end=" ")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    for case in cases:
        if arguments.only.lower() not in case.name.lower():
            continue
        variants = make_variants(case)
        if arguments.brief:
            variants = {name: variants[name] for name in (BASELINE, TWIN, THREE_GROUPS)}
        report(case, variants, measure(case, variants))


if __name__ == "__main__":
    main()
