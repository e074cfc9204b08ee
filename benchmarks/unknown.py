"""Images of no known class, and labels that are wrong: how many are found, and how many others are flagged.

    python benchmarks/unknown.py --data ~/data --seeds 0-2            # to report
    python benchmarks/unknown.py --data ~/data --seeds 1000-1002      # to choose by

Each run learns from few labels while a tenth of its unlabeled images are of no known class: two digits or two kinds of
clothes that have no label, one kind of trash without a label, or photos of CIFAR-10 among the trash. Asked are the
unlabeled images, and others of both kinds that the run has never seen. For the choice, other scores and thresholds
stand beside ours. `--data` has fashion_mnist.npz, trashnet/ and cifar10.npz. What was trained is kept under --work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from accuracy import machine, subset
from outcome import say
from PIL import Image
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from torch import Tensor

import fewlabels
from fewlabels.classify.reference import NAME, SURE, Reference, suspects
from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import draw_split
from fewlabels.data.table import UNLABELED, Labels, Table, make_table
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import ResidentImages, decode_all
from fewlabels.models.classifier import Classifier

HERE = Path(__file__).parent
DEVELOPMENT = 1000  # and up are the seeds to choose by; there the classes without labels change with the seed
STRANGE = 0.1  # of the unlabeled images
NEW = 2 / 7  # of the images, never seen by the run
FLIPPED = 0.1  # of the labels
HOW: dict[str, Any] = {
    "method": "layermatch",
    "model": "small_cnn",
    "propagate": 0.0,
    "budget": "quick",
    "baseline": False,
    "threads": 1,
    "device": "cpu",
}


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: Path
    """folder of the sets"""
    seeds: str = "0-2"
    """first and last"""
    work: Path = Path("runs/benchmarks/unknown")
    """where the runs are kept"""


@dataclass(frozen=True)
class Setting:
    """What a run learns from, and what is strange to it."""

    data: str
    labels: int
    """of each class"""
    rows: int | None = None
    """at most, of known classes"""
    without: int = 2
    """classes that have no label"""
    photos: bool = False
    """whether photos of another set are strange, in the place of classes without labels"""
    mixed: bool = True
    """whether there are strange images among the unlabeled ones, or only among the new ones"""


SETTINGS = {
    "digits, 4 labels a class": Setting("digits", 4),
    "digits, 10 labels a class": Setting("digits", 10),
    "digits, 10 labels a class, all unlabeled known": Setting("digits", 10, mixed=False),
    "digits, 60 labels a class": Setting("digits", 60),
    "Fashion-MNIST, 10 labels a class": Setting("fashion_mnist.npz", 10, rows=7000),
    "trashnet, 10 labels a class, a class without": Setting("trashnet", 10, without=1),
    "trashnet, 10 labels a class, photos of CIFAR-10": Setting("trashnet", 10, without=0, photos=True),
}
FLIPS = {"digits, 25 labels a class": ("digits", None), "Fashion-MNIST, 25 labels a class": ("fashion_mnist.npz", 3000)}


@dataclass(frozen=True, eq=False)
class Seen:
    """What a run says of its own rows, and of new images after them.

    Attributes:
        features, logits: of all of them.
        labels: of the run's own rows, -1 unlabeled.
        known: whether an image is of a known class.
        reference: of the run.
        labeled: its labeled rows that stand in the reference.
    """

    features: np.ndarray[Any, Any]
    logits: np.ndarray[Any, Any]
    labels: Labels
    known: np.ndarray[Any, Any]
    reference: Reference
    labeled: Labels

    @property
    def parts(self) -> dict[str, Labels]:
        """Give the unlabeled rows of the run, and the new images."""
        own = len(self.labels)
        return {"unlabeled": np.flatnonzero(self.labels == UNLABELED), "new": np.arange(own, len(self.features))}


def main(question: Question) -> None:
    """Train, ask, and write what came out."""
    first, _, last = question.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    choosing = seeds[0] >= DEVELOPMENT
    unknown = {name: [asked(question, name, seed, choosing) for seed in seeds] for name in SETTINGS}
    wrong = {name: [flipped(question, *FLIPS[name], seed) for seed in seeds] for name in FLIPS}
    result = {
        "question": {"seeds": question.seeds, "strange": STRANGE, **HOW},
        "where": machine(),
        "unknown": {name: {"mean": mean(each), "each": each} for name, each in unknown.items()},
        "flipped": {name: {"mean": mean(each), "each": each} for name, each in wrong.items()},
    }
    say(result, HERE / "results" / ("unknown-development.json" if choosing else "unknown.json"))


def mean(each: Sequence[Any]) -> Any:
    """Take the mean of equal trees of numbers; of words the first."""
    if isinstance(each[0], dict):
        return {name: mean([one[name] for one in each]) for name in each[0]}
    return each[0] if isinstance(each[0], str) else round(float(np.mean(each)), 3)


# --- what is strange ------------------------------------------------------------------------------------------


def asked(question: Question, name: str, seed: int, choosing: bool) -> dict[str, Any]:
    """Say how well strange images are told from known ones, and how many of both are flagged."""
    seen = learned(question, name, seed)
    ours = seen.reference.strangeness(seen.features)
    scores, limits = {"ours": ours}, {"ours": seen.reference.cutoff}
    if choosing:
        scores, limits = scores | other_scores(seen), limits | other_thresholds(seen, ours)
    found = {
        "basis": seen.reference.basis,
        "auroc": {
            how: each_part(seen, lambda part, x=x: auroc(seen.known[part], x[part])) for how, x in scores.items()
        },
        "known flagged": {how: shares(seen, ours > limit, seen.known) for how, limit in limits.items()},
        "strange found": {how: shares(seen, ours > limit, ~seen.known) for how, limit in limits.items()},
    }
    print(name, seed, found, flush=True)
    return found


def each_part(seen: Seen, of: Callable[[Labels], float | None]) -> dict[str, float]:
    """Ask of the unlabeled rows and of the new images; nothing where there is nothing to ask."""
    return {name: value for name, part in seen.parts.items() if (value := of(part)) is not None}


def auroc(known: np.ndarray[Any, Any], score: np.ndarray[Any, Any]) -> float | None:
    """Give the share of pairs in which the strange image has the larger score."""
    return None if known.all() else float(roc_auc_score(~known, score))


def shares(seen: Seen, flags: np.ndarray[Any, Any], which: np.ndarray[Any, Any]) -> dict[str, float]:
    """Give the share that is flagged of those meant, in each part."""
    return each_part(seen, lambda part: float(flags[part][which[part]].mean()) if which[part].any() else None)


def learned(question: Question, name: str, seed: int) -> Seen:
    """Train a run, or read it where it is finished, and ask it of all images."""
    table, new, known = drawn(question, SETTINGS[name], seed)
    run = fewlabels.fit(
        table, seed=seed, out=question.work / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}", **HOW
    )
    classifier, reference = run.classifier, Reference.load(run.path / NAME)
    pixels = read_all([*table.contents, *new], classifier)
    outputs = classifier.outputs(ResidentImages(pixels), np.arange(len(pixels)))
    labeled = np.flatnonzero(reference.places_of(table.names) >= 0)
    return Seen(outputs.features.numpy(), outputs.logits.numpy(), table.labels, known, reference, labeled)


def read_all(images: Sequence[Any], classifier: Classifier) -> Tensor:
    """Read images as a classifier takes them."""
    form = classifier.card.form
    assert isinstance(form, ImageForm)
    pixels, broken = decode_all(images, form)
    assert not broken
    return pixels


def drawn(question: Question, setting: Setting, seed: int) -> tuple[Table, list[Any], np.ndarray[Any, Any]]:
    """Draw a run's table, the new images, and which of all these are of known classes."""
    whole = opened(question, setting.data)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(whole))
    count = len(whole.classes)
    first = setting.without * (seed if seed >= DEVELOPMENT else -1) % count  # to report, the last classes
    without = (first + np.arange(setting.without)) % count
    is_known = ~np.isin(whole.labels[order], without)
    known, others = order[is_known][: setting.rows], order[~is_known]
    strange = photos(question, generator) if setting.photos else [whole.contents[int(i)] for i in others]

    classes = np.setdiff1d(np.arange(count), without)
    labels = np.searchsorted(classes, whole.labels[known])
    few = np.concatenate([np.flatnonzero(labels == k)[: setting.labels] for k in range(len(classes))])
    rest = np.setdiff1d(np.arange(len(known)), few)
    new, free = np.split(rest, [int(NEW * len(rest))])
    several = min(int(len(free) * STRANGE / (1 - STRANGE)), len(strange) // 2)
    among = strange[:several] if setting.mixed else []
    of_new = strange[several : 2 * several]

    rows = np.concatenate([few, free])
    images = [*(whole.contents[int(known[i])] for i in rows), *among]
    given = np.full(len(images), UNLABELED)
    given[: len(few)] = labels[few]
    table = make_table(
        whole.name, images, [str(i) for i in range(len(images))], given, [whole.classes[k] for k in classes]
    )
    is_new_known = [*[True] * len(rows), *[False] * len(among), *[True] * len(new), *[False] * len(of_new)]
    return table, [*(whole.contents[int(known[i])] for i in new), *of_new], np.array(is_new_known)


def opened(question: Question, data: str) -> Table:
    """Open a wholly labeled set."""
    table = open_table(data if data == "digits" else question.data / data)
    return replace(table, labels=np.where(table.labels == UNLABELED, table.truth, table.labels))


def photos(question: Question, generator: np.random.Generator) -> list[Any]:
    """Give photos of CIFAR-10, of the size of trashnet's."""
    with np.load(question.data / "cifar10.npz") as file:
        pixels = file["x_test"]
    pixels = pixels.transpose(0, 2, 3, 1) if pixels.shape[1] == 3 else pixels
    chosen = generator.choice(len(pixels), 400, replace=False)
    return [np.asarray(Image.fromarray(pixels[i]).resize((512, 384), Image.Resampling.BICUBIC)) for i in chosen]


# --- other ways -----------------------------------------------------------------------------------------------


def other_scores(seen: Seen) -> dict[str, np.ndarray[Any, Any]]:
    """Give what else is said to tell strange images, the larger the stranger."""
    x, labeled = seen.features.astype(np.float64), seen.labeled
    y = seen.labels[labeled]
    means = np.stack([x[labeled][y == k].mean(0) for k in np.unique(y)])
    residuals = x[labeled] - means[y]
    own = x[: len(seen.labels)]
    to_class = mahalanobis(x, means, ledoit_wolf(residuals, assume_centered=True)[0]).min(1)
    to_all = mahalanobis(x, own.mean(0)[None], ledoit_wolf(own)[0])[:, 0]
    energy = logsumexp(seen.logits, axis=1)
    cosine = unit(x) @ unit(x[labeled]).T
    return {
        "1 - probability (Hendrycks and Gimpel 2017)": 1 - np.exp(seen.logits.max(1) - energy),
        "energy (Liu et al. 2020)": -energy,
        "nearest labeled row (Sun et al. 2022)": 1 - cosine.max(1),
        "Mahalanobis (Lee et al. 2018)": to_class,
        "relative Mahalanobis (Ren et al. 2021)": to_class - to_all,
    }


def unit(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bring rows to length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def mahalanobis(x: np.ndarray[Any, Any], means: np.ndarray[Any, Any], covariance: np.ndarray[Any, Any]) -> Any:
    """Give squared distances [n, K]."""
    root = np.linalg.cholesky(np.linalg.inv(covariance + 1e-9 * np.trace(covariance) * np.eye(len(covariance))))
    return np.stack([(((x - mean) @ root) ** 2).sum(1) for mean in means], 1)


def other_thresholds(seen: Seen, ours: np.ndarray[Any, Any]) -> dict[str, float]:
    """Give thresholds of our score by other ways."""
    free = seen.parts["unlabeled"]
    confidence = np.exp(seen.logits[free].max(1) - logsumexp(seen.logits[free], axis=1))
    places = seen.reference.places_of([str(row) for row in seen.labeled])
    alone = seen.reference.neighbors(seen.features[seen.labeled], own=places).strangeness
    low, middle = np.quantile(ours[free], [0.25, 0.5])
    limits = {
        "labeled rows, each left out": alone,
        "all unlabeled rows": ours[free],
        f"unlabeled rows, probability {SURE:g}": ours[free][confidence >= SURE],
        "unlabeled rows, probability 0.95": ours[free][confidence >= 0.95],
        "unlabeled rows but the least sure tenth": ours[free][confidence >= np.quantile(confidence, 0.1)],
    }
    found = {name: float(np.quantile(values, 0.95)) for name, values in limits.items()}
    # 1.645 and .6745 deviations of a normal distribution have .95 and .75 of it below them.
    return found | {"median and lower quartile of the unlabeled": float(middle + (middle - low) * 1.645 / 0.6745)}


# --- labels that are wrong ------------------------------------------------------------------------------------


def flipped(question: Question, data: str, rows: int | None, seed: int) -> dict[str, float]:
    """Flip labels on purpose; say how many of the first suspects among the labeled rows are flipped ones."""
    table = opened(question, data)
    table = draw_split(table, 25, seed) if rows is None else draw_split(subset(table, rows, 25, seed), 25, seed)
    generator = np.random.default_rng(seed)
    labeled, classes = table.labeled_rows, len(table.classes)
    wrong = generator.choice(labeled, int(FLIPPED * len(labeled)), replace=False)
    labels = table.labels.copy()
    labels[wrong] = (labels[wrong] + generator.integers(1, classes, len(wrong))) % classes
    table = replace(table, labels=labels)
    run = fewlabels.fit(table, seed=seed, out=question.work / f"{Path(data).stem}-flipped-{seed}", **HOW)
    classifier = run.classifier
    pixels = read_all(table.contents, classifier)
    outputs = classifier.outputs(ResidentImages(pixels), np.arange(len(pixels)))
    given = np.where(table.test, UNLABELED, labels)
    probabilities = classifier.calibrated(outputs.logits).numpy()
    reference = Reference.load(run.path / NAME)
    found = suspects(reference, outputs.features.numpy(), probabilities, given, table.names).rows
    hits = np.isin(found[np.isin(found, labeled)], wrong)
    n = len(wrong)
    result = {
        "labels": len(labeled), "flipped": n, "suspects": len(hits),
        "precision in the first n/2": float(hits[: n // 2].mean()),
        "precision in the first n": float(hits[:n].sum() / n),
        "found in all": float(hits.sum() / n),
    }  # fmt: skip
    print(data, seed, result, flush=True)
    return result


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
