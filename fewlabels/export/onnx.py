"""ONNX: a file that classifies images where there is neither PyTorch nor fewlabels, and the words to feed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewlabels import __version__
from fewlabels.data.decode import TRANSPARENT
from fewlabels.errors import UserError
from fewlabels.extras import import_extra, import_if_there
from fewlabels.files import replace_file, replace_text
from fewlabels.models.classifier import Card, Classifier

INPUT, OUTPUTS = "images", ("logits", "probabilities", "features")
MOST_BYTES = 2**31  # of a file in ONNX's encoding (Protocol Buffers)
MOST_DIFFERENCE = 1e-3  # from PyTorch, as `largest_difference` measures it
_CHECKED = 3  # images


class Whole(nn.Module):
    """All of a classifier in one graph: from pixels to logits, calibrated probabilities and features.

    Args:
        classifier: in evaluation mode.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (classifier.card.mean, classifier.card.std))
        self.scale = nn.Buffer(1 / (255 * std))
        self.shift = nn.Buffer(-mean / std)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map uint8 [n, C, H, W] to logits [n, K], probabilities [n, K] and features [n, D]."""
        features = self.classifier.features(images.to(torch.float32) * self.scale + self.shift)
        logits = self.classifier.head(features)
        return logits, self.classifier.calibrated(logits), features


def write_onnx(classifier: Classifier, path: Path) -> float | None:
    """Write a classifier as ONNX, and beside it, as FILE.json, what an image must be brought to and what comes out.

    The input `images` is uint8 [n, C, H, W] of any n, of the card's size; the outputs are `logits` [n, K],
    `probabilities` [n, K] (calibrated as the card says) and `features` [n, D]. docs/export.md shows a program that
    needs nothing but the two files, NumPy, Pillow and onnxruntime.

    Args:
        classifier: on the CPU, in evaluation mode, as `fewlabels.load` gives it.
        path: of the file, one that ends in .onnx.

    Returns:
        The largest difference from PyTorch, of random images; None where onnxruntime is not installed.

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
    described = describe(classifier.card, path.name) | {"difference_from_pytorch": found[0]}
    replace_text(path.with_name(f"{path.name}.json"), json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    return found[0]


def _graph(whole: Whole) -> Any:
    """Trace a classifier with a batch of any size; gives torch's `ONNXProgram`."""
    example = _random_images(whole.classifier.card, 2)
    try:
        return torch.onnx.export(
            whole,
            (example,),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={INPUT: {0: torch.export.Dim("n")}},
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        said = f"{error.__cause__ or error}".strip().splitlines()
        raise UserError(
            f"{whole.classifier.card.model} cannot be written as ONNX: {said[0] if said else type(error).__name__}"
        ) from error


def _random_images(card: Card, count: int) -> Tensor:
    shape = (count, card.form.channels, *card.form.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def largest_difference(whole: Whole, path: Path) -> float | None:
    """Compare a written file with PyTorch on random images; None where onnxruntime is not installed.

    The difference of each output is taken relative to its largest value, where that is above 1.
    """
    runtime = import_if_there("onnxruntime")
    if runtime is None:
        return None
    images = _random_images(whole.classifier.card, _CHECKED)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pairs = zip((out.numpy() for out in whole(images)), session.run(None, {INPUT: images.numpy()}), strict=True)
    return max(float(np.abs(want - got).max() / max(1, np.abs(want).max())) for want, got in pairs)


_RESIZED = {
    "crop": "cut the middle out of the image, as large as fits, of the aspect of `size`, and resize that (Pillow: "
    "ImageOps.fit)",
    "squash": "resize height and width each on its own (Pillow: Image.resize)",
    "pad": "resize so that the whole image fits in, and fill up on both sides with the mean color of its border "
    "(Pillow: ImageOps.pad)",
}


def describe(card: Card, name: str) -> dict[str, Any]:
    """Say what an ONNX file of this name takes and gives, in words that a program can follow."""
    form, classes = card.form, len(card.classes)
    mode = {1: "L", 3: "RGB"}.get(form.channels)
    return {
        "file": name,
        "written_by": f"fewlabels {__version__}",
        "model": card.model,
        "classes": card.classes,
        "input": {
            "name": INPUT,
            "type": "uint8",
            "shape": ["n", form.channels, *form.size],
            "axes": ["image", "channel", "row", "column"],
            "range": [0, 255],
            "mode": mode,
            "colors": {1: "gray", 3: "red, green, blue"}.get(form.channels, "as in the arrays that it was trained on"),
        },
        "preprocessing": {
            "1_upright": "turn the image as its EXIF orientation says",
            "2_white": f"of a gray image of more than 8 bits, level {form.white:g} and above become 255, 0 stays 0",
            "3_transparent": "put a transparent image over `transparent_over`",
            "4_colors": f"convert it to {mode} (ITU-R 601-2 for gray)" if mode else "take its channels as they are",
            "5_resize": f"{_RESIZED[form.resize]}, bilinear, averaging where it becomes smaller",
            "6_numbers": "leave the levels at 0..255; the graph divides and normalizes them itself",
            "jpeg": "a JPEG may be decoded at 1/2, 1/4 or 1/8, at least twice `size` (Pillow: Image.draft), as in "
            "training",
        },
        "size": {"height": form.size[0], "width": form.size[1]},
        "resize": form.resize,
        "white": form.white,
        "transparent_over": TRANSPARENT,
        "inside": {"mean": card.mean, "std": card.std, "scale": card.scale, "bias": card.bias},
        "outputs": {
            "logits": {"shape": ["n", classes], "meaning": "before the calibration"},
            "probabilities": {
                "shape": ["n", classes],
                "meaning": "softmax(scale * logits + bias), in the order of `classes`"
                if card.scale
                else "softmax(logits), in the order of `classes`; not calibrated",
            },
            "features": {"shape": ["n", "D"], "meaning": "what the head sees; alike for images that are alike"},
        },
    }
