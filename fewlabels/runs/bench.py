"""Several variants of a run on the same data over seeds, each in a folder of its own, side by side."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fewlabels.config import RunOptions, make_options
from fewlabels.console import Quiet, Show, cells_table
from fewlabels.errors import Interrupted, UserError
from fewlabels.files import replace_text
from fewlabels.runs import bench_words as words
from fewlabels.runs.compare import Difference, Scores, differences, pace
from fewlabels.runs.fit import fit
from fewlabels.runs.folder import RUNS, RunFolder, plain
from fewlabels.runs.run import Run
from fewlabels.runs.task import Task
from fewlabels.version import __version__

OF_ONE_RUN = ("seed", "out")  # options that differ from run to run
_OPTION = re.compile(r":(?=[\w-]+=)")  # where the next option of a variant begins


@dataclass(frozen=True)
class BenchResult:
    """What `bench` returns.

    Attributes:
        path: the folder, with `bench.json`, `bench.md` and the folders of the runs.
        setting: what was compared, and where.
        rows: the first variant, which the others are compared with; training-free baselines; the other variants.
        differences: each variant minus the first, the best other one and the best training-free baseline, paired by
            seed.
    """

    path: Path
    setting: dict[str, Any]
    rows: tuple[Scores, ...]
    differences: tuple[Difference, ...]

    @property
    def failed(self) -> list[str]:
        """Names of the variants of which a run failed."""
        return [row.name for row in self.rows if row.failures]

    @property
    def lines(self) -> list[str]:
        """What failed, and which differences are statistically significant."""
        chosen = [words.CHOSEN] if len(self.rows) > 2 else []
        return [*words.failures(self.rows), *words.verdict(self.differences), words.PAIRED, *chosen]

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
        cells = (
            words.score_cells(self.setting["measure"], self.rows, self.setting["metric"]),
            words.difference_cells(self.differences),
        )
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
    task: type[Task[Any]],
    data: Any,
    options: RunOptions,
    variants: str,
    seeds: int | str | Sequence[int] = 5,
    show: Show | None = None,
) -> BenchResult:
    """Compare variants of a task, named sets of options, on the same data over seeds.

    Args:
        task: what to run.
        data: what it takes.
        options: of all runs.
        variants: as in `read_variants`; the others are compared with the first.
        seeds: as in `read_seeds`.
        show: where to say what happens; silent by default.

    Raises:
        UserError: bad variants, seeds, data or options.
        Interrupted: it was asked to stop, and saved its state.
    """
    check_one_process()
    named, numbers = read_variants(variants), read_seeds(seeds)
    folder = RunFolder(options.out or RUNS / f"bench-{Path(str(data)).stem}-{task.name}")
    check_for_runs(folder.path)
    values = {name: value for name, value in vars(options).items() if name not in OF_ONE_RUN}

    def make(name: str, seed: int) -> Task[Any]:
        out = folder / f"{folder_name(name)}-{seed}"
        return task(data, make_options(task.options_type, values | named[name] | {"seed": seed, "out": out}))

    for name in named:
        make(name, numbers[0])  # a wrong option is said before anything is trained
    with folder.alone():
        setting = {"data": Path(str(data)).stem}
        return Comparison(folder, task.metric, list(named), numbers, make, show or Show(None), setting).result_of_all()


def read_variants(variants: str) -> dict[str, dict[str, str]]:
    """Read "slow:lr=0.01:steps=100,fast:lr=0.1": names with options, in words.

    Raises:
        UserError: fewer than two, a name twice, or something that is no option.
    """
    named: dict[str, dict[str, str]] = {}
    for part in parted(variants):
        name, *words_of = _OPTION.split(part)
        pairs = [word.partition("=") for word in words_of]
        if folder_name(name) in map(folder_name, named) or ":" in name or "=" in name:
            raise UserError(f"--variants {part!r}: give each name once, with options as NAME:OPTION=VALUE")
        named[name] = {option.replace("-", "_"): value for option, _, value in pairs}
        if given := [option for option in OF_ONE_RUN if option in named[name]]:
            raise UserError(f"--variants {part!r}: bench sets {', '.join(given)} for each run itself; leave it out")
    if len(named) < 2:
        raise UserError("give two variants or more, as --variants slow:lr=0.01,fast:lr=0.1")
    return named


def parted(text: str) -> list[str]:
    """Cut a text at its commas, but for those within brackets, as in freematch:clip=(.9, .95)."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


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


def folder_name(label: str) -> str:
    """Make a name of a folder of the name of a variant."""
    return re.sub(r"[^\w.=+-]+", "-", label)


