"""Small trainings for tests, without a run around them."""

import dataclasses
from types import SimpleNamespace

import torch

from fewlabels.classify.choose import recipe_of, resolve
from fewlabels.classify.preparation import Preparation, stage_of
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.config import Options
from fewlabels.data.table import Table
from fewlabels.inputs.base import Provider
from fewlabels.inputs.kinds import inputs_for, inputs_of
from fewlabels.inputs.vectors.kind import vector_views
from fewlabels.inputs.vectors.views import Strength
from fewlabels.keys import Key
from fewlabels.models.classifier import Classifier
from fewlabels.training import train as training
from fewlabels.training.recipe import OptimizerRecipe


@dataclasses.dataclass(frozen=True)
class Rows:
    """A table, and what is kept of its rows."""

    table: Table
    images: Provider

    labels = property(lambda self: self.table.labels)
    truth = property(lambda self: self.table.truth)
    labeled = property(lambda self: self.table.labeled_rows)
    unlabeled = property(lambda self: self.table.unlabeled_rows)
    test = property(lambda self: self.table.test_rows)

    def with_(self, **changes):
        """Change columns of the table."""
        return dataclasses.replace(self, table=dataclasses.replace(self.table, **changes))

    def take(self, rows):
        """Keep these rows alone."""
        images = type(self.images)(self.images.take(rows))
        return Rows(self.table.take(rows), images)


def small_recipe(**changes):
    numbers = {
        "steps": 12, "batch": 8, "unlabeled_batch": 16, "optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4,
        "layer_decay": None, "warm_up": 0, "ema_memory": 4.0, "batch_norm_memory": 4.0, "precision": "float32",
    }  # fmt: skip
    numbers |= changes
    own = {field.name for field in dataclasses.fields(OptimizerRecipe)} & numbers.keys()
    optimizer = OptimizerRecipe(numbers.pop("optimizer"), **{name: numbers.pop(name) for name in own})
    return ClassifierRecipe(optimizer=optimizer, **numbers)


def small_preparation(rows, network, card, recipe, seed, views=None, **changes):
    """Prepare a training of the network that a function makes, once, from a seed."""
    torch.manual_seed(Key(seed).fold("parameters").seed())
    classifier = Classifier(*network(), card)
    inputs = inputs_for(card.form)
    also = changes.pop("labeled_in_unlabeled", True)
    own = {"images_flip": "none", "images_operations": 2, "propagate": 0.0}
    options = Options(classify_labeled_in_unlabeled=also, seed=seed, **own)
    if views is None:
        views = inputs.views((card.mean, card.std), rows.images, rows.table.labeled_rows, options)
    made = Preparation(
        rows.table, inputs, rows.images, rows.labeled, rows.labeled[:0], options, recipe, classifier, views,
        Key(seed).fold("run"),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def vector_views_of(card, rows, train):
    """Make the views of vectors that are the default."""
    return vector_views((card.mean, card.std), rows.images, train, Strength(0.3, 0.2, 0.2))


def with_options(preparation, **changes):
    """Change the options of a preparation."""
    return dataclasses.replace(preparation, options=dataclasses.replace(preparation.options, **changes))


def train(preparation, method, name, folder, show=None, stop=lambda: False):
    """Train a method in a folder; return the training."""
    return training.train(stage_of(preparation, method, name, folder, probed=True), show, stop)


def resolved(options, table, device):
    """Resolve options; return them with the form, the recipe and the reasons."""
    chosen, form, why = resolve(options, table, inputs_of(table.contents), device)
    return SimpleNamespace(**vars(chosen), form=form, recipe=recipe_of(chosen), why=why)
