"""How many small faults the tests find: a seeded sample of mutants of the parts that decide what a training does.

    python benchmarks/mutation_score.py --out benchmarks/results/mutation_score.json

First the suite runs once and notes which test executes which line, and for how long. Then each mutant is run against
the tests that execute its line, the nearest and quickest first, until one fails or `--seconds` are over, so the
score is a lower bound. Interrupt it at any time; rerun the same command to resume. `--again` reruns the mutants that no
test found, first against files of tests that are new since. The survivors are listed with their lines. It needs a
system that can fork.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import coverage
import tyro
from mutants import Mutant, mutants_of
from scipy.stats import binomtest

ROOT = Path(__file__).parents[1]
GROUPS = {
    "methods/parts": ["fewlabels/methods/parts/*.py"],
    "methods": ["fewlabels/methods/*.py"],
    "training": ["fewlabels/training/*.py"],
    "averaging": ["fewlabels/averaging/*.py"],
    "keys": ["fewlabels/keys.py"],
    "data/splits and data/samplers": ["fewlabels/data/splits.py", "fewlabels/data/samplers.py"],
}
LEAST = 50  # of each group, or all where there are fewer
COPIED = ("fewlabels", "tests", "benchmarks", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")


@dataclass(frozen=True)
class Case:
    """A mutant of a file of a group."""

    group: str
    file: str
    mutant: Mutant

    @property
    def name(self) -> str:
        """What it is known by: its file, line and change."""
        before, after = (" ".join(text.split()) for text in (self.mutant.was, self.mutant.text))
        return f"{self.file}:{self.mutant.line}: {before} -> {after} (byte {self.mutant.start})"


def sample(count: int, seed: int) -> list[Case]:
    """Draw mutants: `LEAST` of each group or all that it has, the others in proportion to the groups' sizes."""
    pools = {
        group: [
            Case(group, str(path.relative_to(ROOT)), mutant)
            for pattern in patterns
            for path in sorted(ROOT.glob(pattern))
            for mutant in mutants_of(path.read_text())
        ]
        for group, patterns in GROUPS.items()
    }
    taken = {group: min(LEAST, len(pool)) for group, pool in pools.items()}
    left = {group: len(pool) - taken[group] for group, pool in pools.items()}
    spare, unsampled = count - sum(taken.values()), sum(left.values())
    for group, rest in left.items():
        taken[group] += round(spare * rest / unsampled)
    draw = random.Random(seed)  # noqa: S311 - no secret
    chosen = [case for group, pool in pools.items() for case in draw.sample(pool, taken[group])]
    draw.shuffle(chosen)  # so that a run that is stopped has some of each group
    return chosen


