"""One or more of each schedule, for the tests that hold for all of them."""

import keras

import kadence


@keras.saving.register_keras_serializable(package="tests")
def halves(step):
    return 0.5 ** keras.ops.cast(step, keras.config.floatx())


SCHEDULES = [
    kadence.Constant(0.1),
    kadence.Cosine(1.0, 20, lr_min=0.01, k_decay=1.5),
    kadence.Cyclical(1.0, 4, lr_min=0.1, down_steps=3, mode="triangular2"),
    kadence.Cyclical(1.0, 4, mode="exp_range", gamma=0.99),
    kadence.Exponential(1.0, 0.5, every_steps=7, lr_min=0.05),
    kadence.InverseSquareRoot(1.0, timescale_steps=5),
    kadence.Linear(1.0, 0.1, 20),
    kadence.OneCycle(1.0, 40),
    kadence.OneCycle(1.0, 40, curve="linear", three_phase=True),
    kadence.Polynomial(1.0, 20, power=2, lr_min=0.01, k_decay=0.5),
    kadence.SlantedTriangular(1.0, 40),
    kadence.Step(1.0, at_steps=6, factor=0.5),
    kadence.Step(1.0, at_steps=[3, 9], factor=0.5),
    kadence.WarmRestarts(1.0, 5, cycle_mult=1.5, lr_min=0.01, peak_decay=0.9),
    kadence.WarmRestarts(1.0, 6, cycle_mult=2, warmup_steps=2, k_decay=2.0),
    kadence.WarmupStableDecay(1.0, 30, warmup_steps=5, decay_steps=10, curve="1-sqrt", lr_min=0.1),
    kadence.from_function(halves, lr_max=1.0),
    kadence.from_points([2, 8, 20], [0.1, 1.0, 0.2], "cosine"),
    kadence.from_points([0, 8, 20], [0.1, 1.0, 0.2], "constant"),
    kadence.join([kadence.Constant(0.5), kadence.scale(kadence.Cosine(1.0, 9), 0.5)], at_steps=[11]),
    kadence.warmup(kadence.InverseSquareRoot(1.0, 5), warmup_steps=5),
]
NAMES = {name: getattr(kadence, name) for name in kadence.__all__} | {"halves": halves}
