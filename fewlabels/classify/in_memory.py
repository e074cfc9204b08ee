"""A training that keeps nothing on disk: no checkpoint, no report, no baseline, nothing measured; for small data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fewlabels.classify.calibration import calibrate
from fewlabels.classify.checks import check_rule, check_shares
from fewlabels.classify.job import Job, begin
from fewlabels.classify.learner import MethodLearner
from fewlabels.classify.make_job import make_job
from fewlabels.classify.modality import modality_of, plan_for
from fewlabels.classify.split import with_split
from fewlabels.classify.train import LINES
from fewlabels.config import Options
from fewlabels.data.table import Table
from fewlabels.methods import method_name
from fewlabels.methods.base import Method
from fewlabels.models.classifier import Classifier
from fewlabels.models.layers import read_policy
from fewlabels.processes import ALONE
from fewlabels.runs.host import host_settings_kept
from fewlabels.runs.show import Show
from fewlabels.training.loop import State, run
from fewlabels.training.record import Means

THREADS = 1  # vectors go through one layer: more threads wait for each other, and the outcome depends on their number

Lines = list[dict[str, Any]]
"""a training's metrics, each with its step, as in metrics.jsonl"""


def train_in_memory(
    table: Table, options: Options, method: Method, backbone: nn.Module | None, device: torch.device
) -> tuple[Classifier, Lines]:
    """Train with the choices and to the outcome of `fit`, where that takes as many threads.

    Args:
        table: without a test split.
        options: none of those that need a folder or more than one training.
        method: is changed.
        backbone: of the user's own.
        device: where to train.

    Returns:
        The classifier, calibrated where labels were held out, on the CPU; and its metrics.

    Raises:
        UserError: options that do not fit each other or the data, or a loss that exploded.
    """
    table, show = with_split(table, options), Show(None)
    plan = plan_for(options, table, device)
    check_shares(plan, options, ALONE)
    brought = modality_of(plan).bring(table, options, device, lambda: False, show)
    policy = None if options.policy == "auto" else read_policy(options.policy)
    job = replace(make_job(brought.table, brought.images, options, plan, backbone), policy=policy)
    check_rule(job, method, method_name(method))
    with host_settings_kept():
        torch.set_num_threads(options.threads or THREADS)
        trained, lines = _trained(job, method)
        return _calibrated(trained, job).cpu(), lines


def _trained(job: Job, method: Method) -> tuple[Classifier, Lines]:
    state, feed = begin(job, method)
    steps = job.recipe.steps
    means, lines = Means(max(1, steps // LINES)), Lines()

    def watch(state: State[MethodLearner], step: int, metrics: dict[str, Tensor]) -> None:
        del state
        means.add(step, metrics)
        if means.due(step) or step == steps:
            lines.append({"step": step, **means.flush(step)})

    run(state, feed, 0, steps, watch=watch)
    return state.averaged.classifier.eval(), lines


def _calibrated(classifier: Classifier, job: Job) -> Classifier:
    rows = job.rows
    if len(rows.held_out):
        logits = classifier.outputs(rows.images, rows.held_out).logits.numpy()
        found = calibrate(logits, rows.labels[rows.held_out])
        classifier.card = replace(classifier.card, scale=found.scale, bias=found.bias)
    return classifier
