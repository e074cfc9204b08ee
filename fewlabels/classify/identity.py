"""By what a run to classify is recognized when it is finished, and by what a command continues one or is refused."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from fewlabels.classify.preparation import Preparation, layer_rule
from fewlabels.config import Options, option_values, with_paths
from fewlabels.data.splits import split_text
from fewlabels.data.table import Table
from fewlabels.files import state_of
from fewlabels.inputs.base import content_of
from fewlabels.inputs.kinds import inputs_of
from fewlabels.methods import method_name
from fewlabels.methods.base import Method
from fewlabels.models.build import digest_of_parameters
from fewlabels.models.classifier import PARAMETERS
from fewlabels.models.layers import preset_of
from fewlabels.own_file import own_file
from fewlabels.runs.folder import RunFolder, plain

# Options that a run may be continued without.
_OF_A_SITTING = ("out", "images_cache", "log", "probe_every", "device", "threads")

# Options that say where something is read from, and what is chosen apart from the others; what they come to counts.
_ELSEWHERE = (
    "method",
    "policy",
    "classify_center_memory",
    "weights",
    "unlabeled",
    "root",
    "split",
    "labels",
    "start",
    "images_feed",
)

_ASKED = 8  # rows that a backbone of the user's own is told from another by
_SEEN = 3  # and random directions


def identity_of(table: Table, options: Options, method: Method) -> dict[str, Any]:
    """Return what tells a run from others without a look at its rows: their names, labels, sizes and times."""
    own = own_file(type(method))
    values = {name: value for name, value in option_values(options).items() if name not in _OF_A_SITTING}
    values |= {name: state_of(value) for name, value in values.items() if isinstance(value, Path)}
    if options.start is not None:
        values["start"] = state_of(options.start / PARAMETERS)
    return plain(
        {
            "options": values,
            "method": {"name": method_name(method), "file": own and own.digest, **option_values(method)},
            "rows": table.fingerprint(),
            "listing": inputs_of(table.contents).listing(table),
        }
    )


def configuration(
    preparation: Preparation,
    digests: Sequence[str],
    given: Options,
    method: Method,
    backbone: nn.Module | None,
    source: str | None,
    why: Mapping[str, str],
    *,
    threads: int,
    own: str | None,
) -> dict[str, Any]:
    """Describe a run so that two commands of the same description may continue each other.

    Args:
        preparation: of the run.
        digests: of what the rows hold.
        given: the options as the user gave them.
        method: with its options.
        backbone: the user's own, where they gave one.
        source: opens the data again.
        why: the reason of each choice.
        threads: that the run works with.
        own: digest of the user's own file that the method was read from.
    """
    rule, table, options = layer_rule(preparation, method), preparation.table, preparation.options
    chosen = {n: v for n, v in option_values(options).items() if n not in (*_OF_A_SITTING, *_ELSEWHERE)}
    config: dict[str, Any] = {
        "data": {
            "name": table.name,
            "rows": table.fingerprint(),
            "content": content_of(digests),
            "labeled": len(table.labeled_rows),
            "unlabeled": len(table.unlabeled_rows),
            "test": len(table.test_rows),
        },
        "method": {"name": method_name(method), **option_values(method)},
        "options": chosen,
        "form": asdict(cast(Any, preparation.classifier.card.form)),
        "begun_with": _begun_with(preparation, given, backbone),
        "layers": {"policy": preset_of(rule.policy), "center_memory": rule.center_memory},
        "why": dict(why),
        "where": {
            "threads": threads,
        },
        "given": _given(given, source),
    }
    if own is not None:
        config["method_file_digest"] = own  # which file it was is in the method's words, as given
    return plain(config)


def _begun_with(preparation: Preparation, given: Options, backbone: nn.Module | None) -> str | None:
    """Tell what a run begins with from another, where it is the user's: by a hash of the parameters.

    A backbone of their own may differ in what it computes alone, and a function has no parameters: so what it makes of
    the first rows counts too, seen from a few random directions, and rounded: the last digits depend on the threads.
    """
    if backbone is not None:
        first = np.arange(min(_ASKED, len(preparation.table)))
        classifier = preparation.classifier
        made = classifier.to(preparation.store.device).outputs(preparation.store, first).features.double().numpy()
        classifier.cpu()
        size = float(np.linalg.norm(made))
        seen = np.random.default_rng(0).standard_normal((_SEEN, made.size)) @ made.ravel() / (size or 1.0)
        return f"{digest_of_parameters(backbone)} giving {size:.3g} ({', '.join(f'{value:.3g}' for value in seen)})"
    files = (given.start and given.start / PARAMETERS, given.weights)
    found = [
        hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files if file is not None and file.is_file()
    ]
    return "+".join(found) or None


def _given(options: Options, source: str | None) -> dict[str, Any]:
    """Describe what the user gave, so that the run can be prepared again from another folder."""
    values = {name: v.absolute() if isinstance(v, Path) else v for name, v in option_values(options).items()}
    return plain({"data": source} | {name: v for name, v in values.items() if name not in _OF_A_SITTING})


def given_options(config: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the options that a run was given, and the words that open its data where there are such."""
    given = with_paths(config["given"])
    return given, given.pop("data")


def resolved_options(config: Mapping[str, Any]) -> Options:
    """Read the resolved options of a run from its configuration."""
    names = {field.name for field in fields(Options)}
    given, _ = given_options(config)
    return Options(**{name: value for name, value in (given | config["options"]).items() if name in names})


def method_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say how a method's file is another one."""
    was, is_now = before["given"]["method"], now["given"]["method"]
    if "method_file_digest" not in before or "method_file_digest" not in now:
        return f"the method was {was} and is {is_now} now"
    file = was.rpartition(":")[0]
    if file == is_now.rpartition(":")[0]:
        return f"{file} has changed since the run was begun with its method"
    return f"the method was read from {file} and is read from another file now"


def data_difference(folder: RunFolder, table: Table, digests: Sequence[str]) -> str:
    """Say how the data differs from the data that a run was begun with, row by row.

    Args:
        folder: of the run.
        table: of the data now.
        digests: of what its rows hold.
    """
    if not (folder / "split.csv").is_file():
        return "the data is not the same"  # stopped before it was written
    was, now = _by_name((folder / "split.csv").read_text(encoding="utf-8")), _by_name(split_text(table, digests))
    both = [name for name in was if name in now]
    gone, new = [name for name in was if name not in now], [name for name in now if name not in was]
    came = {now[name]["content"]: name for name in new}
    moved = {name: came[was[name]["content"]] for name in gone if was[name]["content"] in came}
    places = set(moved.values())
    differences = {
        "moved rows": [f"{old} to {there}" for old, there in moved.items()],
        "missing rows": [name for name in gone if name not in moved],
        "new rows": [name for name in new if name not in places],
        "rows that hold something else": [n for n in both if was[n]["content"] != now[n]["content"]],
        "rows of another label or split": [
            n for n in both if any(was[n][column] != now[n][column] for column in ("label", "split"))
        ],
    }
    said = [
        f"{what}: {len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in differences.items()
        if names
    ]
    return f"the data is not the same: {' and '.join(said) or 'the order of rows, or the names of classes, differ'}"


def _by_name(text: str) -> dict[str, dict[str, str]]:
    return {line["name"]: line for line in csv.DictReader(io.StringIO(text))}
