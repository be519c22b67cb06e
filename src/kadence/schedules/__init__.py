"""Step -> rate. Pure: no model, no callback, no input or output."""

from kadence.schedules._base import Schedule, epochs_to_steps
from kadence.schedules._curves import Constant, Cosine, Linear
from kadence.schedules._cycles import Cyclical, WarmRestarts
from kadence.schedules._decays import Exponential, InverseSquareRoot, Polynomial, Step
from kadence.schedules._join import join, scale, warmup
from kadence.schedules._phases import OneCycle, OneCyclePair, SlantedTriangular, WarmupStableDecay, one_cycle
from kadence.schedules._points import from_function, from_points

__all__ = [
    "Constant",
    "Cosine",
    "Cyclical",
    "Exponential",
    "InverseSquareRoot",
    "Linear",
    "OneCycle",
    "OneCyclePair",
    "Polynomial",
    "Schedule",
    "SlantedTriangular",
    "Step",
    "WarmRestarts",
    "WarmupStableDecay",
    "epochs_to_steps",
    "from_function",
    "from_points",
    "join",
    "one_cycle",
    "scale",
    "warmup",
]
