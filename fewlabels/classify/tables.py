"""The tables of a classifier in the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table as RichTable

from fewlabels.classify.report.words import columns_of, metric
from fewlabels.report.words import number, percent, points_of


def result_table(summary: dict[str, Any]) -> RichTable:
    """Make the table that a run ends with."""
    counts = ", ".join(f"{summary[name]} {name}" for name in ("labeled", "unlabeled", "test"))
    steps = any(row["added"] is not None for row in summary["rows"])
    caption = "added: to the step before; by the first step to the best training-free baseline" if steps else None
    features = f"; features of {summary['model'].partition('+')[0]}" if summary["rows"][-1]["on_features"] else ""
    table = RichTable(title=f"{summary['data']}: {counts}{features}", caption=caption)
    table.add_column("method", no_wrap=True)
    metrics = columns_of(summary["rows"])
    columns = [*metrics, *(["added"] if steps else []), "seconds"]
    for name in columns:
        table.add_column(name, justify="right")
    for row in summary["rows"]:
        cells = {
            **{title: percent(metric(row, *which)) for title, which in metrics.items()},
            "added": "-" if row["added"] is None else points_of(row["added"]),
            "seconds": f"{row['seconds']:.1f}",
        }
        last = row is summary["rows"][-1]
        table.add_row(row["label"], *(cells[name] for name in columns), style="bold" if last else None)
    return table


def agreement_table(probed: dict[str, Any]) -> RichTable:
    """Make the table of a layer probe."""
    hidden = probed["against"] == "hidden"
    columns = (
        {"cosine_kept": "cosine, kept images", "cosine_all": "cosine, all images"}
        if hidden
        else {"cosine_all": "cosine, test images"}
    )
    table = RichTable()
    table.add_column("layer")
    for name in (*columns.values(), "norm ratio"):
        table.add_column(name, justify="right")
    for layer in probed["layers"]:
        cosines = [number(layer[name], "+.2f") for name in columns]
        table.add_row(layer["layer"], *cosines, number(layer["ratio"], ".2f"))
    return table
