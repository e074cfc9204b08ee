"""`--method auto`: which method, from what was measured (docs/methods.md)."""

from __future__ import annotations

import numpy as np

from fewlabels.data.table import Table

AUTO = "auto"
UNEVEN = 3.0  # times as many labels as the rarest class has, from which on classes count as uneven


def choose_method(table: Table) -> tuple[str, str]:
    """Give the name of a method for a table with its split, and the reason in words."""
    labels = table.labels[table.labeled_rows]
    counts = np.bincount(labels, minlength=len(table.classes))
    few, many = int(counts.min()), int(counts.max())
    if not len(table.unlabeled_rows):
        return "supervised", "there are no unlabeled images"
    if many >= UNEVEN * few:
        return "softmatch", f"classes have {few} to {many} labels: of 8 methods it lost least where classes were uneven"
    return "comatch", f"classes have {few} to {many} labels"
