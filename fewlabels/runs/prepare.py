"""The first phase of a run: the table, the split, the choices, the pixels, the folder."""

from __future__ import annotations

import copy
import hashlib
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fewlabels import __version__
from fewlabels.config import Options, option_values
from fewlabels.data.decode import decode_all
from fewlabels.data.feed import Share
from fewlabels.data.splits import apply_split, draw_split, split_text
from fewlabels.data.table import Table
from fewlabels.errors import UserError
from fewlabels.files import csv_text, replace_text
from fewlabels.keys import Key
from fewlabels.methods import method_name
from fewlabels.methods.base import Method
from fewlabels.models.build import build_classifier
from fewlabels.models.classifier import Card, Classifier
from fewlabels.runs.choose import Plan, make_plan
from fewlabels.runs.folder import FORMAT, RUNS, RunFolder, plain
from fewlabels.runs.show import Show
from fewlabels.runs.train import Job, Rows
from fewlabels.views.images import ImageViews


@dataclass(frozen=True, eq=False)
class Work:
    """What the phases of a run share."""

    folder: RunFolder
    table: Table
    options: Options
    method: Method
    name: str
    plan: Plan
    job: Job
    show: Show

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the run: the first of several does."""
        return self.job.share.rank == 0


def prepare(
    table: Table,
    options: Options,
    method: Method,
    backbone: nn.Module | None,
    device: torch.device,
    *,
    share: Share,
    stop: Callable[[], bool],
    show: Show,
) -> Work:
    """Make all that the phases need, and the run's folder; see `fit` for the arguments and errors."""
    name = method_name(method)
    if options.freeze and getattr(method, "head_scale", 1) == 0:
        raise UserError(
            f"--freeze trains the head alone, and {name} keeps pseudo-labels from the head: nothing would be learned "
            "from the unlabeled images. Give --method.head-scale 1, or --method fixmatch."
        )
    table = with_split(table, options)
    folder = RunFolder(options.out or RUNS / f"{table.name}-{name}-{options.seed}")
    plan = make_plan(options, table, device)
    if options.threads is None and (folder / "config.yaml").is_file():
        plan = replace(plan, threads=int(folder.config()["where"]["threads"]))  # sums depend on them, to the last bit
    _check_shares(plan, share)
    whole = table
    table, images = _decoded(table, plan, options, show)
    # Before the folder is made: a network that cannot be must leave no trace that refuses the mended command.
    job = _job(table, images, options, plan, backbone, device, folder, show)
    if share.rank == 0:
        config = _config(table, images, options, plan, method, device, _begun_with(options, backbone))
        there = folder.begin(config)
        replace_text(folder / "split.csv", split_text(whole))
        replace_text(folder / "quarantine.csv", csv_text(("path", "reason"), table.quarantine.items()))
        show.line(f"{'continuing' if there else 'writing to'} {folder.path}")
    for note in table.notes:
        show.line(note)
    for choice, value in (
        ("model", plan.model),
        ("size", _by(plan.size)),
        ("flip", plan.flip),
        ("steps", plan.recipe.steps),
    ):
        show.line(f"{choice} {value}: {plan.why[choice]}")
    return Work(folder, table, options, method, name, plan, replace(job, share=share, stop=stop), show)


