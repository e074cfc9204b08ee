"""The rows that a run learns from: the split that is drawn or given, with labels that came later."""

from __future__ import annotations

from fewlabels.classify.read_labels import with_more_labels
from fewlabels.config import Options
from fewlabels.data.splits import apply_split, draw_split
from fewlabels.data.table import Table
from fewlabels.errors import UserError, all_of


def with_split(table: Table, options: Options) -> Table:
    """Draw the split of a run, or take the given one.

    Raises:
        UserError: options that contradict each other or the data; a class without a labeled image.
    """
    if options.split is None:
        table = draw_split(table, options.labels_per_class, options.seed)
    elif options.labels_per_class is None:
        table = apply_split(table, options.split)
    else:
        raise UserError("--split says which labels are kept, and so does --labels-per-class; give one of them")
    if options.labels is not None:
        table = with_more_labels(table, options.labels)
    check_classes(table)
    return table


def check_classes(table: Table) -> None:
    """Check that there are classes to learn.

    Raises:
        UserError: no labeled rows, one class only, or classes without a labeled training image; all at once.
    """
    labeled = table.labels[table.labeled_rows]
    mend = "Give at least two classes and one labeled training image of each."
    if not len(labeled):
        raise all_of(table.name, [f"none of the {len(table)} rows is a labeled training image"], mend)
    problems = [f"{len(table.classes)} class only, {', '.join(table.classes)}"] if len(table.classes) < 2 else []
    tested = table.labels[table.test_rows]
    missing = [k for k in range(len(table.classes)) if not (labeled == k).any()]
    unknown = [table.classes[k] for k in missing if (tested == k).any()]
    problems += [f"the test split has classes unknown in training: {', '.join(unknown)}"] if unknown else []
    others = [table.classes[k] for k in missing if not (tested == k).any()]
    problems += [f"no labeled training image of {', '.join(others)}"] if others else []
    if problems:
        raise all_of(table.name, problems, mend)
