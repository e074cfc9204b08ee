"""`probe`: the layer probe of a run, at its newest checkpoint."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewlabels.config import Options
from fewlabels.data.feed import WHOLE
from fewlabels.data.sources.open import Array, Data, open_table
from fewlabels.errors import UserError
from fewlabels.methods import method_class, method_names
from fewlabels.methods.base import Method
from fewlabels.report.words import AGREEMENT_MEANING, RATIO_MEANING, agreement_title
from fewlabels.runs.choose import choose_device
from fewlabels.runs.folder import RunFolder, given_options
from fewlabels.runs.prepare import prepare
from fewlabels.runs.show import Show, agreement_table
from fewlabels.runs.train import PROBES, Job, begin, make_probe
from fewlabels.training import checkpoint
from fewlabels.training.record import read_lines


def probe(
    run: str | Path,
    data: Data | None = None,
    *,
    unlabeled: str | Path | Array | None = None,
    method: Method | None = None,
    model: nn.Module | None = None,
    device: str | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Say how far pseudo-labels agree with true labels in each layer of a run, as it is at its newest checkpoint.

    Args:
        run: the run's folder; it is not changed.
        data: what the run was made from; needed where that was no path and no name, or lies elsewhere now.
        unlabeled: likewise.
        method: the run's, with its options, where it is one of your own.
        model: the run's backbone, where it is one of your own.
        device: where to work; the run's by default.
        show: where to print the table; silent by default.

    Returns:
        As JSON: `step`, `against` (hidden or test: whose true labels), `kept`, `wrong`, `layers` (each with `layer`,
        `cosine`, `ratio`; see `evaluation.probe.Probed`), and `history`, what `--probe-every` noted while training.

    Raises:
        UserError: no run or checkpoint, other data, or nothing to probe.
    """
    folder = RunFolder(Path(run))
    config = folder.config()
    found = checkpoint.load(folder / "checkpoint")
    if found is None:
        raise UserError(f"{folder.path} has no checkpoint that can be read: train it first")
    given, source = given_options(config)
    data = source if data is None else data
    if data is None:
        raise UserError(f"{folder.path} was made from data in memory: give it, as fewlabels.probe(run, data)")
    made = method or _method_of(config)
    given["out"], given["device"] = folder.path, device or given["device"]
    options = Options(**given)
    where = choose_device(options.device)
    threads = torch.get_num_threads()
    with ExitStack() as held, torch.random.fork_rng():
        table = open_table(data, options.unlabeled if unlabeled is None else unlabeled, options.root)
        work = prepare(
            table, options, made, model, where, share=WHOLE, stop=lambda: False, show=Show(None), held=held
        )  # fmt: skip
        try:
            torch.set_num_threads(work.plan.threads)
            result = _probed(work.job, made, found)
        finally:
            torch.set_num_threads(threads)
    result = {"run": str(folder.path), "method": work.name} | result | {"history": read_lines(folder / PROBES)}
    if show is not None:
        show.line(agreement_title(result))
        show.table(agreement_table(result))
        show.line(f"{AGREEMENT_MEANING} {RATIO_MEANING}")
    return result


def _method_of(config: dict[str, Any]) -> Method:
    """Make the method of a configuration again."""
    options = dict(config["method"])
    name = options.pop("name")
    if name not in method_names():
        raise UserError(f"the run's method {name} is one of your own: give it, as fewlabels.probe(run, method=...)")
    return method_class(name)(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})


def _probed(job: Job, method: Method, found: checkpoint.Checkpoint) -> dict[str, Any]:
    state, _ = begin(job, method)
    state.load({name: tensor for name, tensor in found.tensors.items() if not name.startswith("record/")})
    state.learner.train()
    against = "hidden" if len(job.rows.hidden) else "test"
    return {"against": against} | asdict(make_probe(job, method)(state.network, state.method, state.step))
