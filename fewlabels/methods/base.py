"""What every method is: an `nn.Module` whose typed fields are its options."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Literal, Self, cast, dataclass_transform

from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.config import check_fields
from fewlabels.inputs.batch import Batch, Views
from fewlabels.models.network import LayerRule, Network
from fewlabels.models.teacher import leader


@dataclass(frozen=True)
class Sizes:
    """What a method may know of its run before the first step.

    Attributes:
        labels: of each class, how many rows have it.
        features: D, the size of the backbone's features.
        rows: N, rows of the table, for memories of one entry a row.
        unlabeled: how many of them are learned from without their labels.
        batch, unlabeled_batch: B and M, of all processes together.
        steps: length of the run, by which a paper's time constants are scaled.
    """

    labels: tuple[int, ...]
    features: int
    rows: int
    unlabeled: int
    batch: int
    unlabeled_batch: int
    steps: int

    @property
    def classes(self) -> int:
        """K."""
        return len(self.labels)

    @property
    def labeled(self) -> int:
        """Rows with a label."""
        return sum(self.labels)


@dataclass_transform(eq_default=False, kw_only_default=True)
class Method(nn.Module):
    """Turns a batch into losses.

    A subclass is one paper: its annotated fields are its options (a dataclass: the line under a field is its help
    on the command line and in the docs), `setup` makes what it remembers and trains itself, `forward` gives the
    losses. What it remembers are buffers of `parts.memory.Memory` modules.
    """

    mixes: ClassVar[bool] = False
    """whether it mixes images of labeled and unlabeled rows, so that no rule for unlabeled rows can hold"""
    takes_propagated: ClassVar[bool] = False
    """whether its targets can begin with propagated labels (`Batch.propagated`)"""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Make the annotated fields of a subclass its options."""
        super().__init_subclass__(**arguments)
        dataclass(eq=False, repr=False, kw_only=True)(cls)

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make the module ready before the dataclass's `__init__` assigns its fields."""
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self) -> None:
        """Check the options."""
        check_fields(self, type(self).__name__)

    def _fields(self) -> tuple[Field[Any], ...]:
        return fields(cast(Any, self))  # that it is a dataclass is hidden from type checkers

    @property
    def teacher(self) -> Self:
        """The method with averaged parameters, as `Network.teacher`."""
        return leader(self)

    def extra_repr(self) -> str:
        """Show the options."""
        return ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in self._fields())

    def setup(self, sizes: Sizes) -> None:
        """Make what the method remembers and trains itself, for a training of these sizes."""

    def views(self) -> Views:
        """Say which views of the labeled and unlabeled rows the method wants."""
        return Views()

    def layer_rule(self) -> LayerRule:
        """Say how unlabeled rows use the layers, where the user says nothing else."""
        return LayerRule()

    def supervise(self, logits: Tensor, target: Tensor, reduction: Literal["mean", "none"] = "mean") -> Tensor:
        """Return the loss of labeled rows, here cross-entropy: 0-dim, or [B] without a reduction.

        Every method takes it from here, so that another loss of labeled rows fits them all.

        Args:
            logits: [B, K].
            target: int64 [B] classes or float [B, K] distributions.
            reduction: "mean" over the rows, or "none".
        """
        return F.cross_entropy(logits, target, reduction=reduction)

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give the losses of a batch: 0-dim tensors are recorded, and the key `loss` is trained on.

        The layer probe reads `unlabeled_loss`, and of the unlabeled rows `unlabeled_logits` [M, K] of the view that
        learns, `target` (int64 [M], or [M, K]) and `row_weight` [M].
        """
        raise NotImplementedError
