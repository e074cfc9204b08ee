"""The first phase of a run: the table, the split, the choices, the pixels, the folder."""

from __future__ import annotations

import copy
import hashlib
import platform
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabels import __version__
from fewlabels.config import Calibrate, Options, option_values
from fewlabels.data.feed import Share
from fewlabels.data.images import Provider
from fewlabels.data.splits import apply_split, draw_split, hold_out, split_text
from fewlabels.data.table import UNLABELED, Table
from fewlabels.errors import Interrupted, UserError, all_of
from fewlabels.files import csv_text, read_csv, replace_text
from fewlabels.keys import Key
from fewlabels.methods import is_ours, method_name
from fewlabels.methods.base import Method
from fewlabels.models.build import ON_FEATURES, build_classifier, check_model, digest_of_parameters
from fewlabels.models.classifier import PARAMETERS, Card, Classifier, read_card
from fewlabels.models.layers import preset_of, read_policy, scales_of
from fewlabels.models.network import LayerRule
from fewlabels.own_file import own_file, where_it_failed
from fewlabels.runs.choose import GIVEN, ImagePlan, Plan
from fewlabels.runs.folder import FORMAT, OWN_FILE, RUNS, RunFolder, plain
from fewlabels.runs.job import Job, Rows, layer_rule
from fewlabels.runs.modality import Modality, modality_of, plan_for
from fewlabels.runs.read_labels import with_more_labels
from fewlabels.runs.show import Show
from fewlabels.runs.train import fastest_threads, seconds_a_step, try_probe
from fewlabels.training.boards import Board, Training, check_board, open_board
from fewlabels.training.processes import any_of, first_says


