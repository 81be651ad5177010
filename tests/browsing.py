"""What every page of kerastl is held to in a browser."""

import contextlib

import pytest


@contextlib.contextmanager
def watched_page(browser, width, scheme):
    """Give a page, what its console and errors told, and the addresses that it asked for."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    told, asked = [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: told.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    yield page, told, asked
    context.close()


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
