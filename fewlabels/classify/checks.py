"""What a method, a network and several processes must fulfill before a run begins."""

from __future__ import annotations

import torch

from fewlabels.classify.choose import Plan
from fewlabels.classify.job import Job, layer_rule
from fewlabels.classify.train import seconds_a_step
from fewlabels.config import Options
from fewlabels.errors import Interrupted, UserError
from fewlabels.methods import is_ours
from fewlabels.methods.base import Method
from fewlabels.models.layers import preset_of, scales_of
from fewlabels.own_file import where_it_failed
from fewlabels.processes import Process


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


def check_shares(plan: Plan, options: Options, process: Process) -> None:
    """Check that batches can be shared out over processes, and parted.

    Raises:
        UserError: they cannot.
    """
    batch, unlabeled, parts = plan.recipe.batch, plan.recipe.unlabeled_batch, options.accumulate or 1
    if batch % (process.world_size * parts) or unlabeled % (process.world_size * parts):
        among = f"{process.world_size} processes" + (f" in {parts} parts each" if parts > 1 else "")
        raise UserError(
            f"{batch} labeled and {unlabeled} unlabeled images a step do not share out over {among}; "
            f"give a --batch that {process.world_size * parts} divides"
        )


def check_compiled(plan: Plan, device: torch.device, process: Process) -> None:
    """Check that what is to be compiled can be.

    Raises:
        UserError: it cannot.
    """
    if plan.recipe.compile and device.type == "cuda" and process.world_size > 1:
        raise UserError("--compile yes works with one GPU: batch norm over several cannot be compiled; leave it out")


def try_step(job: Job, method: Method, name: str) -> None:
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
