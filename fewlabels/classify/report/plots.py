"""Plots of a classifier's report: its probabilities, and how pseudo-labels agree with true labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewlabels.classify.metrics import accuracy_interval
from fewlabels.classify.report.words import AGREEMENT
from fewlabels.report.plots import ACCENT, INK, MARGINS, SOFT, WIDTH, legend, new_figure, plain, svg


def reliability_diagram(found: Mapping[str, Any], bins: int, name: str) -> str:
    """Draw accuracy over confidence, bin by bin with 95 % intervals, above how many rows each bin has.

    Args:
        found: the fields of `classify.calibration.Reliability`.
        bins: of equal width from 0 to 1, of which those with rows were found.
        name: of the figure, unique on its page.
    """
    confidence, accuracy = 100 * np.array(found["confidence"]), 100 * np.array(found["accuracy"])
    width = 100 / bins
    left = np.minimum(confidence // width, bins - 1) * width
    figure = new_figure(WIDTH, 4.2, 2, MARGINS, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above, below = figure.axes
    above.bar(left, accuracy, width, align="edge", color=ACCENT, alpha=0.25)
    above.plot([0, 100], [0, 100], color=SOFT, linestyle=":", label="as right as sure")
    ends = np.array([accuracy_interval(a, n) for a, n in zip(found["accuracy"], found["counts"], strict=True)]) * 100
    reach = np.maximum(np.abs(ends.T - accuracy), 0)
    above.errorbar(confidence, accuracy, reach, color=ACCENT, fmt="o", markersize=5, label="this network")
    above.set(ylabel="right, %", xlim=(0, 100), ylim=(0, 102))
    figure.align_ylabels()
    legend(above)
    below.bar(left, found["counts"], width, align="edge", color=SOFT, edgecolor="none")
    below.set(xlabel="sure, %", ylabel="how many")
    for axes in figure.axes:
        plain(axes)
    return svg(figure, name)


def agreement(probes: Sequence[Mapping[str, Any]], most: int = 12) -> str | None:
    """Draw layer probes: layers down, steps across, colored and labeled by the cosines.

    Args:
        probes: lines of `probe.jsonl`.
        most: columns; of more probes some are shown, evenly spread.
    """
    if not probes:
        return None
    shown = [probes[i] for i in np.linspace(0, len(probes) - 1, min(len(probes), most)).astype(int)]
    hidden = shown[-1]["against"] == "hidden"
    numbers = ("cosine_kept", "cosine_all") if hidden else ("cosine_all",)
    layers = [layer["layer"] for layer in shown[0]["layers"]]
    figure = new_figure(3.4 + 0.52 * max(len(shown), 5), (1.1 + 0.27 * len(layers)) * len(numbers) + 0.7, len(numbers))
    for axes, number in zip(figure.axes, numbers, strict=True):
        cosines = np.array([[layer[number] for layer in probe["layers"]] for probe in shown], dtype=float).T
        colors = axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        for i, j in np.argwhere(~np.isnan(cosines)):
            said = f"{cosines[i, j]:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")
            color = _readable_on(colors.cmap(colors.norm(cosines[i, j])))
            axes.text(j, i, said, ha="center", va="center", fontsize=8, color=color)
        what, _, why = AGREEMENT[number if hidden else "test"].partition(": ")
        axes.set_title(f"cosine with {what},\n{why}", fontsize=10, color=INK, loc="left")
        axes.set_yticks(range(len(layers)), layers)
        axes.set_xticks(range(len(shown)), [probe["step"] for probe in shown])
    wrong = [probe["wrong"] for probe in shown]
    if any(share is not None for share in wrong):
        said = ["" if share is None else f"{100 * share:.0f} %" for share in wrong]
        labels = [f"{probe['step']}\n{of}" for probe, of in zip(shown, said, strict=True)]
        figure.axes[-1].set_xticks(range(len(shown)), labels)
        figure.axes[-1].set_xlabel("step, and below it how many of the kept pseudo-labels are wrong")
    else:
        figure.axes[-1].set_xlabel("step")
    bar = figure.colorbar(figure.axes[0].images[0], ax=figure.axes, ticks=[-1, 0, 1], fraction=0.05)
    bar.ax.set_yticklabels(["-1 against\ntrue labels", "0 neither", "+1 with\ntrue labels"], color=INK)
    return svg(figure, "layers")


def _readable_on(color: Sequence[float]) -> str:
    """Choose black or white for text on a color (red, green, blue in 0..1), by WCAG's relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"
