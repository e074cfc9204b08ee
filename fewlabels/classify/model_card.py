"""The card of a classifier on the Hugging Face Hub: it says honestly what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fewlabels.classify.report.words import columns_of, metric, things, verdict
from fewlabels.export.hub import finished_card
from fewlabels.inputs.kinds import inputs_for
from fewlabels.models.classifier import Card
from fewlabels.report.words import percent


def card_of(run: Path) -> str:
    """Return the model card of a finished run.

    Raises:
        UserError: it is none.
    """
    card = finished_card(run)
    return model_card(card, json.loads((run / "summary.json").read_text(encoding="utf-8")))


def model_card(card: Card, summary: Mapping[str, Any]) -> str:
    """Write the model card of a run, as Markdown with a YAML head."""
    form = card.form
    inputs = inputs_for(form)
    kind, example = inputs.pipeline, inputs.example
    taken = f"{inputs.many.capitalize()} are brought to the form that it takes, {form.words}"
    if not inputs.are_pictures:
        taken = f"It takes {form.words}, as an array"
    head = yaml.safe_dump(
        {
            "library_name": "fewlabels",
            "pipeline_tag": kind,
            "tags": [kind, "semi-supervised-learning", "few-labels", summary["method"]],
        },
        sort_keys=False,
    )
    parts = [
        f"---\n{head}# license: the license is yours to choose; write it here\n---",
        f"# {summary['data']}: {len(card.classes)} classes from {summary['labeled']} labeled {form.what}",
        f"A `{card.model}` that tells apart {_listed(card.classes)}. It was trained with fewlabels, by "
        f"`{summary['method']}` (seed {summary['seed']}, {summary['steps']:,} steps) on {summary['labeled']:,} labeled "
        f"and {summary['unlabeled']:,} unlabeled {form.what} of {summary['data']}.",
        f"## How good it is\n\n{_accuracies(summary)}",
        f"## Probabilities\n\n{_calibration(card, summary)}",
        f"## What it is for\n\n{form.what.capitalize()} like those it was trained on, of these classes alone: it gives "
        "every one of them a class, whatever it is. Labels that were missing were guessed by the network itself in "
        "training, so mistakes it made there may repeat themselves. Look at the errors on data of your own before you "
        "rely on it.",
        "## How to use it\n\n```python\nimport fewlabels\n\n"
        'classifier = fewlabels.load("DIR")  # this folder, or huggingface_hub.snapshot_download("USER/NAME")\n'
        f"labels, probabilities = classifier.predict({example})\n```\n\n{taken}; `model.json` has the rest.",
    ]
    return "\n\n".join(parts) + "\n"


def _listed(classes: tuple[str, ...], most: int = 20) -> str:
    more = f" and {len(classes) - most} more" if len(classes) > most else ""
    return ", ".join(f"`{name}`" for name in classes[:most]) + more


def _accuracies(summary: Mapping[str, Any]) -> str:
    """Make the table of the run, with the baselines beside the method."""
    columns = columns_of(summary["rows"])
    table = [
        f"| | {' | '.join(columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
        *(
            f"| {row['label']} | {' | '.join(percent(metric(row, *which)) for which in columns.values())} |"
            for row in summary["rows"]
        ),
    ]
    tested = f"Test {things(summary)}: {summary['test']:,}; none of them was trained on or chose anything."
    parts = [
        "\n".join(verdict(dict(summary))),
        *(["\n".join(table)] if columns else []),
        *([tested] * bool(summary["test"])),
    ]
    return "\n\n".join(parts)


def _calibration(card: Card, summary: Mapping[str, Any]) -> str:
    """Say whether probabilities are as often right as they say, and what is known of it."""
    found = summary.get("calibration") or {}
    said = (
        f"They are calibrated ({found['kind']}, temperature {found['temperature']:.2f}) on {found['rows']:,} labeled "
        f"{things(summary)} that the network was not trained on"
        f"{'' if found['promised'] else ', which are too few to rely on'}."
        if card.scale
        else "They are the network's own, and not calibrated: do not take .9 for nine right out of ten."
    )
    if measured := found.get("calibrated"):
        said += (
            f" On the test {things(summary)} confidence and accuracy are {100 * measured['ece']:.1f} points apart "
            f"(expected calibration error; 95 % interval {100 * measured['low']:.1f} to {100 * measured['high']:.1f})."
        )
    return said
