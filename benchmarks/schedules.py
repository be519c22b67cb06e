"""What a schedule costs: a million rates at once, and one rate in a compiled step, beside PyTorch, optax and Keras.

    KERAS_BACKEND=jax python benchmarks/schedules.py

Sampling: `sample(1_000_000)`, beside a loop over PyTorch's scheduler (over fewer steps, then scaled up) and optax's
schedule mapped over all steps at once, as people call it and compiled beforehand (float32 on all cores; `sample` is
float64 in NumPy on one). One call: a compiled function of the step, beside Keras's own schedule, in alternation,
called from Python and, to see what hides behind that, in a compiled loop; on PyTorch, which is eager, a call as `fit`
makes it. Keras's schedule is there twice: how far its twin is from 1 is the noise. Times are those of the processor,
summed over its cores, which other programs disturb least; the time on the clock stands in brackets.
"""

# backends: jax tensorflow torch

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import kadence  # before Keras: it picks an installed backend

# isort: split
import keras
import numpy as np

N_SAMPLES = 1_000_000
N_LOOP = 20_000
CALL_TARGET = 1.05


class Time(NamedTuple):
    """Seconds of one round: of the processor, all cores together, and on the clock."""

    cpu: float
    clock: float


def timed(function: Callable[[], Any]) -> Time:
    clock, cpu = time.perf_counter(), time.process_time()
    function()
    return Time(time.process_time() - cpu, time.perf_counter() - clock)


def alternate(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Time]]:
    """Name -> time of each round; the functions take turns, in an order that is turned round every round."""
    for function in functions.values():
        function()
    times: dict[str, list[Time]] = {name: [] for name in functions}
    for turn in range(rounds):
        for name in list(functions) if turn % 2 == 0 else reversed(list(functions)):
            times[name].append(timed(functions[name]))
    return times


def median(times: Sequence[Time]) -> Time:
    return Time(*(statistics.median(column) for column in zip(*times, strict=True)))


def torch_loop(make: Callable[[Any], Any]) -> Callable[[], Any] | None:
    """A loop over a scheduler of PyTorch, over `N_LOOP` steps; None if PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return None

    def loop() -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = make(optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimizer makes no step
            for _ in range(N_LOOP):
                scheduler.step()

    return loop


def optax_all(schedule: Any) -> dict[str, Callable[[], Any]]:
    """An optax schedule on all steps at once."""
    import jax
    import jax.numpy as jnp

    mapped, compiled = jax.vmap(schedule), jax.jit(jax.vmap(schedule))
    return {
        "optax": lambda: np.asarray(mapped(jnp.arange(N_SAMPLES))),
        "optax compiled before": lambda: np.asarray(compiled(jnp.arange(N_SAMPLES))),
    }


def sampling_cases() -> dict[str, dict[str, Callable[[], Any] | None]]:
    """Name -> what samples it: ours, PyTorch's, optax's."""
    n = N_SAMPLES
    cases: dict[str, dict[str, Any]] = {
        "cosine": {"kadence": kadence.Cosine(1.0, n)},
        "warm restarts": {"kadence": kadence.WarmRestarts(1.0, 1_000, cycle_mult=2)},
        "one cycle": {"kadence": kadence.OneCycle(1.0, n)},
        "exponential": {"kadence": kadence.Exponential(1.0, 0.5, every_steps=1_000)},
    }
    for case in cases.values():
        schedule = case["kadence"]
        case["kadence"] = lambda schedule=schedule: schedule.sample(n)
    try:
        from torch.optim import lr_scheduler as torch_schedulers
    except ImportError:
        pass
    else:
        for name, make in {
            "cosine": lambda o: torch_schedulers.CosineAnnealingLR(o, n),
            "warm restarts": lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, 1_000, 2),
            "one cycle": lambda o: torch_schedulers.OneCycleLR(o, 1.0, n),
            "exponential": lambda o: torch_schedulers.ExponentialLR(o, 0.5**0.001),
        }.items():
            cases[name]["PyTorch"] = torch_loop(make)
    try:
        import optax
    except ImportError:
        return cases
    cycles = [{"init_value": 1.0, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": 1_000 * 2**i} for i in range(10)]
    cases["cosine"] |= optax_all(optax.cosine_decay_schedule(1.0, n))
    cases["warm restarts"] |= optax_all(optax.sgdr_schedule(cycles))
    cases["one cycle"] |= optax_all(optax.cosine_onecycle_schedule(n, 1.0))
    cases["exponential"] |= optax_all(optax.exponential_decay(1.0, 1_000, 0.5))
    return cases


def report_sampling(rounds: int) -> None:
    print(f"\nA million rates, milliseconds (PyTorch: {N_LOOP:,} steps of its loop, times {N_SAMPLES // N_LOOP})")
    for name, functions in sampling_cases().items():
        known = {key: function for key, function in functions.items() if function is not None}
        medians = {key: median(times) for key, times in alternate(known, rounds).items()}
        ours = medians["kadence"]
        for key, peer in medians.items():
            scale = 1e3 * (N_SAMPLES / N_LOOP if key == "PyTorch" else 1)
            shown = f"{scale * peer.cpu:9,.1f} ({scale * peer.clock:,.1f})"
            ratio = "" if key == "kadence" else f"{scale * peer.cpu / 1e3 / ours.cpu:8.2f} times ours"
            print(f"  {name if key == 'kadence' else '':15} {key:22} {shown:20} {ratio}".rstrip())


def in_a_loop(schedule: Any, n_calls: int) -> Callable[[], Any]:
    """Many calls of a schedule, one after another, within one compiled function; on PyTorch, eagerly."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax
        import jax.numpy as jnp

        def body(step: Any, total: Any) -> Any:
            return total + schedule(step).astype("float32")

        run = jax.jit(lambda: jax.lax.fori_loop(0, n_calls, body, jnp.float32(0)))
        return lambda: run().block_until_ready()
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def looped() -> Any:
            total = tf.constant(0.0)
            for step in tf.range(n_calls):
                total += tf.cast(schedule(step), "float32")
            return total

        return lambda: looped().numpy()
    return called(schedule, n_calls)


