"""`probe`: the layer probe of a run, at its newest checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabels.classify.identity import given_options, resolved_options
from fewlabels.classify.preparation import PROBE, Preparation, begin, probe_of, propagated_targets
from fewlabels.classify.prepare import prepared
from fewlabels.classify.report.words import AGREEMENT_MEANING, RATIO_MEANING, TEST_MEANING, agreement_title
from fewlabels.classify.tables import agreement_table
from fewlabels.console import Show
from fewlabels.data.sources.open import Array, Data, open_table
from fewlabels.data.splits import apply_split
from fewlabels.data.table import Table
from fewlabels.errors import UserError
from fewlabels.inputs.base import content_of
from fewlabels.inputs.kinds import form_of, inputs_of
from fewlabels.methods import method_class, method_name, method_names
from fewlabels.methods.base import Method
from fewlabels.models.build import CUSTOM, brings_statistics, pretrained_statistics
from fewlabels.models.classifier import Card
from fewlabels.models.layers import read_policy
from fewlabels.own_file import digest_of
from fewlabels.runs.device import choose_device
from fewlabels.runs.folder import RunFolder
from fewlabels.runs.host import host_settings_kept
from fewlabels.training import checkpoint
from fewlabels.training.record import read_lines

_ELSEWHERE = "Where it lies elsewhere now, give it: fewlabels probe RUN --data DATA."


def probe(
    run: str | Path,
    data: Data | None = None,
    *,
    unlabeled: str | Path | Array | None = None,
    root: Path | None = None,
    method: str | Method | None = None,
    model: nn.Module | None = None,
    device: str | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Say how far pseudo-labels agree with true labels in each layer of a run, as it is at its newest checkpoint.

    Args:
        run: the run's folder; it is not changed.
        data: what the run was made from; needed where that was no path and no name, or lies elsewhere now.
        unlabeled, root: likewise, as in `fit`.
        method: the run's, with its options, where it is one of your own; of one that was read from a file
            `path/to/file.py:CLASS`, where the file lies elsewhere now.
        model: the run's backbone, where it is one of your own.
        device: where to work; where the run did, if that is here, by default.
        show: where to print the table; silent by default.

    Returns:
        As JSON: the fields of `layer_probe.Probed`, `run`, `method`, and `history`, what `--probe-every` noted
        while training.

    Raises:
        UserError: no run or checkpoint, other data, or nothing to probe.
    """
    folder = RunFolder(Path(run))
    config = folder.config()
    found = checkpoint.load(folder / "checkpoint")
    if found is None and (folder / "features").is_dir():
        raise UserError(f"{folder.path} ended with the features of its backbone, of which no layer was trained")
    if found is None:
        raise UserError(f"{folder.path} has no checkpoint that can be read: train it first")
    made = method if isinstance(method, Method) else _method_of(config, method)
    if method_name(made) != config["method"]["name"]:
        raise UserError(f"the run's method is {config['method']['name']}, and not {method_name(made)}")
    where = _device(device, config)
    with host_settings_kept():
        preparation = _prepared(folder, config, data, model, where, unlabeled, root)
        parts = int(found.notes["accumulate"])
        if config["where"]["device"] == "cpu":
            parts *= int(found.notes["processes"])  # batch norm saw a process's own rows
        try:
            torch.set_num_threads(int(config["where"]["threads"]))
            result = _probed(preparation, made, found, parts, folder.path)
        except torch.OutOfMemoryError as error:
            raise UserError(f"out of memory in the layer probe: give --device cpu ({error})") from error
    result = {"run": str(folder.path), "method": config["method"]["name"]} | result
    result["history"] = read_lines(folder / f"{PROBE}.jsonl")
    if show is not None:
        show.line(agreement_title(result))
        show.table(agreement_table(result))
        said = [AGREEMENT_MEANING, TEST_MEANING if result["against"] == "test" else "", RATIO_MEANING]
        show.line(" ".join(filter(None, said)))
    return result


def _device(asked: str | None, config: dict[str, Any]) -> torch.device:
    """Give the device that was asked for, else the run's where it is here."""
    if asked is not None:
        return choose_device(asked)
    try:
        return choose_device(config["where"]["device"])
    except UserError:
        return choose_device("auto")