class Baseline:
    """Which tests execute which lines, and how long each takes; from one run of the whole suite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def measure(self) -> None:
        """Run the suite, unless that was done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.report.is_file():
            command = [
                sys.executable, "-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", "--cov", "--cov-report=",
                "--cov-context=test", "-o", "junit_family=xunit1", f"--junitxml={self.report}.part",
            ]  # fmt: skip
            subprocess.run(command, cwd=ROOT, env=os.environ | {"COVERAGE_FILE": str(self.lines)}, check=False)
            Path(f"{self.report}.part").rename(self.report)

    @property
    def report(self) -> Path:
        """The file with the tests' seconds."""
        return self.folder / "junit.xml"

    @property
    def lines(self) -> Path:
        """The file with the lines that each test executes."""
        return self.folder / "coverage"

    @cached_property
    def seconds(self) -> dict[str, float]:
        """The seconds of each test that passes; those that fail without a mutant find nothing."""
        found: dict[str, float] = {}
        known = {context.partition("|")[0] for context in self._contexts.measured_contexts()}
        for case in ElementTree.parse(self.report).iter("testcase"):  # noqa: S314 - our own file
            passed = not any(child.tag in ("failure", "error", "skipped") for child in case)
            if passed and (test := f"{case.get('file')}::{case.get('name')}") in known:
                found[test] = float(case.get("time") or 0)
        return found

    @cached_property
    def of_files(self) -> dict[str, list[str]]:
        """The tests of each file of tests."""
        found: dict[str, list[str]] = defaultdict(list)
        for test in self.seconds:
            found[test.partition("::")[0]].append(test)
        return found

    @cached_property
    def _contexts(self) -> coverage.CoverageData:
        data = coverage.CoverageData(str(self.lines))
        data.read()
        return data

    def tests_of(self, case: Case, most_seconds: float) -> list[str]:
        """Return the tests that execute a mutant's line, the nearest and quickest first, of so many seconds.

        Files of tests that are new since the suite ran come first: nobody knows yet what they execute.
        """
        by_line = self._contexts.contexts_by_lineno(str(ROOT / case.file))
        lines = range(case.mutant.line, case.mutant.line + case.mutant.was.count("\n") + 1)
        tests = self._named(context for line in lines for context in by_line.get(line, ()))
        # What is executed on import belongs to no test: any that uses the module may find it.
        tests = tests or self._named(context for contexts in by_line.values() for context in contexts)
        room = "tests/" + case.file.split("/")[1].removesuffix(".py")
        stem = Path(case.file).stem

        itself = self._named(context for line in lines for context in by_line.get(line, ()) if context.endswith("|run"))

        def distance(test: str) -> tuple[bool, bool, bool, float]:
            return f"test_{stem}.py" not in test, test not in itself, not test.startswith(room), self.seconds[test]

        copy = self.folder / "copy-0"
        files = (copy / room).parent.glob(f"{Path(room).name}*/test_*.py")
        new = {str(path.relative_to(copy)) for path in files}
        chosen, spent = sorted(new - self.of_files.keys()), 0.0
        for test in sorted(tests, key=distance):
            spent += self.seconds[test]
            if spent > most_seconds > self.seconds[test]:
                break
            chosen.append(test)
        return chosen

    def _named(self, contexts: Iterable[str]) -> set[str]:
        """Read tests from coverage's contexts; what a fixture executes may concern each test of its file."""
        found: set[str] = set()
        for context in contexts:
            test, _, phase = context.partition("|")
            found.update([test] if phase == "run" else self.of_files.get(test.partition("::")[0], []))
        return found & self.seconds.keys()


