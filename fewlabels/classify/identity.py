"""What a run is: the configuration by which a command continues it, or is refused."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabels.classify.choose import Plan
from fewlabels.classify.job import Job, layer_rule
from fewlabels.config import Options, option_values
from fewlabels.data.table import Table
from fewlabels.methods import method_name
from fewlabels.methods.base import Method
from fewlabels.models.build import digest_of_parameters
from fewlabels.models.classifier import PARAMETERS
from fewlabels.models.layers import preset_of
from fewlabels.runs.folder import BEGUN_WITH, FORMAT, plain
from fewlabels.version import __version__

# Options that a run may be continued without.
_OF_A_SITTING = ("out", "cache", "log", "probe_every", "device", "threads")

_ASKED = 8  # rows that a backbone of the user's own is told from another by
_SEEN = 3  # and random directions

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


def describe(
    job: Job,
    table: Table,
    content: str,
    options: Options,
    plan: Plan,
    method: Method,
    backbone: nn.Module | None,
    source: str | None,
) -> dict[str, Any]:
    """Describe a run so that two commands of the same description may continue each other.

    Args:
        job: of the run.
        table: of its rows.
        content: a hash of what they hold.
        options: what the user gave.
        plan: what was chosen.
        method: with its options.
        backbone: the user's own, where they gave one.
        source: opens the data again.
    """
    rule, chosen = layer_rule(job, method), asdict(plan)
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
            BEGUN_WITH: _begun_with(job, options, backbone),
            "plan": chosen,
            "why": why,
            "where": {
                "device": str(job.rows.images.device),
                "threads": threads,
                "machine": platform.machine(),
                "torch": str(torch.__version__),
            },
            "layers": {"policy": preset_of(rule.policy), "center_memory": rule.center_memory},
            "given": _given(options, source),
        }
    )


def _begun_with(job: Job, options: Options, backbone: nn.Module | None) -> str | None:
    """Tell what a run begins with from another, where it is the user's: by a hash of the parameters.

    A backbone of their own may differ in what it computes alone, and a function has no parameters: so what it makes of
    the first rows counts too, seen from a few random directions, and rounded: the last digits depend on the threads.
    """
    if backbone is not None:
        first = np.arange(min(_ASKED, len(job.rows.labels)))
        made = job.build().to(job.rows.images.device).outputs(job.rows.images, first).features.double().numpy()
        size = float(np.linalg.norm(made))
        seen = np.random.default_rng(0).standard_normal((_SEEN, made.size)) @ made.ravel() / (size or 1.0)
        return f"{digest_of_parameters(backbone)} giving {size:.3g} ({', '.join(f'{value:.3g}' for value in seen)})"
    files = (options.start and options.start / PARAMETERS, options.weights)
    found = [
        hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files if file is not None and file.is_file()
    ]
    return "+".join(found) or None


def _given(options: Options, source: str | None) -> dict[str, Any]:
    """Describe what the user gave, so that the run can be prepared again from another folder."""
    values = {name: v.absolute() if isinstance(v, Path) else v for name, v in option_values(options).items()}
    return plain({"data": source} | {name: v for name, v in values.items() if name not in _OF_A_SITTING})
