"""A run on vectors: its choices, its rows, its views."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fewlabels.classify.bring_images import Brought, set_aside
from fewlabels.classify.choose import FOR_IMAGES, Plan, Reasons, choose_calibration, make_recipe, refuse
from fewlabels.config import Options
from fewlabels.data.table import Labels, Table, spread
from fewlabels.data.vectors import VectorForm, VectorRows, content_of_vectors, not_finite
from fewlabels.inputs.base import Provider
from fewlabels.inputs.vectors.store import Vectors
from fewlabels.inputs.vectors.views import Standardize, Strength, VectorViews
from fewlabels.models.classifier import Card

# Measured on development seeds (docs/LOG.md).
STEPS = {"quick": 200, "normal": 600, "full": 3000}
STRONG = Strength(noise=0.3, replaced=0.2, mixed=0.2)
WEAK_SHARE = 1 / 3  # of the strong noise
POOL = 4096  # training rows that parts of others are taken from


@dataclass(frozen=True)
class VectorPlan(Plan):
    """The choices of a run on vectors; noise, replaced and mixed are those of a strong view, as in `Strength`."""

    form: VectorForm
    noise: float
    replaced: float
    mixed: float


def make_vector_plan(options: Options, table: Table, rows: VectorRows, device: torch.device) -> VectorPlan:
    """Choose what the user left open, for vectors.

    Args:
        options: what the user gave.
        table: of the rows.
        rows: their vectors.
        device: where to train.

    Raises:
        UserError: options that are for images.
    """
    refuse(options, FOR_IMAGES, f"{table.name} holds {rows.form.words}")
    reasons = Reasons()
    pick = reasons.pick
    model = pick("model", options.model, "mlp", "vectors need no larger one: 256 features after one hidden layer")
    strong = "as good as any that was tried on four sets of vectors"
    return VectorPlan(
        model=model,
        form=rows.form,
        noise=pick("noise", options.noise, STRONG.noise, strong),
        replaced=pick("replaced", options.replaced, STRONG.replaced, strong),
        mixed=pick("mixed", options.mixed, STRONG.mixed, strong),
        recipe=make_recipe(options, table, model, device, reasons, _steps(options)),
        calibrate=pick("calibrate", options.calibrate, *choose_calibration(options, table)),
        threads=pick("threads", options.threads, torch.get_num_threads(), "as many as the machine gives"),
        why=reasons.why,
    )


def _steps(options: Options) -> tuple[int, str]:
    return STEPS[options.budget], f"budget {options.budget}, fewer for vectors than for images"


def bring_vectors(table: Table, rows: VectorRows, device: torch.device) -> Brought:
    """Bring the vectors of all rows to the device; those that are not finite are set aside.

    Raises:
        UserError: these are more than half.
    """
    good, kept = set_aside(table, not_finite(rows), "vectors")
    vectors = Vectors(torch.from_numpy(rows.matrix[good]).to(device))
    return Brought(kept, vectors, content_of_vectors(rows))


def vector_views(card: Card, vectors: Provider, train: Labels, strong: Strength) -> VectorViews:
    """Make the views of vectors.

    Args:
        card: whose statistics standardize them.
        vectors: of all rows.
        train: the training rows, of which other rows are drawn.
        strong: of strong views; weak ones have a part of their noise.
    """
    pool = Standardize(card.mean, card.std).to(vectors.device)(vectors.take(spread(train, POOL)))
    return VectorViews(pool, card.mean, card.std, Strength(WEAK_SHARE * strong.noise), strong).to(vectors.device)
