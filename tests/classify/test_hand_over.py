"""What is handed over: by labels that were left out, and only where these can tell."""

import numpy as np
import pytest

from fewlabels.classify.hand_over import BLEND, arranged, choose_outcome
from fewlabels.classify.outcome import SUPERVISED, Outcome

LABELS = np.array([0, 1] * 20)


def outcome(name, right, rows=40):
    """Return an outcome that is right on so many of the first rows, in an order of its own."""
    said = np.where(np.arange(rows) < right, LABELS[:rows], 1 - LABELS[:rows])
    order = np.random.default_rng(len(name)).permutation(rows)
    logits = np.eye(2, dtype=np.float32)[said]
    return Outcome(name, name, "method", None, None, 0.0, unseen=order, unseen_logits=logits[order])


@pytest.mark.parametrize(
    ("head", "trained", "chosen", "margin"),
    [
        (30, 38, "fixmatch", 0.2),
        (30, 31, BLEND, -0.025),  # within one standard error
        (30, 30, BLEND, 0.0),
        (38, 30, BLEND, 0.2),
    ],
)
def test_the_method_is_chosen_only_where_labels_say_so_by_more_than_a_standard_error(head, trained, chosen, margin):
    found = choose_outcome(outcome(BLEND, head), outcome("fixmatch", trained), LABELS, "labels")
    assert (found.chosen, found.margin) == (chosen, pytest.approx(margin))
    assert ("within one standard error" in found.why) == (margin <= 0)
    # No row alone turns these choices but for the one that is next to a standard error.
    expected = (trained if chosen == "fixmatch" else head) / 40
    assert found.cross_validated == pytest.approx(expected, abs=0.03)


def test_only_rows_that_both_were_left_without_count():
    found = choose_outcome(outcome(BLEND, 10, rows=20), outcome("fixmatch", 20), LABELS, "labels")
    assert found.chosen == "fixmatch" and found.margin == pytest.approx(0.5) and "on 20 labeled rows" in found.why


def test_without_such_rows_the_head_is_handed_over_and_says_so():
    found = choose_outcome(outcome(BLEND, 0, rows=0), outcome("fixmatch", 20), LABELS, "labels")
    assert (found.chosen, found.margin, found.cross_validated) == (BLEND, None, None)
    assert "no labels were held out from both" in found.why


def test_what_the_user_chose_is_chosen():
    found = choose_outcome(outcome("knn_head", 10), outcome("fixmatch", 40), LABELS, "knn")
    assert (found.chosen, found.why, found.cross_validated) == ("knn_head", "--choose knn", 0.25)


@pytest.mark.parametrize("chosen", [BLEND, "fixmatch"])
def test_what_is_handed_over_comes_last(chosen):
    head, trained, baseline = outcome(BLEND, 1), outcome("fixmatch", 1), outcome(SUPERVISED, 1)
    right = {BLEND: 40, "fixmatch": 0} if chosen == BLEND else {BLEND: 0, "fixmatch": 40}
    choice = choose_outcome(outcome(BLEND, right[BLEND]), outcome("fixmatch", right["fixmatch"]), LABELS, "labels")
    found = [each.name for each in arranged([baseline, trained], head, choice)]
    assert found[0] == SUPERVISED and found[-1] == chosen and sorted(found[1:]) == sorted([BLEND, "fixmatch"])
