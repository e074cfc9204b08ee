"""Features of all rows by a backbone that begins with weights: made once, and kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, TypeAlias, cast

import numpy as np
import torch

from fewlabels.classify.preparation import Preparation
from fewlabels.classify.training_free.blend import FEW
from fewlabels.classify.training_free.space import Features
from fewlabels.console import Show
from fewlabels.data.splits import fewest_apart
from fewlabels.data.table import Labels
from fewlabels.errors import Interrupted
from fewlabels.inputs.base import chunks
from fewlabels.inputs.images.cache import KeptArray, default_folder
from fewlabels.inputs.kinds import inputs_for
from fewlabels.models.build import CUSTOM, digest_of_parameters, mirrored, with_stages
from fewlabels.models.classifier import EVALUATED, Classifier
from fewlabels.models.embedded import EMBEDDED
from fewlabels.models.fused import fused
from fewlabels.models.on_features import widths_of
from fewlabels.processes import send_from_first, this_process

SAID_EVERY = 10.0  # seconds
AT_ONCE = 8  # images on a CPU: what they become in the network stays in the cache of a core


Part: TypeAlias = tuple[Labels, Features]
"""some rows, in order, and their features"""


@dataclass(frozen=True, eq=False)
class Embedding:
    """What a backbone makes of all rows.

    Attributes:
        features: [N, D]: the pooled output of the network, then that of earlier stages where these are used.
        widths: how many of them are of which.
    """

    features: Features
    widths: tuple[int, ...]

    @property
    def last(self) -> Embedding:
        """The pooled output of the network alone."""
        return Embedding(self.features[:, : self.widths[0]], self.widths[:1])


def uses_stages(preparation: Preparation) -> bool:
    """Tell whether earlier stages are learned from: where labels can tell whether these help."""
    is_measured = preparation.classifier.card.model in EMBEDDED
    return is_measured and fewest_apart(preparation.table, preparation.labeled) > FEW


def extractor(preparation: Preparation, *, stages: bool | None = None) -> Classifier:
    """Return what makes the features: the backbone, on an image and its mirror image where mirroring is allowed.

    Args:
        preparation: of the run.
        stages: whether it also gives the features of earlier stages; by default where these are learned from.
    """
    classifier, may = preparation.classifier, preparation.options.images_flip != "none"
    if classifier.card.model == CUSTOM:
        return classifier
    if uses_stages(preparation) if stages is None else stages:
        classifier = with_stages(classifier)
    return mirrored(classifier) if may else classifier


def embedded(preparation: Preparation, content: str, show: Show, stop: Callable[[], bool] = lambda: False) -> Embedding:
    """Return the features of all rows by the backbone that the run begins with.

    They are kept on disk, by what the rows hold and what the backbone is, where that can be written to. The first of
    several processes makes them for all.

    Raises:
        Interrupted: a run of one process was asked to stop.
    """
    # All that can be learned from is kept, since more labels may come.
    made, classifier = None, extractor(preparation, stages=preparation.classifier.card.model in EMBEDDED)
    if this_process().rank == 0:
        made = {"features": torch.from_numpy(_embedded(preparation, classifier, content, show, stop))}
    features = send_from_first(made, preparation.store.device)["features"].cpu().numpy()
    found = Embedding(features, widths_of(classifier.backbone, classifier.head.in_features))
    return found if uses_stages(preparation) else found.last


def zero_features(preparation: Preparation) -> Embedding:
    """Return features of the right shape, all 0."""
    classifier = extractor(preparation)
    dimensions = classifier.head.in_features
    zeros = np.zeros((len(preparation.table), dimensions), np.float32)
    return Embedding(zeros, widths_of(classifier.backbone, dimensions))


def _embedded(
    preparation: Preparation, classifier: Classifier, content: str, show: Show, stop: Callable[[], bool]
) -> Features:
    model, rows = preparation.options.model, len(preparation.table)
    kept = _place(preparation, classifier, content)
    found = None if kept is None else kept.open()
    if kept is not None and found is not None and found.shape == (rows, classifier.head.in_features):
        show.line(f"features of {len(found):,} images by {model}: taken from {kept.folder}")
        return found
    start = time.perf_counter()
    made = _made(preparation, classifier, show, stop)
    seconds = time.perf_counter() - start
    show.line(
        f"features of {len(made):,} images by {model}, {made.shape[1]} each: {seconds:.1f} s, "
        f"{rows / seconds:,.0f} images a second"
    )
    if kept is not None:
        try:
            kept.write(made)
        except OSError as error:
            show.line(f"they are not kept: {error}", "yellow")
    return made


def _made(preparation: Preparation, classifier: Classifier, show: Show, stop: Callable[[], bool]) -> Features:
    store, rows = preparation.store, np.arange(len(preparation.table))
    made = np.empty((len(rows), classifier.head.in_features), np.float32)
    start = said = time.perf_counter()
    parts = _by_threads if store.device.type == "cpu" and classifier.card.model != CUSTOM else _one_by_one
    for part, features in parts(preparation, classifier, rows):
        made[part] = features
        if this_process().world_size == 1 and stop():  # others wait for what this one makes
            raise Interrupted("stopped while features were made; none are kept")
        now, done = time.perf_counter(), int(part[-1]) + 1
        if now - said > SAID_EVERY and done < len(rows):
            said, left = now, (now - start) / done * (len(rows) - done)
            show.line(f"features: {done:,} of {len(rows):,} images, {left:.0f} s left")
    return made


def _one_by_one(preparation: Preparation, classifier: Classifier, rows: Labels) -> Iterator[Part]:
    classifier.to(preparation.store.device)
    for part in chunks(rows, EVALUATED):
        yield part, classifier.outputs(preparation.store, part).features.numpy()
    classifier.cpu()


def _by_threads(preparation: Preparation, classifier: Classifier, rows: Labels) -> Iterator[Part]:
    """Yield features part by part, each on one thread: the same for any number of threads, and faster (docs/LOG.md)."""
    store, card, workers = preparation.store, classifier.card, torch.get_num_threads()
    normalize = inputs_for(card.form).normalize(card.mean, card.std)
    network = fused(classifier.backbone.eval(), normalize(store.take(rows[:2])))

    def of(part: Labels) -> Part:
        with torch.inference_mode():
            return part, network(normalize(store.take(part))).numpy()

    # Few parts wait at a time: each holds its images.
    with _threads_kept(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = deque[Future[Part]]()
        for part in chunks(rows, AT_ONCE):
            waiting.append(pool.submit(of, part))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


@contextmanager
def _threads_kept() -> Generator[None]:
    """Leave the number of threads of torch as it was."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _place(preparation: Preparation, classifier: Classifier, content: str) -> KeptArray | None:
    """Return where the features are kept; None for a backbone of the user's own, which its parameters do not tell."""
    card = classifier.card
    if card.model == CUSTOM:
        return None
    parameters = digest_of_parameters(classifier.backbone)
    made_by = (torch.__version__, version("timm"), preparation.store.device.type, parameters)
    return KeptArray(
        preparation.options.images_cache or default_folder(),
        *(content, card.model, asdict(cast(Any, card.form)), card.mean, card.std, *made_by),
    )
