"""Draws the picture of docs/how-to-choose.md: every schedule over the same run, side by side."""

# backends: jax

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

import kadence

mpl.use("Agg")

N_STEPS = 1_000
SCHEDULES = {
    "Constant": kadence.Constant(1.0),
    "Linear": kadence.Linear(1.0, 0.0, N_STEPS),
    "Cosine": kadence.Cosine(1.0, N_STEPS),
    "Cosine, k_decay=2": kadence.Cosine(1.0, N_STEPS, k_decay=2),
    "Polynomial, power=2": kadence.Polynomial(1.0, N_STEPS, power=2),
    "Exponential": kadence.Exponential(1.0, 0.5, every_steps=200),
    "InverseSquareRoot after warmup": kadence.warmup(kadence.InverseSquareRoot(1.0, 100), 100),
    "Step": kadence.Step(1.0, at_steps=[400, 700, 900], factor=0.4),
    "WarmRestarts, cycle_mult=2": kadence.WarmRestarts(1.0, *kadence.solve_cycles(N_STEPS, 3, cycle_mult=2)),
    "WarmRestarts, peak_decay, warm-up": kadence.WarmRestarts(1.0, 250, peak_decay=0.7, warmup_steps=40),
    "Cyclical, triangular": kadence.Cyclical(1.0, 125, lr_min=0.1),
    "Cyclical, triangular2": kadence.Cyclical(1.0, 125, lr_min=0.1, mode="triangular2"),
    "OneCycle": kadence.OneCycle(1.0, N_STEPS),
    "OneCycle, linear, three-phase": kadence.OneCycle(1.0, N_STEPS, curve="linear", three_phase=True),
    "SlantedTriangular": kadence.SlantedTriangular(1.0, N_STEPS),
    "WarmupStableDecay": kadence.WarmupStableDecay(1.0, N_STEPS, warmup_steps=100, decay_steps=300, curve="1-sqrt"),
    "from_points": kadence.from_points([0, 150, 600, 1_000], [0.1, 1.0, 0.3, 0.0]),
    "join of three": kadence.join(
        [kadence.Linear(0.0, 1.0, 100), kadence.Constant(1.0), kadence.Cosine(1.0, 500)], at_steps=[100, 500]
    ),
}


def main() -> None:
    """Draw them in a grid, six in a row."""
    columns, rows = 6, -(-len(SCHEDULES) // 6)
    figure = Figure(figsize=(15.0, 2.4 * rows), layout="constrained")
    for position, (name, schedule) in enumerate(SCHEDULES.items(), 1):
        ax = kadence.plot_schedule(schedule, N_STEPS, ax=figure.add_subplot(rows, columns, position))
        ax.set_title(name, fontsize=9.5)
        ax.set_ylim(0.0, 1.06)
        ax.tick_params(labelsize=8)
        ax.set_xlabel("optimizer step" if position > columns * (rows - 1) else "", fontsize=8.5)
        ax.set_ylabel("rate / peak" if position % columns == 1 else "", fontsize=8.5)
    path = Path(__file__).parents[1] / "docs" / "pictures" / "schedules.png"
    figure.savefig(path, dpi=100)
    print(path.relative_to(path.parents[2]))


if __name__ == "__main__":
    main()
