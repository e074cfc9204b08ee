"""The trainings of a run: on features first where the backbone begins with weights, then of the whole network."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import fields, replace
from typing import Any, TypeAlias

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewlabels.classify.baselines import Features, training_free_baselines
from fewlabels.classify.choose import resolve
from fewlabels.classify.embedding import Embedding, extractor
from fewlabels.classify.hand_over import FOLDS
from fewlabels.classify.layer_probe import COST, ROWS
from fewlabels.classify.learner import MethodLearner
from fewlabels.classify.outcome import SUPERVISED, Outcome, scores
from fewlabels.classify.preparation import Preparation, begins_propagated, stage_of
from fewlabels.classify.prepare import prepared
from fewlabels.classify.training_free.blend import FEW
from fewlabels.classify.training_free.recipes import BASELINES
from fewlabels.config import Options
from fewlabels.console import Show
from fewlabels.data.splits import fewest_apart, parted
from fewlabels.data.table import UNLABELED
from fewlabels.data.vectors import VectorRows
from fewlabels.inputs.kinds import IMAGES, VECTORS
from fewlabels.methods import method_name
from fewlabels.methods.base import Method
from fewlabels.methods.supervised import Supervised
from fewlabels.models.build import flops, on_features
from fewlabels.models.classifier import Card, Classifier
from fewlabels.training.stage import Stage
from fewlabels.training.train import Training

CROSS = "cross"
HALVES = 2
JUDGED_FROM = 100  # labeled rows, from which on one wrong in a hundred can be told from none
LITTLE = 0.01  # of the labeled rows, judged by others, below which training the backbone could not add much

Trainings: TypeAlias = Generator[Stage[MethodLearner], Training[MethodLearner], list[Outcome]]
"""yields a stage, is sent it trained, and returns what the trainings come to"""


def row_name(preparation: Preparation, method: Method) -> str:
    """Name the row of a method."""
    if isinstance(method, Supervised):
        return SUPERVISED
    return method_name(method) + (" + propagation" if begins_propagated(preparation, method) else "")


def with_baseline(preparation: Preparation, method: Method) -> bool:
    """Tell whether the supervised baseline is trained as well."""
    return preparation.options.baseline and not isinstance(method, Supervised)


def trainings(preparation: Preparation, method: Method, folds: int, seed: int, show: Show) -> Trainings:
    """Train the supervised baseline, the method, and what judges labeled rows; each resumes where it was stopped.

    Args:
        preparation: of the run, or of its features.
        method: that trains.
        folds: parts of the labeled rows, each judged by a network that was trained without it; 0 for none.
        seed: by which they are parted.
        show: where to say what happens.

    Returns:
        The baseline, where it is asked for, then the method.
    """
    folder, name = preparation.folder, row_name(preparation, method)
    assert folder is not None
    # What another run ended with has learned from the unlabeled rows, and its labels: it judges none of them.
    anew, outcomes = replace(preparation, start=None), list[Outcome]()
    if with_baseline(preparation, method):
        baseline = Supervised()
        stage = stage_of(anew, baseline, SUPERVISED, folder / SUPERVISED)
        outcomes.append(_outcome(preparation, baseline, SUPERVISED, (yield stage)))
    # No name holds what was trained: its optimizer and averages would take memory from the next training.
    outcome = _outcome(preparation, method, name, (yield stage_of(preparation, method, name, folder, probed=True)))
    held_out = preparation.held_out
    judged, logits = [held_out], [outcome.logits[held_out]]
    parts = parted(preparation.table, preparation.labeled, folds, seed)
    if parts:
        labels = f"{len(preparation.labeled)} labels{preparation.on}"
        show.line(f"{len(parts)} more trainings calibrate on {labels}, each without a part of them")
    for number, left_out in enumerate(parts):
        rest = replace(anew, labeled=np.setdiff1d(preparation.labeled, left_out), board=None)
        part = f"{CROSS}-{number}"
        stage = stage_of(rest, method, part, folder / part, quiet=True)
        logits.append(_classifier((yield stage)).outputs(preparation.store, left_out).logits.numpy())
        judged.append(left_out)
    outcomes.append(replace(outcome, unseen=np.concatenate(judged), unseen_logits=np.concatenate(logits)))
    return outcomes


def _classifier(training: Training[MethodLearner]) -> Classifier:
    return training.state.averaged.classifier.eval()


def _outcome(preparation: Preparation, method: Method, name: str, training: Training[MethodLearner]) -> Outcome:
    """Let what was trained judge all rows."""
    classifier = _classifier(training)
    outputs = classifier.outputs(preparation.store, np.arange(len(preparation.table)))
    features, logits = outputs.features.numpy(), outputs.logits.numpy()
    test, hidden = scores(preparation, logits.argmax(1))
    return Outcome(
        name=name,
        label=name + preparation.on,
        on_features=bool(preparation.on),
        kind="supervised" if isinstance(method, Supervised) else "method",
        test=test,
        hidden=hidden,
        seconds=training.seconds,
        steps=training.steps,
        classifier=classifier,
        features=features,
        logits=logits,
    )


def training_free(preparation: Preparation, folder: Any) -> list[Outcome]:
    """Fit the training-free baselines, on the last features of a backbone that begins with weights, or on the rows.

    What is found is kept in the folder of the run, `training_free.json`.
    """
    saved: list[dict[str, Any]] | None = folder.read_json("training_free.json")
    if saved is None:
        saved = [{**each.row, "predicted": each.predicted} for each in fitted_training_free(preparation)]
        folder.write_json("training_free.json", saved)
    return [Outcome(**row) for row in saved]


def fitted_training_free(preparation: Preparation) -> list[Outcome]:
    """Fit the training-free baselines; see `training_free`."""
    inputs, table, features = preparation.inputs, preparation.table, preparation.features
    train = np.concatenate([preparation.labeled, preparation.unlabeled])
    on = inputs.features if features is None else "features"
    given = features is not None
    if features is None:
        features = inputs.features_of(preparation.store, train)
    asked = np.concatenate([preparation.test, preparation.hidden])
    if not len(asked):
        return []
    lengths_count = inputs.lengths_count and not given
    out: list[Outcome] = []
    for baseline in training_free_baselines(features, table.labels, train, asked, lengths_count=lengths_count):
        predicted = np.full(len(table), UNLABELED)
        predicted[asked] = baseline.predicted
        label = f"{BASELINES[baseline.name].words} on {on}"
        test, hidden = scores(preparation, predicted)
        classes = predicted[preparation.test].tolist()
        out.append(
            Outcome(
                baseline.name, label, "training_free", test, hidden, baseline.seconds,
                on_features=given, predicted=classes,
            )
        )  # fmt: skip
    return out


def say_estimate(preparation: Preparation, method: Method, step_seconds: float, show: Show) -> None:
    """Say in one line how long the training of the whole network will take, and how much disk."""
    recipe, options, classifier = preparation.recipe, preparation.options, preparation.classifier
    seconds = recipe.steps * step_seconds
    if options.probe_every:
        batches = math.ceil(ROWS / recipe.unlabeled_batch)
        seconds += math.ceil(recipe.steps / options.probe_every) * batches * COST * step_seconds
    baseline = with_baseline(preparation, method)
    if baseline:  # its step sees fewer views
        views = method.views()
        seen = recipe.batch * len(views.labeled) + recipe.unlabeled_batch * len(views.unlabeled)
        seconds += recipe.steps * step_seconds * recipe.batch / seen
    if options.classify_calibrate == CROSS:
        seconds += HALVES * recipe.steps * step_seconds
    parameters = sum(p.numel() for p in classifier.parameters())
    # Two checkpoints of parameters, their average and one to two optimizer moments, for each training; and the model.
    disk = parameters * 4 * (2 * 4 * (1 + baseline) + 1)
    eager = ", not compiled" if recipe.compile else ""
    show.line(
        f"estimate: {_duration(seconds)} ({1000 * step_seconds:.0f} ms a step{eager}), {max(disk / 1e6, 1):.0f} MB on "
        f"disk; {parameters:,} parameters, {flops(classifier) / 1e6:,.1f} MFLOP a row"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def on_features_of(preparation: Preparation, given: Options, embedding: Embedding) -> Preparation:
    """Prepare a training on features, of all parts.

    Args:
        preparation: of the run.
        given: the options as the user gave them.
        embedding: of all rows.
    """
    table, device, only = preparation.table, preparation.store.device, preparation.options.classify_features == "only"
    rows = VectorRows(embedding.features)
    options = _options_on_features(preparation, given, only)
    options, form, _ = resolve(options, replace(table, contents=rows), VECTORS, device)
    brought = VECTORS.bring(replace(table, contents=rows), form, options, device, lambda: False, Show(None))
    statistics = VECTORS.statistics(brought.store, np.flatnonzero(~table.test))
    card = Card(options.model, table.classes, form, *statistics)
    folder = None if preparation.folder is None else preparation.folder / "features"
    found = prepared(table, brought.store, VECTORS, options, card, None, folder)
    return replace(
        found,
        labeled=preparation.labeled,
        held_out=preparation.held_out,
        policy=preparation.policy if only else None,
        board=preparation.board,
        features=embedding.last.features,
        on=" on features",
    )


def _options_on_features(preparation: Preparation, given: Options, only: bool) -> Options:
    """Return the options of a training on features: of the run's those that do not speak of images.

    Where the whole network is trained after it, steps and rates that were given are for that.
    """
    if only:
        of_images = {field.name: field.default for field in fields(given) if field.name in IMAGES.own_options}
        options = replace(given, **of_images, model="auto", weights=None, classify_freeze=False, start=None)
    else:
        options = Options(
            budget=given.budget,
            seed=given.seed,
            classify_labeled_in_unlabeled=given.classify_labeled_in_unlabeled,
            baseline=given.baseline,
        )
    recipe, propagate = preparation.recipe, preparation.options.propagate
    ratio = recipe.unlabeled_batch // recipe.batch
    return replace(options, batch=recipe.batch, unlabeled_ratio=ratio, propagate=propagate)


def whole_network(preparation: Preparation, outcome: Outcome) -> Classifier:
    """Return a classifier of the run's rows: what was trained on features is put onto the backbone that gave them."""
    assert outcome.classifier is not None
    if outcome.classifier.card.form.what == preparation.classifier.card.form.what:
        return outcome.classifier
    made_by = extractor(preparation)
    return on_features(made_by.backbone, outcome.classifier, made_by.card)


