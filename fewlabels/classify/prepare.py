"""From a table with its split to what trainings need: the choices, the kept rows, the network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabels.classify.choose import recipe_of, resolve
from fewlabels.classify.preparation import Preparation, board_of
from fewlabels.classify.split import check_classes
from fewlabels.config import Calibrate, Options
from fewlabels.console import Show
from fewlabels.data.splits import hold_out
from fewlabels.data.table import UNLABELED, Labels, Table
from fewlabels.errors import UserError, all_of
from fewlabels.files import read_csv
from fewlabels.inputs.base import Inputs, Intake, Provider, content_of
from fewlabels.inputs.kinds import inputs_of
from fewlabels.keys import Key
from fewlabels.models.build import build_classifier, check_model
from fewlabels.models.classifier import PARAMETERS, Card, read_card
from fewlabels.models.embedded import EMBEDDED
from fewlabels.models.layers import read_policy
from fewlabels.processes import any_of, first_says, this_process
from fewlabels.runs.folder import RunFolder


def prepare(
    table: Table,
    options: Options,
    backbone: nn.Module | None,
    device: torch.device,
    *,
    folder: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    show: Show | None = None,
) -> tuple[Preparation, tuple[str, ...], dict[str, str]]:
    """Choose what the user left open, bring the rows to the device, and build the network, once.

    Args:
        table: with its split.
        options: what the user gave.
        backbone: of the user's own.
        device: where to train.
        folder: of the run; None keeps nothing on disk.
        stop: whether the run was asked to stop.
        show: where to say what happens.

    Returns:
        What trainings need, hashes of what each row holds that the table had before, and the reason of each choice.

    Raises:
        UserError: bad data or options.
        Interrupted: the run was asked to stop.
    """
    show, inputs, whole = show or Show(None), inputs_of(table.contents), table
    options, form, why = resolve(options, table, inputs, device)
    _check_processes(options, device)
    check_model(options.model)
    brought = inputs.bring(table, form, options, device, stop, show)
    table = _checked(brought.table, whole, inputs)
    _check_agreement(table, brought, options)
    table = _with_near_copies(table, brought.store, inputs)
    if options.start is not None:
        check_start(table, options.start)
    card = Card(options.model, table.classes, form, *inputs.statistics(brought.store, np.flatnonzero(~table.test)))
    found = prepared(table, brought.store, inputs, options, card, backbone, folder)
    if folder is not None:
        found = replace(found, board=board_of(table, options, folder))
    if options.start is not None:
        found = replace(found, table=table.with_note(_said_of_start(found, options.start)))
    return found, brought.digests, why | dict(brought.why)


def prepared(
    table: Table,
    store: Provider,
    inputs: Inputs[Any],
    options: Options,
    card: Card,
    backbone: nn.Module | None = None,
    folder: Path | None = None,
) -> Preparation:
    """Put together what trainings need; the options are resolved."""
    before = None if options.start is None else _begun(card, options.start, options)
    key = Key(options.seed)
    classifier = build_classifier(
        before or card,
        key=key.fold("parameters"),
        pretrained=options.pretrained or (options.model in EMBEDDED and options.weights is None),
        weights=options.weights,
        backbone=copy.deepcopy(backbone),
        freeze=options.classify_freeze,
    )
    card = classifier.card  # a pretrained network brings its own statistics
    held_out = _held_out(table, options.seed, options.classify_calibrate)
    train = np.flatnonzero(~table.test)
    return Preparation(
        table=table,
        inputs=inputs,
        store=store,
        labeled=np.setdiff1d(table.labeled_rows, held_out),
        held_out=held_out,
        options=options,
        recipe=recipe_of(options),
        classifier=classifier,
        views=inputs.views((card.mean, card.std), store, train, options),
        key=key.fold("run"),
        start=options.start / PARAMETERS if options.start and before else None,
        policy=None if options.policy == "auto" else read_policy(options.policy),
        center_memory=options.classify_center_memory,
        folder=folder,
    )


def _held_out(table: Table, seed: int, calibrate: Calibrate | str) -> Labels:
    return hold_out(table, seed) if calibrate == "held_out" else table.labeled_rows[:0]


def _check_processes(options: Options, device: torch.device) -> None:
    """Check that batches can be divided among processes and cut into parts, and compiled.

    Raises:
        UserError: they cannot.
    """
    process, recipe = this_process(), recipe_of(options)
    pieces = process.world_size * recipe.accumulate
    if any(size % pieces for size in recipe.sizes):
        among = f"{process.world_size} processes"
        among += f" in {recipe.accumulate} parts each" if recipe.accumulate > 1 else ""
        raise UserError(
            f"{recipe.batch} labeled and {recipe.unlabeled_batch} unlabeled rows a step cannot be divided among "
            f"{among}; give a --batch that {pieces} divides"
        )
    if recipe.compile and device.type == "cuda" and process.world_size > 1:
        raise UserError("--compile yes works with one GPU: batch norm over several cannot be compiled; leave it out")


def _check_agreement(table: Table, brought: Intake, options: Options) -> None:
    """Check that all processes see the same data and choose the same, since a row's number must mean one image."""
    seen: dict[str, Any] = {"rows": table.fingerprint(), "pixels": content_of(brought.digests)}
    seen["choices"] = replace(options, threads=None, device="auto", out=None, images_cache=None)
    different = [name for name, value in seen.items() if any_of(first_says(lambda value=value: value) != value)]
    if different:
        raise UserError(
            f"the processes of this run do not see the same {' and '.join(different)} of {table.name}: give each "
            "machine the same files, command and versions, and --precision float32 where their processors differ"
        )


