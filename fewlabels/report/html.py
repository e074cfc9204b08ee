"""Writes report.html: self-contained, light and dark, readable on a phone."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabels.data.images import Images
from fewlabels.data.table import UNLABELED, Labels, Table, spread
from fewlabels.evaluation.accuracy import confusion
from fewlabels.files import replace_text
from fewlabels.report.plots import agreement, confusion_matrix, curves
from fewlabels.report.words import AGREEMENT_MEANING, TEST_MEANING, agreement_verdict, percent, verdict
from fewlabels.training.record import read_lines

SHOWN = 12  # images in a gallery
THUMBNAIL = 96  # pixels

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2329; --soft: #59636e; --line: #d5dae0; --good: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181d; --ink: #e6eaee; --soft: #a3adb8; --line: #39424c; --good: #7db8f5; }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.verdict { border-left: 4px solid var(--good); font-size: 1.15rem; padding-left: .8rem; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left; }
td.n, th.n { font-variant-numeric: tabular-nums; text-align: right; }
tr.chosen td { font-weight: 700; color: var(--good); }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots figure { flex: 1 1 20rem; margin: 0; }
svg { height: auto; max-width: 100%; } figcaption, small, .soft { color: var(--soft); }
.gallery { display: flex; flex-wrap: wrap; gap: .8rem; list-style: none; padding: 0; }
.gallery li { font-size: .85rem; line-height: 1.3; max-width: 6rem; overflow-wrap: anywhere; }
.gallery img { border: 1px solid var(--line); display: block; height: 6rem; width: 6rem; }
.gallery img { image-rendering: pixelated; object-fit: contain; }
code { overflow-wrap: anywhere; }
"""


def write_report(
    folder: Path, summary: dict[str, Any], table: Table, images: Images | None, probabilities: NDArray[np.float32]
) -> None:
    """Write `report.html` of a run.

    Args:
        folder: the run's, with the records of its trainings.
        summary: as in `summary.json`.
        table: the rows.
        images: as the network saw them; None for vectors.
        probabilities: [N, K], what the network says of them.
    """
    title = f"{summary['data']}: {summary['method']} with {summary['labeled']} labels"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(f'<p class="verdict">{html.escape(line)}</p>' for line in verdict(summary)),
        *(f'<p class="soft">{html.escape(line)}</p>' for line in (_asked(summary), *summary["notes"])),
        "<h2>Beside what is free</h2>",
        _numbers(summary),
        "<h2>While it learned</h2>",
        _curves(folder, summary["method"]),
        *_agreement(folder, summary["steps"]),
        *_confusion(table, probabilities),
        *_galleries(table, images, probabilities),
    ]
    body = "\n".join(parts)
    replace_text(
        folder / "report.html",
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n",
    )


def _asked(summary: dict[str, Any]) -> str:
    return (
        f"{summary['model']} learned {summary['steps']} steps from {summary['labeled']} labeled and "
        f"{summary['unlabeled']} unlabeled images, seed {summary['seed']}; {summary['test']} test images only report. "
        f"Policy of the layers that learn from unlabeled images: {summary['policy']}. "
        "The numbers are of the averaged parameters after the last step; the test split chose nothing."
        + (
            f" Files set aside: {summary['set_aside']}; quarantine.csv names them with the reasons."
            if summary["set_aside"]
            else ""
        )
    )


def _numbers(summary: dict[str, Any]) -> str:
    lines = [
        f"<tr{' class=chosen' if row is summary['rows'][-1] else ''}><td>{html.escape(row['label'])}</td>"
        f'<td class="n">{percent(row["accuracy"])}</td><td class="n">{percent(row["unlabeled_accuracy"])}</td>'
        f'<td class="n">{row["seconds"]:.1f}</td></tr>'
        for row in summary["rows"]
    ]
    names = "".join(f'<th class="n">{name}</th>' for name in ("test accuracy", "on hidden labels", "seconds"))
    head = f"<thead><tr><th>method</th>{names}</tr></thead>"
    return f'<div class="wide"><table>\n{head}\n<tbody>{"".join(lines)}</tbody></table></div>'


