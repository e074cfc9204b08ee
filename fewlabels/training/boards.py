"""Boards: where the numbers of a training are written too, for those who watch them there. Imported on use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from fewlabels.errors import UserError
from fewlabels.extras import import_extra
from fewlabels.files import replace_text

PROJECT = "fewlabels"  # where WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME say nothing else


class Board(Protocol):
    """Takes the numbers of one training, in the order of its steps."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step; those of a step that it has already are the same, and may be left out."""
        ...

    def close(self, done: bool) -> None:
        """End, with the training done or stopped before."""
        ...


@dataclass(frozen=True)
class Subject:
    """What a board has to know of a training.

    Attributes:
        run: the run's folder.
        name: which of its trainings, such as supervised.
        first: the step that it continues after, 0 for none.
        facts: what tells the run from others, for a board's table.
    """

    run: Path
    name: str
    first: int
    facts: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Name it among those of other runs."""
        return f"{self.run.resolve().name} {self.name}"

    def kept_id(self, service: str, make: Callable[[], str]) -> str:
        """Give the id under which a service knows the training, made where there is none yet, kept in the run."""
        path = self.run / service / f"{self.name}.id"
        if not path.is_file():
            replace_text(path, make())
        return path.read_text(encoding="utf-8")


class TensorBoard:
    """Event files in the run's folder; what they have of later steps is replaced."""

    def __init__(self, training: Subject) -> None:
        writer = _package("torch.utils.tensorboard", "tensorboard").SummaryWriter
        folder = training.run / "tensorboard" / training.name
        self._writer = writer(str(folder), purge_step=training.first + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, done: bool) -> None:
        """End."""
        del done
        self._writer.close()


class WandB:
    """Weights & Biases, which `WANDB_MODE`, `WANDB_PROJECT`, `WANDB_ENTITY` and `wandb login` set up."""

    def __init__(self, training: Subject) -> None:
        self._run = _package("wandb").init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=training.run.resolve().name,
            name=training.title,
            id=training.kept_id("wandb", lambda: uuid4().hex),
            resume="allow",
            config={**training.facts, "training": training.name},
            dir=training.run,
            reinit="create_new",
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step."""
        if step >= self._run.step:
            self._run.log(dict(numbers), step=step, commit=True)

    def close(self, done: bool) -> None:
        """End."""
        self._run.finish(exit_code=0 if done else 1)


class MLflow:
    """MLflow, at `MLFLOW_TRACKING_URI`, in the experiment `MLFLOW_EXPERIMENT_NAME`."""

    def __init__(self, training: Subject) -> None:
        mlflow = _package("mlflow")
        self._metric: Any = mlflow.entities.Metric
        self._client: Any = mlflow.MlflowClient()
        self._id = training.kept_id("mlflow", lambda: self._begin(training))
        self._client.update_run(self._id, status="RUNNING")
        there = self._client.get_metric_history(self._id, "loss")
        self._last = max((metric.step for metric in there), default=0)

    def _begin(self, training: Subject) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {"group": training.run.resolve().name, "training": training.name}
        run = self._client.create_run(experiment, run_name=training.title, tags=tags).info.run_id
        for key, value in training.facts.items():
            self._client.log_param(run, key, value)
        return run

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step."""
        if step > self._last:
            now = int(1000 * time.time())
            self._client.log_batch(self._id, [self._metric(key, v, now, step) for key, v in numbers.items()])

    def close(self, done: bool) -> None:
        """End."""
        self._client.set_terminated(self._id, "FINISHED" if done else "KILLED")


BOARDS: dict[str, Callable[[Subject], Board]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
_IMPORTED = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


def check_board(kind: str) -> None:
    """Import what a board needs, before work is done that would be in vain.

    Raises:
        UserError: it is not installed.
    """
    _package(_IMPORTED[kind], kind)


def open_board(kind: str, training: Subject) -> Board:
    """Open a board for a training, or go on with the one it has.

    Raises:
        UserError: its package is not installed, or it cannot be set up or reached.
    """
    try:
        return BOARDS[kind](training)
    except UserError:
        raise
    except Exception as error:  # what fails there, and how, is the package's own
        said = " ".join(f"{error}".split()).rstrip(".") or type(error).__name__
        raise UserError(f"--log {kind}: {said}. The run can be continued without --log.") from error


def _package(name: str, extra: str | None = None) -> Any:
    """Import a package, with what it tells its makers about its use turned off unless the user turned it on."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    extra = extra or name
    return import_extra(name, extra, f"--log {extra}")
