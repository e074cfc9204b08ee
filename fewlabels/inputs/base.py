"""What every kind of input has."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewlabels.config import Options, flag_of
from fewlabels.console import Show
from fewlabels.data.table import Labels, Table
from fewlabels.errors import UserError
from fewlabels.inputs.batch import Viewer

CHUNK = 256  # rows that are looked at together
MOST_TEST = 2000  # test rows that are looked at for near copies
MOST_TRAIN = 100_000  # training rows that they are compared with

Number = TypeVar("Number", bound=np.generic)


class Provider(Protocol):
    """Gives what a run keeps of its rows: images, uint8 [n, C, H, W], or vectors, float32 [n, D]."""

    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """N, then the shape of one row."""
        ...

    def take(self, rows: Labels) -> Tensor:
        """Give these rows on the training device."""
        ...

    def expect(self, *coming: Labels) -> None:
        """Say which rows are taken next, so that they can be read while the device works."""
        ...


def chunks(rows: NDArray[Number], size: int = CHUNK) -> Iterator[NDArray[Number]]:
    """Give rows in parts of at most `size`: what is done to a whole set is done so, whatever its size."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, eq=False)
class NearCopies:
    """What was found.

    Attributes:
        test: test rows with a near copy among the training rows, int64 [n].
        train: the most alike training row of each, int64 [n].
        looked_at: number of test rows that were compared.
    """

    test: Labels
    train: Labels
    looked_at: int


GIVEN = "given"  # the reason of a choice that is the user's

T = TypeVar("T")


class Reasons:
    """Takes what the user gave or else what follows from the data, and keeps the reason."""

    def __init__(self) -> None:
        self.why: dict[str, str] = {}

    def pick(self, name: str, given: T | Literal["auto"] | None, automatic: T, reason: str) -> T:
        """Choose one value."""
        is_given = given is not None and given != "auto"
        self.why[name] = GIVEN if is_given else reason
        return cast(T, given) if is_given else automatic


@dataclass(frozen=True)
class Size:
    """How much there is to see in a row, by which a network and the length of a training are chosen.

    Attributes:
        side: pixels of the longer side of a typical image; 0 of what is none.
        tiny: whether that is so little that strong views must be gentle.
        channels: the most that were seen; 0 of what has none.
    """

    side: int = 0
    tiny: bool = False
    channels: int = 0


