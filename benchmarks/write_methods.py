"""Write docs/methods.md from what benchmarks/methods.py measured and benchmarks/papers.json says.

python benchmarks/write_methods.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from pages import DOCS, fill, save, table

from fewlabels.runs.compare import FEWEST, LEVEL, Mean, holm, mean_of, p_value

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SETS = {"digits-1": "digits, 1", "digits-4": "digits, 4", "fashion_mnist-4": "Fashion-MNIST, 4"}
CHOSEN_BY = {"digits-1": "1 a class", "digits-4": "4 a class", "digits-4-gamma10": "8 to 1 a class"}
OWED = "owed"

Errors = dict[str, dict[int, float]]
"""errors in points, by method and seed"""


def main() -> None:
    """Fill the page."""
    papers = json.loads((HERE / "papers.json").read_text())
    measured = {name: read(RESULTS / f"methods-{name}.json") for name in SETS}
    errors = {name: errors_of(result) for name, result in measured.items()}
    cost = read(RESULTS / "methods-cost-digits.json")
    draw(papers, errors)
    page = DOCS / "methods.md"
    text = page.read_text()
    for name, body in {
        "measured": measured_table(papers, errors, cost),
        "settled": "\n".join(settled(name, errors[name]) for name in SETS),
        "papers": paper_table(papers),
        "choosing": choosing_table(papers),
        "setting": "\n".join(setting(name, result, errors[name]) for name, result in measured.items() if result),
    }.items():
        text = fill(text, name, body)
    page.write_text(text)


def draw(papers: dict[str, Any], errors: dict[str, Errors]) -> None:
    """Draw the errors of all methods, with their intervals."""
    figure, grid = plt.subplots(1, len(SETS), figsize=(9.5, 5.6), sharey=True, layout="constrained")
    places = {name: -place for place, name in enumerate(papers)}
    for axes, (data, title) in zip(grid, SETS.items(), strict=True):
        for name, place in places.items():
            mean = mean_of(errors[data].get(name, {}).values())
            if mean.value is None:
                continue
            color = {"supervised": "gray", "fixmatch": "C1", "layermatch": "C3"}.get(name, "C0")
            axes.plot(mean.value, place, "o", color=color, markersize=4)
            if mean.low is not None and mean.n >= FEWEST:
                axes.plot([mean.low, mean.high], [place, place], color=color, linewidth=1)
        if fixmatch := errors[data].get("fixmatch"):
            axes.axvline(mean_of(fixmatch.values()).value or 0.0, color="C1", linewidth=0.8, linestyle="--")
        axes.set_title(f"{title} a class")
        axes.set_xlabel("test error, %")
        axes.set_xlim(left=0)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_yticks(list(places.values()), list(places))
    save(figure, "methods")


def read(path: Path) -> dict[str, Any]:
    """Read a result; empty where there is none yet."""
    return json.loads(path.read_text()) if path.exists() else {}


def errors_of(result: dict[str, Any], when: str = "accuracy") -> Errors:
    """Give the errors of each method."""
    found = result.get("methods", {})
    return {name: {int(seed): 100 * (1 - value) for seed, value in each[when].items()} for name, each in found.items()}


def measured_table(papers: dict[str, Any], errors: dict[str, Errors], cost: dict[str, Any]) -> str:
    """Write what was measured, a row a method."""
    head = ["method", "year", "checked", *(f"{name} a class" for name in SETS.values())]
    head += ["CIFAR-10, 40 labels", "published", "step", "memory"]
    rows, checked = [], with_reference()
    for name in papers:
        step = cost.get("step", {}).get(name)
        rows.append([
            f"[{name}](../fewlabels/methods/{name}.py)",
            str(papers[name]["year"] or "-"),
            "yes" if name in checked else "no",
            *(with_interval(mean_of(errors[data].get(name, {}).values())) for data in SETS),
            OWED,
            f"*{published[0]:.1f}*" if (published := papers[name]["cifar10"].get("40")) else "-",
            f"{step['ratio']:.1f}" if step else OWED,
            size(step["bytes"]) if step else OWED,
        ])  # fmt: skip
    return table(head, rows)


def with_reference() -> set[str]:
    """Give the methods that tests hold to a slow reference."""
    sys.path.append(str(HERE.parent))
    from tests.eager import ELSEWHERE
    from tests.methods.test_methods_and_their_oracles import CASES

    return {*CASES, *ELSEWHERE}


def with_interval(mean: Mean) -> str:
    """Write a mean with its interval and n."""
    if mean.value is None:
        return OWED
    spread = "" if mean.low is None or mean.n < FEWEST else f" ({mean.low:.1f} to {mean.high:.1f})"
    return f"{mean.value:.1f}{spread}, {mean.n}"


def size(count: int) -> str:
    """Write a number of bytes."""
    return "-" if count == 0 else f"{count / 1e6:.2f} MB" if count >= 5000 else f"{count} B"


def settled(data: str, errors: Errors) -> str:
    """Say which methods differ from the supervised baseline and from FixMatch by more than the noise."""
    parts = []
    for base in ("supervised", "fixmatch"):
        pairs = {name: paired(errors, name, base) for name in errors if name != base}
        judged = {name: values for name, values in pairs.items() if len(values) >= FEWEST}
        corrected = dict(zip(judged, holm([p_value(values) for values in judged.values()]), strict=True))
        clear = {name: mean_of(judged[name]).value or 0.0 for name, p in corrected.items() if p < 1 - LEVEL}
        better, worse = (sorted((v, n) for n, v in clear.items() if (v < 0) == sign) for sign in (True, False))
        words = "the supervised baseline" if base == "supervised" else "FixMatch"
        said = [
            f"{kind} than {words}: {listed(found)}" for kind, found in (("better", better), ("worse", worse)) if found
        ]
        parts += said or [f"none differs from {words}" if judged else f"too few seeds to compare with {words}"]
    return f"- **{SETS[data]} a class**: {'; '.join(parts)}."


def choosing_table(papers: dict[str, Any]) -> str:
    """Write the errors on development seeds, by which defaults and `--method auto` were chosen."""
    errors = {name: errors_of(read(RESULTS / f"methods-{name}-development.json")) for name in CHOSEN_BY}
    compared = [name for name in papers if all(name in found for found in errors.values())]
    rows = [
        [name, *(with_interval(mean_of(errors[data][name].values())) for data in CHOSEN_BY)] for name in compared
    ]  # fmt: skip
    return table(["method", *CHOSEN_BY.values()], rows)


def paired(errors: Errors, first: str, second: str) -> list[float]:
    """Give the differences of two methods' errors, seed by seed."""
    return [value - errors[second][seed] for seed, value in errors[first].items() if seed in errors.get(second, {})]