def _check_shares(plan: Plan, share: Share) -> None:
    batch, unlabeled = plan.recipe.batch, plan.recipe.unlabeled_batch
    if batch % share.world or unlabeled % share.world:
        raise UserError(
            f"{batch} labeled and {unlabeled} unlabeled images a step do not share out over {share.world} processes; "
            f"give a --batch that {share.world} divides"
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


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
    _check_classes(table)
    return table


def _check_classes(table: Table) -> None:
    labeled = set(table.labels[table.labeled_rows].tolist())
    missing = [name for k, name in enumerate(table.classes) if k not in labeled]
    problems = [f"{len(table.classes)} class only, {', '.join(table.classes)}"] if len(table.classes) < 2 else []
    problems += [f"no labeled training image of {', '.join(missing)}"] if missing else []
    if problems:
        raise UserError(
            f"{table.name}: {'; '.join(problems)}. Give at least two classes and one labeled image of each."
        )


def _decoded(table: Table, plan: Plan, options: Options, show: Show) -> tuple[Table, torch.Tensor]:
    images, broken = decode_all(table.images, plan.channels, plan.size, options.resize)
    if not broken:
        return table, images
    show.line(
        f"{len(broken)} of {len(table)} images cannot be read and are set aside; quarantine.csv names them", "yellow"
    )
    good = np.array([i for i in range(len(table)) if i not in broken])
    table = replace(table.take(good), quarantine={table.names[i]: reason for i, reason in broken.items()})
    _check_classes(table)
    return table, images


# Options that decide what is trained and are in no other part of the configuration.
_IDENTITY = ("labels_per_class", "labeled_in_unlabeled", "seed", "pretrained", "freeze", "resize", "baseline")


def _begun_with(options: Options, backbone: nn.Module | None) -> str | None:
    """Give a hash of the parameters that a run begins with, where they are the user's."""
    if backbone is not None:
        digest = hashlib.sha256()
        for name, tensor in backbone.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]
    if options.weights is not None and options.weights.is_file():
        return hashlib.sha256(options.weights.read_bytes()).hexdigest()[:16]
    return None


def _config(
    table: Table,
    images: torch.Tensor,
    options: Options,
    plan: Plan,
    method: Method,
    device: torch.device,
    begun_with: str | None,
) -> dict[str, Any]:
    """Describe a run so that two commands of the same description may continue each other."""
    pixels = hashlib.sha256(images.numpy().tobytes()).hexdigest()[:16]
    chosen = asdict(plan)
    why = chosen.pop("why")
    threads = chosen.pop("threads")
    return plain(
        {
            "format": FORMAT,
            "version": __version__,
            "data": {
                "name": table.name,
                "rows": table.fingerprint(),
                "pixels": pixels,
                "labeled": len(table.labeled_rows),
                "unlabeled": len(table.unlabeled_rows),
                "test": len(table.test_rows),
            },
            "method": {"name": method_name(method), **option_values(method)},
            "options": {name: getattr(options, name) for name in _IDENTITY},
            "begun_with": begun_with,
            "plan": chosen,
            "why": why,
            "where": {
                "device": str(device),
                "threads": threads,
                "machine": platform.machine(),
                "torch": str(torch.__version__),
            },
        }
    )


def _job(
    table: Table,
    images: torch.Tensor,
    options: Options,
    plan: Plan,
    backbone: nn.Module | None,
    device: torch.device,
    folder: RunFolder,
    show: Show,
) -> Job:
    mean, std = pixel_statistics(images[torch.from_numpy(np.flatnonzero(~table.test))].numpy())
    card = Card(plan.model, table.classes, plan.channels, plan.size, options.resize, mean, std)
    key = Key(options.seed)

    def build() -> Classifier:
        return build_classifier(
            card,
            key=key.fold("parameters"),
            pretrained=options.pretrained,
            weights=options.weights,
            backbone=copy.deepcopy(backbone),
            freeze=options.freeze,
        )

    card = build().card  # a pretrained network brings its own statistics
    return Job(
        rows=Rows(
            images.to(device), table.labels, table.truth, table.labeled_rows, table.unlabeled_rows, table.test_rows
        ),
        views=ImageViews(card.mean, card.std, plan.flip, plan.operations),
        recipe=plan.recipe,
        build=build,
        labeled_in_unlabeled=options.labeled_in_unlabeled,
        key=key.fold("run"),
        show=show,
        tensorboard=folder / "tensorboard" if options.log == "tensorboard" else None,
    )


def pixel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give mean and deviation of each channel of [n, C, H, W], of pixels in 0..1, from their counted levels."""
    levels = np.arange(256) / 255
    counts = np.stack([np.bincount(images[:, c].ravel(), minlength=256) for c in range(images.shape[1])])
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt(np.maximum((shares * (levels - mean[:, None]) ** 2).sum(1), 1e-6))
    return tuple(map(float, mean)), tuple(map(float, std))
