"""What every page of kerastl is held to in a browser."""

import pytest


def check_page(page, width):
    """Check that a page does not scroll sideways, and that axe-core finds no serious violation."""
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="needs axe-core-python")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page)
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert not serious, [
        (one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"])
        for one in serious
    ]
    assert found["passes"]