@dataclass(frozen=True, eq=False)
class Work:
    """What the phases of a run share."""

    folder: RunFolder
    table: Table
    content: str
    options: Options
    method: Method
    name: str
    plan: Plan
    job: Job
    show: Show

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the run: the first of several does."""
        return self.job.share.rank == 0


def prepare(
    table: Table,
    options: Options,
    method: Method,
    reason: str,
    backbone: nn.Module | None,
    device: torch.device,
    *,
    share: Share,
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
    check_shares(plan, options, share)
    _check_compiled(plan, device, share)
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
        make_job(table, brought.images, options, plan, backbone, folder, show), share=share, stop=stop, policy=policy
    )
    if options.start is not None:
        table = table.with_note(_said_of_start(job, options.start))
    # Features are tried when they are there: a step of the whole network would take longer than to make them.
    if not (isinstance(plan, ImagePlan) and plan.features == "only"):
        check_rule(job, method, name)
        _try(job, method, name)
        plan = _with_threads(plan, options, folder, job, method)
    if options.probe_every:
        try_probe(job, method)
    config = _config(table, brought.content, options, plan, method, device, _begun_with(job, options, backbone))
    config |= {"layers": _layers(layer_rule(job, method)), "given": _given(options, source)}
    if own is not None:
        config |= {OWN_FILE: own.digest}  # which file it was is in the method's words, as given
    there = first_says(lambda: _begin(folder, config, whole, table))
    show.line(f"{'continuing' if there else 'writing to'} {folder.path}")
    _say_choices(table, name, plan, show)
    return Work(folder, table, brought.content, options, method, name, plan, job, show)


def _try(job: Job, method: Method, name: str) -> None:
    """Do a step on copies: what a method cannot do it says now.

    Raises:
        UserError: what it says; or how a method of the user's own fails, and in which line of its file.
    """
    try:
        seconds_a_step(job, method, tries=1)
    except (UserError, Interrupted, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if is_ours(method):
            raise
        raise UserError(
            f"{name} cannot do a step: {where_it_failed(error, type(method))}. Its `forward` gives a dictionary of "
            "0-dim tensors, with `loss`, from the views that its `views` asks for; CONTRIBUTING.md shows a whole one."
        ) from error


def check_rule(job: Job, method: Method, name: str) -> None:
    """Check that a policy and averaged centers have something to act on.

    Raises:
        UserError: they have not.
    """
    if not method.views().unlabeled:
        if job.policy is not None or job.center_memory:
            raise UserError(f"{name} uses no unlabeled images: leave --policy and --center-memory out")
        return
    if method.mixes and (job.policy or job.center_memory):
        raise UserError(
            f"{name} mixes labeled with unlabeled images, so that no layer can tell whose gradient it gets: leave "
            "--policy and --center-memory out"
        )
    classifier, policy = job.build(), layer_rule(job, method).policy
    scales = scales_of(classifier, policy)
    learned = {name: scales.get(name, 1.0) for name, p in classifier.named_parameters() if p.requires_grad}
    if not any(learned.values()):
        freeze = "--freeze trains the head alone, and " if classifier.frozen else ""
        raise UserError(
            f"{freeze}{name} with the policy {preset_of(policy)} keeps pseudo-labels from all that learns: "
            "nothing would be learned from the unlabeled images. Give --policy all."
        )
    if job.policy and scales and not set(scales) & set(learned):
        raise UserError(f"the policy {preset_of(policy)} names only layers that --freeze keeps as they are")


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
        show.line(f"files set aside: {len(table.quarantine)}; quarantine.csv names them with the reasons", "yellow")
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


def _check_compiled(plan: Plan, device: torch.device, share: Share) -> None:
    if plan.recipe.compile and device.type == "cuda" and share.world > 1:
        raise UserError("--compile yes works with one GPU: batch norm over several cannot be compiled; leave it out")


def check_shares(plan: Plan, options: Options, share: Share) -> None:
    """Check that batches can be shared out over processes, and parted.

    Raises:
        UserError: they cannot.
    """
    batch, unlabeled, parts = plan.recipe.batch, plan.recipe.unlabeled_batch, options.accumulate or 1
    if batch % (share.world * parts) or unlabeled % (share.world * parts):
        among = f"{share.world} processes" + (f" in {parts} parts each" if parts > 1 else "")
        raise UserError(
            f"{batch} labeled and {unlabeled} unlabeled images a step do not share out over {among}; "
            f"give a --batch that {share.world * parts} divides"
        )


def with_split(table: Table, options: Options) -> Table:
    """Draw the split of a run, or take the given one.

    Raises:
        UserError: options that contradict each other or the data; a class without a labeled image.
    """
    if options.split is None:
        table = draw_split(table, options.labels_per_class, options.seed)
    elif options.labels_per_class is None:
        table = apply_split(table, options.split)
    else:
        raise UserError("--split says which labels are kept, and so does --labels-per-class; give one of them")
    if options.labels is not None:
        table = with_more_labels(table, options.labels)
    check_classes(table)
    return table


def check_classes(table: Table) -> None:
    """Check that there are classes to learn.

    Raises:
        UserError: no labeled rows, one class only, or classes without a labeled training image; all at once.
    """
    labeled = table.labels[table.labeled_rows]
    mend = "Give at least two classes and one labeled training image of each."
    if not len(labeled):
        raise all_of(table.name, [f"none of the {len(table)} rows is a labeled training image"], mend)
    problems = [f"{len(table.classes)} class only, {', '.join(table.classes)}"] if len(table.classes) < 2 else []
    tested = table.labels[table.test_rows]
    missing = [k for k in range(len(table.classes)) if not (labeled == k).any()]
    unknown = [table.classes[k] for k in missing if (tested == k).any()]
    problems += [f"the test split has classes unknown in training: {', '.join(unknown)}"] if unknown else []
    others = [table.classes[k] for k in missing if not (tested == k).any()]
    problems += [f"no labeled training image of {', '.join(others)}"] if others else []
    if problems:
        raise all_of(table.name, problems, mend)


# Options that a run may be continued without.
_OF_A_SITTING = ("out", "cache", "log", "probe_every", "device", "threads")

_ASKED = 8  # rows that a backbone of the user's own is told from another by

# Options that decide what is trained and are in no other part of the configuration.
_IDENTITY = (
    "budget",
    "calibrate",
    "labels_per_class",
    "labeled_in_unlabeled",
    "seed",
    "pretrained",
    "freeze",
    "baseline",
    "strengths",
)


def _begun_with(job: Job, options: Options, backbone: nn.Module | None) -> str | None:
    """Tell what a run begins with from another, where it is the user's: by a hash of the parameters.

    A backbone of their own may differ in what it computes alone, and a function has no parameters: so what it makes of
    the first rows counts too, rounded, since the last digits depend on the number of threads.
    """
    if backbone is not None:
        first = np.arange(min(_ASKED, len(job.rows.labels)))
        made = job.build().to(job.rows.images.device).outputs(job.rows.images, first).features
        return f"{digest_of_parameters(backbone)} giving {made.mean():.3g} +- {made.std(correction=0):.3g}"
    files = (options.start and options.start / PARAMETERS, options.weights)
    found = [
        hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files if file is not None and file.is_file()
    ]
    return "+".join(found) or None


def _layers(rule: LayerRule) -> dict[str, Any]:
    return {"policy": preset_of(rule.policy), "center_memory": rule.center_memory}


def _given(options: Options, source: str | None) -> dict[str, Any]:
    """Describe what the user gave, so that the run can be prepared again from another folder."""
    values = {name: v.absolute() if isinstance(v, Path) else v for name, v in option_values(options).items()}
    return plain({"data": source} | {name: v for name, v in values.items() if name not in _OF_A_SITTING})


def _config(
    table: Table,
    content: str,
    options: Options,
    plan: Plan,
    method: Method,
    device: torch.device,
    begun_with: str | None,
) -> dict[str, Any]:
    """Describe a run so that two commands of the same description may continue each other."""
    chosen = asdict(plan)
    why = chosen.pop("why")
    threads = chosen.pop("threads")
    return plain(
        {
            "format": FORMAT,
            "version": __version__,
            "data": {
                "name": table.name,
                "rows": table.fingerprint(),
                "content": content,
                "labeled": len(table.labeled_rows),
                "unlabeled": len(table.unlabeled_rows),
                "test": len(table.test_rows),
            },
            "method": {"name": method_name(method), **option_values(method)},
            "options": {name: getattr(options, name) for name in _IDENTITY},
            "begun_with": begun_with,
            "plan": chosen,
            "why": why,
            "where": {
                "device": str(device),
                "threads": threads,
                "machine": platform.machine(),
                "torch": str(torch.__version__),
            },
        }
    )


def _rows(table: Table, images: Provider, seed: int, calibrate: Calibrate) -> Rows:
    held_out = hold_out(table, seed) if calibrate == "held_out" else table.labeled_rows[:0]
    labeled = np.setdiff1d(table.labeled_rows, held_out)
    return Rows(images, table.labels, table.truth, labeled, table.unlabeled_rows, table.test_rows, held_out)


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


def _said_of_start(job: Job, start: Path) -> str:
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
