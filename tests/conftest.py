"""What several tests share: a small real training on digits."""

import dataclasses
import os
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from fewlabels.classify.job import Job, Rows
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.classify.vectors import vector_views
from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import draw_split
from fewlabels.data.vectors import VectorForm
from fewlabels.inputs.images import operations
from fewlabels.inputs.images.decode import Form
from fewlabels.inputs.images.store import ResidentImages, decode_all
from fewlabels.inputs.images.views import ImageViews
from fewlabels.inputs.vectors.store import Vectors, vector_statistics
from fewlabels.inputs.vectors.views import Strength
from fewlabels.keys import Key
from fewlabels.models.classifier import Card, Classifier
from fewlabels.models.feature_mlp import FeatureMLP
from fewlabels.models.small_cnn import SmallCNN
from fewlabels.runs.show import Show
from fewlabels.training.recipe import OptimizerRecipe

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep decoded images of tests apart from the user's."""
    os.environ["FEWLABELS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def seeded():
    """Let what a test draws from the global generator not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture
def float64():
    """Compute in the precision of the oracles."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def graphs(monkeypatch):
    """Collect what is compiled, without the minutes that a compiler of machine code takes."""
    seen, compiler = [], torch.compile

    def backend(module, inputs):
        seen.append(module)
        return module.forward

    monkeypatch.setattr(torch, "compile", partial(compiler, backend=backend))
    torch.compiler.reset()
    yield seen
    torch.compiler.reset()


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Compute every form of a view for every image, so that no shape depends on a value."""
    monkeypatch.setattr(operations, "shapes_may_depend_on_values", lambda device: False)


def small_recipe(**changes):
    numbers = {
        "steps": 12, "batch": 8, "unlabeled_batch": 16, "optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4,
        "layer_decay": None, "warm_up": 0, "ema_memory": 4.0, "batch_norm_memory": 4.0, "precision": "float32",
    }  # fmt: skip
    numbers |= changes
    own = {field.name for field in dataclasses.fields(OptimizerRecipe)} & numbers.keys()
    optimizer = OptimizerRecipe(numbers.pop("optimizer"), **{name: numbers.pop(name) for name in own})
    return ClassifierRecipe(optimizer=optimizer, **numbers)


@pytest.fixture(scope="session")
def digits_rows():
    table = draw_split(open_table("digits"), labels_per_class=4, seed=1000)
    images, _ = decode_all(table.images, Form(1, (8, 8)))
    return Rows(
        ResidentImages(images), table.labels, table.truth, table.labeled_rows, table.unlabeled_rows, table.test_rows
    )


@pytest.fixture
def small_job(digits_rows):
    """Give a function that makes a job: a small training on digits with a network of 8-16 channels."""

    def make(norm="batch", seed=1000, rows=digits_rows, **recipe):
        card = Card("small_cnn", tuple("0123456789"), Form(1, (8, 8)), (0.3,), (0.37,))

        def build():
            torch.manual_seed(Key(seed).fold("parameters").seed())
            return Classifier(SmallCNN(1, (8, 16), norm), 16, card)

        return Job(
            rows=rows,
            views=ImageViews(card.mean, card.std),
            recipe=small_recipe(**recipe),
            build=build,
            labeled_in_unlabeled=True,
            key=Key(seed).fold("run"),
            show=Show(None),
        )

    return make


@pytest.fixture(scope="session")
def vector_rows(digits_rows):
    vectors = Vectors(digits_rows.images.images.flatten(1).to(torch.float32))
    return dataclasses.replace(digits_rows, images=vectors)


@pytest.fixture
def vector_job(small_job, vector_rows):
    """Give a function that makes a job on vectors: the pixels of digits, with a layer of 32 features."""

    def make(seed=1000, **recipe):
        train = np.setdiff1d(np.arange(len(vector_rows.labels)), vector_rows.test)
        mean, std = vector_statistics(vector_rows.images, train)
        card = Card("mlp", tuple("0123456789"), VectorForm(64), mean, std)

        def build():
            torch.manual_seed(Key(seed).fold("parameters").seed())
            return Classifier(FeatureMLP(64, 32), 32, card)

        views = vector_views(card, vector_rows.images, train, Strength(0.3, 0.2, 0.2))
        return dataclasses.replace(small_job(rows=vector_rows, seed=seed, **recipe), views=views, build=build)

    return make


def parameters_of(state):
    return {name: tensor.clone() for name, tensor in state.learner.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def rows_of(array):
    return np.asarray(array, dtype=np.int64)
