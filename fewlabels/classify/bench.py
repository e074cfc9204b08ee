"""`bench` of methods: each is a variant, compared with the supervised baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fewlabels.classify.fit import make_task, read_options
from fewlabels.classify.outcome import SUPERVISED
from fewlabels.classify.split import with_split
from fewlabels.classify.task import Classify
from fewlabels.console import Show
from fewlabels.data.sources.open import Array, Data, open_table
from fewlabels.data.table import UNLABELED, Table
from fewlabels.errors import UserError
from fewlabels.methods import make_method, method_name, option_fields
from fewlabels.methods.base import Method
from fewlabels.methods.supervised import Supervised
from fewlabels.models.layers import Policy
from fewlabels.own_file import own_file, where_it_failed
from fewlabels.runs.bench import (
    BenchResult,
    Comparison,
    check_for_runs,
    check_one_process,
    folder_name,
    parted,
    read_seeds,
)
from fewlabels.runs.folder import RUNS, RunFolder

OF_ONE_RUN = ("method", "seed", "baseline")  # options that differ from run to run, and so are no options here
AS_PUBLISHED: dict[str, Any] = {"choose": "method", "propagate": 0.0}  # unless the user says otherwise
_OF_UNLABELED = ("classify_center_memory", "probe_every")  # options that the supervised baseline refuses


def bench(
    data: Data,
    *,
    methods: str | Sequence[str | Method],
    seeds: int | str | Sequence[int] = 5,
    model: str | nn.Module = "auto",
    unlabeled: str | Path | Array | None = None,
    policy: str | Policy = "auto",
    out: str | Path | None = None,
    show: Show | None = None,
    **options: Any,
) -> BenchResult:
    """Compare methods on the same data, splits and starting parameters, over seeds.

    Args:
        data, model, unlabeled, policy: as in `fit`; a policy is for all methods but the supervised baseline.
        methods: names with options, as "fixmatch:threshold=0.9", `path/to/file.py:CLASS`, or methods; in one text they
            are parted by commas. The supervised baseline is always compared.
        seeds: how many, from 0 on; "10-19", the first and the last; or a list.
        out: folder of the runs and of what was found, `runs/bench-DATA` by default. The same call resumes where it was
            stopped; what is finished is read.
        show: where to say what happens; silent by default.
        options: the other fields of `fewlabels.Options`, for every run.

    Raises:
        UserError: bad input, or data that has nothing to report on; before anything is trained. A method that fails
            later has the reason in its row.
        Interrupted: it was asked to stop, and saved its state.
    """
    if given := [name for name in OF_ONE_RUN if name in options]:
        raise UserError(f"bench sets {', '.join(OF_ONE_RUN)} for each run itself; leave {', '.join(given)} out")
    check_one_process()
    made, numbers = _read_methods(methods), read_seeds(seeds)
    chosen = replace(read_options("auto", model, unlabeled, policy, options), seed=numbers[0])
    table = with_split(open_table(data, unlabeled, chosen.root), chosen)
    _check_measured(table)
    folder = RunFolder(Path(out) if out is not None else RUNS / f"bench-{table.name}")
    check_for_runs(folder.path)
    given = {**AS_PUBLISHED, "baseline": False, **options}

    def make(name: str, seed: int) -> Classify:
        own = given | {"seed": seed, "out": folder / f"{folder_name(name)}-{seed}"}
        if name == SUPERVISED:
            return make_task(
                data, made[name], model, unlabeled, "auto", own | dict.fromkeys(_OF_UNLABELED) | {"propagate": 0.0}
            )
        return make_task(data, made[name], model, unlabeled, policy, own)

    def reason(error: Exception, name: str) -> str | None:
        if isinstance(error, UserError):
            return str(error)
        kind = type(made[name])
        return where_it_failed(error, kind) if own_file(kind) else None

    setting = {"labels_per_class": _labels_per_class(table), "budget": chosen.budget, "propagate": given["propagate"]}
    with folder.alone():
        return Comparison(
            folder, Classify.metric, list(made), numbers, make, show or Show(None), setting, facts, reason
        ).result_of_all()


def facts(setting: Mapping[str, Any]) -> list[str]:
    """Say what was compared on."""
    few, many = setting["labels_per_class"]
    labels = f"{few} label{'s' * (few != 1)}" if few == many else f"{few} to {many} labels"
    return [
        f"{setting['data']}: {labels} a class",
        f"{setting['unlabeled']} unlabeled",
        f"{setting['test']} test",
        f"budget {setting['budget']} ({setting['steps']} steps)",
        *([f"propagate {setting['propagate']}"] if setting.get("propagate") else []),
    ]


def _read_methods(methods: str | Sequence[str | Method]) -> dict[str, Method]:
    """Make the methods, by name, the supervised baseline first."""
    given = parted(methods) if isinstance(methods, str) else methods
    made = [make_method(each) if isinstance(each, str) else each for each in given]
    named: dict[str, Method] = {}
    for method in made:
        if type(method) is Supervised:
            continue
        if folder_name(name := _label(method)) in map(folder_name, [SUPERVISED, *named]):
            raise UserError(f"two methods are called {name}: give each once, or rename the class or the file of one")
        named[name] = method
    if not named:
        raise UserError("give methods to compare with the supervised baseline, such as fixmatch,layermatch")
    return {SUPERVISED: Supervised(), **named}


def _label(method: Method) -> str:
    """Name a method with the options that are not its defaults."""
    own = own_file(type(method))
    name = f"{own.path.name}:{type(method).__name__}" if own else method_name(method)
    values = {each.name: getattr(method, each.name) for each in option_fields(type(method))}
    other = [each.name for each in option_fields(type(method)) if values[each.name] != each.default]
    return ":".join([name, *(f"{option}={values[option]}" for option in other)])


def _check_measured(table: Table) -> None:
    """Check that there is something to compare by: a test split, or hidden labels."""
    if not len(table.test_rows) and not (table.truth != UNLABELED).any():
        raise UserError(
            f"{table.name} has no test split and no hidden labels, so there is nothing to compare methods by. Put some "
            "labeled images into test/ (test/CLASS/*; the column split of a sheet; x_test and y_test of arrays), or "
            "label all of them and give --labels-per-class, which hides the others."
        )


def _labels_per_class(table: Table) -> tuple[int, int]:
    counts = np.bincount(table.labels[table.labeled_rows], minlength=len(table.classes))
    return int(counts.min()), int(counts.max())
