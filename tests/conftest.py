"""What several tests share: a small real training on digits."""

import dataclasses
import gc
import os
from contextlib import contextmanager
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import draw_split
from fewlabels.data.vectors import VectorForm
from fewlabels.inputs.images import operations
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import ResidentImages, decode_all
from fewlabels.inputs.vectors.store import Vectors, vector_statistics
from fewlabels.models.classifier import Card
from fewlabels.models.feature_mlp import FeatureMLP
from fewlabels.models.small_cnn import SmallCNN
from tests.prepared import Rows, small_preparation, small_recipe, vector_views_of

torch.set_num_threads(1)


# The files that take longest, first: shared out file by file, the short ones then fill the gaps at the end.
LONGEST = [
    "training/test_loop.py",
    "classify/test_features_first.py",
    "methods/test_gradients.py",
    "methods/test_short_runs.py",
    "classify/test_fit.py",
    "classify/test_estimator.py",
    "export/test_onnx.py",
    "classify/test_probe.py",
    "classify/test_probe_command.py",
    "inputs/test_workers.py",
    "runs/test_bench.py",
    "runs/test_processes.py",
    "methods/test_methods_and_their_oracles.py",
    "classify/test_own_methods.py",
    "test_cli.py",
    "inputs/test_bring_images.py",
    "classify/test_propagation.py",
    "classify/test_faults.py",
    "classify/test_add_labels.py",
]


def pytest_collection_modifyitems(items):
    """Put the files that take longest first."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(str(item.path).partition("/tests/")[2], len(LONGEST)))


def pytest_collection_finish():
    """Leave what torch, the tests and their parameters hold for good out of every later search for garbage."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep decoded images of tests apart from the user's."""
    os.environ["FEWLABELS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", autouse=True)
def unsynced(request):
    """Wait for no disk, which only a loss of power could tell; not where files are what is tested."""
    with pytest.MonkeyPatch.context() as patched:
        if request.path.name not in ("test_faults.py", "test_files.py"):
            patched.setattr(os, "fsync", os.fstat)  # which fails too where a file is closed
        yield


@contextmanager
def without_figures():
    """Leave the figures of reports empty, which is a quarter of a small run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("matplotlib.figure.Figure.draw", lambda figure, renderer: None)
        yield


@pytest.fixture(scope="module")
def undrawn():
    """Make runs without figures: for files that look at none."""
    with without_figures():
        yield


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


@pytest.fixture(scope="session")
def digits_rows():
    table = draw_split(open_table("digits"), labels_per_class=4, seed=1000)
    images, _ = decode_all(table.contents, ImageForm(1, (8, 8)))
    return Rows(table, ResidentImages(images))


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory):
    """Give a file of 400 of the digits, on which a small run takes half the time."""
    table, path = open_table("digits"), tmp_path_factory.mktemp("few") / "digits.npz"
    np.savez(path, x=np.stack(table.contents[:400]), y=table.labels[:400])
    return str(path)


@pytest.fixture
def small_job(digits_rows):
    """Give a function that prepares a small training on digits with a network of 8-16 channels."""

    def make(norm="batch", seed=1000, rows=digits_rows, **recipe):
        card = Card("small_cnn", tuple("0123456789"), ImageForm(1, (8, 8)), (0.3,), (0.37,))
        return small_preparation(rows, lambda: (SmallCNN(1, (8, 16), norm), 16), card, small_recipe(**recipe), seed)

    return make


@pytest.fixture(scope="session")
def vector_rows(digits_rows):
    vectors = Vectors(digits_rows.images.images.flatten(1).to(torch.float32))
    return dataclasses.replace(digits_rows, images=vectors)


@pytest.fixture
def vector_job(vector_rows):
    """Give a function that prepares a training on vectors: the pixels of digits, with a layer of 32 features."""

    def make(seed=1000, **recipe):
        train = np.setdiff1d(np.arange(len(vector_rows.labels)), vector_rows.test)
        card = Card("mlp", tuple("0123456789"), VectorForm(64), *vector_statistics(vector_rows.images, train))
        views = vector_views_of(card, vector_rows, train)
        return small_preparation(
            vector_rows, lambda: (FeatureMLP(64, 32), 32), card, small_recipe(**recipe), seed, views
        )

    return make


def parameters_of(state):
    return {name: tensor.clone() for name, tensor in state.learner.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def rows_of(array):
    return np.asarray(array, dtype=np.int64)