def check_one_process() -> None:
    """Check that there is one process.

    Raises:
        UserError: there are several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("bench works in one process; several are for `fewlabels train`")


def check_for_runs(path: Path) -> None:
    """Check that a folder can hold several runs.

    Raises:
        UserError: it is a run, or a file.
    """
    if (path / "config.yaml").exists() or (path.exists() and not path.is_dir()):
        raise UserError(
            f"{path} is a {'run' if path.is_dir() else 'file'} and no folder for several; give another --out"
        )


@dataclass
class Comparison:
    """Variants that are being compared: what the runs share, and what is known so far.

    Attributes:
        folder: of all.
        metric: by which they are compared.
        names: of the variants; the others are compared with the first.
        seeds: of the runs.
        make: makes the task of a variant and a seed, with a folder of its own.
        show: where to say what happens.
        setting: what is compared, in plain values.
        facts: what of the setting heads the tables, from the summary of the first run.
        reason: says why a run failed, where that is no reason to end; None where it is.
    """

    folder: RunFolder
    metric: str
    names: list[str]
    seeds: list[int]
    make: Callable[[str, int], Task[Any]]
    show: Show
    setting: dict[str, Any] = field(default_factory=dict[str, Any])
    facts: Callable[[Mapping[str, Any]], list[str]] = lambda setting: [str(setting["data"])]
    reason: Callable[[Exception, str], str | None] = lambda error, name: (
        str(error) if isinstance(error, UserError) else None
    )
    scores: dict[str, Scores] = field(default_factory=dict[str, Scores])
    training_free: dict[str, Scores] = field(default_factory=dict[str, Scores])
    split: str | None = None
    done: int = 0

    def result_of_all(self) -> BenchResult:
        """Do all variants of one seed after the other, so that whoever stops early has something of each."""
        self.setting |= {"seeds": self.seeds, "cores": os.cpu_count(), "fewlabels": __version__}
        self.scores = {name: Scores(name) for name in self.names}
        quiet = Quiet(self.show.console)
        try:
            for seed in self.seeds:
                for name in self.names:
                    self._run(name, seed, quiet)
        except Interrupted:
            if self.done:
                self.result().show(self.show)
            raise
        result = self.result()
        result.write()
        result.show(self.show)
        return result

    def result(self) -> BenchResult:
        """Return what is known so far."""
        first, *others = self.scores.values()
        training_free = list(self.training_free.values())
        found = differences(first, training_free, others)
        return BenchResult(self.folder.path, self.setting, (first, *training_free, *others), tuple(found))

    def _run(self, name: str, seed: int, quiet: Show) -> None:
        """Do a run, or read it where it is finished; one that fails ends all if nothing worked yet."""
        scores, task = self.scores[name], self.make(name, seed)
        there = task.options.out is not None and (task.options.out / "summary.json").is_file()
        try:
            run = fit(task, quiet)
        except (Interrupted, OSError):
            raise
        except Exception as error:
            said = self.reason(error, name)
            if said is None or not self.scores[self.names[0]].values:
                raise  # then all others would fail, or a fault of ours would be hidden
            scores.failures[seed] = said
        else:
            self._note(run, name, seed)
        self._say(scores, seed)
        if not there:
            self.result().write()

    def _note(self, run: Run, name: str, seed: int) -> None:
        """Take in what a run came to."""
        scores, summary = self.scores[name], run.summary
        chosen = summary["chosen"]
        if self.split is None:
            self.split = "test" if chosen["test"] is not None else "hidden"
            if chosen[self.split] is None:
                raise UserError(f"{run.path} reports no metric, so there is nothing to compare by")
        scores.add(seed, self.metric, chosen[self.split])
        if summary.get("steps"):
            scores.step_seconds[seed] = summary["rows"][-1]["seconds"] / summary["steps"]
        for row in summary["rows"] if name == self.names[0] else ():
            if row["kind"] == "training_free" and row[self.split] is not None:
                label = row.get("label", row["name"])
                self.training_free.setdefault(row["name"], Scores(label)).add(seed, self.metric, row[self.split])
        self._note_setting(run)

    def _note_setting(self, run: Run) -> None:
        """Take in what a run says of the setting: counts of the first, threads of all."""
        where = RunFolder(run.path).config()["where"]
        threads = {*self.setting.get("threads", ()), where["threads"]}
        plain_values = {n: v for n, v in run.summary.items() if isinstance(v, str | int | float | None)}
        where_it_was = {name: where[name] for name in ("device", "machine", "torch")}
        self.setting = plain_values | {"notes": run.summary.get("notes", [])} | where_it_was | self.setting
        self.setting["threads"] = sorted(threads)
        self.setting |= {"measure": words.measure(self.metric, self.split), "metric": self.metric, "split": self.split}
        self.setting["facts"] = self.facts(self.setting)

    def _say(self, scores: Scores, seed: int) -> None:
        """Say what is known of a variant after a run."""
        self.done += 1
        place = f"{self.done} of {len(self.seeds) * len(self.names)}  {scores.name}, seed {seed}"
        if seed in scores.failures:
            self.show.line(f"{place}: failed. {scores.failures[seed]}", "yellow")
        else:
            here, mean = words.percent(scores.values[seed]), scores.mean
            self.show.line(f"{place}: {here}; mean {words.percent(mean.value)} (n = {mean.n})")
