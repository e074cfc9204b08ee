"""The report as a browser shows it: axe finds no fault, nothing is written to the console, no page moves sideways.

Needs a Chromium, and FEWLABELS_AXE, the path of axe.min.js (`npm pack axe-core` has it).
"""

import os
from pathlib import Path

import pytest

from benchmarks.look import WIDTHS, browser, console, faults
from benchmarks.report import Case, made_up, write_run
from fewlabels.classify.report.write import write_report

AXE = Path(os.environ.get("FEWLABELS_AXE", ""))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="no Chromium is installed"),
    pytest.mark.skipif(not AXE.is_file(), reason="FEWLABELS_AXE names no axe.min.js"),
]


@pytest.fixture(scope="module", params=[6, 60], ids=["few classes", "many classes"])
def page(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("look")
    write_run(folder)
    summary, findings = made_up(Case(rows=1000, classes=request.param, side=48, letters=70))
    write_report(
        folder,
        summary | {"warnings": [{"id": "collapse", "severity": "high", "text": "Beware: try `--lr 0.01`."}]},
        findings,
    )
    return folder / "report.html"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_axe_finds_no_fault_and_the_page_does_not_move_sideways(page, width, dark):
    assert faults(page, AXE, width, dark) == []


def test_nothing_is_written_to_the_console(page):
    assert console(page) == []


def test_a_fault_is_found(page, tmp_path):
    """What the checks are worth: an image without a text, gray on white, and a page that is too wide."""
    bad = tmp_path / "bad.html"
    more = '<p style="color: #bbb; width: 3000px">pale</p><img src="data:,"><script>console.log("said")</script></main>'
    text = page.read_text().replace("</main>", more).replace("default-src 'none'", "default-src data:")
    bad.write_text(text)
    said = " ".join(faults(bad, AXE, 390, False))
    assert "image-alt" in said and "color-contrast" in said and "pixels wide in a window of 390" in said
    assert console(bad)
