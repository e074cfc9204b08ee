"""Draw the figures and fill the tables of docs/layers.md from the JSON of benchmarks/layers.py.

    python benchmarks/draw_layers.py

A table stands in the text between `<!-- NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from pages import DOCS, fill, save

HERE = Path(__file__).parent
POLICIES = {"all": "all layers", "backbone_only": "the backbone alone", "head_only": "the head alone"}
KINDS = {"noise": "any other class", "confused": "always the next class"}
THRESHOLDS = {"fixed": "fixed", "self_adaptive": "self-adaptive", "soft": "soft"}
STRATEGIES = {"grad_relu": "Grad-ReLU", "centers": "averaged centers", "both": "both"}
SETS = {
    "digits-1-1000-1019": "digits, 1 label a class",
    "digits-4-1000-1019": "digits, 4 labels a class",
    "fashion_mnist-4-1000-1002": "Fashion-MNIST, 4 labels a class",
}


def read(part: str, which: str) -> dict[str, Any]:
    """Read the result of an experiment."""
    return json.loads((HERE / "results" / f"layers-{part}-{which}.json").read_text())


def band(axes: Any, x: Any, cells: list[dict[str, Any]], number: str, label: str, scale: float = 1.0) -> None:
    """Draw means with their intervals."""
    mean, low, high = (scale * np.array([cell[number][name] for cell in cells]) for name in ("mean", "low", "high"))
    (line,) = axes.plot(x, mean, marker="o", markersize=4, label=label)
    axes.fill_between(x, low, high, alpha=0.15, color=line.get_color())


def noise(which: str) -> str:
    """Draw accuracy by the share of wrong labels; give the table."""
    cells = read("noise", which)["cells"]
    figure, grid = plt.subplots(2, 2, figsize=(9, 6.4), sharex=True, sharey="col", layout="constrained")
    supervised = cells.pop("supervised")
    shares = sorted({float(name.split("-")[1]) for name in cells})
    lines = []
    for axes, (kind, said) in zip(grid, KINDS.items(), strict=True):
        for policy, label in POLICIES.items():
            found = [cells[f"{kind if share else 'noise'}-{share:g}-{policy}"] for share in shares]
            for each, number in zip(axes, ("accuracy", "linear"), strict=True):
                band(each, [100 * share for share in shares], found, number, label)
            lines.append(f"| {said} | {label} | " + " | ".join(
                f"{cell['accuracy']['mean']:.1f} / {cell['linear']['mean']:.1f}" for cell in found) + " |")  # fmt: skip
        for each, number in zip(axes, ("accuracy", "linear"), strict=True):
            each.axhline(supervised[number]["mean"], color="gray", linestyle="--", label="none: supervised")
        axes[0].set_ylabel(f"wrong ones: {said}\naccuracy, %")
    grid[0, 0].set_title("the network, test images")
    grid[0, 1].set_title("a linear classifier with true labels on its features")
    for axes in grid.flat:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[1]:
        axes.set_xlabel("wrong pseudo-labels, %")
    grid[0, 0].legend(frameon=False, title="pseudo-labels reach")
    save(figure, "layers-noise")
    lines.append(f"| supervised | none | {supervised['accuracy']['mean']:.1f} / {supervised['linear']['mean']:.1f}"
                 + " |" * len(shares))  # fmt: skip
    head = "| wrong ones are | they reach | " + " | ".join(f"{100 * share:.0f} % wrong" for share in shares) + " |"
    return "\n".join([head, "| --- " * (2 + len(shares)) + "|", *lines])


def clusters(which: str) -> str:
    """Draw how features cluster, by the memory of the centers; give the table."""
    result = read("clusters", which)
    cells = {float(name.split("-")[1]): cell for name, cell in result["cells"].items()}
    figure, (over, after) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for share, cell in cells.items():
        label = "not averaged" if not share else f"{100 * share:g} % of the run"
        over.plot(cell["steps"], cell["over_time"]["scatter"], label=label)
    over.set(xlabel="step", ylabel="scatter between classes over within")
    over.legend(frameon=False, title="centers averaged over")
    names = ["none", *(f"{100 * share:g} %" for share in cells if share)]
    for number, label in (("linear", "linear, true labels"), ("nearest_center", "nearest class center"),
                          ("accuracy", "the network")):  # fmt: skip
        band(after, range(len(cells)), list(cells.values()), number, label)
    after.set_xticks(range(len(cells)), names)
    after.set(xlabel="memory of the centers", ylabel="accuracy on test images, %")
    after.legend(frameon=False)
    for axes in (over, after):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, "layers-clusters")
    head = "| centers averaged over | scatter | nearest center | linear | accuracy | accuracy minus not averaged |"
    lines = []
    for share, cell in cells.items():
        difference = result["differences"].get(f"memory {share:g} - none")
        lines.append(
            f"| {'not averaged' if not share else f'{100 * share:g} % of the run'} | {cell['scatter']['mean']:.2f} | "
            f"{cell['nearest_center']['mean']:.1f} | {cell['linear']['mean']:.1f} | {cell['accuracy']['mean']:.1f} | "
            f"{spread(difference) if difference else ''} |"
        )
    return "\n".join([head, "| --- " * 6 + "|", *lines])


def spread(difference: dict[str, float]) -> str:
    """Write a difference with its interval."""
    return f"{difference['mean']:+.1f} ({difference['low']:+.1f} to {difference['high']:+.1f})"


def thresholds() -> str:
    """Draw what each strategy adds to each threshold; give the table."""
    found = {which: read("thresholds", which) for which in SETS}
    figure, grid = plt.subplots(1, len(found), figsize=(10, 3.6), sharey=True, layout="constrained")
    lines = []
    for axes, (which, result) in zip(grid, found.items(), strict=True):
        marks: dict[str, dict[str, float] | None] = {}
        for threshold, word in THRESHOLDS.items():
            row = f"| {SETS[which]} | {word} | {result['cells'][f'{threshold}-none']['accuracy']['mean']:.1f} "
            for strategy, label in STRATEGIES.items():
                difference = result["differences"].get(f"{threshold}: {strategy} - none")
                if difference:  # of the unrounded accuracies
                    each = [np.array(result["cells"][f"{threshold}-{name}"]["each"]) for name in (strategy, "none")]
                    difference["mean"] = 100 * float(np.mean(each[0] - each[1]))
                row += f"| {spread(difference) if difference else 'not run'} "
                marks[f"{word}: {label}"] = difference
            lines.append(f"{row}|")
        for place, d in enumerate(marks.values()):
            if d is None:
                continue
            axes.errorbar(d["mean"], -place, xerr=[[d["mean"] - d["low"]], [d["high"] - d["mean"]]], fmt="o",
                          color="C0" if d["low"] <= 0 <= d["high"] else "C3", capsize=3)  # fmt: skip
        axes.axvline(0, color="gray", linewidth=1)
        axes.set_title(f"{SETS[which]}\n(n = {result['cells']['fixed-none']['accuracy']['n']})", fontsize=9)
        axes.set_xlabel("points against none of the strategies")
        axes.grid(alpha=0.3, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
        if axes is grid[0]:
            axes.set_yticks(range(0, -len(marks), -1), list(marks))
    save(figure, "layers-thresholds")
    head = "| data | threshold | none | + Grad-ReLU | + averaged centers | + both |"
    return "\n".join([head, "| --- " * 6 + "|", *lines])


def probes(which: str) -> str:
    """Draw the cosines of each layer over time; give the table of the mean over the run."""
    cells = read("probes", which)["cells"]
    layers = [name.removeprefix("ratio ") for name in cells["probe-fixed-all"] if name.startswith("ratio ")]
    figure, grid = plt.subplots(2, len(cells), figsize=(11, 5.6), sharex=True, sharey=True, layout="constrained")
    colors = plt.get_cmap("viridis")(np.linspace(0.15, 0.95, len(layers) - 1))
    lines = []
    for place, (name, cell) in enumerate(cells.items()):
        _, threshold, policy = name.split("-")
        title = f"{THRESHOLDS[threshold]}, {'Grad-ReLU' if policy == 'grad_relu' else 'all layers learn'}"
        for axes, number in zip(grid[:, place], ("cosine_kept", "cosine_all"), strict=True):
            for i, layer in enumerate(layers):
                head = layer == "head"
                axes.plot(cell["steps"], cell["over_time"][f"{number} {layer}"], label=layer.removeprefix("backbone."),
                          color="C3" if head else colors[i], linewidth=2.5 if head else 1.2)  # fmt: skip
            axes.axhline(0, color="gray", linewidth=1)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        grid[0, place].set_title(title)
        grid[1, place].set_xlabel("step")
        for number, word in (("cosine_kept", "kept"), ("cosine_all", "all")):
            means = " | ".join(f"{np.mean(cell['over_time'][f'{number} {layer}']):+.2f}" for layer in layers)
            wrong = f"{100 * np.mean(cell['over_time']['wrong']):.1f}"
            lines.append(f"| {title} | {wrong} | {word} | {means} |")
    grid[0, 0].set_ylabel("cosine with true labels\nof the kept images")
    grid[1, 0].set_ylabel("cosine with true labels\nof all images")
    grid[0, -1].legend(frameon=False, bbox_to_anchor=(1, 1), fontsize=8)
    save(figure, "layers-probes")
    names = " | ".join(layer.removeprefix("backbone.") for layer in layers)
    head = f"| threshold, policy | wrong, % | true labels of | {names} |"
    return "\n".join([head, "| --- " * (3 + len(layers)) + "|", *lines])


def main() -> None:
    """Draw and fill all."""
    page = DOCS / "layers.md"
    text = page.read_text()
    tables = {
        "noise": noise("digits-1-1000-1005"),
        "clusters": clusters("digits-1-1000-1009"),
        "probes": probes("digits-1-1000-1005"),
        "thresholds": thresholds(),
    }
    for name, table in tables.items():
        text = fill(text, name, table)
    page.write_text(text)


if __name__ == "__main__":
    main()