class Clock:
    """Ends a run of tests as passed, between two of them, when its time is up; fixtures have no measured time."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def pytest_runtest_logstart(self) -> None:
        """Look at the clock before each test."""
        import pytest

        if time.monotonic() > self.until:
            pytest.exit("enough", returncode=0)


def run_tests(copy: Path, tests: list[str], seconds: float, log: Path) -> None:
    """Run tests on a copy of the repository until one fails, in a process of their own, and leave it."""
    os.setsid()  # so that what the tests start can be ended with them
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ["PYTHONPATH"] = str(copy)
    sys.dont_write_bytecode = True
    import pytest

    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    os._exit(int(pytest.main([*options, *tests], plugins=[Clock(seconds)])))


@dataclass
class Slot:
    """A place where one mutant at a time is run: a copy of the repository."""

    copy: Path
    case: Case | None = None
    process: Any = None
    until: float = 0.0
    began: float = 0.0
    tests: int = 0

    def start(self, case: Case, tests: list[str], seconds: float) -> None:
        """Put the mutant into the copy and begin its tests."""
        (self.copy / case.file).write_text(case.mutant.applied((ROOT / case.file).read_text()))
        self.case, self.tests, self.began = case, len(tests), time.monotonic()
        self.until = self.began + 60 + 3 * seconds  # later one test hangs
        arguments = (self.copy, tests, seconds, self.log)
        self.process = multiprocessing.get_context("fork").Process(target=run_tests, args=arguments)
        self.process.start()

    @property
    def log(self) -> Path:
        """What the tests said."""
        return self.copy.with_suffix(".log")

    def ended(self) -> dict[str, Any] | None:
        """Return what became of the mutant, where that is known; its file is then as it was."""
        late = time.monotonic() > self.until
        if self.process.is_alive() and not late:
            return None
        code = None if self.process.is_alive() else self.process.exitcode
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        assert self.case is not None
        shutil.copy(ROOT / self.case.file, self.copy / self.case.file)
        said = self.log.read_text(errors="replace")
        if code in (4, 5) and not re.search(r"\w(Error|Exception)\b", said):  # none was run, and not for the mutant
            raise RuntimeError(f"pytest ran no test of {self.case.name}: {said}")
        found = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", said, re.MULTILINE)
        return {
            "name": self.case.name,
            "group": self.case.group,
            # Any other code is a crash, or a module that cannot be imported any more.
            "outcome": {None: "timeout", 0: "survived"}.get(code, "killed"),
            "by": found[1] if found else None,
            "tests": self.tests,
            "seconds": round(time.monotonic() - self.began, 1),
        }


def run_all(
    cases: list[Case], baseline: Baseline, work: Path, seconds: float, workers: int
) -> Iterator[dict[str, Any]]:
    """Run mutants side by side; yield what became of each."""
    slots: list[Slot] = []
    for number in range(workers):
        copy = work / f"copy-{number}"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(parents=True)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        slots.append(Slot(copy))
    waiting = list(reversed(cases))
    while waiting or any(slot.case for slot in slots):
        for slot in slots:
            while slot.case is None and waiting:
                case = waiting.pop()
                tests = baseline.tests_of(case, seconds)
                if tests:
                    slot.start(case, tests, seconds)
                else:
                    yield {"name": case.name, "group": case.group, "outcome": "not executed", "tests": 0, "seconds": 0}
        wait([slot.process.sentinel for slot in slots if slot.case], timeout=1)
        for slot in slots:
            if slot.case is not None and (found := slot.ended()) is not None:
                slot.case = None
                yield found


def scored(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Count what was found, with Wilson's 95 % interval; what took too long is found."""
    found = sum(result["outcome"] in ("killed", "timeout") for result in results)
    interval = binomtest(found, len(results)).proportion_ci(method="wilson")
    return {
        "mutants": len(results),
        "found": found,
        "score": round(found / len(results), 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "outcomes": dict(Counter(result["outcome"] for result in results)),
    }


def main(
    out: Path | None = None, work: Path = ROOT / "runs/mutation_score", count: int = 400, seed: int = 0,
    seconds: float = 40.0, workers: int = 2, again: bool = False,
) -> None:  # fmt: skip
    """Run a sample of mutants against the tests and print the score.

    Args:
        out: the file for the score and the survivors.
        work: where all is kept that the command goes on from.
        count: mutants.
        seed: of the sample.
        seconds: for which a mutant is run against tests.
        workers: mutants at a time.
        again: rerun the survivors, with the tests as they are now.
    """
    baseline = Baseline(work)
    baseline.measure()
    log = work / "results.jsonl"
    done = {result["name"]: result for result in map(json.loads, log.read_text().splitlines() if log.is_file() else ())}
    cases = sample(count, seed)
    names = {case.name for case in cases}
    left = [
        case for case in cases
        if case.name not in done or (again and done[case.name]["outcome"] in ("survived", "not executed"))
    ]  # fmt: skip
    os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no threads but its own
    import matplotlib.pyplot  # noqa: F401 - what the tests import is imported once, before the forks
    import sklearn.semi_supervised  # noqa: F401
    import timm  # noqa: F401
    import torch

    torch.set_num_threads(1)
    for result in run_all(left, baseline, work, seconds, workers):
        done[result["name"]] = result
        with open(log, "a") as file:
            file.write(json.dumps(result) + "\n")
        print(
            f"{sum(name in done for name in names)} of {len(cases)} {result['outcome']:12} {result['name']}", flush=True
        )
    results = [done[case.name] for case in cases]
    report: dict[str, Any] = {"all": scored(results)} | {
        group: scored([result for result in results if result["group"] == group]) for group in GROUPS
    }
    for group, score in report.items():
        print(f"{group:30} {score['found']:4} of {score['mutants']:4}: {100 * score['score']:.1f} % "
              f"({100 * score['low']:.1f} to {100 * score['high']:.1f})")  # fmt: skip
    survivors = sorted(result["name"] for result in results if result["outcome"] not in ("killed", "timeout"))
    if out is not None:
        from accuracy import machine  # not before: it imports the package, of which each fork has a copy of its own

        question = {"seed": seed, "count": count, "seconds": seconds}
        whole = {"question": question, "machine": machine(), "scores": report, "survivors": survivors}
        out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
