"""What a run asks about its kind of data: the one place that tells images from vectors between table and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from fewlabels.classify.baselines import Features, pixel_features
from fewlabels.classify.bring_images import Brought, bring_images
from fewlabels.classify.choose import ImagePlan, Plan, make_plan
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.classify.vectors import VectorPlan, bring_vectors, make_vector_plan, vector_views
from fewlabels.config import Options
from fewlabels.data.table import Labels, Table
from fewlabels.data.vectors import vectors_of
from fewlabels.inputs.base import NearCopies, Provider
from fewlabels.inputs.batch import Viewer
from fewlabels.inputs.images.near import near_copies
from fewlabels.inputs.images.store import pixel_statistics
from fewlabels.inputs.images.views import ImageViews
from fewlabels.inputs.kinds import form_of
from fewlabels.inputs.vectors.store import equal_vectors, vector_statistics
from fewlabels.inputs.vectors.views import Standardize, Strength
from fewlabels.models.classifier import Card
from fewlabels.runs.show import Show
from fewlabels.training.recipe import OptimizerRecipe


class Modality(Protocol):
    """What differs between kinds of data, for a plan of one of them."""

    copies_are: str
    """what test rows with copies have, in words for the user"""
    features_are: str
    """what `features` gives, likewise"""
    sources: str
    """what rows are made from, likewise"""

    def bring(
        self, table: Table, options: Options, device: torch.device, stop: Callable[[], bool], show: Show
    ) -> Brought:
        """Bring the rows to where the training takes them; set aside, by name, what cannot be used."""
        ...

    def copies(self, rows: Provider, test: Labels, train: Labels) -> NearCopies:
        """Find test rows that are among the training rows too."""
        ...

    def statistics(self, rows: Provider, train: Labels) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Give the mean and the deviation that the input is normalized by."""
        ...

    def views(self, card: Card, rows: Provider, train: Labels, options: Options) -> Viewer:
        """Make the views, normalized as the card says."""
        ...

    def features(self, rows: Provider, train: Labels) -> Features:
        """Give features [N, D] that cost no training."""
        ...

    def choices(self) -> dict[str, Any]:
        """Give the choices that are said when a run begins."""
        ...


@dataclass(frozen=True)
class OfImages:
    """Images."""

    plan: ImagePlan
    copies_are = "test images have a near copy among the training images"
    features_are = "pixels"
    sources = "files"

    def bring(
        self, table: Table, options: Options, device: torch.device, stop: Callable[[], bool], show: Show
    ) -> Brought:
        """Decode them, or take them from the cache."""
        return bring_images(table, self.plan, options, device, stop, show)

    def copies(self, rows: Provider, test: Labels, train: Labels) -> NearCopies:
        """By a perceptual hash."""
        return near_copies(rows, test, train)

    def statistics(self, rows: Provider, train: Labels) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of each channel."""
        return pixel_statistics(rows, train)

    def views(self, card: Card, rows: Provider, train: Labels, options: Options) -> Viewer:
        """Flips, crops and RandAugment."""
        views = ImageViews(card.mean, card.std, self.plan.flip, self.plan.operations, options.strengths)
        return views.to(rows.device)

    def features(self, rows: Provider, train: Labels) -> Features:
        """Principal components of the pixels."""
        return pixel_features(rows, train)

    def choices(self) -> dict[str, Any]:
        """Size, resizing and flips."""
        size = "x".join(map(str, self.plan.form.size))
        return {"size": size, "resize": self.plan.form.resize, "flip": self.plan.flip}


@dataclass(frozen=True)
class OfVectors:
    """Vectors."""

    plan: VectorPlan
    copies_are = "test vectors are equal to a training vector"
    features_are = "vectors"
    sources = "rows"

    def bring(
        self, table: Table, options: Options, device: torch.device, stop: Callable[[], bool], show: Show
    ) -> Brought:
        """Bring them whole into the memory of the device."""
        rows = vectors_of(table.images)
        assert rows is not None  # the plan is for them
        return bring_vectors(table, rows, device)

    def copies(self, rows: Provider, test: Labels, train: Labels) -> NearCopies:
        """Equal in all numbers."""
        return equal_vectors(rows, test, train)

    def statistics(self, rows: Provider, train: Labels) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of each dimension."""
        return vector_statistics(rows, train)

    def views(self, card: Card, rows: Provider, train: Labels, options: Options) -> Viewer:
        """Noise, and parts of other rows."""
        return vector_views(card, rows, train, Strength(self.plan.noise, self.plan.replaced, self.plan.mixed))

    def features(self, rows: Provider, train: Labels) -> Features:
        """The vectors themselves, standardized: their dimensions may have any units."""
        taken = rows.take(np.arange(rows.shape[0]))
        standardize = Standardize(*vector_statistics(rows, train)).to(rows.device)
        return standardize(taken).cpu().numpy()

    def choices(self) -> dict[str, Any]:
        """The strengths of the views."""
        return {name: getattr(self.plan, name) for name in ("noise", "replaced", "mixed")}


def modality_of(plan: Plan) -> Modality:
    """Give what answers for the data of a plan."""
    if isinstance(plan, VectorPlan):
        return OfVectors(plan)
    assert isinstance(plan, ImagePlan)
    return OfImages(plan)


def plan_for(options: Options, table: Table, device: torch.device) -> Plan:
    """Choose what the user left open.

    Raises:
        UserError: none of the images that were tried can be read, or options that are for other data.
    """
    rows = vectors_of(table.images)
    return make_plan(options, table, device) if rows is None else make_vector_plan(options, table, rows, device)


def plan_of(config: Mapping[str, Any]) -> Plan:
    """Read the choices of a run from its configuration."""
    plan = dict(config["plan"])
    form, recipe = form_of(plan["form"]), plan["recipe"]
    recipe = ClassifierRecipe(**recipe | {"optimizer": OptimizerRecipe(**recipe["optimizer"])})
    plan |= {"form": form, "recipe": recipe, "why": config["why"]}
    return (VectorPlan if form.what == "vectors" else ImagePlan)(**plan, threads=config["where"]["threads"])
