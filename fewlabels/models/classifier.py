"""A classifier: a backbone that gives features, a linear head, and a card that says what it expects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.data.image import ImageLike, image_name
from fewlabels.data.table import Labels
from fewlabels.errors import UserError
from fewlabels.files import replace_file, replace_text
from fewlabels.inputs.base import CHUNK, Form, Provider
from fewlabels.inputs.kinds import form_of, inputs_for

FORMAT = 2  # 1 had no calibration
PARAMETERS = "model.safetensors"
EVALUATED = 256  # images at a time


@dataclass(frozen=True)
class Card:
    """What a saved classifier expects and gives: written as `model.json` beside the tensors.

    Attributes:
        model: name of the backbone, or "custom" for a user's own module.
        classes: names, in the order of the logits.
        form: what images are brought to (channels, size, how they are resized, what is white), or what vectors are.
        mean, std: statistics of each channel, of pixels in 0..1, or of each dimension of vectors; a dimension of the
            deviation 0 counts for nothing.
        scale, bias: [K] each, the calibration: probabilities are softmax(scale * logits + bias); empty for none.
    """

    model: str
    classes: tuple[str, ...]
    form: Form
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: tuple[float, ...] = ()
    bias: tuple[float, ...] = ()
    format: int = FORMAT


class Outputs(NamedTuple):
    """What a classifier says of images, on the CPU: features [n, D] and logits [n, K]."""

    features: Tensor
    logits: Tensor


class Classifier(nn.Module):
    """A backbone and a head.

    Args:
        backbone: maps float images [n, C, H, W], or vectors, to features [n, D].
        features: D.
        card: what it expects and gives.
    """

    def __init__(self, backbone: nn.Module, features: int, card: Card) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(features, len(card.classes))
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.card = card
        self.frozen = False

    def freeze(self) -> None:
        """Keep the backbone as it is: no gradients, no new batch statistics; only the head learns."""
        self.frozen = True
        self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Classifier:
        """Switch between training and evaluation; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """Map normalized images [n, C, H, W], or vectors, to features [n, D]."""
        return self.backbone(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized images [n, C, H, W], or vectors, to logits [n, K]."""
        return self.head(self.features(x))

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.head.weight.device

    def calibrated(self, logits: Tensor) -> Tensor:
        """Turn logits [n, K] into probabilities [n, K], by the card's calibration."""
        if self.card.scale:
            scale, bias = (logits.new_tensor(values) for values in (self.card.scale, self.card.bias))
            logits = scale * logits + bias
        return F.softmax(logits, dim=1)

    def probabilities(self, images: Provider, rows: Labels, batch: int = EVALUATED) -> Tensor:
        """Give class probabilities [n, K] of these rows, in evaluation mode, on the CPU."""
        return self.calibrated(self.outputs(images, rows, batch).logits)

    def outputs(self, images: Provider, rows: Labels, batch: int = EVALUATED) -> Outputs:
        """Give the features [n, D] and logits [n, K] of these rows, in evaluation mode, on the CPU."""
        return self._outputs(images, rows, batch)[0]

    @torch.no_grad()
    def _outputs(self, images: Provider, rows: Labels, batch: int) -> tuple[Outputs, int]:
        """Give the outputs, and the batch that the memory had room for: it is halved where there is too little."""
        training = self.training
        self.eval()
        normalize = inputs_for(self.card.form).normalize(self.card.mean, self.card.std).to(self.device)
        features = torch.empty(len(rows), self.head.in_features)
        logits = torch.empty(len(rows), self.head.out_features)
        start = 0
        while start < len(rows):
            part = rows[start : start + batch]
            try:
                taken = images.take(part).to(self.device)
                seen = self.features(normalize(taken))
                features[start : start + len(part)], logits[start : start + len(part)] = seen, self.head(seen)
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise
                batch //= 2
            else:
                start += len(part)
        self.train(training)  # it may be the teacher of a training that goes on
        return Outputs(features, logits), batch

    def classified(
        self, images: Sequence[ImageLike], batch: int = EVALUATED
    ) -> Iterator[tuple[int, Outputs, dict[int, str]]]:
        """Classify images part by part; decoding runs ahead of the network, and few images are held at a time.

        Args:
            images: as in `predict`, a sequence.
            batch: images through the network at a time; fewer where the memory is too small for them.

        Raises:
            UserError: a batch below 1.

        Yields:
            The place of the part's first image; what is said of those that can be read, in order (`calibrated` makes
            probabilities of the logits); and for each of the others its place in the part and the reason.
        """
        if type(batch) is not int or batch < 1:
            raise UserError(f"batch is {batch!r}; give a whole number, at least 1")
        for first, read, broken in inputs_for(self.card.form).read(images, self.card.form, max(CHUNK, batch)):
            outputs, batch = self._outputs(read, np.arange(read.shape[0]), batch)  # what was too large once stays so
            yield first, outputs, broken

    def predict(
        self, images: Sequence[ImageLike] | NDArray[Any], batch: int = EVALUATED
    ) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
        """Classify images, or vectors, as they come.

        Args:
            images: paths, PIL images or arrays [H, W] or [H, W, C] (uint8, or floats in 0..1), or one array of
                all of them; one image is a list of one. Vectors are an array [n, D], or rows [D].
            batch: images through the network at a time, as in `classified`.

        Returns:
            Class names [n] and probabilities [n, K].

        Raises:
            UserError: an image cannot be read; every such image is named.
        """
        listed_images = inputs_for(self.card.form).listed(images, self.card.form)
        found: list[Tensor] = []
        broken: dict[int, str] = {}
        for first, outputs, reasons in self.classified(listed_images, batch):
            found.append(self.calibrated(outputs.logits))
            broken |= {first + place: reason for place, reason in reasons.items()}
        if broken:
            listed = "; ".join(
                f"{image_name(listed_images[i], i)}: {reason}" for i, reason in list(broken.items())[:10]
            )
            raise UserError(
                f"{len(broken)} of the {self.card.form.what} cannot be read: {listed}. Leave them out and try again."
            )
        probabilities = torch.cat([torch.empty(0, self.head.out_features), *found]).numpy()
        return np.asarray(self.card.classes)[probabilities.argmax(1)], probabilities

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `model.json`, each whole or not at all."""
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        replace_file(folder / PARAMETERS, lambda path: save_file(tensors, path))
        text = json.dumps(asdict(self.card), indent=2) + "\n"
        replace_text(folder / "model.json", text)


def read_card(path: Path) -> Card:
    """Read `model.json`.

    Raises:
        UserError: it is missing, not in our form, or of a newer format.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] > FORMAT:
            raise UserError(
                f"{path} has format {fields['format']}; this fewlabels reads up to {FORMAT}. Install a newer fewlabels."
            )
        for name in ("classes", "mean", "std", "scale", "bias"):
            fields[name] = tuple(fields.get(name, ()))
        fields["format"] = FORMAT
        return Card(form=form_of(fields.pop("form")), **fields)
    except FileNotFoundError:
        begun = (path.parent / "config.yaml").is_file()
        mend = "its run is not finished: give the same command again" if begun else "train one with `fewlabels train`"
        raise UserError(f"{path.parent} holds no trained model (no {path.name}); {mend}.") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a model card: {error}. Train again, or give another run.") from error


_LONGEST = 200  # letters of what torch says of parameters that do not fit


def load_tensors(module: nn.Module, path: Path, ignore: tuple[str, ...] = ()) -> None:
    """Fill a module from a safetensors file, all but the file's names that begin with one of `ignore`.

    Raises:
        UserError: no such file, not safetensors, or other names or shapes than the module has.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; give a .safetensors file")
    try:
        tensors = load_file(path)
        kept = {name: t for name, t in tensors.items() if not name.startswith(ignore)}
        module.load_state_dict(kept)
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from error
    except RuntimeError as error:
        lines = [" ".join(line.split()) for line in f"{error}".splitlines()[1:]] or [f"{error}"]
        said = "; ".join(line if len(line) < _LONGEST else f"{line[:_LONGEST]} ..." for line in lines[:2])
        raise UserError(f"{path} does not fit this network: {said}. Is it of this --model?") from error
