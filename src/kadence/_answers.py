"""What is read from a range test: rates, and for each that is missing the reason."""

from collections.abc import Mapping
from dataclasses import dataclass

from kadence import _checks


@dataclass(frozen=True)
class Suggestion:
    """What a rule answers, or why it does not.

    Args:
        rule: Name of the rule.
        rates: Group -> the suggested rate, or None where there is no clear answer. Where all groups moved together the
            only key is "all", and its rate is one for `optimizer.learning_rate`.
        reasons: Group -> why there is no clear answer, for the groups that have none.
        multipliers: Group -> its factor on the rate of "all".
    """

    rule: str
    rates: Mapping[str, float | None]
    reasons: Mapping[str, str]
    multipliers: Mapping[str, float]

    @property
    def rate(self) -> float | None:
        """The base rate, where all groups moved together; None where there is no clear answer."""
        if list(self.rates) != ["all"]:
            rule = "come from a test in which all groups moved together"
            raise ValueError(_checks.sentence("rate", rule, dict(self.rates), "Take `learning_rates()` instead."))
        return self.rates["all"]

    def learning_rates(self, fallback: Mapping[str, float] | None = None) -> list[float]:
        """One rate per group, as `DiscriminativeOptimizer(learning_rates=...)` takes it.

        Args:
            fallback: Group -> the rate of a group without a clear answer, such as `RangeTest.current_rates`.

        Returns:
            List of one float per group.

        Raises:
            ValueError: If a group has no clear answer and no fallback.
        """
        found = self.rates
        if list(self.rates) == ["all"]:
            base = self.rates["all"]
            found = {name: None if base is None else base * factor for name, factor in self.multipliers.items()}
        rates = {name: (fallback or {}).get(name) if rate is None else rate for name, rate in found.items()}
        complete = [rate for rate in rates.values() if rate is not None]
        if len(complete) < len(rates):
            why = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
            rule = "have a clear answer for every group, or a fallback"
            raise ValueError(_checks.sentence("rates", rule, dict(self.rates), f"{why}."))
        return complete


@dataclass(frozen=True)
class Interval:
    """The rates that learn, or why they are not known.

    Args:
        rates: Group -> the lowest and the highest rate that learns, or None.
        reasons: Group -> why there is None, for the groups that have None.
    """

    rates: Mapping[str, tuple[float, float] | None]
    reasons: Mapping[str, str]
