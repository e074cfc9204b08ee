"""`bench`: several methods on the same data over seeds, each a run of its own folder, side by side."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fewlabels.classify.fit import fit, read_options
from fewlabels.classify.phases import LABELS_ONLY
from fewlabels.classify.run import Run
from fewlabels.classify.split import with_split
from fewlabels.data.sources.open import Array, Data, open_table
from fewlabels.data.table import UNLABELED, Table
from fewlabels.errors import Interrupted, UserError
from fewlabels.files import replace_text
from fewlabels.methods import make_method, method_name, option_fields
from fewlabels.methods.base import Method
from fewlabels.methods.supervised import Supervised
from fewlabels.models.layers import Policy
from fewlabels.own_file import own_file, where_it_failed
from fewlabels.runs import bench_words as words
from fewlabels.runs.compare import Difference, Scores, differences, pace
from fewlabels.runs.folder import RUNS, RunFolder, plain
from fewlabels.runs.show import Quiet, Show, cells_table
from fewlabels.version import __version__

OF_ONE_RUN = ("method", "seed", "baseline")  # options that differ from run to run, and so are no options here
_OF_UNLABELED = ("center_memory", "probe_every")  # options that labels only refuses
_MEASURES = {"accuracy": "test accuracy", "unlabeled_accuracy": "on hidden labels"}  # as summaries and tables say


@dataclass(frozen=True)
class BenchResult:
    """What `bench` gives back.

    Attributes:
        path: the folder, with `bench.json`, `bench.md` and the folders of the runs.
        setting: what was compared, and where.
        rows: labels only, what is free, then the methods.
        differences: each method minus labels only, the best other method and the best of what is free, paired by seed.
    """

    path: Path
    setting: dict[str, Any]
    rows: tuple[Scores, ...]
    differences: tuple[Difference, ...]

    @property
    def lines(self) -> list[str]:
        """What failed, and which differences are larger than the noise."""
        return [*words.failures(self.rows), *words.verdict(self.differences), words.CHOSEN]

    def as_json(self) -> str:
        """Write all of it as JSON."""
        rows = [asdict(row) | {"mean": asdict(row.mean), "pace": pace(row, self.rows[0])} for row in self.rows]
        found = [asdict(each) | {"clear": each.clear} for each in self.differences]
        value = {"setting": self.setting, "rows": rows, "differences": found, "words": self.lines}
        return json.dumps(plain(value), indent=2, allow_nan=False) + "\n"

    def write(self) -> None:
        """Write `bench.json` and `bench.md`, each whole or not at all."""
        head = [words.heading(self.setting), *self.setting["notes"]]
        replace_text(self.path / "bench.md", words.markdown(head, self._tables(), self.lines))
        replace_text(self.path / "bench.json", self.as_json())

    def _tables(self) -> list[list[list[str]]]:
        cells = words.score_cells(self.setting["measure"], self.rows), words.difference_cells(self.differences)
        return [each for each in cells if len(each) > 1]

    def show(self, show: Show) -> None:
        """Show the tables and what they mean."""
        for line in (words.heading(self.setting), *self.setting["notes"]):
            show.line(line)
        for cells in self._tables():
            show.table(cells_table(cells))
        for line in self.lines:
            show.line(line)
        show.line(f"kept in {self.path / 'bench.md'} and bench.json")


def bench(
    data: Data,
    *,
    methods: str | Sequence[str | Method],
    seeds: int | str | Sequence[int] = 5,
    model: str | nn.Module = "auto",
    unlabeled: str | Path | Array | None = None,
    policy: str | Policy = "auto",
    out: str | Path | None = None,
    show: Show | None = None,
    **options: Any,
) -> BenchResult:
    """Compare methods on the same data, splits and starting parameters, over seeds.

    Args:
        data, model, unlabeled, policy: as in `fit`; a policy is for all methods but labels only.
        methods: names with options, as "fixmatch:threshold=0.9", `path/to/file.py:CLASS`, or methods; in one text they
            are parted by commas. Labels only is always compared.
        seeds: how many, from 0 on; "10-19", the first and the last; or a list.
        out: folder of the runs and of what was found, `runs/bench-DATA` by default. The same call goes on where it was
            stopped; what is finished is read.
        show: where to say what happens; silent by default.
        options: the other fields of `fewlabels.Options`, for every run.

    Raises:
        UserError: bad input, or data that has nothing to report on; before anything is trained. A method that fails
            later has the reason in its row.
        Interrupted: it was asked to stop, and saved its state.
    """
    show = show or Show(None)
    if given := [name for name in OF_ONE_RUN if name in options]:
        raise UserError(f"bench sets {', '.join(OF_ONE_RUN)} for each run itself; leave {', '.join(given)} out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("bench works in one process; several are for `fewlabels train`")
    made, numbers = _read_methods(methods), read_seeds(seeds)
    chosen = replace(read_options("auto", model, unlabeled, policy, options), seed=numbers[0])
    table = with_split(open_table(data, unlabeled, chosen.root), chosen)
    key = _measure(table)
    folder = RunFolder(Path(out) if out is not None else RUNS / f"bench-{table.name}")
    _check_place(folder.path)
    given = {"model": model, "unlabeled": unlabeled, "policy": policy, "baseline": False, **options}
    work = _Work(data, folder, key, made, numbers, given | {"show": Quiet(show.console)}, show)
    work.setting |= {"labels_per_class": _labels_a_class(table), "measure": _MEASURES[key], "budget": chosen.budget}
    work.setting |= {"seeds": numbers, "cores": os.cpu_count(), "fewlabels": __version__}
    with folder.alone():
        return _compare(work)


def read_seeds(seeds: int | str | Sequence[int]) -> list[int]:
    """Read "5" or 5 (seeds 0 to 4), "10-19", or a list.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(seeds, int | str):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", str(seeds).strip())
        first, last = (0, 0) if found is None else (int(found[1]), int(found[2] or -1))
        numbers = list(range(first) if found and found[2] is None else range(first, last + 1) if found else ())
    else:
        numbers = list(seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise UserError(
            f"seeds are {seeds!r}; give how many, as 5 for seeds 0 to 4, or the first and the last, as 10-19"
        )
    return numbers


def _read_methods(methods: str | Sequence[str | Method]) -> dict[str, Method]:
    """Make the methods, by name; labels only is there anyway."""
    given = _parted(methods) if isinstance(methods, str) else methods
    made = [make_method(each) if isinstance(each, str) else each for each in given]
    named: dict[str, Method] = {}
    for method in made:
        if type(method) is Supervised:
            continue
        if _folder_name(name := _label(method)) in map(_folder_name, named):
            raise UserError(f"two methods are called {name}: give each once, or rename the class or the file of one")
        named[name] = method
    if not named:
        raise UserError("give methods to compare with labels only, such as fixmatch,layermatch")
    return named


def _parted(methods: str) -> list[str]:
    """Part a text at its commas, but for those within brackets, as in freematch:clip=(.9, .95)."""
    parts, depth = [""], 0
    for letter in methods:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _label(method: Method) -> str:
    """Name a method with the options that are not its defaults."""
    own = own_file(type(method))
    name = f"{own.path.name}:{type(method).__name__}" if own else method_name(method)
    values = {each.name: getattr(method, each.name) for each in option_fields(type(method))}
    other = [each.name for each in option_fields(type(method)) if values[each.name] != each.default]
    return ":".join([name, *(f"{option}={values[option]}" for option in other)])


def _folder_name(label: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", label)


def _measure(table: Table) -> str:
    """Give the number of a summary that says how good a method is: of the test split, or of hidden labels."""
    if len(table.test_rows):
        return "accuracy"
    if (table.truth != UNLABELED).any():
        return "unlabeled_accuracy"
    raise UserError(
        f"{table.name} has no test split and no hidden labels, so there is nothing to compare methods by. Put some "
        "labeled images into test/ (test/CLASS/*; the column split of a sheet; x_test and y_test of arrays), or label "
        "all of them and give --labels-per-class, which hides the others."
    )


def _labels_a_class(table: Table) -> tuple[int, int]:
    counts = np.bincount(table.labels[table.labeled_rows], minlength=len(table.classes))
    return int(counts.min()), int(counts.max())


def _check_place(path: Path) -> None:
    if (path / "config.yaml").exists() or (path.exists() and not path.is_dir()):
        raise UserError(
            f"{path} is a {'run' if path.is_dir() else 'file'} and no folder for several; give another --out"
        )


@dataclass
class _Work:
    """What the runs share, and what is known so far."""

    data: Data
    folder: RunFolder
    key: str
    methods: dict[str, Method]
    seeds: list[int]
    options: dict[str, Any]
    show: Show
    labels_only: Scores = field(default_factory=lambda: Scores("labels only"))
    free: dict[str, Scores] = field(default_factory=dict[str, Scores])
    scores: dict[str, Scores] = field(default_factory=dict[str, Scores])
    setting: dict[str, Any] = field(default_factory=dict[str, Any])
    done: int = 0

    def result(self) -> BenchResult:
        """Give what is known so far."""
        free, methods = list(self.free.values()), list(self.scores.values())
        found = differences(self.labels_only, free, methods)
        return BenchResult(self.folder.path, self.setting, (self.labels_only, *free, *methods), tuple(found))


def _compare(work: _Work) -> BenchResult:
    """Train all methods of one seed after the other, so that whoever stops early has something of each."""
    work.scores = {name: Scores(name) for name in work.methods}
    try:
        for seed in work.seeds:
            _labels_only(work, seed)
            for name, method in work.methods.items():
                _method(work, name, method, seed)
    except Interrupted:
        if work.done:
            work.result().show(work.show)
        raise
    result = work.result()
    result.show(work.show)
    return result


def _labels_only(work: _Work, seed: int) -> None:
    options = work.options | {"policy": "auto", **dict.fromkeys(_OF_UNLABELED)}
    run = _train(work, work.labels_only, LABELS_ONLY, Supervised(), seed, options)
    for row in run.summary["rows"][:-1] if run else ():
        work.free.setdefault(row["name"], Scores(row["label"])).accuracy[seed] = row[work.key]
    _say(work, work.labels_only, seed)


def _method(work: _Work, name: str, method: Method, seed: int) -> None:
    _train(work, work.scores[name], _folder_name(name), method, seed, work.options)
    _say(work, work.scores[name], seed)


def _train(work: _Work, scores: Scores, name: str, method: Method, seed: int, options: dict[str, Any]) -> Run | None:
    """Train, or read what is finished; None where it fails, unless nothing worked yet: then all others would fail."""
    try:
        run = fit(work.data, method=method, seed=seed, out=work.folder / f"{name}-{seed}", **options)
    except (Interrupted, OSError):
        raise
    except Exception as error:
        known = isinstance(error, UserError)
        if not work.labels_only.accuracy or not (known or own_file(type(method))):
            raise  # then all others would fail, or a bug of ours would be hidden
        scores.failures[seed] = str(error) if known else where_it_failed(error, type(method))
        return None
    scores.accuracy[seed] = run.summary[work.key]
    scores.step_seconds[seed] = run.summary["rows"][-1]["seconds"] / run.summary["steps"]
    _note_setting(work, run)
    return run


def _note_setting(work: _Work, run: Run) -> None:
    """Take in what a finished run says of the setting: counts of the first, threads of all."""
    where = RunFolder(run.path).config()["where"]
    threads = {*work.setting.get("threads", ()), where["threads"]}
    counts = {name: run.summary[name] for name in ("data", "model", "steps", "labeled", "unlabeled", "test", "notes")}
    work.setting = counts | {name: where[name] for name in ("device", "machine", "torch")} | work.setting
    work.setting["threads"] = sorted(threads)


def _say(work: _Work, scores: Scores, seed: int) -> None:
    """Say what is known of a method after a run, and write it down."""
    work.done += 1
    place = f"{work.done} of {len(work.seeds) * (1 + len(work.methods))}  {scores.name}, seed {seed}"
    if seed in scores.failures:
        work.show.line(f"{place}: failed. {scores.failures[seed]}", "yellow")
    else:
        here, mean = words.percent(scores.accuracy[seed]), scores.mean
        work.show.line(f"{place}: {here}; mean {words.percent(mean.value)} (n = {mean.n})")
    work.result().write()