def _curves(folder: Path, method: str) -> str:
    lines = {
        method: read_lines(folder / "metrics.jsonl"),
        "labels only": read_lines(folder / "labels_only/metrics.jsonl"),
    }
    plots = (
        ("test_accuracy", "test accuracy, %", 100.0),
        ("unlabeled_accuracy", "accuracy on hidden labels, %", 100.0),
        ("loss", "loss", 1.0),
        ("kept", "kept share of the pseudo-labels, %", 100.0),
    )
    drawn = ((label, curves(lines, key, label, scale)) for key, label, scale in plots)
    figures = [
        f'<figure role="img" aria-label="{html.escape(label)} over the steps">{svg}</figure>'
        for label, svg in drawn
        if svg
    ]
    return f'<div class="plots">{"".join(figures)}</div>'


def _agreement(folder: Path, steps: int) -> list[str]:
    probes = read_lines(folder / "probe.jsonl")
    svg, said = agreement(probes), agreement_verdict(probes, steps)
    if svg is None:
        return []
    text = "agreement of pseudo-labels with true labels, by layer and step"
    meaning = AGREEMENT_MEANING if probes[-1]["against"] == "hidden" else f"{AGREEMENT_MEANING} {TEST_MEANING}"
    return [
        "<h2>Do pseudo-labels help every layer?</h2>",
        *([f"<p>{said}</p>"] if said else []),
        f'<figure role="img" aria-label="{text.capitalize()}" style="margin:0">{svg}',
        f"<figcaption>{html.escape(meaning)}</figcaption></figure>",
    ]


def _confusion(table: Table, probabilities: NDArray[np.float32]) -> list[str]:
    test = table.test_rows
    if not len(test):
        return []
    predicted = probabilities[test].argmax(1)
    svg = confusion_matrix(confusion(predicted, table.labels[test], len(table.classes)), table.classes)
    text = "test images of each true class by predicted class"
    return [
        "<h2>Which classes are confused</h2>",
        f'<figure role="img" aria-label="Confusion matrix: {text}" style="margin:0">{svg}',
        f"<figcaption>{text.capitalize()}.</figcaption></figure>",
    ]


def _galleries(table: Table, images: Images | None, probabilities: NDArray[np.float32]) -> list[str]:
    """Show unlabeled images with their predictions: some spread over the table, and the most doubtful."""
    rows = table.unlabeled_rows
    if not len(rows) or images is None:
        return []
    some = spread(rows, SHOWN)
    doubtful = rows[np.argsort(probabilities[rows].max(1), kind="stable")[:SHOWN]]
    return [
        "<h2>Some unlabeled images and what the network says</h2>",
        _gallery(some, table, images, probabilities),
        "<h2>The most doubtful unlabeled images</h2>",
        _gallery(doubtful, table, images, probabilities),
    ]


def _gallery(rows: Labels, table: Table, images: Images, probabilities: NDArray[np.float32]) -> str:
    pixels = images.take(rows).cpu().numpy()
    items = [_item(row, image, table, probabilities[row]) for row, image in zip(rows, pixels, strict=True)]
    return f'<ul class="gallery">{"".join(items)}</ul>'


def _item(row: int, image: NDArray[np.uint8], table: Table, probabilities: NDArray[np.float32]) -> str:
    k = int(probabilities.argmax())
    said = html.escape(table.classes[k])
    truth = table.truth[row]
    note = "" if truth == UNLABELED else " (right)" if truth == k else f" (is {html.escape(table.classes[truth])})"
    name = html.escape(table.names[row])
    said = f"{said}, {100 * probabilities[k]:.0f} %{note}"
    return f'<li><img src="{_thumbnail(image)}" alt="{name}">{said}<br><small>{name}</small></li>'


def _thumbnail(image: NDArray[np.uint8]) -> str:
    # Of more channels than a screen has, the first three are shown as colors.
    picture = Image.fromarray(image[0] if len(image) < 3 else np.ascontiguousarray(image[:3].transpose(1, 2, 0)))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
