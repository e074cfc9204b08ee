"""What a training to classify needs; from it stages are made, and the layer probe."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fewlabels.averaging.batch_norm import set_batch_norm_memory
from fewlabels.classify.baselines import Features, propagated_labels
from fewlabels.classify.layer_probe import ROWS, Probe
from fewlabels.classify.learner import MethodLearner
from fewlabels.classify.metrics import metrics_of
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.config import Options
from fewlabels.data.samplers import Epochs
from fewlabels.data.table import UNLABELED, Labels, Table, spread
from fewlabels.errors import UserError
from fewlabels.files import read_array, replace_file
from fewlabels.inputs.base import Inputs, Provider
from fewlabels.inputs.batch import KINDS, Viewer, Views
from fewlabels.inputs.feed import PropagatedTargets, RowFeed
from fewlabels.keys import Key
from fewlabels.methods.base import Method, Sizes
from fewlabels.models.classifier import Classifier, load_tensors
from fewlabels.models.layers import Policy
from fewlabels.models.network import LayerRule, Network
from fewlabels.processes import ALONE, Process, first_says, this_process
from fewlabels.training.boards import Board, Subject, open_board
from fewlabels.training.loop import State
from fewlabels.training.stage import Periodic, Stage

PROBE = "probe"
PROPAGATED = "propagated.npy"
TESTED_ROWS = 10_000  # of the test rows, while training; all at the end
HIDDEN_ROWS = 2000  # of the hidden rows, likewise


OpenBoard: TypeAlias = Callable[[str, int], Board]
"""from the name of a training, and the step that it continues after"""


@dataclass(frozen=True, eq=False)
class Preparation:
    """What trainings to classify need, the same for a method and for the supervised baseline.

    Attributes:
        table: of all rows.
        inputs: the kind of its rows.
        store: what is kept of them, on the training device.
        labeled: rows to learn from with their labels: those of the table that are not held out.
        held_out: labeled rows that nothing is trained on: probabilities are calibrated on them.
        options: resolved.
        recipe: the numbers of a training.
        classifier: as it is before the first step; each training begins with a copy.
        start: a file of parameters that take the place of the classifier's: another run ended with them.
        views: makes them.
        key: of all that is drawn.
        policy, center_memory: take the place of what a method's own layer rule says.
        folder: of the trainings; None keeps nothing on disk.
        features: [N, D], of a backbone that begins with weights: labels spread between like ones; None where they
            spread between like rows.
        on: what follows the names of the trainings: what the network sees, where that is not the rows themselves.
        board: where the metrics are written too.
    """

    table: Table
    inputs: Inputs[Any]
    store: Provider
    labeled: Labels
    held_out: Labels
    options: Options
    recipe: ClassifierRecipe
    classifier: Classifier
    views: Viewer
    key: Key
    start: Path | None = None
    policy: Policy | None = None
    center_memory: float | None = None
    folder: Path | None = None
    features: Features | None = None
    on: str = ""
    board: OpenBoard | None = None

    @property
    def unlabeled(self) -> Labels:
        """Rows to learn from without labels."""
        return self.table.unlabeled_rows

    @property
    def test(self) -> Labels:
        """Rows that only report."""
        return self.table.test_rows

    @property
    def hidden(self) -> Labels:
        """Rows whose labels were hidden."""
        return np.flatnonzero(self.table.truth != UNLABELED)


def layer_rule(preparation: Preparation, method: Method) -> LayerRule:
    """Return the method's rule for its layers, or what the user gave instead."""
    own = method.layer_rule()
    return LayerRule(
        policy=own.policy if preparation.policy is None else preparation.policy,
        center_memory=own.center_memory if preparation.center_memory is None else preparation.center_memory,
    )


def begins_propagated(preparation: Preparation, method: Method) -> bool:
    """Tell whether the method's targets begin with what label propagation tells."""
    asked = preparation.options.propagate not in ("auto", 0)  # a run of an earlier version has not chosen
    return asked and method.takes_propagated and len(preparation.unlabeled) > 0


def propagated_targets(preparation: Preparation, method: Method, folder: Path | None) -> PropagatedTargets | None:
    """Return what the method's targets begin with, by label propagation; None where they do not.

    It is made once, by the first of several processes, and kept in the folder of the training.
    """
    if not begins_propagated(preparation, method):
        return None
    table = torch.from_numpy(first_says(lambda: _propagated(preparation, folder)))
    return PropagatedTargets(table.to(preparation.store.device), float(preparation.options.propagate))


