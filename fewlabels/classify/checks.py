"""What a method and a network must fulfill before a run begins."""

from __future__ import annotations

from dataclasses import replace

import torch

from fewlabels.classify.learner import MethodLearner
from fewlabels.classify.preparation import Preparation, layer_rule, stage_of
from fewlabels.config import Options
from fewlabels.errors import Interrupted, UserError
from fewlabels.methods import is_ours, method_class, method_names
from fewlabels.methods.base import Method
from fewlabels.models.layers import preset_of, scales_of
from fewlabels.own_file import where_it_failed
from fewlabels.training.rehearsal import Rehearsal


def check_rule(preparation: Preparation, method: Method, name: str) -> None:
    """Check that a policy and averaged centers have something to act on.

    Raises:
        UserError: they have not.
    """
    asked = preparation.policy is not None or preparation.center_memory
    if not method.views().unlabeled:
        if asked:
            raise UserError(f"{name} uses no unlabeled images: leave --policy and --classify.center-memory out")
        return
    if method.mixes and (preparation.policy or preparation.center_memory):
        raise UserError(
            f"{name} mixes labeled with unlabeled images, so that no layer can tell whose gradient it gets: leave "
            "--policy and --classify.center-memory out"
        )
    classifier, policy = preparation.classifier, layer_rule(preparation, method).policy
    scales = scales_of(classifier, policy)
    learned = {name: scales.get(name, 1.0) for name, p in classifier.named_parameters() if p.requires_grad}
    if not any(learned.values()):
        freeze = "--classify.freeze trains the head alone, and " if classifier.frozen else ""
        raise UserError(
            f"{freeze}{name} with the policy {preset_of(policy)} keeps pseudo-labels from all that learns: "
            "nothing would be learned from the unlabeled images. Give --policy all."
        )
    if preparation.policy and scales and not set(scales) & set(learned):
        raise UserError(f"the policy {preset_of(policy)} names only layers that --classify.freeze keeps as they are")


def check_propagate(options: Options, method: Method, name: str) -> None:
    """Check that a method can begin with what label propagation tells, where that is asked for.

    Raises:
        UserError: it cannot; lists which of ours can.
    """
    if options.propagate not in ("auto", 0) and not method.takes_propagated:
        able = ", ".join(each for each in method_names() if method_class(each).takes_propagated)
        raise UserError(
            f"{name} makes no targets of weak views' predictions that could begin with propagated labels: leave "
            f"--propagate out, or take one of {able}"
        )


def try_step(preparation: Preparation, method: Method, name: str) -> Rehearsal[MethodLearner]:
    """Do a step on copies: what a method cannot do it says now.

    Raises:
        UserError: what it says; or how a method of the user's own fails, and in which line of its file.
    """
    # The propagated labels take a while to make, and change nothing in what a step can do.
    preparation = replace(preparation, options=replace(preparation.options, propagate=0.0))
    try:
        return Rehearsal(stage_of(preparation, method, name, None, quiet=True))
    except (UserError, Interrupted, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if is_ours(method):
            raise
        raise UserError(
            f"{name} cannot do a step: {where_it_failed(error, type(method))}. Its `forward` gives a dictionary of "
            "0-dim tensors, with `loss`, from the views that its `views` asks for; CONTRIBUTING.md shows a whole one."
        ) from error
