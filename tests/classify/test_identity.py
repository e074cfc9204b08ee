"""By what a finished run is recognized, and how a command says what is another now."""

import csv
import gc
import io
import shutil
import weakref

import numpy as np
import pytest
from PIL import Image

import fewlabels
from fewlabels import UserError
from fewlabels.classify.task import Classify
from fewlabels.config import Options
from fewlabels.console import Show
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.runs import fit as module
from fewlabels.runs.task import Context, Identity, Task

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = {"steps": 4, "batch": 4, "unlabeled_ratio": 2, "device": "cpu", "baseline": False, "labels_per_class": 4}


def photos_in(folder, count=24):
    rng = np.random.default_rng(0)
    for place in range(count):
        path = folder / f"class{place % 2}" / f"{place:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((rng.integers(0, 90, (12, 12)) + 150 * (place % 2)).astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def trained(monkeypatch):
    """Count the trainings that are begun."""
    begun, train = [], module.train

    def counted(stage, *more):
        begun.append(stage.name)
        return train(stage, *more)

    monkeypatch.setattr(module, "train", counted)
    return begun


def test_rows_that_are_gone_new_changed_or_relabeled_are_named(tmp_path):
    data = photos_in(tmp_path / "photos")
    run = fewlabels.fit(data, out=tmp_path / "run", **SMALL)
    lines = {line["name"]: line for line in csv.DictReader(io.StringIO((run.path / "split.csv").read_text()))}
    assert len({line["content"] for line in lines.values()}) == 24

    (data / "class0/00.png").unlink()
    shutil.copy(data / "class1/01.png", data / "class1/new.png")
    shutil.copy(data / "class0/02.png", data / "class0/04.png")
    (data / "class0/06.png").rename(data / "class1/06.png")
    with pytest.raises(UserError) as raised:
        fewlabels.fit(data, out=tmp_path / "run", split=run.path / "split.csv", **SMALL | {"labels_per_class": None})
    assert "class0/00.png" in str(raised.value)  # the split names it
    with pytest.raises(UserError) as raised:
        fewlabels.fit(data, out=tmp_path / "run", **SMALL)
    said = str(raised.value)
    assert "missing rows: 1 (class0/00.png)" in said
    assert "new rows: 1 (class1/new.png)" in said
    assert "moved rows: 1 (class0/06.png to class1/06.png)" in said
    assert "rows that hold something else: 1 (class0/04.png)" in said


def test_a_row_of_another_label_is_named(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (20, 12, 12), np.uint8), np.arange(20) % 2
    fewlabels.fit((x, y), out=tmp_path / "run", **SMALL)
    other = y.copy()
    other[[0, 1]] = other[[1, 0]]
    with pytest.raises(UserError, match="rows of another label or split: "):
        fewlabels.fit((x, other), out=tmp_path / "run", **SMALL)


def test_a_run_that_was_trained_again_in_its_place_begins_another(tmp_path, trained):
    data = photos_in(tmp_path / "photos")
    fewlabels.fit(data, out=tmp_path / "first", **SMALL)
    again = SMALL | {"start": tmp_path / "first"}
    fewlabels.fit(data, out=tmp_path / "second", **again)
    fewlabels.fit(data, out=tmp_path / "second", **again)
    assert len(trained) == 2
    shutil.rmtree(tmp_path / "first")
    fewlabels.fit(data, out=tmp_path / "first", **SMALL | {"steps": 5})
    with pytest.raises(UserError, match="begun with other parameters"):
        fewlabels.fit(data, out=tmp_path / "second", **again)


@pytest.mark.parametrize("what", ["version", "device"])
def test_another_version_or_device_looks_at_the_data_again(tmp_path, monkeypatch, what):
    """A finished run of theirs is not given unseen, though the configurations may be equal."""
    data, prepared, prepare = photos_in(tmp_path / "photos"), [], Classify.prepare

    def counted(self, context):
        prepared.append(context.folder.path.name)
        return prepare(self, context)

    monkeypatch.setattr(Classify, "prepare", counted)
    for _ in range(2):
        fewlabels.fit(data, out=tmp_path / "run", **SMALL)
    assert prepared == ["run"]
    if what == "version":
        monkeypatch.setattr(module, "__version__", "999")
    else:
        known = module._identity
        monkeypatch.setattr(module, "_identity", lambda *given: known(*given) | {"device": "cuda"})
    fewlabels.fit(data, out=tmp_path / "run", **SMALL)
    assert prepared == ["run", "run"]


def test_a_row_in_memory_that_cannot_be_read_is_quarantined_and_the_run_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(out, "PNG")
    x = [*rng.integers(0, 256, (20, 12, 12), np.uint8), [[1], [2, 3]], Image.open(io.BytesIO(out.getvalue()[:300]))]
    run = fewlabels.fit((x, np.arange(22) % 2), out=tmp_path / "run", **SMALL)
    assert run.summary["set_aside"] == 2
    _, *lines = csv.reader(io.StringIO((run.path / "quarantine.csv").read_text()))
    assert [name for name, *_ in lines] == ["x[20]", "x[21]"]


def test_a_training_does_not_hold_the_memory_of_the_one_before(tmp_path, monkeypatch):
    """Two networks with their optimizers at once may be more than a GPU holds."""
    states, alive, train = [], [], module.train

    def watched(stage, *more):
        gc.collect()
        alive.append([name for name, state in states if state() is not None])
        training = train(stage, *more)
        states.append((stage.name, weakref.ref(training.state)))
        return training

    monkeypatch.setattr(module, "train", watched)
    fewlabels.fit("digits", method=FixMatch(), out=tmp_path / "run", **SMALL | {"baseline": True})
    assert [name for name, _ in states] == ["supervised", "fixmatch + propagation"]
    assert alive == [[], []]


class Empty(Task):
    """A task that nothing tells from others without a look at its data."""

    name, options_type, metric = "empty", Options, "score"

    def identify(self):
        return Identity("empty", {})

    def prepare(self, context: Context):
        return {"where": {"threads": 1}}

    def stages(self):
        return {"rows": [], "chosen": {}}
        yield


def test_a_task_that_nothing_tells_is_prepared_each_time(tmp_path, monkeypatch):
    prepared = []
    prepare = Empty.prepare
    monkeypatch.setattr(Empty, "prepare", lambda self, context: prepared.append(1) or prepare(self, context))
    for _ in range(2):
        module.fit(Empty(None, Options(out=tmp_path / "run", device="cpu")), Show(None))
    assert len(prepared) == 2