def _propagated(preparation: Preparation, folder: Path | None) -> NDArray[np.float32]:
    path = None if folder is None else folder / PROPAGATED
    kept = None if path is None else read_array(path)
    if kept is not None:
        return kept
    table, inputs = preparation.table, preparation.inputs
    train = np.concatenate([preparation.labeled, preparation.unlabeled])
    given, labels = preparation.features, np.full(len(table), UNLABELED)
    labels[preparation.labeled] = table.labels[preparation.labeled]
    features = inputs.features_of(preparation.store, train) if given is None else given
    lengths_count = inputs.lengths_count and given is None
    found = propagated_labels(features, labels, train, len(table.classes), lengths_count=lengths_count)
    if path is not None:
        replace_file(path, lambda aside: np.save(aside, found))
    return found


def begin(
    preparation: Preparation,
    method: Method,
    recipe: ClassifierRecipe | None = None,
    propagated: PropagatedTargets | None = None,
) -> tuple[State[MethodLearner], RowFeed]:
    """Make the state before the first step, and the feed; neither the preparation nor the method is changed."""
    recipe, method = recipe or preparation.recipe, copy.deepcopy(method)
    classifier = copy.deepcopy(preparation.classifier)
    if preparation.start is not None:
        load_tensors(classifier, preparation.start)
    classifier = classifier.to(preparation.store.device)
    classes, features = classifier.head.weight.shape
    table, labeled = preparation.table, preparation.labeled
    also = labeled if preparation.options.classify_labeled_in_unlabeled else labeled[:0]
    unlabeled = np.concatenate([preparation.unlabeled, also])
    sizes = Sizes(
        labels=tuple(np.bincount(table.labels[labeled], minlength=classes).tolist()),
        features=features,
        rows=len(table),
        unlabeled=len(unlabeled),
        batch=recipe.batch,
        unlabeled_batch=recipe.unlabeled_batch,
        steps=recipe.steps,
    )
    with torch.random.fork_rng():
        torch.manual_seed(preparation.key.fold("method").seed())  # it draws its own parameters
        method.setup(sizes)
    process = this_process()
    if process.world_size > 1 and classifier.device.type == "cuda":
        for module in (classifier, method):
            nn.SyncBatchNorm.convert_sync_batchnorm(module)
    rule = layer_rule(preparation, method)
    network = Network(classifier, rule, recipe.precision, recipe.steps).to(classifier.device)
    if recipe.batch_norm_memory is not None:
        set_batch_norm_memory(network, recipe.batch_norm_memory)
    state = State(MethodLearner(network, method.to(classifier.device)), recipe)
    state.learner.look_at(state.averaged)
    batches = recipe.batch, recipe.unlabeled_batch
    return state, _feed(preparation, labeled, unlabeled, batches, method.views(), preparation.key, process, propagated)


def _feed(
    preparation: Preparation,
    labeled: Labels,
    unlabeled: Labels,
    sizes: tuple[int, int],
    wanted: Views,
    key: Key,
    process: Process = ALONE,
    propagated: PropagatedTargets | None = None,
) -> RowFeed:
    return RowFeed(
        preparation.store,
        preparation.table.labels,
        labeled=Epochs(labeled, sizes[0], key, "labeled"),
        unlabeled=Epochs(unlabeled, sizes[1], key, "unlabeled"),
        steps=preparation.recipe.steps,
        wanted=wanted,
        views=preparation.views,
        key=key,
        process=process,
        propagated=propagated,
    )


def stage_of(
    preparation: Preparation, method: Method, name: str, folder: Path | None, *, probed: bool = False, **changes: Any
) -> Stage[MethodLearner]:
    """Return the training of a method.

    Args:
        preparation: of the run.
        method: is not changed.
        name: of the training.
        folder: likewise; None keeps nothing on disk.
        probed: whether the layer probe is asked now and then.
        changes: of other fields of the stage.
    """
    propagated = cache(lambda: propagated_targets(preparation, method, folder))
    every = preparation.options.probe_every if probed else None
    periodic = (Periodic(PROBE, every, _Probing(preparation, method, propagated)),) if every else ()
    stage = Stage(
        name=name + preparation.on,
        folder=folder,
        recipe=preparation.recipe,
        begin=lambda recipe: begin(preparation, method, cast(ClassifierRecipe, recipe), propagated()),
        evaluate=partial(evaluate, preparation),
        periodic=periodic,
        board=preparation.board,
    )
    return replace(stage, **changes)


