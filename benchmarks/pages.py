"""What the scripts share that fill a page of docs: its marked places, its figures, tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

DOCS = Path(__file__).parent.parent / "docs"

plt.rcParams.update({"font.size": 9, "svg.hashsalt": "fewlabels", "svg.fonttype": "none"})


def fill(text: str, name: str, body: str) -> str:
    """Put a body between `<!-- NAME -->` and `<!-- end -->`."""
    filled, count = re.subn(
        f"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{body}\n{m[2]}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"the page has {count} places for {name}: it needs one, <!-- {name} --> and <!-- end -->")
    return filled


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def save(figure: Any, name: str) -> None:
    """Write a figure for pages of any color."""
    figure.savefig(DOCS / "figures" / f"{name}.svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)
