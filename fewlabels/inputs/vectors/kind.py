"""Vectors as a kind of input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewlabels.config import Options
from fewlabels.console import Show
from fewlabels.data.table import Labels, Table, spread
from fewlabels.data.vectors import (
    VectorForm,
    VectorRows,
    are_vectors,
    as_matrix,
    digests_of,
    not_finite,
)
from fewlabels.errors import UserError
from fewlabels.inputs.base import (
    Inputs,
    Intake,
    NearCopies,
    Provider,
    Reasons,
    Size,
    Statistics,
    Wanted,
    content_of,
    quarantined,
)
from fewlabels.inputs.vectors.store import Vectors, equal_vectors, vector_statistics
from fewlabels.inputs.vectors.views import Standardize, Strength, VectorViews

# Measured on development seeds (docs/LOG.md).
STRONG = Strength(noise=0.3, replaced=0.2, mixed=0.2)
WEAK_SHARE = 1 / 3  # of the strong noise
POOL = 4096  # training rows that parts of others are taken from


class VectorInputs(Inputs[VectorForm]):
    """Vectors."""

    one, many, source = "vector", "vectors", "row"
    copies = "test vectors are equal to a training vector"
    features = "vectors"
    own_options = ("vectors_noise", "vectors_replaced", "vectors_mixed")
    steps: ClassVar[Mapping[str, int]] = {"quick": 200, "normal": 600, "full": 3000}
    pipeline, example = "tabular-classification", "x"
    lengths_count = True

    def holds(self, contents: Sequence[Any]) -> bool:
        """Tell whether these are vectors."""
        return isinstance(contents, VectorRows)

    def read_form(self, values: Mapping[str, Any]) -> VectorForm:
        """Read a form as JSON and YAML hold it."""
        return VectorForm(int(values["dimensions"]), tuple(values["columns"]))

    def look(self, table: Table) -> Size:
        """Return that there is nothing to look at."""
        return Size()

    def choose(
        self, options: Options, table: Table, size: Size, reasons: Reasons, wanted: Wanted
    ) -> tuple[VectorForm, dict[str, Any]]:
        """Choose the strengths of the views; see `Inputs.choose`."""
        why = "as good as any that was tried on four sets of vectors"
        chosen = {
            name: reasons.pick(name, getattr(options, name), getattr(STRONG, name.removeprefix("vectors_")), why)
            for name in self.own_options
        }
        return _rows(table).form, chosen

    def listing(self, table: Table) -> str:
        """Hash the vectors: they lie in memory."""
        return content_of(digests_of(_rows(table)))

    def survey(self, table: Table) -> tuple[dict[str, str], str]:
        """Name the vectors that are not finite, and say what all of them are."""
        rows = _rows(table)
        return {table.names[row]: reason for row, reason in not_finite(rows).items()}, rows.form.words

    def bring(
        self,
        table: Table,
        form: VectorForm,
        options: Options,
        device: torch.device,
        stop: Callable[[], bool],
        show: Show,
    ) -> Intake:
        """Bring them whole into the memory of the device; those that are not finite are quarantined."""
        rows = _rows(table)
        good, kept = quarantined(table, not_finite(rows), self.many)
        return Intake(kept, Vectors(torch.from_numpy(rows.matrix[good]).to(device)), digests_of(rows), {})

    def near_copies(self, store: Provider, test: Labels, train: Labels) -> NearCopies:
        """Find vectors that are equal in all numbers."""
        return equal_vectors(store, test, train)

    def statistics(self, store: Provider, train: Labels) -> Statistics:
        """Return those of each dimension."""
        return vector_statistics(store, train)

    def normalize(self, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
        """Standardize each dimension."""
        return Standardize(mean, std)

    def views(self, statistics: Statistics, store: Provider, train: Labels, options: Options) -> VectorViews:
        """Make noise, and parts of other rows; weak views have a part of the noise of strong ones."""
        strong = Strength(*(getattr(options, name) for name in self.own_options))  # none is open any more
        return vector_views(statistics, store, train, strong)

    def features_of(self, store: Provider, train: Labels) -> NDArray[np.float32]:
        """Return the vectors themselves, standardized: their dimensions may have any units."""
        taken = store.take(np.arange(store.shape[0]))
        standardize = Standardize(*vector_statistics(store, train)).to(store.device)
        return standardize(taken).cpu().numpy()

    def choices(self, form: VectorForm, options: Options) -> dict[str, Any]:
        """Return the strengths of the views."""
        return {name: getattr(options, name) for name in self.own_options}

    def listed(self, given: Any, form: VectorForm) -> VectorRows:
        """Return vectors of the form's dimensions."""
        if not isinstance(given, VectorRows):
            if not are_vectors(given):
                shape = f"shape {list(given.shape)}" if hasattr(given, "shape") else f"type {type(given).__name__}"
                raise UserError(
                    f"data of {shape}; this classifier takes {form.words}, as an array [n, {form.dimensions}]"
                )
            given = VectorRows(as_matrix(given, "the data"))
        if given.dimensions != form.dimensions:
            raise UserError(f"{given.form.words}; this classifier takes {form.words}")
        return given

    def read(self, rows: Sequence[Any], form: VectorForm, chunk: int) -> Iterator[tuple[int, Provider, dict[int, str]]]:
        """Take vectors in parts."""
        assert isinstance(rows, VectorRows)
        for first in range(0, len(rows), chunk):
            part = rows[first : first + chunk]
            broken = not_finite(part)
            yield first, Vectors(torch.from_numpy(np.delete(part.matrix, [*broken], axis=0))), broken

    def described(self, form: VectorForm) -> dict[str, Any]:
        """Say what numbers are expected."""
        return _described(form)

    def random(self, form: VectorForm, statistics: Statistics, count: int) -> Tensor:
        """Return random numbers of these statistics."""
        mean, std = map(torch.tensor, statistics)
        return mean + std * torch.randn(count, *form.shape, generator=torch.Generator().manual_seed(0))

    def scale_of(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Return those of each dimension; one that never changes counts for nothing."""
        mean, std = map(torch.tensor, statistics)
        return mean, torch.where(std == 0, 0, 1 / std)


def vector_views(statistics: Statistics, vectors: Provider, train: Labels, strong: Strength) -> VectorViews:
    """Make the views of vectors.

    Args:
        statistics: that standardize them.
        vectors: of all rows.
        train: the training rows, of which other rows are drawn.
        strong: of strong views; weak ones have a part of their noise.
    """
    pool = Standardize(*statistics).to(vectors.device)(vectors.take(spread(train, POOL)))
    return VectorViews(pool, *statistics, Strength(WEAK_SHARE * strong.noise), strong).to(vectors.device)


def _rows(table: Table) -> VectorRows:
    assert isinstance(table.contents, VectorRows)
    return table.contents


def _described(form: VectorForm) -> dict[str, Any]:
    return {
        "input": {
            "name": form.what,
            "type": "float32",
            "shape": ["n", form.dimensions],
            "axes": ["vector", "dimension"],
            "columns": form.columns or "in the order of the arrays that it was trained on",
        },
        "preprocessing": {"1_numbers": "leave the numbers as they are; the graph standardizes them itself"},
    }