def listed(found: Sequence[tuple[float, str]]) -> str:
    """Write names with differences."""
    return ", ".join(f"`{name}` {value:+.1f}" for value, name in found)


def setting(data: str, result: dict[str, Any], errors: Errors) -> str:
    """Say how it was measured, and how much the last fifth of a run still changed."""
    asked, where = result["question"], result["where"]
    before = errors_of(result, "before the last fifth").get("fixmatch", {})
    moved = [errors["fixmatch"][seed] - error for seed, error in before.items()]
    change = mean_of(moved)
    unlabeled = f", {asked['unlabeled']:,} unlabeled rows" if asked["unlabeled"] else ""
    spread = "" if change.low is None else f" ({change.low:+.1f} to {change.high:+.1f}, n = {change.n})"
    return (
        f"- {SETS[data]} a class: {asked['steps']:,} steps{unlabeled}; the last fifth of them changes FixMatch's error "
        f"by {change.value or 0.0:+.1f}{spread}. Measured on {where['machine']}, {where['device']}, torch "
        f"{where['torch'].partition('+')[0]}, until {where['date']}, at {where['commit']}."
    )


def paper_table(papers: dict[str, Any]) -> str:
    """Write what the methods are, and what was published."""
    rows = []
    for name, paper in papers.items():
        who = "-" if paper["authors"] is None else f"{paper['authors']} {paper['year']}"
        if paper["arxiv"]:
            who = f"[{who}](https://arxiv.org/abs/{paper['arxiv']})"
        numbers = [paper["cifar10"].get(labels) for labels in ("40", "250", "4000")]
        rows.append([name, who, paper["idea"], *("-" if each is None else f"{each[0]:.2f}" for each in numbers)])
    return table(["method", "paper", "idea", "40 labels", "250", "4,000"], rows)


if __name__ == "__main__":
    main()
