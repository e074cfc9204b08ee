"""Pictures of a run as SVG text, in colors that follow the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewlabels.evaluation.accuracy import accuracy_interval
from fewlabels.report.words import AGREEMENT

Line = Mapping[str, Any]
Points = Sequence[tuple[float, float]]

# Colors that nothing else has, replaced by the page's own afterwards: the report has a light and a dark form.
_INK, _SOFT, _LINE, _ACCENT, _SECOND = "#010203", "#010204", "#010205", "#010206", "#010207"
_OF_PAGE = {
    _INK: "currentColor",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _ACCENT: "var(--accent)",
    _SECOND: "var(--second)",
}

_NAMES = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
_STYLE: Any = {
    **dict.fromkeys(_NAMES, _INK),
    "axes.edgecolor": _SOFT,
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "fewlabels",
    "font.size": 10,
    "font.family": ["DejaVu Sans", "sans-serif"],  # wider than what the page takes: there is room for any
}
_WIDTH, _HEIGHT = 4.4, 2.9  # inches: the letters are as large as the page's on a phone
_MARGINS = 0.62, 0.12, 0.5, 0.32  # inches: left, right, below, above
_LOG_FROM = 50  # times the least that the most must be for a logarithmic scale


def _figure(width: float, height: float, rows: int = 1, margins: Any = None, **options: Any) -> Any:
    """Make a figure of some plots; without margins (inches) they are measured, which takes as long as the drawing."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout=None if margins else "constrained")
        figure.subplots(rows, **options)
    if margins:
        left, right, below, above = margins
        figure.subplots_adjust(left / width, below / height, 1 - right / width, 1 - above / height, hspace=0.1)
    return figure


def _svg(figure: Any, name: str) -> str:
    """Give a figure as SVG whose colors are the page's; `name` keeps its marks apart from other figures'."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    for color, of_page in _OF_PAGE.items():
        text = text.replace(color, of_page)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    text = re.sub(r" id=\"([^\"]+)\"", lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    return re.sub(r"(url\(#|href=\"#)", rf"\1{name}-", text)


def points(lines: Sequence[Line], key: str, scale: float = 1.0) -> Points:
    """Give (step, recorded number) where there is one."""
    found = ((line["step"], line.get(key)) for line in lines)
    return [(step, scale * value) for step, value in found if value is not None and math.isfinite(value)]


def curves(series: Mapping[str, Points], name: str) -> str:
    """Plot up to two series over the steps: the first in the accent color, the second dashed.

    Args:
        series: the points of each by its name; those without points are left out.
        name: of the figure, unique on its page.
    """
    figure = _figure(_WIDTH, _HEIGHT, margins=_MARGINS)
    (axes,) = figure.axes
    styles = ((_ACCENT, "-", "o"), (_SECOND, "--", "s"))
    for (label, found), (color, dashes, marker) in zip(series.items(), styles, strict=False):
        if found:
            mark = marker if len(found) < 20 else None
            axes.plot(*zip(*found, strict=True), label=label, color=color, linestyle=dashes, marker=mark, markersize=4)
    values = [value for found in series.values() for _, value in found]
    if values and min(values) > 0 and max(values) > _LOG_FROM * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="step")
    axes.grid(color=_LINE, linewidth=0.8)
    _plain(axes)
    _legend(axes)
    return _svg(figure, name)


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, labelcolor=_INK, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _plain(axes: Any) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(color=_SOFT)
    axes.tick_params(which="minor", left=False, bottom=False)


def reliability_diagram(found: Mapping[str, Any], bins: int, name: str) -> str:
    """Draw accuracy over confidence, bin by bin with 95 % intervals, above how many rows each bin has.

    Args:
        found: the fields of `evaluation.calibration.Reliability`.
        bins: of equal width from 0 to 1, of which those with rows were found.
        name: of the figure, unique on its page.
    """
    confidence, accuracy = 100 * np.array(found["confidence"]), 100 * np.array(found["accuracy"])
    width = 100 / bins
    left = np.minimum(confidence // width, bins - 1) * width
    figure = _figure(_WIDTH, 4.2, 2, _MARGINS, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above, below = figure.axes
    above.bar(left, accuracy, width, align="edge", color=_ACCENT, alpha=0.25)
    above.plot([0, 100], [0, 100], color=_SOFT, linestyle=":", label="as right as sure")
    ends = np.array([accuracy_interval(a, n) for a, n in zip(found["accuracy"], found["counts"], strict=True)]) * 100
    reach = np.maximum(np.abs(ends.T - accuracy), 0)
    above.errorbar(confidence, accuracy, reach, color=_ACCENT, fmt="o", markersize=5, label="this network")
    above.set(ylabel="right, %", xlim=(0, 100), ylim=(0, 102))
    figure.align_ylabels()
    _legend(above)
    below.bar(left, found["counts"], width, align="edge", color=_SOFT, edgecolor="none")
    below.set(xlabel="sure, %", ylabel="how many")
    for axes in figure.axes:
        _plain(axes)
    return _svg(figure, name)


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
        colors = axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        for i, j in np.argwhere(~np.isnan(cosines)):
            said = f"{cosines[i, j]:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")
            color = _readable_on(colors.cmap(colors.norm(cosines[i, j])))
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
    return _svg(figure, "layers")


def _readable_on(color: Sequence[float]) -> str:
    """Choose black or white for text on a color (red, green, blue in 0..1), by WCAG's relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"
