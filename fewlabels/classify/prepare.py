"""The first phase of a run: the table, the split, the choices, the pixels, the folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabels.classify.checks import check_compiled, check_rule, check_shares, try_step
from fewlabels.classify.choose import GIVEN, ImagePlan, Plan
from fewlabels.classify.features import cannot_learn_from_features, features_first
from fewlabels.classify.identity import describe
from fewlabels.classify.job import Job
from fewlabels.classify.make_job import check_start, make_job, said_of_start
from fewlabels.classify.modality import Modality, modality_of, plan_for
from fewlabels.classify.split import check_classes, with_split
from fewlabels.classify.train import fastest_threads, try_probe
from fewlabels.classify.work import Work
from fewlabels.config import Options
from fewlabels.data.splits import split_text
from fewlabels.data.table import UNLABELED, Table
from fewlabels.errors import UserError
from fewlabels.files import csv_text, replace_text
from fewlabels.inputs.base import Provider
from fewlabels.methods import method_name
from fewlabels.methods.base import Method
from fewlabels.models.build import check_model
from fewlabels.models.layers import read_policy
from fewlabels.own_file import own_file
from fewlabels.processes import Process, any_of, first_says
from fewlabels.runs.folder import OWN_FILE, RUNS, RunFolder
from fewlabels.runs.show import Show
from fewlabels.training.boards import check_board


def prepare(
    table: Table,
    options: Options,
    method: Method,
    reason: str,
    backbone: nn.Module | None,
    device: torch.device,
    *,
    process: Process,
    stop: Callable[[], bool],
    show: Show,
    held: ExitStack,
    source: str | None = None,
) -> Work:
    """Make all that the phases need, and the run's folder; see `fit` for the arguments and errors.

    `reason` is why this method. The folder is kept from other commands until `held` is closed. `source` opens the data
    again.
    """
    name = method_name(method)
    policy = None if options.policy == "auto" else read_policy(options.policy)
    if options.log != "none":
        check_board(options.log)  # before work is done that would be in vain
    table = with_split(table, options)
    folder = RunFolder(options.out or RUNS / f"{table.name}-{name}-{options.seed}")
    first_says(folder.check_free)
    first_says(lambda: held.enter_context(folder.alone()))
    plan = plan_for(options, table, device)
    plan = replace(plan, why={"method": reason, **plan.why})
    check_shares(plan, options, process)
    check_compiled(plan, device, process)
    check_model(plan.model)
    whole = table
    brought = modality_of(plan).bring(table, options, device, stop, show)
    table = _checked(brought.table, whole)
    own = own_file(type(method))
    _check_agreement(table, brought.content, plan, own and own.digest)
    table = _with_near_copies(table, brought.images, modality_of(plan))
    if options.start is not None:
        check_start(table, options.start)
    # Before the folder is made: a network that cannot be must leave no trace that refuses the mended command.
    job = replace(
        make_job(table, brought.images, options, plan, backbone, folder, show),
        process=process,
        stop=stop,
        policy=policy,
    )
    if options.start is not None:
        table = table.with_note(said_of_start(job, options.start))
    work = Work(folder, table, brought.content, options, method, name, plan, job, show)
    if (said := cannot_learn_from_features(work)) is not None:
        if options.features == "only":
            raise UserError(said)
        assert isinstance(plan, ImagePlan)
        plan = replace(plan, features="no", why=plan.why | {"features": said})
        show.line(f"{said}: the whole network is trained without them", "yellow")
    if features_first(plan) != "only":
        check_rule(job, method, name)
        try_step(job, method, name)
        plan = _with_threads(plan, options, folder, job, method)
    if options.probe_every:
        try_probe(job, method)
    config = describe(job, table, brought.content, options, plan, method, backbone, source)
    if own is not None:
        config |= {OWN_FILE: own.digest}  # which file it was is in the method's words, as given
    there = first_says(lambda: _begin(folder, config, whole, table))
    show.line(f"{'continuing' if there else 'writing to'} {folder.path}")
    _say_choices(table, name, plan, show)
    return replace(work, plan=plan)


def _with_threads(plan: Plan, options: Options, folder: RunFolder, job: Job, method: Method) -> Plan:
    """Choose the number of threads: the one that the run was begun with, since sums depend on it, or the fastest."""
    if options.threads is not None:
        return plan
    if begun := first_says(folder.threads):
        return replace(plan, threads=begun, why=plan.why | {"threads": "the run was begun with them"})
    measured = fastest_threads(job, method)
    threads, reason = first_says(lambda: measured)
    return replace(plan, threads=threads, why=plan.why | {"threads": reason})


def _begin(folder: RunFolder, config: dict[str, Any], whole: Table, table: Table) -> bool:
    """Make the run's folder, or continue it; tell whether it was there."""
    there = folder.begin(config, whole.names)
    replace_text(folder / "split.csv", split_text(whole))
    replace_text(folder / "quarantine.csv", csv_text(("path", "reason"), table.quarantine.items()))
    return there


def _say_choices(table: Table, name: str, plan: Plan, show: Show) -> None:
    for note in table.notes:
        show.line(note)
    if table.quarantine:
        what = f"{modality_of(plan).sources} set aside: {len(table.quarantine)}"
        show.line(f"{what}; quarantine.csv names them with the reasons", "yellow")
    if plan.why["method"] != GIVEN:
        show.line(f"method {name}: {plan.why['method']}")
    said = {"model": plan.model, **modality_of(plan).choices(), "steps": plan.recipe.steps}
    for choice, value in said.items():
        show.line(f"{choice} {value}: {plan.why[choice]}")


def _check_agreement(table: Table, content: str, plan: Plan, method_file: str | None) -> None:
    """Check that all processes see the same data and choose the same, since a row's number must mean one image."""
    seen = {"rows": table.fingerprint(), "pixels": content, "choices": replace(plan, threads=0, why={})}
    seen |= {"file of the method": method_file}
    different = [name for name, value in seen.items() if any_of(first_says(lambda value=value: value) != value)]
    if different:
        raise UserError(
            f"the processes of this run do not see the same {' and '.join(different)} of {table.name}: give each "
            "machine the same files, command and versions, and --precision float32 where their processors differ"
        )


def _checked(table: Table, whole: Table) -> Table:
    """Check the classes again, since rows may have been set aside."""
    if len(table) < len(whole):
        try:
            check_classes(table)
        except UserError as error:
            gone = sorted(set(whole.names) - set(table.names))
            raise UserError(
                f"{error} Images that cannot be read: {len(gone)} "
                f"({'; '.join(f'{name}: {table.quarantine[name]}' for name in gone[:3])})."
            ) from error
    return table


def _with_near_copies(table: Table, images: Provider, modality: Modality) -> Table:
    found = modality.copies(images, table.test_rows, np.flatnonzero(~table.test))
    if not len(found.test):
        return table
    test, train = table.names[found.test[0]], table.names[found.train[0]]
    labels = np.where(table.labels == UNLABELED, table.truth, table.labels)
    other = int((labels[found.test] != labels[found.train])[labels[found.train] != UNLABELED].sum())
    return table.with_note(
        f"{len(found.test)} of {found.looked_at} {modality.copies_are}, such as {test} and {train}; "
        "what they add to the test accuracy is not earned"
        + (f". {other} of these pairs have two different labels" if other else "")
    )