def _prepared(
    folder: RunFolder,
    config: dict[str, Any],
    data: Data | None,
    model: nn.Module | None,
    device: torch.device,
    unlabeled: str | Path | Array | None,
    root: Path | None,
) -> Preparation:
    given, source = given_options(config)
    data = source if data is None else data
    if data is None:
        raise UserError(f"{folder.path} was made from data in memory: give it, as fewlabels.probe(run, data)")
    if model is None and config["options"]["model"] == CUSTOM:
        raise UserError(f"{folder.path} has a backbone of your own: give it, as fewlabels.probe(run, model=module)")
    try:
        table = open_table(data, given["unlabeled"] if unlabeled is None else unlabeled, root or given["root"])
        return _looked_again(table, model, config, folder, device)
    except UserError as error:
        raise UserError(f"{error} {_ELSEWHERE}" if _ELSEWHERE not in str(error) else str(error)) from error


def _looked_again(
    table: Table, backbone: nn.Module | None, config: dict[str, Any], folder: RunFolder, device: torch.device
) -> Preparation:
    """Prepare a run again from its configuration; nothing is written, and no weights are needed.

    Args:
        table: of its data, without a split.
        backbone: of the run, where it is the user's own.
        config: of the run.
        folder: of the run.
        device: where to work; it need not be the run's.

    Raises:
        UserError: the data is not the run's.
    """
    table, options = apply_split(table, folder / "split.csv"), resolved_options(config)
    inputs, form = inputs_of(table.contents), form_of(config["form"])
    brought = inputs.bring(table, form, options, device, lambda: False, Show(None))
    table, data = brought.table, config["data"]
    if (table.fingerprint(), content_of(brought.digests)) != (data["rows"], data["content"]):
        raise UserError(f"the data is not what {folder.path} was made from: rows or labels differ. {_ELSEWHERE}")
    train = np.flatnonzero(~table.test)
    card = Card(options.model, table.classes, form, *inputs.statistics(brought.store, train))
    untrained = replace(options, weights=None, pretrained=False, start=None)
    found = prepared(table, brought.store, inputs, untrained, card, backbone)
    if brings_statistics(options.model, options.pretrained, options.weights):
        own = pretrained_statistics(found.classifier.backbone)
        found = replace(found, views=inputs.views((own["mean"], own["std"]), brought.store, train, options))
    layers = config["layers"]
    return replace(found, policy=read_policy(layers["policy"]), center_memory=layers["center_memory"])


def _method_of(config: dict[str, Any], elsewhere: str | None) -> Method:
    """Make the method of a configuration again; `elsewhere` names the file of a user's own where it was moved."""
    options = dict(config["method"])
    name = options.pop("name")
    if "method_file_digest" in config:
        kind = _own_class(config, name, elsewhere)
    elif elsewhere is None and name not in method_names():
        raise UserError(f"the run's method {name} is one of your own: give it, as fewlabels.probe(run, method=...)")
    else:
        kind = method_class(elsewhere or name)
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})


def _own_class(config: dict[str, Any], name: str, elsewhere: str | None) -> type[Method]:
    spec = elsewhere or config["given"]["method"]
    file = spec.removesuffix(f":{name}")
    mend = f"Where it lies elsewhere now, give it: fewlabels probe RUN --method path/to/file.py:{name}."
    if not Path(file).is_file():
        raise UserError(f"the method of this run was read from {file}, where no file is now. {mend}")
    if digest_of(Path(file).read_bytes()) != config["method_file_digest"]:  # before a line of it is executed
        raise UserError(f"{file} has changed since this run was begun, and is needed as it was. {mend}")
    return method_class(spec)


def _probed(
    preparation: Preparation, method: Method, found: checkpoint.Checkpoint, parts: int, folder: Path
) -> dict[str, Any]:
    state, _ = begin(preparation, method)
    state.load({name: tensor for name, tensor in found.tensors.items() if not name.startswith("record/")})
    state.learner.train()
    probe = probe_of(preparation, method, parts, propagated_targets(preparation, method, folder))
    return asdict(probe(state.learner.network, state.learner.method, state.step))
