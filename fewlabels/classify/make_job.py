"""From a plan to what a training needs; and a job that begins with the parameters of another run."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from fewlabels.classify.choose import Plan
from fewlabels.classify.job import Job, Rows
from fewlabels.classify.modality import modality_of
from fewlabels.config import Calibrate, Options
from fewlabels.data.splits import hold_out
from fewlabels.data.table import UNLABELED, Table
from fewlabels.errors import UserError, all_of
from fewlabels.files import read_csv
from fewlabels.inputs.base import Provider
from fewlabels.keys import Key
from fewlabels.models.build import ON_FEATURES, build_classifier
from fewlabels.models.classifier import PARAMETERS, Card, Classifier, read_card
from fewlabels.runs.folder import RunFolder
from fewlabels.runs.show import Show
from fewlabels.training.boards import Board, Training, open_board


def make_job(
    table: Table,
    images: Provider,
    options: Options,
    plan: Plan,
    backbone: nn.Module | None = None,
    folder: RunFolder | None = None,
    show: Show | None = None,
) -> Job:
    """Make what a training needs; see `Job`. What several processes and the method add comes later.

    The folder is where loggers keep their files; a job needs none otherwise.
    """
    modality, train = modality_of(plan), np.flatnonzero(~table.test)
    card = Card(plan.model, table.classes, plan.form, *modality.statistics(images, train))
    before = None if options.start is None else _begun(card, options.start, plan)
    card = before or card
    key = Key(options.seed)

    def build() -> Classifier:
        return build_classifier(
            card,
            key=key.fold("parameters"),
            pretrained=options.pretrained,
            weights=options.weights,
            backbone=copy.deepcopy(backbone),
            freeze=options.freeze,
        )

    card = build().card  # a pretrained network brings its own statistics
    return Job(
        start=options.start / PARAMETERS if options.start and before else None,
        rows=_rows(table, images, options.seed, plan.calibrate),
        views=modality.views(card, images, train, options),
        recipe=plan.recipe,
        build=build,
        labeled_in_unlabeled=options.labeled_in_unlabeled,
        key=key.fold("run"),
        show=show or Show(None),
        probe_every=options.probe_every,
        center_memory=options.center_memory,
        board=None if folder is None or options.log == "none" else partial(_open_board, table, options, plan, folder),
    )


def _rows(table: Table, images: Provider, seed: int, calibrate: Calibrate) -> Rows:
    held_out = hold_out(table, seed) if calibrate == "held_out" else table.labeled_rows[:0]
    labeled = np.setdiff1d(table.labeled_rows, held_out)
    return Rows(images, table.labels, table.truth, labeled, table.unlabeled_rows, table.test_rows, held_out)


def _open_board(table: Table, options: Options, plan: Plan, folder: RunFolder, name: str, first: int) -> Board:
    facts = {
        "data": table.name,
        "method": options.method,
        "model": plan.model,
        "seed": options.seed,
        "steps": plan.recipe.steps,
        "labeled": len(table.labeled_rows),
        "unlabeled": len(table.unlabeled_rows),
    }
    return open_board(options.log, Training(folder.path, name, first, facts))


def check_start(table: Table, start: Path) -> None:
    """Check that a run learned nothing that another, begun with its parameters, reports on.

    Raises:
        UserError: rows that it trained on are test rows now, or their labels are hidden.
    """
    path = start / "split.csv"
    if not path.is_file():
        raise UserError(f"--start {start} is no run: it has no split.csv; give the folder of a finished run")
    columns = (read_csv(path, column) for column in ("name", "label", "split"))
    before = {name: (label, split) for name, label, split in zip(*columns, strict=True)}
    seen = [
        name
        for name, test, truth in zip(table.names, table.test, table.truth, strict=True)
        if before.get(name, ("", "test"))[1] != "test" and (test or (truth != UNLABELED and before[name][0]))
    ]
    if seen:
        raise UserError(
            f"--start {start} was trained on {len(seen)} rows that only report now, such as {seen[0]}: what is "
            f"reported would not be earned. Give --split {path} too."
        )


def said_of_start(job: Job, start: Path) -> str:
    """Say whether a job begins with the parameters of another run, and why if not."""
    if job.start is None:
        why = "training on features takes seconds, and labels that are held out must not have been learned"
        return f"begun anew, and not with the parameters of {start.name}: {why}"
    gain = "labels only begins anew, so that the gain over it is of both"
    return f"begun with the parameters of {start.name}, which have learned before; {gain}"


def _begun(card: Card, start: Path, plan: Plan) -> Card | None:
    """Give the card of the run that another begins with: with its statistics, and not calibrated.

    None where its parameters are of no use: it ended with the features of the same backbone, training on which takes
    seconds; or labels are held out now, which its parameters may have learned.

    Raises:
        UserError: there is no trained run, or it is one of another network, other classes or another form of images.
    """
    before = read_card(start / "model.json")
    if before.model == card.model + ON_FEATURES or plan.calibrate == "held_out":
        return None
    problems = [
        f"{name} was {getattr(before, name)} and is {getattr(card, name)} now"
        for name in ("model", "classes", "form")
        if getattr(before, name) != getattr(card, name)
    ]
    if problems:
        raise all_of(f"--start {start}", problems, "Give the same, or leave --start out to begin anew.")
    return replace(before, scale=(), bias=())
