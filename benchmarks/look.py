"""How a report looks and reads: axe's checks, console messages and sideways scrolling in a headless Chromium.

    python benchmarks/look.py runs/digits-layermatch-0/report.html --axe axe.min.js --pictures looks/

axe.min.js comes from the package axe-core (`npm pack axe-core`). Each page is opened at the width of a desk and of a
phone, light and dark; a fault ends the command with exit code 1. With --pictures what is seen is kept as PNG.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import tyro

WIDTHS = {"desk": 1280, "phone": 390}
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_ASK = """
<style>.wide { background: none !important; }</style>
<script>
axe.run({exclude: ["svg"]}, {runOnly: %s, resultTypes: ["violations", "incomplete"]}).then(found => {
  const kept = list => list.map(v => [v.id, v.help, v.nodes.length, v.nodes[0].html.slice(0, 200)]);
  parent.postMessage(JSON.stringify({
    violations: kept(found.violations), incomplete: kept(found.incomplete), passes: found.passes.length,
    width: document.documentElement.clientWidth, scrolled: document.documentElement.scrollWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches
  }), "*");
});
</script>
"""
# A window cannot be as narrow as a phone; a frame in it can.
_FRAME = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<script>
onmessage = event => {
  const found = document.body.appendChild(document.createElement("pre"));
  found.id = "found";
  found.textContent = event.data;
};
</script>
<body><iframe src="page.html" width="%d" height="800" style="border: 0"></iframe></body>
"""


@dataclass(frozen=True)
class Question:
    """What is looked at."""

    pages: tyro.conf.Positional[tuple[Path, ...]]
    axe: Path
    pictures: Path | None = None
    height: int = 12_000
    """of the pictures, in pixels"""


def browser() -> str | None:
    """Find a Chromium."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def _opened(page: Path, width: int, height: int, dark: bool, *words: str) -> subprocess.CompletedProcess[str]:
    found = browser()
    if found is None:
        raise SystemExit("no Chromium is installed")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [found, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}", *scheme]
    return subprocess.run(
        [*command, *words, page.absolute().as_uri()], capture_output=True, text=True, timeout=180, check=True
    )


def examined(page: Path, axe: Path, width: int, dark: bool) -> dict[str, Any]:
    """Give axe's violations, what it could not decide, and the widths of the window and of the page."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)  # which lets no script run, axe's too
    script = f"<script>{axe.read_text(encoding='utf-8')}</script>{_ASK % json.dumps(_RULES)}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "page.html").write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
        (folder / "frame.html").write_text(_FRAME % width, encoding="utf-8")
        done = _opened(
            folder / "frame.html", 1600, 900, dark, "--hide-scrollbars", "--virtual-time-budget=60000", "--dump-dom"
        )
    found = re.search(r'<pre id="found">([^<]+)</pre>', done.stdout)
    if found is None:
        raise RuntimeError(f"axe gave no answer: {done.stderr[-500:]}")
    return json.loads(html.unescape(found[1]))


def console(page: Path) -> list[str]:
    """Give what a page writes to the console when it is opened as it is."""
    done = _opened(page, 1280, 900, False, "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom")
    return re.findall(r".*CONSOLE.*", done.stderr)


def pictured(page: Path, out: Path, width: int, height: int, dark: bool) -> None:
    """Keep what is seen."""
    _opened(page, width, height, dark, "--hide-scrollbars", f"--screenshot={out.absolute()}")


def faults(page: Path, axe: Path, width: int, dark: bool) -> list[str]:
    """Say what is wrong with a page at a width and in a scheme."""
    found = examined(page, axe, width, dark)
    if found["dark"] != dark or found["width"] != width:
        raise RuntimeError(f"this Chromium shows no page of width {width}, dark {dark}: {found}")
    # On a phone much of a table lies out of sight, of which axe does not tell the contrast: it is seen on the desk.
    undecided = [each for each in found["incomplete"] if each[0] == "color-contrast" and width == WIDTHS["desk"]]
    said = [
        f"{rule}: {what} ({count} times, {where})" for rule, what, count, where in [*found["violations"], *undecided]
    ]
    if found["scrolled"] > found["width"]:
        said.append(f"the page is {found['scrolled']} pixels wide in a window of {found['width']}")
    return said


def main(question: Question) -> None:
    """Look at each page."""
    bad = 0
    for page in question.pages:
        said = console(page)
        for (name, width), dark in product(WIDTHS.items(), (False, True)):
            said += [f"{name}, {'dark' if dark else 'light'}: {f}" for f in faults(page, question.axe, width, dark)]
            if question.pictures is not None:
                question.pictures.mkdir(parents=True, exist_ok=True)
                kind = f"{page.parent.name}-{name}-{'dark' if dark else 'light'}.png"
                pictured(page, question.pictures / kind, width, question.height, dark)
        print(f"{page}: {'; '.join(said) or 'no faults'}", flush=True)
        bad += bool(said)
    raise SystemExit(int(bad > 0))


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
