"""How many small faults the tests find: a seeded sample of mutants of the parts that decide what a training does.

    python benchmarks/mutation_score.py --out benchmarks/results/mutation_score.json

First the suite runs once and records which test executes which line, and for how long. Then each mutant is run against
the tests that execute its line, the nearest and quickest first, until one fails or `--seconds` are over, so the score
is a lower bound. In the end the tests that failed are run without a mutant: what fails then found nothing. All work is
done on a copy of the repository. Interrupt it at any time; rerun the same command to resume. `--again` takes the tests
as they are now and reruns the mutants that none found; such a score belongs to these mutants, and another `--seed`
tells how good the tests are for others. It needs a system that can fork.
"""

from __future__ import annotations

import contextlib
import importlib
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
    "training": ["fewlabels/training/*.py", "fewlabels/processes.py"],
    "averaging": ["fewlabels/averaging/*.py"],
    "keys": ["fewlabels/keys.py"],
    "data/splits and data/samplers": ["fewlabels/data/splits.py", "fewlabels/data/samplers.py"],
}
LEAST = 50  # of each group, or all where there are fewer
# Tests of files, or of rooms, of which nothing records that they execute them: in processes of their own, or on import.
UNRECORDED = {
    "fewlabels/methods/": ["tests/methods/test_defaults.py"],
    "fewlabels/processes.py": [
        "tests/training/test_together.py",
        "tests/training/test_loop.py::test_two_processes_equal_one",
        "tests/runs/test_processes.py",
    ],
    "fewlabels/methods/parts/across.py": ["tests/training/test_together.py"],
    "fewlabels/methods/parts/draws.py": ["tests/training/test_together.py"],
}
# Tests that see most faults of a room, to be run before others.
SHARPEST = {"methods": ("test_methods_and_their_oracles.py", "test_against_oracles.py")}
HANGS = 900.0  # seconds after which a mutant's tests are ended
MISSED = ("survived", "not executed", "fails without it")
FAILED = re.compile(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", re.MULTILINE)


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


def all_mutants(tree: Path) -> dict[str, list[Case]]:
    """Return the mutants of each group."""
    return {
        group: [
            Case(group, str(path.relative_to(tree)), mutant)
            for pattern in patterns
            for path in sorted(tree.glob(pattern))
            for mutant in mutants_of(path.read_text())
        ]
        for group, patterns in GROUPS.items()
    }


def sample(pools: dict[str, list[Case]], count: int, seed: int) -> list[Case]:
    """Draw about `count` mutants: `LEAST` of each group or all that it has, the others in proportion to their sizes."""
    taken = {group: min(LEAST, len(pool)) for group, pool in pools.items()}
    left = {group: len(pool) - taken[group] for group, pool in pools.items()}
    spare, unsampled = max(0, count - sum(taken.values())), sum(left.values())
    for group, rest in left.items():
        taken[group] += round(spare * rest / unsampled)
    draw = random.Random(seed)  # noqa: S311 - no secret
    chosen = [case for group, pool in pools.items() for case in draw.sample(pool, taken[group])]
    draw.shuffle(chosen)  # so that a run that is stopped has some of each group
    return chosen


class Suite:
    """Which tests execute which lines, and how long each takes; from one run of all of them.

    Args:
        folder: where that is kept.
        tree: the copy of the repository.
    """

    def __init__(self, folder: Path, tree: Path) -> None:
        self.folder, self.tree = folder, tree

    def measure(self) -> None:
        """Run the suite, unless that was done."""
        if self.report.is_file():
            return
        command = [
            sys.executable, "-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", "--cov", "--cov-report=",
            "--cov-context=test", "-o", "junit_family=xunit1", f"--junitxml={self.report}.part",
        ]  # fmt: skip
        environ = os.environ | {"COVERAGE_FILE": str(self.lines), "PYTHONPATH": str(self.tree)}
        code = subprocess.run(command, cwd=self.tree, env=environ, check=False).returncode
        if code not in (0, 1):  # some tests may fail: they find nothing
            raise RuntimeError(f"the suite ended with code {code}")
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
        """The seconds of each test that passes."""
        found: dict[str, float] = {}
        for case in ElementTree.parse(self.report).iter("testcase"):  # noqa: S314 - our own file
            if not any(child.tag in ("failure", "error", "skipped") for child in case):
                found[f"{case.get('file')}::{case.get('name')}"] = float(case.get("time") or 0)
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
        by_line = self._contexts.contexts_by_lineno(str(self.tree / case.file))
        lines = range(case.mutant.line, case.mutant.line + case.mutant.was.count("\n") + 1)
        contexts = {context for line in lines for context in by_line.get(line, ())}
        itself = self._named(context for context in contexts if context.endswith("|run"))
        # What is executed on import belongs to no test: any that uses the module may find it.
        tests = self._named(contexts) or self._named(context for every in by_line.values() for context in every)
        room = case.file.split("/")[1].removesuffix(".py")
        sharpest = (f"test_{Path(case.file).stem}.py", *SHARPEST.get(room, ()))

        def distance(test: str) -> tuple[bool, bool, bool, float]:
            near = test.startswith(f"tests/{room}")
            return not any(name in test for name in sharpest), test not in itself, not near, self.seconds[test]

        files = {str(path.relative_to(self.tree)) for path in self.tree.glob(f"tests/{room}/**/test_*.py")}
        unrecorded = [test for of, tests in UNRECORDED.items() if case.file.startswith(of) for test in tests]
        chosen, spent = [*sorted(files - self.of_files.keys()), *unrecorded], 0.0
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
            test, _, phase = context.rpartition("|")
            found.update([test] if phase == "run" else self.of_files.get(test.partition("::")[0], []))
        # Of a file that has changed since, some tests may be gone.
        return {test for test in found & self.seconds.keys() if (self.tree / test.partition("::")[0]).is_file()}


class Clock:
    """Ends a run of tests as passed, between two of them, when its time is up.

    The time is the processor's, of this process and those that it started and has waited for, so that other work on the
    machine does not count.
    """

    def __init__(self, seconds: float) -> None:
        self.until = self.now() + seconds

    def now(self) -> float:
        """Return the seconds of work so far."""
        return sum(os.times()[:4])

    def pytest_runtest_logstart(self) -> None:
        """Look at the clock before each test."""
        import pytest

        if self.now() > self.until:
            pytest.exit("enough", returncode=0)


def run_tests(copy: Path, tests: list[str], seconds: float | None, log: Path) -> None:
    """Run tests on a copy of the repository, in a process of their own, and leave it.

    With a limit of time they run until one fails, without one to their end.
    """
    os.setsid()  # so that what the tests start can be ended with them
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    shutil.rmtree(copy / ".hypothesis", ignore_errors=True)  # what failed with another mutant would be tried first
    import pytest

    words = ["-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    plugins = [] if seconds is None else [Clock(seconds)]
    words = words if seconds is None else ["-x", *words]
    code = pytest.main([*words, *tests], plugins=plugins)
    if code == pytest.ExitCode.USAGE_ERROR:  # a mutant may change the names of tests, and so hide them
        code = pytest.main([*words, *dict.fromkeys(test.partition("::")[0] for test in tests)], plugins=plugins)
    os._exit(int(code))


def fork_of(copy: Path, tests: list[str], seconds: float | None, log: Path) -> Any:
    """Start a fork that runs tests."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(copy, tests, seconds, log))
    process.start()
    return process


def failing(copy: Path, tests: set[str]) -> set[str]:
    """Return those of these tests that fail without a mutant, run as the mutants' were."""
    log = copy.with_suffix(".control")
    fork_of(copy, sorted(tests), None, log).join()
    return set(FAILED.findall(log.read_text(errors="replace")))


@dataclass
class Slot:
    """A place where one mutant at a time is run: a copy of the tree."""

    tree: Path
    copy: Path
    case: Case | None = None
    process: Any = None
    until: float = 0.0
    began: float = 0.0
    tests: int = 0

    def start(self, case: Case, tests: list[str], seconds: float) -> None:
        """Put the mutant into the copy and begin its tests."""
        (self.copy / case.file).write_text(case.mutant.applied((self.tree / case.file).read_text()))
        self.case, self.tests, self.began = case, len(tests), time.monotonic()
        self.until = self.began + HANGS
        self.process = fork_of(self.copy, tests, seconds, self.log)

    @property
    def log(self) -> Path:
        """Where the output of the tests goes."""
        return self.copy.with_suffix(".log")

    def ended(self) -> dict[str, Any] | None:
        """Return what became of the mutant, where that is known; its file is then as it was."""
        if self.process.is_alive() and time.monotonic() <= self.until:
            return None
        code = None if self.process.is_alive() else self.process.exitcode
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        assert self.case is not None
        shutil.copy(self.tree / self.case.file, self.copy / self.case.file)
        output = self.log.read_text(errors="replace")
        failed = FAILED.findall(output)
        if code in (2, 4) and re.search(r"\w(Error|Exception)\b", output):
            code = 1  # the module cannot be imported, or its tests not be collected
        return {
            "name": self.case.name,
            "group": self.case.group,
            "outcome": {None: "timeout", 0: "survived", 1: "killed"}.get(code, f"code {code}"),
            "by": failed[0] if failed else None,
            "tests": self.tests,
            "seconds": round(time.monotonic() - self.began, 1),
        }


def run_all(cases: list[Case], suite: Suite, seconds: float, workers: int) -> Iterator[dict[str, Any]]:
    """Run mutants side by side; yield what became of each."""
    slots: list[Slot] = []
    for number in range(workers):
        copy = suite.folder / f"copy-{number}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(suite.tree, copy)
        slots.append(Slot(suite.tree, copy))
    waiting = list(reversed(cases))
    while waiting or any(slot.case for slot in slots):
        for slot in slots:
            while slot.case is None and waiting:
                case = waiting.pop()
                if tests := suite.tests_of(case, seconds):
                    slot.start(case, tests, seconds)
                else:
                    yield {"name": case.name, "group": case.group, "outcome": "not executed", "tests": 0, "seconds": 0}
        wait([slot.process.sentinel for slot in slots if slot.case], timeout=1)
        for slot in slots:
            if slot.case is not None and (found := slot.ended()) is not None:
                slot.case = None
                yield found


def scored(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Count what was found, with Wilson's 95 % interval. A mutant that hangs or crashes is found."""
    missed = sum(result["outcome"] in MISSED for result in results)
    interval = binomtest(len(results) - missed, len(results)).proportion_ci(method="wilson")
    return {
        "mutants": len(results),
        "score": round(1 - missed / len(results), 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "outcomes": dict(Counter(result["outcome"] for result in results)),
    }


def weighted(scores: dict[str, dict[str, Any]], sizes: dict[str, int]) -> dict[str, float]:
    """Estimate the score of all mutants of all groups, with the 95 % interval of a stratified sample (Cochran 1977)."""
    total = sum(sizes.values())
    mean = sum(sizes[group] / total * scores[group]["score"] for group in sizes)
    variance = sum(
        (size / total) ** 2 * p * (1 - p) / (n - 1) * (1 - n / size)
        for size, p, n in ((sizes[group], scores[group]["score"], scores[group]["mutants"]) for group in sizes)
    )
    half = 1.96 * variance**0.5
    return {"score": round(mean, 4), "low": round(mean - half, 4), "high": round(min(1.0, mean + half), 4)}


def copy_tracked(tree: Path, *folders: str) -> None:
    """Copy the files of the repository, or of some folders, that git knows or does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


def main(
    out: Path | None = None, work: Path = ROOT / "runs/mutation_score", count: int = 400, seed: int = 0,
    seconds: float = 60.0, workers: int = 2, again: bool = False,
) -> None:  # fmt: skip
    """Run a sample of mutants against the tests and print the score.

    Args:
        out: the file for the score and the survivors.
        work: the folder to resume from.
        count: mutants.
        seed: of the sample.
        seconds: of the processor, for which a mutant is run against tests.
        workers: mutants at a time.
        again: rerun the mutants that no test found, with the tests as they are now.
    """
    tree = work / "tree"
    if not tree.is_dir():
        copy_tracked(tree)
    elif again:
        shutil.rmtree(tree / "tests")
        copy_tracked(tree, "tests")
    suite = Suite(work, tree)
    suite.measure()
    log = work / "results.jsonl"
    done = {result["name"]: result for result in map(json.loads, log.read_text().splitlines() if log.is_file() else ())}
    pools = all_mutants(tree)
    cases = sample(pools, count, seed)
    left = [case for case in cases if case.name not in done or (again and done[case.name]["outcome"] in MISSED)]
    os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no threads but its own
    for name in ("matplotlib.pyplot", "sklearn.semi_supervised", "timm"):
        importlib.import_module(name)  # what the tests import is imported once, before the forks
    import torch

    torch.set_num_threads(1)
    for number, result in enumerate(run_all(left, suite, seconds, workers)):
        done[result["name"]] = result
        with open(log, "a") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{number + 1} of {len(left)} {result['outcome']:12} {result['name']}", flush=True)
    results = [done[case.name] for case in cases]
    wrong = failing(work / "copy-0", {result["by"] for result in results if result.get("by")})
    results = [result | ({"outcome": "fails without it"} if result.get("by") in wrong else {}) for result in results]
    scores = {group: scored([result for result in results if result["group"] == group]) for group in GROUPS}
    sizes = {group: len(pool) for group, pool in pools.items()}
    report = {"sample": scored(results), "all, weighted": weighted(scores, sizes), **scores}
    for name, score in report.items():
        print(f"{name:30} {100 * score['score']:.1f} % ({100 * score['low']:.1f} to {100 * score['high']:.1f})")
    if out is not None:
        from accuracy import machine  # not before: it imports the package, of which each fork has a copy of its own

        survivors = sorted(result["name"] for result in results if result["outcome"] in MISSED)
        question = {"seed": seed, "count": count, "seconds": seconds, "mutants": sizes}
        whole = {"question": question, "machine": machine(), "scores": report, "survivors": survivors}
        out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