class _Probing:
    """Probes the layers of a training; the probe is made when it is first asked."""

    def __init__(
        self, preparation: Preparation, method: Method, propagated: Callable[[], PropagatedTargets | None]
    ) -> None:
        self.preparation, self.method, self.propagated = preparation, method, propagated
        self.probe: Probe | None = None

    def __call__(self, state: State[MethodLearner]) -> dict[str, Any]:
        # The parts of a batch may be more than they were in the beginning.
        parts = state.recipe.accumulate
        self.probe = self.probe or probe_of(self.preparation, self.method, parts, self.propagated())
        return asdict(self.probe(state.learner.network, state.learner.method, state.step))


def board_of(table: Table, options: Options, folder: Path) -> OpenBoard | None:
    """Return what opens a board for a training of a run; None where none is asked for."""
    if options.log == "none":
        return None
    facts = {
        "data": table.name,
        "method": options.method,
        "model": options.model,
        "seed": options.seed,
        "steps": options.steps,
        "labeled": len(table.labeled_rows),
        "unlabeled": len(table.unlabeled_rows),
    }
    return lambda name, first: open_board(options.log, Subject(folder, name, first, facts))


def evaluate(preparation: Preparation, learner: MethodLearner, line: Mapping[str, float]) -> dict[str, float]:
    """Return metrics of the test split and of hidden labels so far.

    `kept_accuracy` is that of the surest hidden rows, as many as were kept.
    """
    table, out = preparation.table, dict[str, float]()
    for name, chosen, truth in (
        ("test", spread(preparation.test, TESTED_ROWS), table.labels),
        ("hidden", spread(preparation.hidden, HIDDEN_ROWS), table.truth),
    ):
        if not len(chosen):
            continue
        probabilities = predict_rows(learner.classifier, preparation.store, chosen)
        predicted = probabilities.argmax(1)
        out |= {f"{name}_{metric}": v for metric, v in (metrics_of(predicted, truth[chosen]) or {}).items()}
        if name == "hidden" and "kept" in line:
            surest = np.argsort(-probabilities.max(1), kind="stable")[: round(line["kept"] * len(chosen))]
            if len(surest):
                out["kept_accuracy"] = float((predicted == truth[chosen])[surest].mean())
    return out


def predict_rows(classifier: Classifier, store: Provider, chosen: Labels) -> np.ndarray:
    """Return probabilities of these rows, float32 [n, K]."""
    return classifier.probabilities(store, chosen).numpy()


def probe_of(
    preparation: Preparation, method: Method, parts: int | None = None, propagated: PropagatedTargets | None = None
) -> Probe:
    """Make the layer probe of a training; each of several processes makes the whole of it.

    True labels are the hidden ones of unlabeled rows, or else those of the test split.

    Args:
        preparation: of the run.
        method: that trains.
        parts: of a batch in the training, the recipe's by default.
        propagated: what the method's targets begin with.

    Raises:
        UserError: the method uses no unlabeled rows, there are none, or no label is known that is not learned from.
    """
    wanted, unlabeled, hidden = method.views(), preparation.unlabeled, preparation.hidden
    if not wanted.unlabeled or not len(unlabeled):
        what = "the method uses no unlabeled images" if not wanted.unlabeled else "there are no unlabeled images"
        raise UserError(f"nothing to probe: {what}, so there are no pseudo-labels")
    key, recipe, store = preparation.key.fold("probe"), preparation.recipe, preparation.store
    parts = parts or recipe.accumulate
    if store.device.type == "cpu":
        parts *= this_process().world_size  # there batch norm sees a process's own rows
    sizes = recipe.batch // parts, recipe.unlabeled_batch // parts
    batches = math.ceil(ROWS / sizes[1])
    labeled = preparation.labeled
    if len(hidden):
        truth = torch.from_numpy(preparation.table.truth).to(store.device)
        return Probe(
            _feed(preparation, labeled, hidden, sizes, wanted, key, propagated=propagated), truth, None, batches
        )
    test = preparation.test
    if not len(test):
        raise UserError(
            "the layer probe needs true labels that are not learned from: put labeled images into test/, or hide "
            "some of a labeled set by --labels-per-class"
        )
    learning = max(wanted.unlabeled, key=KINDS.index)  # the view that learns from the others
    one_view, other_key = Views(labeled=(learning,)), key.fold("held out")
    held_out = _feed(preparation, test, test[:0], (sizes[1], sizes[1]), one_view, other_key)
    return Probe(
        _feed(preparation, labeled, unlabeled, sizes, wanted, key, propagated=propagated), None, held_out, batches
    )
