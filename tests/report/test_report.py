"""The report: whole, self-contained, and in plain words."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from fewlabels.data.images import ResidentImages
from fewlabels.data.sources.open import from_arrays
from fewlabels.data.splits import hide_all_but
from fewlabels.report.html import write_report
from fewlabels.report.plots import agreement, confusion_matrix, curves
from fewlabels.report.words import agreement_verdict, verdict


def summary_of(**changes):
    row = {"name": "layermatch", "label": "layermatch", "accuracy": 0.5, "unlabeled_accuracy": None, "seconds": 1.0}
    summary = {
        "data": "a<b>", "method": "layermatch", "seed": 0, "model": "small_cnn", "steps": 5, "labeled": 4,
        "unlabeled": 4, "test": 4, "accuracy": 0.5, "set_aside": 0, "notes": ["a <note>"], "rows": [row],
        "policy": "grad_relu", "gain": {"value": 0.1, "standard_error": 0.01, "clear": True},
    }  # fmt: skip
    return summary | changes


@pytest.fixture
def page(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 9, 9, 3), dtype=np.uint8)
    y = np.arange(12) % 2
    table = from_arrays(
        {"x": x[:8], "y": y[:8], "x_test": x[8:], "y_test": y[8:], "classes": ["<cat>", 'do"g']}, "a<b>"
    )
    table = hide_all_but(table, np.arange(4))
    p = rng.dirichlet([1, 1], 12).astype(np.float32)
    images = ResidentImages(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    write_report(tmp_path, summary_of(), table, images, p)
    return (tmp_path / "report.html").read_text()


def test_it_needs_no_network(page):
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert "url(http" not in page and "<script" not in page and "@import" not in page


def test_names_are_escaped_and_images_have_texts(page):
    assert "a&lt;b&gt;" in page and "&lt;cat&gt;" in page and "<cat>" not in page
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "img":
                found.append(dict(attributes))

    Reader().feed(page)
    assert len(found) == 8 and all(image["alt"] and image["src"].startswith("data:image/png") for image in found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "The unlabeled data helped: +10.0 points against labels only (standard error 1.0"),
        ({"gain": {"value": -0.02, "standard_error": 0.01}}, "The unlabeled data did not help here: -2.0 points"),
        ({"gain": {"value": 0.0, "standard_error": 0.0}}, "did not help here"),
        ({"gain": {"value": 0.02, "standard_error": 0.02, "clear": False}}, "not settled: +2.0 points"),
        ({"gain": None}, "no gain is known"),
        ({"accuracy": None}, "the accuracy is not known"),
    ],
)
def test_the_verdict_says_plainly_whether_the_unlabeled_data_helped(changes, words):
    (line,) = verdict(summary_of(**changes))
    assert words in line


def test_plots_take_the_colors_of_the_page():
    """All text, the legend's too, so that it is seen on a light and on a dark page."""
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    for svg in (curves({"layermatch": lines}, "loss", "loss"), confusion_matrix(np.eye(3, dtype=int), ["a", "b", "c"])):
        assert svg is not None and "currentColor" in svg
        texts = re.findall(r"<text [^>]*>", svg)
        assert texts and all("currentColor" in text or "#222222" in text or "#ffffff" in text for text in texts)
    assert curves({"layermatch": lines}, "kept", "kept") is None


def probe_of(step, wrong, against="hidden", **cosines):
    layers = [
        {"layer": name.replace("_", "."), "cosine_kept": value, "cosine_all": 0.0, "ratio": 1.0}
        for name, value in cosines.items()
    ]
    if against == "test":
        layers = [layer | {"cosine_kept": None, "cosine_all": layer["cosine_kept"]} for layer in layers]
    return {"step": step, "against": against, "kept": 0.5, "wrong": wrong, "layers": layers}


PROBES = [probe_of(1, 0.25, backbone_a=1.0, head=1.0), probe_of(2, 0.5, backbone_a=0.5, head=-0.25)]


def test_the_layer_probe_is_drawn_with_its_numbers():
    svg = agreement(PROBES)
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    assert {
        "backbone.a",
        "head",
        "+1.0",
        "+0.5",
        "-0.2",
        "25 %",
        "50 %",
        "cosine with true labels of the kept images,",
    } <= set(texts)
    assert "#000000" not in "".join(re.findall(r"<text [^>]*>", svg))
    assert agreement([]) is None
    assert agreement_verdict(PROBES, 2) is None  # a single probe in the second half
    said = agreement_verdict([PROBES[1] | {"step": step} for step in (1, 2, 3, 4, 5, 6)], 6)
    assert said == (
        "Over the last 3 probes the mean cosine with true labels of the kept images was +0.50 in the backbone "
        "(+0.50 to +0.50) and -0.25 in the head (-0.25 to -0.25)."
    )


def test_a_layer_probe_against_test_images_says_so():
    probes = [probe_of(1, None, "test", backbone_a=0.25, head=0.5)]
    svg = agreement(probes)
    assert "test images" in svg and "kept images" not in svg and "+0.2" in svg
    assert "of test images was +0.25 in the backbone" in agreement_verdict(3 * probes, 1)


def test_a_layer_probe_that_compared_nothing_is_drawn_empty():
    nothing = [probe_of(1, None, "test", backbone_a=None, head=None)]
    assert "head" in agreement(nothing) and "No pseudo-label was kept" in agreement_verdict(3 * nothing, 1)
    assert len(re.findall(r">[+-]\d\.\d<", agreement(nothing))) == 0


def test_of_many_probes_some_are_drawn():
    svg = agreement([probe_of(step, None, "test", head=0.1) for step in range(100)])
    assert svg.count(">+0.1<") == 12 and ">0<" in svg and ">99<" in svg
