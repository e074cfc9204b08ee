"""Pictures of a run as SVG text, in colors that follow the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.report.words import AGREEMENT

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


def _figure(width: float, height: float, rows: int = 1) -> Any:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.subplots(rows)
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
    figure = _figure(3.4 + 0.52 * max(len(shown), 5), (1.1 + 0.27 * len(layers)) * len(numbers) + 0.7, len(numbers))
    for axes, number in zip(figure.axes, numbers, strict=True):
        cosines = np.array([[layer[number] for layer in probe["layers"]] for probe in shown], dtype=float).T
        axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        for i, j in np.argwhere(~np.isnan(cosines)):
            color = "white" if abs(cosines[i, j]) > 0.6 else "#222222"
            said = f"{cosines[i, j]:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")
            axes.text(j, i, said, ha="center", va="center", fontsize=8, color=color)
        what, _, why = AGREEMENT[number if hidden else "test"].partition(": ")
        axes.set_title(f"cosine with {what},\n{why}", fontsize=10, color=_INK, loc="left")
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
    bar.ax.set_yticklabels(["-1 against\ntrue labels", "0 neither", "+1 with\ntrue labels"], color=_INK)
    return _svg(figure)


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
