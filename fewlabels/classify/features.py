"""Features first: each row once through a backbone that begins with weights, then a training on that, in seconds."""

from __future__ import annotations

import time
from dataclasses import asdict, fields, replace
from importlib.metadata import version

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewlabels.classify.baselines import Features
from fewlabels.classify.checks import try_step
from fewlabels.classify.choose import FOR_IMAGES, ImagePlan, Plan
from fewlabels.classify.job import Job
from fewlabels.classify.make_job import make_job
from fewlabels.classify.phases import HALVES, Stage
from fewlabels.classify.vectors import make_vector_plan
from fewlabels.classify.work import Work
from fewlabels.config import FeaturesFirst, Options
from fewlabels.data.splits import fewest_apart, parted
from fewlabels.data.vectors import VectorRows
from fewlabels.errors import UserError
from fewlabels.inputs.images.cache import KeptArray, default_folder
from fewlabels.inputs.vectors.store import Vectors
from fewlabels.models.build import CUSTOM, digest_of_parameters, on_features
from fewlabels.models.classifier import Classifier
from fewlabels.processes import send_from_first

FOLDS = 5  # that the labeled rows are parted in to judge a training on features
JUDGED_FROM = 100  # labeled rows, from which on a share of one in a hundred can be told from none
LITTLE = 0.01  # of the labeled rows, judged by others, below which training the backbone could not add much


def embedded(work: Work) -> Features | None:
    """Give the features [N, D] of all rows by the backbone that the run begins with; None where it begins with nothing.

    They are kept on disk, by what the images hold and what the backbone is, where that can be written to. The first of
    several processes makes them for all.
    """
    if features_first(work.plan) == "no":
        return None
    made = {"features": torch.from_numpy(_embedded(work))} if work.writes else None
    return send_from_first(made, work.job.rows.images.device)["features"].cpu().numpy()


def _embedded(work: Work) -> Features:
    classifier = work.job.build().to(work.job.rows.images.device)
    kept = _place(work, classifier)
    found = None if kept is None else kept.open()
    if kept is not None and found is not None and found.shape == (len(work.table), classifier.head.in_features):
        work.show.line(f"features of {len(found):,} images by {work.plan.model}: taken from {kept.folder}")
        return found
    start = time.perf_counter()
    made = classifier.outputs(work.job.rows.images, np.arange(len(work.table))).features.numpy()
    seconds = time.perf_counter() - start
    work.show.line(f"features of {len(made):,} images by {work.plan.model}, {made.shape[1]} each: {seconds:.1f} s")
    if kept is not None:
        try:
            kept.write(made)
        except OSError as error:
            work.show.line(f"they are not kept: {error}", "yellow")
    return made


def _place(work: Work, classifier: Classifier) -> KeptArray | None:
    """Give where the features are kept; None for a backbone of the user's own, which its parameters do not tell."""
    card = classifier.card
    if card.model == CUSTOM:
        return None
    made_by = (torch.__version__, version("timm"), classifier.device.type, digest_of_parameters(classifier.backbone))
    return KeptArray(
        work.options.cache or default_folder(),
        *(work.content, card.model, asdict(card.form), card.mean, card.std, *made_by),
    )


def features_first(plan: Plan) -> FeaturesFirst:
    """Tell whether a run trains on features: no, first, or only."""
    return plan.features if isinstance(plan, ImagePlan) else "no"


def cannot_learn_from_features(work: Work) -> str | None:
    """Say why the method cannot learn from features, where it is to: some turn images, which features cannot be.

    A step is tried on features that are all 0, before any are made.
    """
    if features_first(work.plan) == "no":
        return None
    shape = len(work.table), work.job.build().head.in_features
    try:
        try_step(_job(work, np.zeros(shape, np.float32)), work.method, work.name)
    except UserError as error:
        return f"{work.name} does not learn from features ({error})"
    return None


def features_stage(work: Work, features: Features) -> Stage:
    """Prepare a training by the method on features [N, D]."""

    def whole(trained: Classifier) -> Classifier:
        begun = work.job.build()
        return on_features(begun.backbone, trained, begun.card)

    on = f" on {work.plan.model} features"
    return Stage(_job(work, features), work.folder / "features", on, whole, _folds(work))


def _job(work: Work, features: Features) -> Job:
    """Make what a training on features [N, D] needs."""
    device, table, only = work.job.rows.images.device, work.table, features_first(work.plan) == "only"
    options = _options(work, only)
    plan = make_vector_plan(options, table, VectorRows(features), device)
    vectors = Vectors(torch.from_numpy(features).to(device))
    return replace(
        make_job(table, vectors, options, plan, None, work.folder, work.show),
        rows=replace(work.job.rows, images=vectors),
        process=work.job.process,
        stop=work.job.stop,
        board=work.job.board,
        policy=work.job.policy if only else None,
    )


def _options(work: Work, only: bool) -> Options:
    """Give the options of a training on features: of the run's those that do not speak of images.

    Where the whole network comes after it, steps and rates that were given are for that.
    """
    given = work.options
    if only:
        of_images = {field.name: field.default for field in fields(given) if field.name in FOR_IMAGES}
        options = replace(given, **of_images, model="auto", weights=None, freeze=False, start=None)
    else:
        options = Options(budget=given.budget, seed=given.seed, labeled_in_unlabeled=given.labeled_in_unlabeled)
    recipe = work.plan.recipe
    return replace(options, batch=recipe.batch, unlabeled_ratio=recipe.unlabeled_batch // recipe.batch)


def _folds(work: Work) -> int:
    """Choose into how many parts the labeled rows are put to calibrate by; 0 where that is not asked for or needed."""
    rows, asked = work.job.rows, work.options.calibrate
    if len(rows.held_out) or asked not in ("auto", "cross"):
        return 0
    if asked == "cross" and features_first(work.plan) == "first":
        return HALVES  # as the whole network, so that the two can be compared
    apart = fewest_apart(work.table, rows.labeled)
    return min(FOLDS, apart) if asked == "cross" or apart >= FOLDS else 0


def enough(work: Work, features: Features) -> str | None:
    """Say why a run ends with the training on features; None where training the backbone may add to it.

    Judged by a linear classifier on labeled rows that it was not fitted to; the test split chooses nothing.
    """
    if features_first(work.plan) == "only":
        return work.plan.why["features"]
    rows = work.job.rows
    labels = rows.labels[rows.labeled]
    if len(labels) < JUDGED_FROM or fewest_apart(work.table, rows.labeled) < FOLDS:
        return None
    parts = parted(work.table, rows.labeled, FOLDS, work.options.seed)
    if not parts:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = [(np.flatnonzero(~(of := np.isin(rows.labeled, part))), np.flatnonzero(of)) for part in parts]
    said = np.asarray(cross_val_predict(model, features[rows.labeled], labels, cv=folds))
    wrong = int((said != labels).sum())
    if wrong > LITTLE * len(labels):
        return None
    return (
        f"of {len(labels)} labeled images {wrong} are judged wrongly by the features of the others: training the "
        "backbone could add little"
    )