def called(schedule: Any, n_calls: int) -> Callable[[], Any]:
    """Many calls of a compiled function of the step, one after another, from Python; on PyTorch, eagerly."""
    backend = keras.backend.backend()
    steps = [keras.ops.convert_to_tensor(step, "int32") for step in range(n_calls)]
    # A function around the schedule, as in `fit`: the caches of the compilers hash what they compile at each call.
    function = schedule
    if backend == "jax":
        import jax

        function = jax.jit(lambda step: schedule(step))
    elif backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(lambda step: schedule(step), jit_compile=True)
    return lambda: [function(step) for step in steps]


def report_calls(rounds: int) -> None:
    eager = keras.backend.backend() == "torch"
    stock = keras.optimizers.schedules
    pairs = {
        "cosine": (kadence.Cosine(1.0, 100_000), stock.CosineDecay(1.0, 100_000)),
        "warm restarts": (
            kadence.WarmRestarts(1.0, 1_000, cycle_mult=2),
            stock.CosineDecayRestarts(1.0, 1_000, t_mul=2.0),
        ),
        "warm restarts, equal": (kadence.WarmRestarts(1.0, 1_000), stock.CosineDecayRestarts(1.0, 1_000, t_mul=1.0)),
        "exponential": (kadence.Exponential(1.0, 0.5, every_steps=1_000), stock.ExponentialDecay(1.0, 1_000, 0.5)),
        "polynomial": (kadence.Polynomial(1.0, 100_000, power=2), stock.PolynomialDecay(1.0, 100_000, 0.0, power=2)),
        "step": (
            kadence.Step(1.0, [30_000, 60_000]),
            stock.PiecewiseConstantDecay([29_999, 59_999], [1.0, 0.1, 0.01]),
        ),
    }
    ways = {"eager" if eager else "compiled, called from Python": (called, 300 if eager else 2_000)}
    if not eager:
        ways["compiled, in a compiled loop"] = (in_a_loop, 200_000)
    for way, (make, n_calls) in ways.items():
        print(f"\nOne call, {way}, nanoseconds; target: at most {CALL_TARGET} of Keras's own")
        for name, (ours, theirs) in pairs.items():
            variants = {"kadence": ours, "keras": theirs, "twin": theirs}
            times = alternate({key: make(schedule, n_calls) for key, schedule in variants.items()}, rounds)
            own, base = (1e9 * median(times[key]).cpu / n_calls for key in ("kadence", "keras"))
            ratio, twin = (ratio_of(times[key], times["keras"]) for key in ("kadence", "twin"))
            verdict = "met" if ratio <= CALL_TARGET else "missed"
            print(f"  {name:21} kadence {own:10,.1f}   keras {base:10,.1f}", end="   ")
            print(f"ratio {ratio:.3f} (twin {twin:.3f})   {verdict}", flush=True)


def ratio_of(own: Sequence[Time], base: Sequence[Time]) -> float:
    """Median over the rounds of the ratio of two neighbours."""
    return statistics.median(a.cpu / b.cpu for a, b in zip(own, base, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, to see that it runs")
    rounds = 3 if parser.parse_args().quick else 15
    print(f"{keras.backend.backend()}, Keras {keras.__version__}, median of {rounds} rounds in alternation")
    if keras.backend.backend() == "jax":  # NumPy samples on each of them
        report_sampling(rounds)
    report_calls(rounds)


if __name__ == "__main__":
    main()