@dataclass(frozen=True)
class Wanted:
    """What a network wants to see of images.

    Attributes:
        side: pixels; larger images are reduced to it.
        trained: whether the network was trained before: on squares of this side, to which smaller images are enlarged,
            and on three channels.
        interpolation: by which images are resized.
    """

    side: int
    trained: bool = False
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class Form(Protocol):
    """What rows are brought to: all that decides what a network sees of them, beside the row itself."""

    what: ClassVar[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row, as a backbone takes it."""
        ...

    @property
    def words(self) -> str:
        """What it says, for a message."""
        ...


@dataclass(frozen=True, eq=False)
class Intake:
    """What is kept of a run's rows.

    Attributes:
        table: of the rows that can be read; the others are in its quarantine.
        store: of its rows.
        digests: of what each row holds that the table had before.
        why: the reason of each choice that was made on the way.
    """

    table: Table
    store: Provider
    digests: tuple[str, ...]
    why: Mapping[str, str]


def content_of(digests: Sequence[str]) -> str:
    """Hash what rows hold, in their order."""
    return hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()[:32]


F = TypeVar("F", bound=Form)

Statistics: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""means and standard deviations"""


class Inputs(ABC, Generic[F]):
    """One kind of input: everything that differs between this kind and others.

    Attributes:
        one, many: what a row is called.
        source: what a row is read from.
        copies: what is said of test rows that are found among the training rows too.
        features: what `features` returns.
        own_options: names of the options that are for this kind alone.
        steps: of a training, by the budget.
        pipeline: what the Hugging Face Hub calls it.
        example: how a call of `Classifier.predict` is shown.
        are_pictures: whether rows can be shown.
        lengths_count: whether the lengths of what `features_of` returns say something, and not only their directions.
    """

    one: ClassVar[str]
    many: ClassVar[str]
    source: ClassVar[str]
    copies: ClassVar[str]
    features: ClassVar[str]
    own_options: ClassVar[tuple[str, ...]]
    steps: ClassVar[Mapping[str, int]]
    pipeline: ClassVar[str]
    example: ClassVar[str]
    are_pictures: ClassVar[bool] = False
    lengths_count: ClassVar[bool] = False

    @abstractmethod
    def holds(self, contents: Sequence[Any]) -> bool:
        """Tell whether the rows of a table are of this kind."""

    @abstractmethod
    def read_form(self, values: Mapping[str, Any]) -> F:
        """Read a form as JSON and YAML hold it."""

    @abstractmethod
    def look(self, table: Table) -> Size:
        """Look at some rows.

        Raises:
            UserError: none of them can be read.
        """

    @abstractmethod
    def choose(
        self, options: Options, table: Table, size: Any, reasons: Reasons, wanted: Wanted
    ) -> tuple[F, dict[str, Any]]:
        """Choose what the user left open.

        Args:
            options: what the user gave.
            table: of the rows.
            size: that `look` returned.
            reasons: takes the choices.
            wanted: what the network wants to see.

        Returns:
            The form, and the options that were chosen.
        """

    @abstractmethod
    def listing(self, table: Table) -> str:
        """Return a hash of the rows as they look from outside; no file is opened."""

    @abstractmethod
    def survey(self, table: Table) -> tuple[dict[str, str], str]:
        """Return rows that cannot be used, by name with the reasons, and what the others are, in words."""

    @abstractmethod
    def bring(
        self, table: Table, form: F, options: Options, device: torch.device, stop: Callable[[], bool], show: Show
    ) -> Intake:
        """Bring the rows to where the training takes them; quarantine, by name, what cannot be used.

        Raises:
            UserError: more than half cannot be read.
            Interrupted: the run was asked to stop.
        """

    @abstractmethod
    def near_copies(self, store: Provider, test: Labels, train: Labels) -> NearCopies:
        """Find test rows that are among the training rows too."""

    @abstractmethod
    def statistics(self, store: Provider, train: Labels) -> Statistics:
        """Return the means and standard deviations that the input is normalized by."""

    @abstractmethod
    def normalize(self, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
        """Return what makes float32 of mean 0 and standard deviation 1 of rows as a store gives them."""

    @abstractmethod
    def views(self, statistics: Statistics, store: Provider, train: Labels, options: Options) -> Viewer:
        """Make the views, normalized by these statistics; the options are resolved."""

    @abstractmethod
    def features_of(self, store: Provider, train: Labels) -> NDArray[np.float32]:
        """Return features [N, D] that cost no training."""

    @abstractmethod
    def choices(self, form: F, options: Options) -> dict[str, Any]:
        """Return the choices that are shown when a run begins."""

    @abstractmethod
    def listed(self, given: Any, form: F) -> Sequence[Any]:
        """Return what a user wants classified as a sequence of rows.

        Raises:
            UserError: it is not what the form says.
        """

    @abstractmethod
    def read(self, rows: Sequence[Any], form: F, chunk: int) -> Iterator[tuple[int, Provider, dict[int, str]]]:
        """Read rows part by part, of `chunk` at a time.

        Yields:
            The place of the part's first row; those that can be read, in order; and for each of the others its place in
            the part and the reason.
        """

    @abstractmethod
    def described(self, form: F) -> dict[str, Any]:
        """Say what a network of this form takes, in words that a program can follow."""

    @abstractmethod
    def random(self, form: F, statistics: Statistics, count: int) -> Tensor:
        """Return `count` random rows, the same each time, to compare two networks on."""

    @abstractmethod
    def scale_of(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Return what a row is reduced by, and then multiplied with, to be normalized; each fits a batch of rows."""


def refuse(options: Options, names: Sequence[str], data: str) -> None:
    """Refuse options that mean nothing for this data.

    Raises:
        UserError: some of `names` were given.
    """
    given = [f.name for f in fields(options) if f.name in names and getattr(options, f.name) != f.default]
    if given:
        listed = ", ".join(map(flag_of, given))
        raise UserError(f"{data}: {listed} means nothing for these; leave it out")


NAMED = 5  # rows named in an error


def quarantined(table: Table, broken: Mapping[int, str], what: str) -> tuple[Labels, Table]:
    """Leave out the rows that cannot be read; return those that are left, and their table.

    Raises:
        UserError: they are more than half.
    """
    good = np.array([row for row in range(len(table)) if row not in broken], np.int64)
    lost, rows = len(broken) + table.lost, len(table) + table.lost
    named = {table.names[row]: reason for row, reason in sorted(broken.items())}
    if 2 * lost > rows:
        some = list((named | dict(table.quarantine)).items())[:NAMED]
        listed = "".join(f"\n  - {name}: {reason}" for name, reason in some)
        raise UserError(
            f"{table.name}: of {rows} {what} {lost} cannot be read, more than half, such as{listed}\n"
            "Mend or remove them, or look whether this is the right data."
        )
    if not broken:
        return good, table
    return good, replace(table.take(good), quarantine={**table.quarantine, **named})