def _checked(table: Table, whole: Table, inputs: Inputs[Any]) -> Table:
    """Check the classes again, since rows may have been quarantined."""
    if len(table) < len(whole):
        try:
            check_classes(table)
        except UserError as error:
            gone = sorted(set(whole.names) - set(table.names))
            raise UserError(
                f"{error} {inputs.many.capitalize()} that cannot be read: {len(gone)} "
                f"({'; '.join(f'{name}: {table.quarantine[name]}' for name in gone[:3])})."
            ) from error
    return table


def _with_near_copies(table: Table, store: Provider, inputs: Inputs[Any]) -> Table:
    found = inputs.near_copies(store, table.test_rows, np.flatnonzero(~table.test))
    if not len(found.test):
        return table
    test, train = table.names[found.test[0]], table.names[found.train[0]]
    labels = np.where(table.labels == UNLABELED, table.truth, table.labels)
    other = int((labels[found.test] != labels[found.train])[labels[found.train] != UNLABELED].sum())
    return table.with_note(
        f"{len(found.test)} of {found.looked_at} {inputs.copies}, such as {test} and {train}; "
        "what they add to the test accuracy is not earned"
        + (f". {other} of these pairs have two different labels" if other else "")
    )


def check_start(table: Table, start: Path) -> None:
    """Check that a run learned nothing that another, begun with its parameters, reports on.

    Raises:
        UserError: rows that it trained on are test rows now, or their labels are hidden.
    """
    path = start / "split.csv"
    if not path.is_file():
        raise UserError(f"--start {start} is no run: it has no split.csv; give the folder of a finished run")
    RunFolder(start).config()  # of this format, so that its summary can be read in the end
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


def _said_of_start(preparation: Preparation, start: Path) -> str:
    """Say whether a run begins with the parameters of another, and why if not."""
    if preparation.start is None:
        why = "training on features takes seconds, and labels that are held out must not have been learned"
        return f"begun anew, and not with the parameters of {start.name}: {why}"
    gain = "the supervised baseline begins anew, so that the gain over it is of both"
    return f"begun with the parameters of {start.name}, which have learned before; {gain}"


def _begun(card: Card, start: Path, options: Options) -> Card | None:
    """Return the card of the run that another begins with: with its statistics, and not calibrated.

    None where its parameters are of no use: it ended with the features of the same backbone, training on which takes
    seconds; or labels are held out now, which its parameters may have learned.

    Raises:
        UserError: there is no trained run, or it is one of another network, other classes or another form of images.
    """
    before = read_card(start / "model.json")
    if before.model.startswith(f"{card.model}+") or options.classify_calibrate == "held_out":
        return None
    problems = [
        f"{name} was {getattr(before, name)} and is {getattr(card, name)} now"
        for name in ("model", "classes", "form")
        if getattr(before, name) != getattr(card, name)
    ]
    if problems:
        raise all_of(f"--start {start}", problems, "Give the same, or leave --start out to begin anew.")
    return replace(before, scale=(), bias=())
