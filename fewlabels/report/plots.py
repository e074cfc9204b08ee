"""Pictures of a run as SVG text, in colors that follow the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]
Points = Sequence[tuple[float, float]]

# Colors that nothing else has, replaced by the page's own afterwards: the report has a light and a dark form.
INK, SOFT, LINE, ACCENT, SECOND = "#010203", "#010204", "#010205", "#010206", "#010207"
_OF_PAGE = {
    INK: "currentColor",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
}

_NAMES = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
_STYLE: Any = {
    **dict.fromkeys(_NAMES, INK),
    "axes.edgecolor": SOFT,
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "fewlabels",
    "font.size": 10,
    "font.family": ["DejaVu Sans", "sans-serif"],  # wider than what the page takes: there is room for any
}
WIDTH, HEIGHT = 4.4, 2.9  # inches: the letters are as large as the page's on a phone
MARGINS = 0.62, 0.12, 0.5, 0.32  # inches: left, right, below, above
_LOG_FROM = 50  # times the least that the most must be for a logarithmic scale


def new_figure(width: float, height: float, rows: int = 1, margins: Any = None, **options: Any) -> Any:
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


def svg(figure: Any, name: str) -> str:
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
    figure = new_figure(WIDTH, HEIGHT, margins=MARGINS)
    (axes,) = figure.axes
    styles = ((ACCENT, "-", "o"), (SECOND, "--", "s"))
    for (label, found), (color, dashes, marker) in zip(series.items(), styles, strict=False):
        if found:
            mark = marker if len(found) < 20 else None
            axes.plot(*zip(*found, strict=True), label=label, color=color, linestyle=dashes, marker=mark, markersize=4)
    values = [value for found in series.values() for _, value in found]
    if values and min(values) > 0 and max(values) > _LOG_FROM * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="step")
    axes.grid(color=LINE, linewidth=0.8)
    plain(axes)
    legend(axes)
    return svg(figure, name)


def legend(axes: Any) -> None:
    """Put the names of the curves above a plot."""
    axes.legend(frameon=False, labelcolor=INK, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def plain(axes: Any) -> None:
    """Leave out what a plot does not need."""
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(color=SOFT)
    axes.tick_params(which="minor", left=False, bottom=False)
