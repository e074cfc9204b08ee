"""What a run on features hands over: a blend of training-free classifiers as a linear head, or the method's network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from fewlabels.classify.baselines import PooledRows
from fewlabels.classify.embedding import Embedding, extractor
from fewlabels.classify.outcome import Outcome, scores
from fewlabels.classify.preparation import Preparation
from fewlabels.classify.training_free.blend import FEW, ON_FEATURES, Head, blend, head_of, tempered
from fewlabels.classify.training_free.recipes import BASELINES
from fewlabels.classify.training_free.space import Scores, center_of
from fewlabels.data.splits import fewest_apart, parted
from fewlabels.data.table import Labels
from fewlabels.errors import UserError
from fewlabels.models.build import linear_classifier
from fewlabels.report.words import percent

BLEND = "blend"
FOLDS = 5  # that the labeled rows are parted in
LABELS, METHOD = "labels", "method"  # what chooses, beside the name of a row


@dataclass(frozen=True)
class Choice:
    """Which of two outcomes is handed over.

    Attributes:
        chosen: its name.
        why: in words.
        margin: by how much more of the labeled rows it is right on than the other, of those that neither was learned
            from; it may be negative, and None where that is not known.
        cross_validated: the accuracy on labeled rows that were left out, the choice included; None likewise.
    """

    chosen: str
    why: str
    margin: float | None = None
    cross_validated: float | None = None


def check_choice(choose: str, *, on_features: bool, no_pool: bool = False) -> None:
    """Check what `--choose` names.

    Args:
        choose: what it names.
        on_features: whether the run trains on features.
        no_pool: whether there are no unlabeled rows.

    Raises:
        UserError: no such row, or one that cannot be handed over in this run.
    """
    rows = [BLEND, *BASELINES]
    if choose in (LABELS, METHOD):
        return
    if choose not in rows:
        raise UserError(f"choose is {choose!r}; give {LABELS}, {METHOD}, or a row: {', '.join(rows)}")
    if no_pool and (choose == BLEND or BASELINES[choose].takes_unlabeled):
        raise UserError(f"--choose {choose} learns from unlabeled rows, and there are none; give {LABELS} or {METHOD}")
    if not on_features:
        raise UserError(
            f"--choose {choose} hands over a linear head on features of a pretrained backbone, and this run does not "
            f"train on features; give {LABELS} or {METHOD}, or another --model or --method"
        )


def linear_head(preparation: Preparation, embedding: Embedding, folds: int, choose: str) -> Outcome | None:
    """Learn a linear head on features from the blend, or from the training-free classifier that is asked for.

    Args:
        preparation: of the run.
        embedding: of all rows.
        folds: parts of the labeled rows that the method's network is judged by; 0 for none, and then for the blend as
            many as there can be.
        choose: as of `--choose`.

    Returns:
        What it comes to; None where the method is asked for, or nothing and there are no unlabeled rows.
    """
    if choose == METHOD or (choose == LABELS and not len(preparation.unlabeled)):
        return None
    start, table = time.perf_counter(), preparation.table
    train = np.concatenate([preparation.labeled, preparation.unlabeled])
    spaces = [PooledRows(embedding.last.features, table.labels, train)]
    labeled = spaces[0].rows[spaces[0].pool.plain.labeled]
    unseen, logits = preparation.held_out[:0], np.zeros((0, len(spaces[0].classes)), np.float32)
    if choose in (LABELS, BLEND):
        apart = fewest_apart(table, labeled)
        folds = folds or (min(FOLDS, apart) if apart > FEW else 0)
        parts = parted(table, labeled, folds, preparation.options.seed)
        if len(embedding.widths) > 1 and parts:
            spaces.append(PooledRows(embedding.features, table.labels, train, widths=embedding.widths))
        places = [np.flatnonzero(np.isin(labeled, part)) for part in parts]
        found = blend([space.pool for space in spaces], ON_FEATURES, places)
        head, name, label = found.head, BLEND, "blend, linear head"
        if found.left_out is not None:
            unseen, logits = labeled, found.left_out.astype(np.float32)
    else:
        head, name, label = _head_of_row(spaces[0], choose), f"{choose}_head", f"{BASELINES[choose].words}, linear head"
    rows = spaces[-1]
    of_all = head(rows.x).astype(np.float32)
    if len(preparation.held_out):
        unseen, logits = preparation.held_out, of_all[preparation.held_out]
    test, hidden = scores(preparation, of_all.argmax(1))
    made_by = extractor(preparation, stages=len(spaces) > 1)
    of_rows = embedding if len(spaces) > 1 else embedding.last
    center = center_of(of_rows.features, train, of_rows.widths)
    return Outcome(
        name, f"{label} on features", "training_free", test, hidden, time.perf_counter() - start,
        on_features=True,
        predicted=of_all[preparation.test].argmax(1).tolist(),
        classifier=linear_classifier(made_by.backbone, made_by.card, center, head.weight.T, head.bias),
        features=rows.x,
        logits=of_all,
        unseen=unseen,
        unseen_logits=logits,
    )  # fmt: skip


def _head_of_row(rows: PooledRows, name: str) -> Head:
    recipe = BASELINES[name]
    problem = rows.pool.whitened if recipe.is_whitened else rows.pool.plain
    found = recipe.fit(problem).train
    logits = tempered(found, len(found), are_logits=recipe.gives_logits)
    return head_of(rows.pool.plain, softmax(logits, axis=1))


def choose_outcome(head: Outcome, trained: Outcome, labels: Labels, choose: str) -> Choice:
    """Choose between the linear head and what the method trained on features.

    The head is handed over unless the method is right on more of the labels that both were left without, by more than
    a standard error of the difference: on development seeds it was the better one (docs/LOG.md).

    Args:
        head, trained: what there is to choose from.
        labels: of all rows.
        choose: as of `--choose`.
    """
    if choose != LABELS:
        return Choice(head.name, f"--choose {choose}", None, _accuracy(head, labels))
    both = np.intersect1d(head.unseen, trained.unseen)
    if not len(both):
        return Choice(
            head.name,
            "no labels were held out from both, and the linear head was better on development data",
            None,
            _accuracy(head, labels),
        )
    right = np.stack([each.right_on(both, labels) for each in (head, trained)])
    better = _is_trained_better(right)
    names = (head.name, trained.name)
    first, second = names[better], names[1 - better]
    means = right.mean(1)
    # The same choice without each row, judged by that row: the winner's own score flatters.
    without = [right[_is_trained_better(np.delete(right, row, 1)), row] for row in range(len(both))]
    why = (
        f"on {len(both)} labeled rows that were held out, {first} reaches {percent(means[better])} and {second} "
        f"{percent(means[1 - better])}"
    )
    if means[better] <= means[1 - better]:
        why += f"; the difference is within one standard error, and {first} was better on development data"
    return Choice(first, why, float(means[better] - means[1 - better]), float(np.mean(without)))


def _is_trained_better(right: Scores) -> int:
    """Tell whether the second is right on more rows than the first, by more than a standard error (McNemar 1947)."""
    difference = right[1] - right[0]
    return int(difference.sum() > np.abs(difference).sum() ** 0.5)


def _accuracy(outcome: Outcome, labels: Labels) -> float | None:
    if not len(outcome.unseen):
        return None
    return float((outcome.unseen_logits.argmax(1) == labels[outcome.unseen]).mean())


def arranged(group: Sequence[Outcome], head: Outcome, choice: Choice) -> list[Outcome]:
    """Put the head and what was trained in order: what is handed over comes last."""
    *before, trained = group
    last, other = (head, trained) if choice.chosen == head.name else (trained, head)
    return [*before, other, last]
