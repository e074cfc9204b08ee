"""ONNX: a file that classifies images where there is neither PyTorch nor fewlabels, and the words to feed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewlabels.errors import UserError
from fewlabels.extras import import_extra, import_if_there
from fewlabels.files import replace_file, replace_text
from fewlabels.inputs.kinds import inputs_for
from fewlabels.models.classifier import Card, Classifier
from fewlabels.version import __version__

OUTPUTS = ("logits", "probabilities", "features")
MOST_BYTES = 2**31  # of a file in ONNX's encoding (Protocol Buffers)
MOST_DIFFERENCE = 1e-3  # from PyTorch, as `largest_difference` measures it
_CHECKED = 3  # rows


class Whole(nn.Module):
    """All of a classifier in one graph: from pixels or vectors to logits, calibrated probabilities and features.

    Args:
        classifier: in evaluation mode.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        card = classifier.card
        mean, scale = inputs_for(card.form).scale_of((card.mean, card.std))
        self.mean, self.scale = nn.Buffer(mean), nn.Buffer(scale)

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map uint8 [n, C, H, W], or vectors, to logits [n, K], probabilities [n, K] and features [n, D]."""
        features = self.classifier.features((given.to(torch.float32) - self.mean) * self.scale)
        logits = self.classifier.head(features)
        return logits, self.classifier.calibrated(logits), features


def write_onnx(classifier: Classifier, path: Path) -> float | None:
    """Write a classifier as ONNX, and beside it, as FILE.json, what an image must be brought to and what comes out.

    The input `images` is uint8 [n, C, H, W] of any n, of the card's size; the outputs are `logits` [n, K],
    `probabilities` [n, K] (calibrated as the card says) and `features` [n, D]. A classifier of vectors takes `vectors`,
    float32 [n, D]. docs/export.md shows a program that needs nothing but the two files, NumPy, Pillow and onnxruntime.

    Args:
        classifier: on the CPU, in evaluation mode, as `fewlabels.load` gives it.
        path: of the file, one that ends in .onnx.

    Returns:
        The largest difference from PyTorch, of random rows; None where onnxruntime is not installed.

    Raises:
        UserError: another suffix, the packages are missing, the network cannot be written as ONNX, is too large for
            one file, or gives something else there than in PyTorch. Nothing is written then.
    """
    if path.suffix != ".onnx":
        raise UserError(f"{path} ends in {path.suffix or 'nothing'}; give a name that ends in .onnx")
    for package in ("onnx", "onnxscript"):
        import_extra(package, "onnx", "--onnx")
    size = sum(tensor.nbytes for tensor in classifier.state_dict().values())
    if size >= MOST_BYTES:
        raise UserError(f"{classifier.card.model} has {size / 1e9:.1f} GB of parameters; an ONNX file holds up to 2 GB")
    whole = Whole(classifier).eval()
    program = _graph(whole)
    found: list[float | None] = []

    def write(aside: Path) -> None:
        program.save(aside, external_data=False)
        found.append(largest_difference(whole, aside))
        if (found[0] or 0) > MOST_DIFFERENCE:
            raise UserError(
                f"{classifier.card.model} gives something else as ONNX than in PyTorch: they differ by {found[0]:.1g}, "
                f"where {MOST_DIFFERENCE:g} is allowed. Another version of torch or onnxscript may help."
            )

    replace_file(path, write)
    described = description_of(classifier.card, path.name) | {"difference_from_pytorch": found[0]}
    replace_text(path.with_name(f"{path.name}.json"), json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    return found[0]


def _graph(whole: Whole) -> Any:
    """Trace a classifier with a batch of any size; gives torch's `ONNXProgram`."""
    form = whole.classifier.card.form
    try:
        return torch.onnx.export(
            whole,
            (_random_rows(whole.classifier.card, 2),),
            input_names=[form.what],
            output_names=list(OUTPUTS),
            dynamic_shapes={"given": {0: torch.export.Dim("n")}},
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        said = f"{error.__cause__ or error}".strip().splitlines()
        raise UserError(
            f"{whole.classifier.card.model} cannot be written as ONNX: {said[0] if said else type(error).__name__}"
        ) from error


def _random_rows(card: Card, count: int) -> Tensor:
    return inputs_for(card.form).random(card.form, (card.mean, card.std), count)


@torch.no_grad()
def largest_difference(whole: Whole, path: Path) -> float | None:
    """Compare a written file with PyTorch on random rows; None where onnxruntime is not installed.

    The difference of each output is taken relative to its largest value, where that is above 1.
    """
    runtime = import_if_there("onnxruntime")
    if runtime is None:
        return None
    form = whole.classifier.card.form
    rows = _random_rows(whole.classifier.card, _CHECKED)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pairs = zip((out.numpy() for out in whole(rows)), session.run(None, {form.what: rows.numpy()}), strict=True)
    return max(float(np.abs(want - got).max() / max(1, np.abs(want).max())) for want, got in pairs)


def description_of(card: Card, name: str) -> dict[str, Any]:
    """Return what an ONNX file of this name takes and gives, in words that a program can follow."""
    form, classes = card.form, len(card.classes)
    return {
        "file": name,
        "written_by": f"fewlabels {__version__}",
        "model": card.model,
        "classes": card.classes,
        **inputs_for(form).described(form),
        "inside": {"mean": card.mean, "std": card.std, "scale": card.scale, "bias": card.bias},
        "outputs": {
            "logits": {"shape": ["n", classes], "meaning": "before the calibration"},
            "probabilities": {
                "shape": ["n", classes],
                "meaning": "softmax(scale * logits + bias), in the order of `classes`"
                if card.scale
                else "softmax(logits), in the order of `classes`; not calibrated",
            },
            "features": {"shape": ["n", "D"], "meaning": "what the head sees; alike for rows that are alike"},
        },
    }
