"""ONNX: the same numbers as PyTorch, and enough beside it to classify an image without fewlabels."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import fewlabels
from fewlabels.cli import main
from fewlabels.errors import UserError
from fewlabels.export import onnx as export
from fewlabels.export.onnx import Whole, description_of, write_onnx
from fewlabels.inputs.images.decode import ImageForm, decode
from fewlabels.inputs.images.views import Normalize
from fewlabels.keys import Key
from fewlabels.models.build import build_classifier
from fewlabels.models.classifier import Card

pytestmark = pytest.mark.versions

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

CALIBRATION = {"scale": (1.5, 0.7, 0.9), "bias": (0.1, 0.2, -0.3)}
PHOTOS = [
    photo[y : y + 200, x : x + 300] for photo in load_sample_images().images for x in (0, 150, 300) for y in (0, 200)
]


def classifier_of(model, channels, size, **changes):
    """Random parameters that tell photos apart, and batch statistics that are not those of a new network."""
    form = ImageForm(channels, size)
    card = Card(model, ("cat", "dog", "öl"), form, (0.45,) * channels, (0.26,) * channels, **changes)
    classifier = build_classifier(card, key=Key(1))
    pixels = torch.from_numpy(np.stack([decode(photo, form) for photo in PHOTOS])).permute(0, 3, 1, 2)
    seen = Normalize(card.mean, card.std)(pixels)
    with torch.no_grad():
        for _ in range(3):
            classifier.train()(seen)
        features, head = classifier.eval().features(seen), classifier.head
        head.weight *= 3 / (features @ head.weight.T).std(0).mean()
        head.bias -= (features @ head.weight.T).mean(0)
    return classifier


@pytest.fixture(scope="module")
def of_photos(tmp_path_factory):
    """A classifier of photos and its file."""
    classifier = classifier_of("wrn_28_2", 3, (20, 28), **CALIBRATION)
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    assert write_onnx(classifier, path) < 1e-4
    return classifier, path


@pytest.fixture(scope="module")
def of_digits(run, tmp_path_factory):
    """A trained run and its file, written by the command."""
    path = tmp_path_factory.mktemp("onnx") / "new" / "m.onnx"
    assert main(["export", str(run), "--onnx", str(path)]) == 0
    return fewlabels.load(run), path


def assert_parity(classifier, path, images):
    session = onnxruntime.InferenceSession(path)
    assert [node.name for node in session.get_outputs()] == ["logits", "probabilities", "features"]
    for count in (1, 2, 7):
        pixels = np.stack([decode(image, classifier.card.form) for image in images[:count]]).transpose(0, 3, 1, 2)
        got = session.run(None, {"images": np.ascontiguousarray(pixels)})
        features, logits = next(classifier.classified(images[:count]))[1]
        _, probabilities = classifier.predict(images[:count])
        for want, given in zip((logits.numpy(), probabilities, features.numpy()), got, strict=True):
            np.testing.assert_allclose(given, want, rtol=1e-4, atol=1e-4)
    assert len(set(probabilities.argmax(1).tolist())) > 1


def test_own_networks_give_what_pytorch_gives(of_photos, of_digits, photos):
    assert_parity(*of_photos, PHOTOS)
    assert_parity(*of_digits, sorted((photos / "test").rglob("*.png"))[::4])


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_efficientnet+stages+mirrored+unit"])
def test_networks_of_timm_give_what_pytorch_gives(tmp_path, model):
    classifier = classifier_of(model, 3, (32, 32), **CALIBRATION)
    assert write_onnx(classifier, tmp_path / "m.onnx") < 1e-4
    assert_parity(classifier, tmp_path / "m.onnx", PHOTOS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photos of each kind that needs care: lying on its side, transparent, with a palette, gray, of 16 bits."""
    folder = tmp_path_factory.mktemp("files")
    pictures = [Image.fromarray(photo) for photo in PHOTOS]
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures[0].save(folder / "a.jpg")
    pictures[1].save(folder / "b.png")
    pictures[2].save(folder / "c.jpg", exif=turned)
    pictures[3].putalpha(pictures[4].convert("L"))
    pictures[3].save(folder / "d.png")
    pictures[5].quantize(16).save(folder / "e.gif")
    pictures[6].convert("L").save(folder / "f.webp")
    Image.fromarray(PHOTOS[7][..., 0].astype(np.uint16) * 200).save(folder / "g.png")
    pictures[8].resize((28, 20)).save(folder / "h.png")
    pictures[9].convert("CMYK").save(folder / "i.jpg")
    return sorted(folder.iterdir())


def script():
    text = (Path(__file__).parents[2] / "docs/export.md").read_text()
    (block,) = re.findall(r"```python\n(import json.*?)```", text, re.S)
    return block


