"""axe-core over every tab, empty and filled, in light and dark, on a wide and a narrow screen, finds nothing."""

from itertools import product

import pytest
from axe_playwright_python.sync_playwright import Axe
from filled_tabs import FILL

from dermadeit.views.application import TAB_TITLES

pytestmark = pytest.mark.browser

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
WIDTHS = (1280, 320)
WIDEST = 1920
INNER_PANELS = {"comparison": ("Published figures",)}
"""Key of a tab to the panels within it that are not open at first."""
OPENED = {"batch": ("#batch-gallery [data-pick^=open]", "dialog.dd-viewer[open] img")}
"""Key of a tab to what opens something over it, and to what is seen then."""

# What is still half faded has another contrast.
STILL = """() => !document.querySelector('.pending, .generating')
  && document.getAnimations().every(motion => motion.playState !== 'running')"""


def violations(page):
    """What axe finds, one readable line an element; and whether the page scrolls sideways."""
    page.wait_for_function(STILL)
    found = Axe().run(page, options={"runOnly": list(RULES), "resultTypes": ["violations"]}).response
    lines = [
        f"{rule['id']} ({rule['impact']}): {' '.join(map(str, node['target']))}: {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
    return lines + overflow(page)


def overflow(page):
    """Whether the page scrolls sideways, as a line."""
    width = page.evaluate("document.documentElement.scrollWidth")
    return [f"The page is {width} px wide."] * (width > page.viewport_size["width"])


@pytest.mark.parametrize("key", TAB_TITLES)
def test_axe_finds_nothing_and_nothing_overflows(open_tab, key):
    page = open_tab(key)
    found = {"empty": violations(page)}
    FILL[key](page)
    for dark, width in product((False, True), WIDTHS):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        page.set_viewport_size({"width": width, "height": 900})
        found[f"{width} px, {'dark' if dark else 'light'}"] = violations(page)
    for name in INNER_PANELS.get(key, ()):
        page.get_by_role("tab", name=name).click()
        page.wait_for_selector(f"[role=tab][aria-selected=true]:has-text('{name}')")
        found[f"{name}, dark"] = violations(page)
    if key in OPENED:
        opener, opened = OPENED[key]
        page.locator(opener).first.click()
        page.wait_for_selector(opened)
        found["opened, dark"] = violations(page)
    page.set_viewport_size({"width": WIDEST, "height": 900})
    found[f"{WIDEST} px"] = overflow(page)
    assert {where: lines for where, lines in found.items() if lines} == {}
