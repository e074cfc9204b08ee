"""`--method auto`: which method, by what was measured on development seeds (docs/methods.md, "Choosing")."""

from __future__ import annotations

import numpy as np

from fewlabels.data.table import Table
from fewlabels.inputs.kinds import inputs_of

AUTO = "auto"
UNEVEN = 3.0  # times as many labels as the rarest class has, from which on classes count as uneven
CLASSES = 10  # of the sets on which they were compared


def choose_method(table: Table) -> tuple[str, str]:
    """Give the name of a method for a table with its split, and the reason in words."""
    counts = np.bincount(table.labels[table.labeled_rows], minlength=len(table.classes))
    least, most = int(counts.min()), int(counts.max())
    if not len(table.unlabeled_rows):
        return "supervised", "there are no unlabeled rows"
    labels = f"{least} to {most} labels a class" if least < most else f"{least} label{'s' * (least > 1)} a class"
    vectors = not inputs_of(table.contents).are_pictures
    if vectors and len(counts) == 2:
        why = "on the one such set that was tried layermatch did harm, and fixmatch did not (n = 10)"
        return "fixmatch", f"{labels}, vectors of two classes; {why}"
    alone = f"; compared on digits alone{f', {CLASSES} classes' if len(counts) > CLASSES else ''}"
    beyond = f"{alone}, not on {'vectors' if vectors else 'photos'}"
    if most >= UNEVEN * least:
        return "softmatch", f"{labels}; with uneven classes it was 9 points above FixMatch (n = 4){beyond}"
    reason = "with 1 label a class it was 20 points above FixMatch (n = 4), with 4 none of the others is surely better"
    return "layermatch", f"{labels}; {reason}{beyond}"