@pytest.mark.parametrize(
    ("resize", "data"), [("crop", "photos"), ("pad", "photos"), ("squash", "photos"), ("pad", "digits")]
)
def test_the_script_of_the_docs_classifies_as_predict_does(tmp_path, of_photos, of_digits, files, resize, data):
    """In a process of its own that cannot import fewlabels or torch; resizing lies outside of the graph."""
    classifier, path = of_photos if data == "photos" else of_digits
    shutil.copy(path, tmp_path)
    form = replace(classifier.card.form, resize=resize, white=50_000.0)
    classifier.card = replace(classifier.card, form=form)
    (tmp_path / "m.onnx.json").write_text(json.dumps(description_of(classifier.card, "m.onnx")))
    (tmp_path / "classify.py").write_text(
        f"import sys\nsys.modules |= {{'torch': None, 'fewlabels': None}}\n{script()}"
    )
    (tmp_path / "broken.png").write_bytes(files[1].read_bytes()[:99])
    words = [sys.executable, "classify.py", "m.onnx", "broken.png", *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("set aside: broken.png: ")
    labels, probabilities = classifier.predict(files)
    assert len(set(labels.tolist())) > 1
    said = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert [line[:2] for line in said] == [[str(path), label] for path, label in zip(files, labels, strict=True)]
    # A JPEG on its side may be decoded at another scale there, where height and width differ.
    near = [i for i, path in enumerate(files) if path.name != "c.jpg"]
    np.testing.assert_allclose([float(said[i][2]) for i in near], probabilities.max(1)[near], atol=1e-5)


def test_what_stands_beside_the_file(of_digits, photos):
    classifier, path = of_digits
    assert sorted(p.name for p in path.parent.iterdir()) == ["m.onnx", "m.onnx.json"]
    described = json.loads((path.parent / "m.onnx.json").read_text())
    assert described["classes"] == list(classifier.card.classes) and described["difference_from_pytorch"] < 1e-4
    assert described["input"]["shape"] == ["n", classifier.card.form.channels, 16, 16]


@pytest.fixture
def quick(monkeypatch, of_digits):
    """Take the file that is there, since to trace a network takes seconds."""

    class Program:
        def save(self, path, external_data):
            shutil.copy(of_digits[1], path)

    monkeypatch.setattr(export, "_graph", lambda whole: Program())


def test_a_run_folder_keeps_its_own_model_json(quick, run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--onnx", str(tmp_path / "run/model.onnx")]) == 0
    assert "model.onnx: differs from PyTorch by at most" in capsys.readouterr().out
    assert fewlabels.load(tmp_path / "run").card == fewlabels.load(run).card


def test_a_file_that_differs_is_not_written(quick, run, tmp_path):
    classifier = fewlabels.load(run)
    with torch.no_grad():
        classifier.head.bias += torch.arange(3) / 100
    with pytest.raises(UserError, match="gives something else as ONNX"):
        write_onnx(classifier, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_it_says_that_nothing_was_checked(quick, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(run), "--onnx", str(tmp_path / "m.onnx")]) == 0
    assert "not checked" in capsys.readouterr().out


def test_what_cannot_be_is_said(tmp_path, monkeypatch):
    classifier = classifier_of("small_cnn", 1, (8, 8))
    with pytest.raises(UserError, match=r"ends in \.pt"):
        write_onnx(classifier, tmp_path / "m.pt")
    with monkeypatch.context() as patch:
        patch.setattr(export, "MOST_BYTES", 1000)
        with pytest.raises(UserError, match="holds up to 2 GB"):
            write_onnx(classifier, tmp_path / "m.onnx")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(UserError, match=r"pip install fewlabels\[onnx\]"):
            write_onnx(classifier, tmp_path / "m.onnx")

    class Odd(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, : 2 + int(x.sum() > 0)]

    classifier.backbone = Odd()
    classifier.head = torch.nn.Linear(3, 3)
    with pytest.raises(UserError, match="cannot be written as ONNX"):
        write_onnx(classifier, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_graph_and_classifier_normalize_alike():
    """To the last bit or two: the graph has arithmetic of its own, which tracing can follow."""
    classifier = classifier_of("small_cnn", 3, (16, 16))
    pixels = torch.from_numpy(np.stack([decode(p, classifier.card.form) for p in PHOTOS])).permute(0, 3, 1, 2)
    logits, probabilities, features = Whole(classifier)(pixels)
    outputs = next(classifier.classified(PHOTOS))[1]
    torch.testing.assert_close(logits, outputs.logits)
    torch.testing.assert_close(features, outputs.features)
    torch.testing.assert_close(probabilities, outputs.logits.softmax(1))
