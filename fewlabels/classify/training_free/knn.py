"""Nearest neighbors."""

from __future__ import annotations

from fewlabels.classify.training_free.neighbors import most_similar, summed
from fewlabels.classify.training_free.problem import Prediction, Problem, balanced_accuracy
from fewlabels.classify.training_free.space import Features, Scores
from fewlabels.data.table import Labels

CANDIDATES = (1, 3, 5, 9, 15)  # numbers of neighbors that are tried


def nearest_neighbors(problem: Problem) -> Prediction:
    """Let the k most similar labeled rows vote, with the k of the best balanced leave-one-out accuracy.

    The smallest such k; 1 where no class has a second label. Classes with one label do not count in the choice.
    """
    labeled, given, rows = problem.train[problem.labeled], problem.given, problem.comparable
    k = 1
    if len(rows):
        most = min(len(given) - 1, max(CANDIDATES))
        places, similarity = most_similar(labeled, labeled, most, without_self=True)
        votes = {k: _votes(places[:, :k], similarity[:, :k], problem.targets) for k in CANDIDATES if k <= most}
        k = max(votes, key=lambda each: (balanced_accuracy(votes[each][rows], given[rows]), -each))

    def scores(x: Features) -> Scores:
        return _votes(*most_similar(x, labeled, k), problem.targets)

    return Prediction(scores(problem.train), scores(problem.asked))


def _votes(places: Labels, similarity: Features, targets: Scores) -> Scores:
    """Count votes [N, K] of neighbors; between equal counts the sum of their similarities decides."""
    k = places.shape[1]
    return summed(places, 1 + similarity / (2 * k + 1), targets)  # the sums are within [-k, k]: less than a vote
