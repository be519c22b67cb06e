"""Schedules and records -> matplotlib Axes. Nothing here calls show()."""

from kadence.plots._comparisons import plot_comparison, save_comparison_picture
from kadence.plots._figures import save_figure
from kadence.plots._range_tests import plot_range_test, save_range_picture
from kadence.plots._runs import (
    plot_history,
    plot_rates,
    plot_schedule,
    save_rates_picture,
    save_run_pictures,
    save_schedule_picture,
)

__all__ = [
    "plot_comparison",
    "plot_history",
    "plot_range_test",
    "plot_rates",
    "plot_schedule",
    "save_comparison_picture",
    "save_figure",
    "save_range_picture",
    "save_rates_picture",
    "save_run_pictures",
    "save_schedule_picture",
]