def folds_on_features(preparation: Preparation, given: Options) -> int:
    """Choose into how many parts the labeled rows are put to calibrate by; 0 where that is not asked for or needed."""
    asked = given.classify_calibrate
    if len(preparation.held_out) or asked not in ("auto", CROSS):
        return 0
    if asked == CROSS and preparation.options.classify_features == "first":
        return HALVES  # as the whole network, so that the two can be compared
    apart = fewest_apart(preparation.table, preparation.labeled)
    return min(FOLDS, apart) if asked == CROSS or apart > FEW else 0


def enough(preparation: Preparation, features: Features) -> str | None:
    """Say why a run ends with the training on features; None where training the backbone may add to it.

    Judged by a linear classifier on labeled rows that it was not fitted to; the test split chooses nothing.
    """
    table, labeled = preparation.table, preparation.labeled
    labels = table.labels[labeled]
    if len(labels) < JUDGED_FROM or fewest_apart(table, labeled) < FOLDS:
        return None
    parts = parted(table, labeled, FOLDS, preparation.options.seed)
    if not parts:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = [(np.flatnonzero(~(of := np.isin(labeled, part))), np.flatnonzero(of)) for part in parts]
    said = np.asarray(cross_val_predict(model, features[labeled], labels, cv=folds))
    wrong = int((said != labels).sum())
    if wrong > LITTLE * len(labels):
        return None
    return (
        f"of {len(labels)} labeled images {wrong} are judged wrongly by the features of the others: training the "
        "backbone could add little"
    )
