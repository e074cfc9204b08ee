"""A data set in words, for the command line."""

from __future__ import annotations

from pathlib import Path

from fewlabels.data.sources.open import open_table
from fewlabels.inputs.kinds import inputs_of
from fewlabels.report.words import count

SHOWN = 20  # files set aside that are named


def describe_data(data: str, unlabeled: Path | None = None, root: Path | None = None) -> str:
    """Say how many rows there are of each class and split, how large they are, and what is set aside.

    Raises:
        UserError: there is no such data.
    """
    table = open_table(data, unlabeled, root)
    counts = table.counts()
    width = max(len(name) for name in ("unlabeled", *table.classes)) + 2
    inputs = inputs_of(table.contents)
    lines = [
        f"{table.name}: {len(table)} {inputs.many}, {count(len(table.classes), 'class')}",
        f"{'class':{width}}{'train':>8}{'test':>8}",
    ]
    lines += [f"{name:{width}}{labeled:8}{test:8}" for name, labeled, test in counts]
    lines += [f"{'unlabeled':{width}}{len(table.unlabeled_rows):8}{0:8}"]
    lines += table.notes
    broken, sizes = inputs.survey(table)
    aside = {**table.quarantine, **broken}
    lines += [sizes] + ([f"files set aside: {len(aside)}"] if aside else [])
    lines += [f"  {name}: {reason}" for name, reason in list(aside.items())[:SHOWN]]
    lines += [f"  and {len(aside) - SHOWN} more"] if len(aside) > SHOWN else []
    return "\n".join(lines)
