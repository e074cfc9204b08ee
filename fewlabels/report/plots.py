"""Pictures of a run as SVG text, in colors that follow the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Line = Mapping[str, float]

# A color that nothing else has, replaced by the page's own afterwards: the report has a light and a dark form.
_INK = "#010203"


_NAMES = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
_STYLE: Any = {
    **dict.fromkeys(_NAMES, _INK),
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "fewlabels",
    "font.size": 10,
    "font.family": ["DejaVu Sans", "sans-serif"],
}


def _figure(width: float, height: float) -> Any:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.add_subplot()
    return figure


def _svg(figure: Any) -> str:
    """Give a figure as SVG whose text and axes take the color of the text around it."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def curves(lines_of: Mapping[str, Sequence[Line]], key: str, label: str, scale: float = 1.0) -> str | None:
    """Plot a recorded number over the steps, one curve a training; None where nobody recorded it."""
    figure = _figure(5.2, 3.2)
    axes = figure.axes[0]
    drawn = False
    for name, lines in lines_of.items():
        points = [(line["step"], scale * line[key]) for line in lines if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, marker="o" if len(points) < 20 else None, markersize=3)
            drawn = True
    axes.set(xlabel="step", ylabel=label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if drawn:
        axes.legend(frameon=False, labelcolor=_INK)
    return _svg(figure) if drawn else None


def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Draw counts [K, K]: true classes down, predicted ones across, each row colored by its shares."""
    k = len(classes)
    side = min(3 + 0.32 * k, 12)
    figure = _figure(side, side)
    axes = figure.axes[0]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if k <= 30:
        for i, j in np.argwhere(counts):
            color = "white" if shares[i, j] > 0.5 else "#222222"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(k), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.set_yticks(range(k), classes)
    axes.set(xlabel="predicted", ylabel="true")
    return _svg(figure)
