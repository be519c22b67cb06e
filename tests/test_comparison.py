"""What a comparison says: a table, files, and sentences that claim no more than the seeds allow."""

import csv
import dataclasses
import io
import json

import pytest
from test_comparison_rows import result

import kadence
from kadence import Comparison

BASE, BETTER, SAME = [0.50, 0.52, 0.51], [0.60, 0.63, 0.61], [0.50, 0.53, 0.50]


def comparison(*values, **changes):
    names = ("constant", "cosine", "frozen", "other")
    results = tuple(result(name, list(own)) for name, own in zip(names, values, strict=False))
    known = {"results": results, "metric": "accuracy", "mode": "max", "judged_on": "test", "epochs": 2}
    return Comparison(**{**known, **changes})


def test_what_is_told_and_what_is_not():
    said = " ".join(comparison(BASE, BETTER, SAME).conclusions)
    assert "Judged on the test data, from seeds that took no part in the choice of the rates." in said
    assert "cosine is better than constant by 0.103 (probability that it is better: 0.999)." in said
    assert "Not told from constant by these seeds: frozen." in said
    assert "An interval of 3 seeds holds the mean in about 75% of the cases, not 95%: take 6 seeds or more." in said
    # Differences of 0.10, 0.11, 0.10 and 0, 0.01, -0.01: standard deviations 0.00577 and 0.01; t(0.975, 2) = 4.3027.
    assert "With 3 seeds, a difference in accuracy below 0.02 cannot be told from noise here." in said


def test_less_is_better_where_that_is_so():
    said = " ".join(comparison(BASE, BETTER, mode="min").conclusions)
    assert "cosine is worse than constant by 0.103 (probability that it is better: 0.001)." in said
    assert "Of accuracy, less is better." in said
    assert "less is better" not in " ".join(comparison(BASE, BETTER).conclusions)


def test_one_seed_gives_no_interval():
    found = comparison([0.5], [0.9])
    assert "One seed: no interval and no probability. No difference here can be told from chance." in found.conclusions
    assert "better than" not in str(found)
    assert found.win_probability("cosine", "constant") is None


@pytest.mark.parametrize(("n", "verdict"), [(2, False), (3, True), (5, True)])
def test_seeds_that_agree_are_not_certain(n, verdict):
    """Each seed is 8 rows of 200 better: t(0.975) is 12.7, 4.3 and 2.8."""
    found = comparison([0.5] * n, [0.54] * n, grain=0.005)
    said = " ".join(found.conclusions)
    assert found.rows[1].difference_low < 0.04 < found.rows[1].difference_high
    assert ("cosine is better than constant by 0.04" in said) is verdict
    assert ("Not told from constant by these seeds: cosine." in said) is not verdict
    assert found.win_probability("cosine", "constant") == found.rows[1].probability < 1.0
    assert "> .999" not in said or n == 5
    assert "below 0 " not in said


def test_a_seed_that_changes_nothing_gives_no_probability():
    """The grain is 0, as that of a loss."""
    found = comparison([0.5] * 3, [0.4] * 3, [0.5, 0.6, 0.7], [0.1], mode="min")
    assert found.rows[1].probability is found.rows[1].difference_low is None
    assert found.win_probability("cosine", "constant") is None
    said = " ".join(found.conclusions)
    why = "one seed, or the same difference from each, which is one measurement too."
    assert f"No probability for cosine, other: {why}" in said
    assert "With 3 seeds, a difference in accuracy below 0.25 cannot be told" in said
    alone = comparison([0.5] * 3, [0.4] * 3, mode="min")
    assert not any("cannot be told" in sentence for sentence in alone.conclusions)
    assert f"No probability for cosine: {why}" in alone.conclusions


def test_validation_data_are_not_test_data():
    said = comparison(BASE, SAME, judged_on="validation").conclusions[0]
    assert said.startswith("Judged on the validation data, on which the rates were chosen too")


def test_rates_at_the_end_of_the_search_are_named():
    found = comparison(BASE, SAME, BETTER)
    searched = ((0.01, 0.4), (0.1, 0.5), (1.0, None))
    ends = [
        dataclasses.replace(r, searched=searched, rate=rate)
        for r, rate in zip(found.results, (1.0, 0.1, 0.01), strict=True)
    ]
    said = dataclasses.replace(found, results=tuple(ends)).conclusions
    assert "The largest rate that was tried is the best for constant: try beyond it." in said
    assert "The smallest rate that was tried is the best for frozen: try beyond it." in said


def test_failures_are_told():
    found = comparison(BASE, SAME, [])
    failed = dataclasses.replace(found.results[1], failures=("failed, out of memory", "failed, x"))
    none = dataclasses.replace(found.results[2], rate=None)
    told = dataclasses.replace(found, results=(found.results[0], failed, none), notes=("A note.",))
    assert "2 judged trials of cosine gave no value: failed, out of memory" in told.conclusions
    assert "frozen was not judged: no rate gave a model." in told.conclusions
    assert told.conclusions[-1] == "A note."
    assert str(told)


