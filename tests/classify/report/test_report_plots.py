"""Plots: their numbers are there as text, and their colors are the page's."""

import re
from importlib.resources import files

import numpy as np
import pytest

from fewlabels.classify.calibration import BINS
from fewlabels.classify.report.plots import _readable_on, agreement, reliability_diagram
from fewlabels.classify.report.words import agreement_verdict
from fewlabels.report.plots import curves, points

RELIABILITY = {"confidence": [0.2, 0.65, 0.99], "accuracy": [0.0, 0.5, 1.0], "counts": [1, 10, 30], "ece": 0.1}
PLOTS = {
    "curves": curves({"layermatch": [(1, 2.0), (2, 1.0)], "supervised": [(1, 0.001)]}, "loss"),
    "reliability": reliability_diagram(RELIABILITY, BINS, "raw"),
}


@pytest.mark.parametrize("name", PLOTS)
def test_plots_take_the_colors_of_the_page(name):
    """All of them, the legend's too, so that they are seen on a light and on a dark page."""
    svg = PLOTS[name]
    assert "currentColor" in svg and "var(--accent)" in svg
    texts = re.findall(r"<text [^>]*>", svg)
    assert texts and all("currentColor" in text for text in texts)
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000"} and not re.search(r"(?:fill|stroke): #000000", svg)


def test_marks_of_one_plot_are_not_those_of_another():
    first, second = (curves({"a": [(1, 1.0), (2, 2.0)]}, name) for name in ("first", "second"))
    names = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert names[0] and not names[0] & names[1]
    for svg, there in zip((first, second), names, strict=True):
        assert set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg)) <= there


def test_points_are_the_finite_numbers_of_a_record():
    lines = [
        {"step": 1, "a": 0.5},
        {"step": 2},
        {"step": 3, "a": float("inf")},
        {"step": 4, "a": 0},
        {"step": 5, "a": None},
    ]
    assert points(lines, "a", 100.0) == [(1, 50.0), (4, 0.0)]


def test_a_wide_range_gets_a_logarithmic_scale():
    narrow, wide = (curves({"a": [(1, 1.0), (2, least)]}, "x") for least in (0.1, 0.001))
    assert ">0.6<" in narrow and ">0.6<" not in wide and ">0.01<" in wide


def test_one_point_is_drawn_too():
    assert "<svg" in curves({"a": [(1, 1.0)], "b": []}, "x")


def contrast(first, second):
    """Give WCAG's contrast of two colors #rrggbb."""
    light = []
    for color in (first, second):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        light.append(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_the_colors_of_the_page_can_be_read_in_both_schemes():
    style = files("fewlabels.report").joinpath("templates/report.css").read_text()
    schemes = [dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in style.split("* {")[0].split("@media")]
    assert len(schemes) == 2 and schemes[0]["paper"] != schemes[1]["paper"]
    for colors in schemes:
        for ground in ("paper", "card", "warn"):
            for text in ("ink", "soft", "accent", "second"):
                assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground, colors)
        assert contrast(colors["warn-edge"], colors["paper"]) >= 3


def test_numbers_on_colors_are_black_or_white_as_can_be_read():
    for level in np.linspace(0, 1, 50):
        color = f"#{round(255 * level):02x}" + f"{round(255 * (1 - level)):02x}" + "80"
        on = _readable_on([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert contrast(on, color) >= 4.5


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
