"""A task of its own, as a user would write one: an autoencoder of sequences of numbers, with a critic by turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fewlabels.config import Count, Interval, RunOptions
from fewlabels.errors import UserError
from fewlabels.files import state_of
from fewlabels.keys import Key
from fewlabels.runs.task import Context, Identity, Stages, Task
from fewlabels.training.feed import Feed
from fewlabels.training.learner import Learner, Turn
from fewlabels.training.loop import State
from fewlabels.training.recipe import OptimizerRecipe, Recipe
from fewlabels.training.stage import Stage


@dataclass(frozen=True, kw_only=True)
class ToyOptions(RunOptions):
    """What a user may set."""

    steps: Count = 40
    """updates of the parameters"""
    width: Count = 4
    """numbers that a sequence is squeezed into"""
    lr: Annotated[float, Interval(1e-6)] = 0.01
    """learning rate"""


class Sequences(NamedTuple):
    """Some sequences [B, T]."""

    x: Tensor

    def parts(self, count: int) -> list[Sequences]:
        """Cut the batch into equal parts."""
        return [Sequences(part) for part in self.x.tensor_split(count)]


class SequenceFeed(Feed[Sequences]):
    """Draws sequences with noise on them."""

    def __init__(self, x: Tensor, key: Key) -> None:
        self.x, self.key, self.rows = x, key, 8

    def batch(self, step: int, now: Tensor, branch: int = 0) -> Sequences:
        """Draw 8 of them."""
        drawn = np.random.default_rng(self.key.fold(branch, step).seed())
        rows = torch.from_numpy(drawn.integers(0, len(self.x), self.rows))
        noise = drawn.standard_normal((self.rows, self.x.shape[1]), np.float32)
        return Sequences(self.x[rows] + 0.01 * torch.from_numpy(noise))


class Autoencoder(Learner[Sequences]):
    """Squeezes sequences and restores them, so that a critic takes what is restored for what was given."""

    turns = (Turn("restore", ("encoder.", "decoder.")), Turn("criticize", ("critic.",)))

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(length, width), nn.Linear(width, length)
        self.critic = nn.Linear(length, 1)

    def restored(self, x: Tensor) -> Tensor:
        """Return the sequences as they come out."""
        return self.decoder(torch.tanh(self.encoder(x)))

    def forward(self, batch: Sequences, turn: str) -> dict[str, Tensor]:
        """Return the loss of one of the two."""
        if turn == "restore":
            out = self.restored(batch.x)
            doubt = nn.functional.softplus(-self.critic(out)).mean()
            return {"loss": (out - batch.x).square().mean() + 0.01 * doubt, "doubt": doubt}
        given, made = self.critic(batch.x), self.critic(self.restored(batch.x).detach())
        return {"loss": nn.functional.softplus(-given).mean() + nn.functional.softplus(made).mean()}


class Toy(Task[ToyOptions]):
    """Learns to restore the sequences in an .npy file, [N, T]."""

    name, options_type, metric = "toy", ToyOptions, "explained"

    def identify(self) -> Identity:
        """Name the file, and say what it looks like from outside."""
        self.file = Path(self.data)
        values = {"file": state_of(self.file), "options": self._chosen()}
        return Identity(f"{self.file.stem}-toy-{self.options.seed}", values)

    def _chosen(self) -> dict[str, Any]:
        return {name: getattr(self.options, name) for name in ("seed", "steps", "width", "lr")}

    def prepare(self, context: Context) -> Mapping[str, Any]:
        """Read the file."""
        try:
            x = np.load(self.file, allow_pickle=False).astype(np.float32)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.file} is no array of numbers: {error}. Give an .npy file, [N, T].") from error
        self.context, self.x, self.test = context, torch.from_numpy(x[::2]), torch.from_numpy(x[1::2])
        return {
            "data": {"file": str(self.file), "content": Key(0).fold(x.tobytes().hex()).seed()},
            "options": self._chosen(),
            "where": {"threads": 1},
        }

    def stages(self) -> Stages:
        """Train once."""
        options, key = self.options, Key(self.options.seed)
        recipe = Recipe(steps=options.steps, optimizer=OptimizerRecipe("adamw", options.lr, 0.0), ema_memory=5.0)

        def begin(recipe: Recipe) -> tuple[State[Autoencoder], SequenceFeed]:
            with torch.random.fork_rng():
                torch.manual_seed(key.fold("parameters").seed())
                learner = Autoencoder(self.x.shape[1], options.width)
            return State(learner, recipe), SequenceFeed(self.x, key)

        folder = self.context.folder.path
        training = yield Stage("toy", folder, recipe, begin, lambda learner, means: self.explained(learner))
        found = self.explained(training.state.averaged)
        row = {"name": "toy", "kind": "method", "test": found, "hidden": None, "seconds": training.seconds}
        return {"steps": options.steps, "rows": [row], "chosen": row}

    @torch.no_grad()
    def explained(self, learner: Autoencoder) -> dict[str, float]:
        """Return how much of the variance of other sequences is restored."""
        error = (learner.restored(self.test) - self.test).square().mean()
        return {"explained": float(1 - error / self.test.var())}