def test_what_flatters_a_strategy_is_told():
    """Seeds without a value, diverged trials with one, and many verdicts at once."""
    found = comparison(BASE, BETTER, SAME)
    cut = dataclasses.replace(
        found.results[1], seeds=(0, 1), values=(0.60, 0.621), failures=("failed, x",), diverged=(1,)
    )
    told = " ".join(dataclasses.replace(found, results=(found.results[0], cut, found.results[2])).conclusions)
    assert "cosine is better than constant by 0.1, on the 2 seeds that both have (probability" in told
    assert "1 judged trial of cosine diverged; the values that they ended with count." in told
    assert "without any difference among 3 strategies, up to 10% of comparisons find one." in told
    alone = " ".join(comparison(BASE, BETTER).conclusions)
    assert "seeds that both have" not in alone
    assert "Each verdict is by itself" not in alone


def test_no_difference_in_a_share_of_rows_is_larger_than_all():
    """Of two seeds the interval is 12.7 standard deviations wide."""
    (said,) = [s for s in comparison([0.4, 0.6], [0.6, 0.5], grain=0.1).conclusions if "told from noise" in s]
    assert said == "With 2 seeds, a difference in accuracy cannot be told from noise here."


def test_without_a_baseline_nothing_is_compared():
    said = comparison([], BETTER, SAME).conclusions
    assert "constant, the baseline, gave no value: there is nothing to compare with." in said
    assert not any("One seed" in sentence for sentence in said)


def test_files_of_before_know_nothing_of_diverged_trials():
    found = comparison(BASE, BETTER)
    content = json.loads(found.to_json())
    for entry in content["results"]:
        del entry["diverged"]
    assert Comparison.from_json(json.dumps(content)).results == found.results


def test_the_target_is_that_of_the_baseline():
    found = comparison(BASE, BETTER)
    assert found.target_value == pytest.approx(0.51)
    assert [row.reached for row in found.rows] == [2, 3]
    assert dataclasses.replace(found, target=0.9).target_value == 0.9
    assert "s to 0.51" in str(found)


@pytest.mark.parametrize(("columns", "n_tables"), [(200, 1), (110, 2), (80, 3), (20, 3)])
def test_the_table_fits_the_terminal(columns, n_tables, monkeypatch):
    """The longest name of `kadence compare` without flags, ten seeds, and a target that not all reach."""
    monkeypatch.setenv("COLUMNS", str(columns))
    values = [0.5, 0.6] * 5
    other = [value + 0.01 * seed for seed, value in enumerate(values)]
    results = (result("constant", values), result("discriminative+warm-restarts", other))
    found = comparison([], results=results, target=0.55)
    lines = str(found).removesuffix("\n".join(found.conclusions)).rstrip().splitlines()
    assert max(map(len, lines)) <= max(columns, 80)
    assert [line.split()[0] for line in lines if line].count("strategy") == n_tables
    assert [line.split()[0] for line in lines if line].count("discriminative+warm-restarts") == n_tables
    for word in ("rate", "accuracy", "difference", "wins", "P(better)", "seconds", "s to 0.55", "3.0 (5 of 10)"):
        assert word in "\n".join(lines)


def test_the_table_has_a_row_each(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    head, *lines = str(comparison(BASE, BETTER)).splitlines()[:3]
    assert head.split()[:4] == ["strategy", "rate", "n", "accuracy"]
    assert lines[1].split()[:4] == ["cosine", "0.1", "3", "0.6133"]
    assert "+0.1033" in lines[1]
    assert "3 of 3" in lines[1]


def test_files_hold_it_all():
    found = comparison(BASE, BETTER, SAME, notes=("A note.",), target=0.5, grain=0.01)
    again = Comparison.from_json(found.to_json())
    assert again.to_json() == found.to_json()
    assert again.rows == found.rows
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["strategy"] for row in rows] == ["constant", "cosine", "frozen"]
    assert float(rows[1]["difference"]) == found.rows[1].difference
    assert rows[0]["difference"] == ""


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kadence": "comparison", "version": 2}', None])
def test_what_is_no_comparison_is_refused(text):
    with pytest.raises(ValueError, match="`text` must be JSON of a comparison"):
        Comparison.from_json(text)


def test_any_two_can_be_compared():
    found = comparison(BASE, BETTER, SAME)
    assert found.win_probability("cosine", "frozen") > 0.99
    assert found.win_probability("frozen", "cosine") == pytest.approx(1 - found.win_probability("cosine", "frozen"))
    with pytest.raises(ValueError, match="Did you mean 'frozen'"):
        found.win_probability("frozn", "cosine")
    assert kadence.Comparison is Comparison
