"""Means, paired differences, and what is larger than the noise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fewlabels.classify.bench import facts
from fewlabels.runs.bench_words import difference_cells, failures, heading, markdown, score_cells, verdict
from fewlabels.runs.compare import FEWEST, Scores, differences, holm, mean_of, p_value, pace


def scores(name, *accuracy, first=0, seconds=None):
    by_seed = {first + i: value for i, value in enumerate(accuracy)}
    return Scores(name, by_seed, step_seconds={} if seconds is None else dict.fromkeys(by_seed, seconds))


def test_the_interval_is_students():
    values = [0.5, 0.6, 0.8, 0.55]
    found = mean_of(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.value, found.n) == (pytest.approx(0.6125), 4)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_without_a_spread_there_is_no_interval():
    assert mean_of([]).value is None and mean_of([]).n == 0
    assert (mean_of([0.7]).value, mean_of([0.7]).low) == (0.7, None)
    same = mean_of([0.1 + 0.2, 0.3, 0.3])  # but for rounding
    assert same.value == pytest.approx(0.3) and same.low is None
    assert p_value([0.1, 0.1, 0.1]) == p_value([0.1]) == p_value([]) == 1


def test_the_p_value_is_students():
    values = [0.01, 0.03, -0.01, 0.05]
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_holm_worked_out_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_lowers(p):
    found = holm(p)
    assert all(a <= b <= min(1, len(p) * a + 1e-9) for a, b in zip(p, found, strict=True))
    order = np.argsort(p, kind="stable")
    assert all(np.diff(np.array(found)[order]) >= 0)


def test_holm_agrees_with_a_slow_one():
    def rejects(p, level):
        """Step down: the smallest is held against level / k, the next against level / (k - 1), until one fails."""
        out, order = [False] * len(p), sorted(range(len(p)), key=lambda i: p[i])
        for place, i in enumerate(order):
            if p[i] > level / (len(p) - place):
                break
            out[i] = True
        return out

    rng = np.random.default_rng(0)
    for _ in range(200):
        p = (rng.uniform(0, 1, 5) ** 3).tolist()
        assert [value <= 0.05 for value in holm(p)] == rejects(p, 0.05)


def test_each_method_is_compared_with_supervised_the_best_of_the_others_and_of_what_is_free():
    base = scores("supervised", 0.50, 0.52, 0.49, 0.51)
    free = scores("knn", 0.55, 0.56, 0.54, 0.55)
    good, fair = scores("good", 0.80, 0.83, 0.80, 0.82), scores("fair", 0.70, 0.71, 0.71, 0.70)
    found = differences(base, [free], [fair, good])
    named = {(each.first, each.second): each for each in found}
    assert list(named) == [
        ("fair", "supervised"), ("good", "fair"), ("fair", "knn"), ("good", "supervised"), ("good", "knn")
    ]  # fmt: skip
    assert named["good", "fair"].mean.value == pytest.approx(0.1075)
    assert all(each.clear for each in found)
    assert all(each.corrected >= each.p for each in found)


def test_what_is_free_may_be_better_than_a_method():
    base, free = scores("supervised", 0.5, 0.51, 0.52), scores("knn", 0.9, 0.92, 0.91)
    (_, other) = differences(base, [free], [scores("a", 0.6, 0.61, 0.63)])
    assert (other.first, other.second) == ("a", "knn") and other.mean.value < 0 and other.clear


def test_pairs_are_by_seed_and_only_those_that_both_have():
    base = scores("supervised", 0.1, 0.2, 0.3, 0.4)
    (found,) = differences(base, [], [scores("a", 0.3, 0.4, 0.5, first=2)])
    assert found.mean.n == 2 and found.mean.value == pytest.approx(0)
    assert differences(base, [], [Scores("failed"), scores("late", 0.5, first=9)]) == []


def test_the_best_other_is_the_one_furthest_above_on_shared_seeds():
    """Its own mean says little where some of its seeds failed: the others may be the hard ones."""
    method = Scores("m", {0: 0.9, 1: 0.5, 2: 0.5})
    lucky, better = Scores("lucky", {0: 0.91}), Scores("better", {0: 0.95, 1: 0.6, 2: 0.6})
    found = differences(Scores("supervised"), [], [method, lucky, better])
    assert found[0].first == "better" and found[0].second == "m"


def test_a_method_that_failed_takes_no_part_in_the_correction():
    base, one = scores("supervised", 0.5, 0.52, 0.5), scores("a", 0.6, 0.63, 0.61)
    alone = differences(base, [], [one])
    with_failed = differences(base, [], [one, Scores("b", failures={0: "why"}), scores("c", 0.5)])
    assert alone[0].corrected == alone[0].p == with_failed[0].corrected


def test_too_few_seeds_settle_nothing():
    found = differences(scores("supervised", 0.1, 0.1), [], [scores("a", 0.9, 0.91)])
    assert not found[0].clear and not found[0].alone and found[0].corrected == 1
    assert "fewer than 3 seeds nothing can be said" in verdict(found)[0]
    assert difference_cells(found)[1][-2:] == ["-", "-"]


def test_many_comparisons_need_more():
    base, near = scores("supervised", 0.5, 0.5, 0.5, 0.5), scores("near", 0.51, 0.52, 0.53, 0.52)
    assert differences(base, [], [near])[0].clear
    rng = np.random.default_rng(1)
    others = [scores(f"noise {i}", *(0.5 + rng.normal(0, 0.02, 4))) for i in range(6)]
    found = differences(base, [], [near, *others])
    each = found[0]
    assert (each.first, each.second) == ("near", "supervised")
    assert each.alone and not each.clear and each.corrected > 0.05 > each.p
    assert "Larger than the noise alone, but not among so many comparisons: near minus supervised" in verdict(found)[0]


def test_the_words():
    base = scores("supervised", 0.50, 0.52, 0.49, 0.51, seconds=0.1)
    good, like = scores("good", 0.80, 0.83, 0.80, 0.82), scores("like", 0.51, 0.51, 0.50, 0.50, seconds=0.3)
    found = differences(base, [], [good, like])
    said = verdict(found)
    assert said[0].startswith("Larger than the noise: good minus supervised, +30.8 points; good minus like")
    assert said[1] == "The other differences are within the noise."
    assert "Of 3 comparisons some would differ by chance" in said[2] and "Holm" in said[2]
    nothing = verdict(differences(base, [], [like]))
    assert nothing == ["No difference is larger than the noise."]
    assert pace(like, base) == pytest.approx(3) and pace(good, base) is None


def test_the_cells():
    base, bad = scores("supervised", 0.5, 0.6, 0.7, seconds=0.1), Scores("bad", failures={0: "a | b", 2: "a | b"})
    base.metrics = {"accuracy": base.values, "macro_f1": {0: 0.3, 1: 0.5}}
    cells = score_cells("test accuracy", [base, bad])
    assert cells[0] == ["method", "test accuracy", "95 % interval", "macro f1", "n", "time a step"]
    assert cells[1] == ["supervised", "60.0 %", "35.2 to 84.8 %", "40.0 %", "3", "1.0"]
    assert cells[2] == ["bad", "-", "-", "-", "0, 2 failed", "-"]
    assert failures([base, bad]) == ["bad failed with seed 0, 2: a | b"]
    text = markdown(["title"], [[["a", "b"], ["x|y", "1"]]], ["end"])
    assert text == "title\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n\nend\n"
    assert math.isclose(base.mean.value, 0.6) and FEWEST == 3


@pytest.mark.parametrize(
    ("seeds", "labels", "said"),
    [
        ([3], (1, 1), "1 label a class, 5 unlabeled, 9 test, budget quick (8 steps), seed 3,"),
        ([10, 11, 12], (2, 4), "2 to 4 labels a class, 5 unlabeled, 9 test, budget quick (8 steps), seeds 10 to 12,"),
        ([1, 5], (3, 3), "3 labels a class, 5 unlabeled, 9 test, budget quick (8 steps), seeds 1, 5,"),
    ],
)
def test_the_heading(seeds, labels, said):
    counts = {"data": "d", "unlabeled": 5, "test": 9, "budget": "quick", "steps": 8, "labels_per_class": labels}
    where = {"device": "cpu", "machine": "x86_64", "cores": 2, "threads": [1, 2]}
    found = heading({"facts": facts(counts)} | where | {"seeds": seeds})
    assert said in found and found.endswith("cpu of x86_64 with 2 cores, threads a run: 1 or 2")
