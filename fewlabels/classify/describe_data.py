"""A data set in words, for the command line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from fewlabels.data.image import reason_of
from fewlabels.data.sources.open import open_table
from fewlabels.data.table import Table, spread
from fewlabels.data.vectors import VectorRows, not_finite, vectors_of
from fewlabels.inputs.images.look import look

MOST = 1000  # images whose size is looked at
SHOWN = 20  # files set aside that are named


def describe_data(data: str, unlabeled: Path | None = None, root: Path | None = None) -> str:
    """Say how many rows there are of each class and split, how large they are, and what is set aside.

    Raises:
        UserError: there is no such data.
    """
    table = open_table(data, unlabeled, root)
    counts = table.counts()
    width = max(len(name) for name in ("unlabeled", *table.classes)) + 2
    vectors = vectors_of(table.images)
    what = "images" if vectors is None else "vectors"
    lines = [
        f"{table.name}: {len(table)} {what}, {len(table.classes)} {'class' if len(table.classes) == 1 else 'classes'}",
        f"{'class':{width}}{'train':>8}{'test':>8}",
    ]
    lines += [f"{name:{width}}{labeled:8}{test:8}" for name, labeled, test in counts]
    lines += [f"{'unlabeled':{width}}{len(table.unlabeled_rows):8}{0:8}"]
    lines += table.notes
    broken, sizes = _looked_at(table) if vectors is None else _numbers(table, vectors)
    aside = {**table.quarantine, **broken}
    lines += [sizes] + ([f"files set aside: {len(aside)}"] if aside else [])
    lines += [f"  {name}: {reason}" for name, reason in list(aside.items())[:SHOWN]]
    lines += [f"  and {len(aside) - SHOWN} more"] if len(aside) > SHOWN else []
    return "\n".join(lines)


def _numbers(table: Table, vectors: VectorRows) -> tuple[dict[str, str], str]:
    """Name the vectors that are not finite, and say what all of them are."""
    return {table.names[row]: reason for row, reason in not_finite(vectors).items()}, vectors.form.words


def _looked_at(table: Table) -> tuple[dict[str, str], str]:
    """Look at the headers of images: give those that cannot be read, and the sizes of the others in words."""
    rows = spread(np.arange(len(table)), MOST)
    sizes: Counter[str] = Counter()
    broken: dict[str, str] = {}
    for row in rows:
        try:
            seen = look(table.images[row])
            sizes[f"{seen.height}x{seen.width}x{seen.channels}"] += 1
        except Exception as error:  # as in decoding, damage makes Pillow raise almost anything
            broken[table.names[row]] = reason_of(error)
    common = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(5))
    more = f" and {len(sizes) - 5} other sizes" if len(sizes) > 5 else ""
    return broken, f"sizes of {len(rows)} images, height x width x channels: {common}{more}"
