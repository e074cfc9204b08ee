"""A data set in words, for the command line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from fewlabels.data.decode import image_size
from fewlabels.data.sources import open_table
from fewlabels.data.table import Table, spread

MOST = 1000  # images whose size is looked at


def describe_data(data: str, unlabeled: Path | None = None) -> str:
    """Say how many rows there are of each class and split, and how large the images are.

    Raises:
        UserError: there is no such data.
    """
    table = open_table(data, unlabeled)
    counts = table.counts()
    width = max(len(name) for name in ("unlabeled", *table.classes)) + 2
    lines = [
        f"{table.name}: {len(table)} images, {len(table.classes)} classes",
        f"{'class':{width}}{'train':>8}{'test':>8}",
    ]
    lines += [f"{name:{width}}{labeled:8}{test:8}" for name, labeled, test in counts]
    lines += [f"{'unlabeled':{width}}{len(table.unlabeled_rows):8}{0:8}", _sizes(table)]
    return "\n".join(lines)


def _sizes(table: Table) -> str:
    rows = spread(np.arange(len(table)), MOST)
    sizes: Counter[str] = Counter()
    for row in rows:
        try:
            height, width, channels = image_size(table.images[row])
            sizes[f"{height}x{width}x{channels}"] += 1
        except (OSError, ValueError):
            sizes["unreadable"] += 1
    common = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(5))
    more = f" and {len(sizes) - 5} other sizes" if len(sizes) > 5 else ""
    return f"sizes of {len(rows)} images, height x width x channels: {common}{more}"
