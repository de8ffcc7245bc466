"""What surrounds the tabs: the tab bar, the header, the start, `/healthz`, and README's example for programs."""

import hashlib
import importlib
import platform
import re
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from repository import ROOT

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.inference.zoo import ModelZoo
from dermadeit.views.application import TAB_TITLES, build_app, launch_options
from dermadeit.views.page.theme import style_sheets

TAB_BAR = "#tabs > .tab-wrapper [role=tab]"


def expect_tab(page, key):
    """Waits until a tab is the chosen one."""
    expect(page.locator(f"{TAB_BAR}[aria-selected=true]")).to_have_attribute("data-tab-id", key)


def test_healthz_says_what_answers(app_url, predictors, checkpoint_root):
    reply = httpx.get(f"{app_url}/healthz")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    content = reply.json()
    weights = {task: checkpoint_root / task / "dermadeit" / "model.safetensors" for task in predictors}
    assert content.pop("checkpoints") == {
        f"{task}/dermadeit": hashlib.sha256(path.read_bytes()).hexdigest() for task, path in weights.items()
    }
    assert content.pop("runtimes") == {f"{task}/dermadeit": "torch" for task in predictors}
    assert content.pop("torch")
    assert content.pop("gradio")
    assert content == {"status": "ok", "version": VERSION, "python": platform.python_version()}


def test_healthz_can_only_be_read(app_url):
    assert httpx.post(f"{app_url}/healthz", json={}).status_code == 405


@pytest.mark.parametrize("installed", [False, True])
def test_the_endpoints_are_mcp_tools_where_the_package_is_there(predictors, monkeypatch, tmp_path, installed):
    if installed:
        (tmp_path / "mcp").mkdir()
        (tmp_path / "mcp" / "__init__.py").write_text("raise RuntimeError('looked for, never imported')")
    # Whether it is really installed must make no difference.
    others = [folder for folder in sys.path if not (Path(folder) / "mcp").exists()]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *others])
    monkeypatch.delitem(sys.modules, "mcp", raising=False)
    importlib.invalidate_caches()
    assert launch_options(predictors)["mcp_server"] is installed


def test_the_style_of_the_shell_comes_before_that_of_the_tabs():
    names = [path.name for path in style_sheets()]
    assert names[0] == "style.css"
    assert set(names) == {path.name for path in (ROOT / "assets").glob("style*.css")}


def test_nothing_is_loaded_or_drawn_before_it_is_looked_at(predictors, zoo, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("done at the start")

    monkeypatch.setattr(ModelZoo, "predictor", refuse)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", refuse)
    build_app(predictors, zoo)


def test_the_page_is_sent_compressed(app_url):
    reply = httpx.get(app_url, headers={"accept-encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"


@pytest.mark.browser
def test_every_tab_has_an_address(open_tab, app_url):
    page = open_tab()
    expect(page.locator(TAB_BAR)).to_have_text(list(TAB_TITLES.values()))
    for key in reversed(TAB_TITLES):
        page.locator(f"#panel-{key}-button").click()
        page.wait_for_function("key => location.hash === '#' + key", arg=key)
        expect(page.locator(f"#panel-{key}")).to_be_visible()
        assert DISCLAIMER in page.inner_text("header")
    other = page.context.new_page()
    other.set_default_timeout(60_000)
    other.goto(f"{app_url}/#training")
    other.wait_for_selector("#panel-training", state="visible")
    expect_tab(other, "training")
    page.locator("#panel-comparison-button").click()
    page.locator("#compare-task input[value=multiclass]").check()
    page.wait_for_function("() => location.hash === '#comparison,multiclass'")
    other.goto("about:blank")
    other.goto(f"{app_url}/#comparison,multiclass")
    expect(other.locator("#compare-task input[value=multiclass]")).to_be_checked()
    other.locator("footer").get_by_role("link", name="Glossary").click()
    expect(other.locator("#glossary dt").first).to_be_visible()


@pytest.mark.browser
def test_the_header_leads_to_the_model_card(open_tab):
    page = open_tab()
    page.evaluate("window.here = true")
    page.locator("header").get_by_role("link", name="Model card").click()
    page.wait_for_selector("#panel-training", state="visible")
    expect(page.get_by_role("heading", name="Model card").first).to_be_visible()
    page.go_back()
    page.wait_for_selector("#panel-single", state="visible")
    # Results and the theme of the address are still there.
    assert page.evaluate("window.here") is True
    assert "__theme=" in page.url


@pytest.mark.browser
def test_the_keyboard_skips_the_header_and_contents_lead_to_the_parts_of_a_tab(open_tab):
    page = open_tab("training", width=390)
    page.get_by_role("link", name="Ablations").click()
    expect(page.locator("#ablations")).to_be_focused()
    expect(page.locator("#ablations")).to_be_in_viewport()
    skip = page.get_by_role("link", name="Skip to the open tab")
    skip.focus()
    skip.press("Enter")
    expect(page.locator("#panel-training")).to_be_focused()
    assert page.locator("footer").get_by_role("link", name="API").count() == 1
    # Logo, name and link in one line.
    tops = [page.locator(f"header {part}").bounding_box() for part in ("svg", "h1", "a[href='#training']")]
    middles = [box["y"] + box["height"] / 2 for box in tops]
    assert max(middles) - min(middles) < 12


@pytest.mark.browser
def test_groups_of_choices_have_names(open_tab):
    page = open_tab()
    for key in TAB_TITLES:
        page.locator(f"#panel-{key}-button").click()
        expect(page.locator(f"#panel-{key} fieldset").first).to_have_attribute("aria-label", re.compile("."))
    expect(page.locator("#tabs fieldset:not([aria-label])")).to_have_count(0)


@pytest.mark.browser
def test_the_tab_bar_is_one_stop_with_arrow_keys(open_tab):
    page = open_tab()
    keys = list(TAB_TITLES)
    page.locator("#panel-single-button").focus()
    for press, expected in [
        ("ArrowRight", keys[1]), ("ArrowLeft", keys[0]), ("ArrowLeft", keys[-1]), ("ArrowRight", keys[0]),
        ("End", keys[-1]), ("Home", keys[0]),
    ]:  # fmt: skip
        page.keyboard.press(press)
        page.wait_for_selector(f"#panel-{expected}", state="visible")
        expect(page.locator(f"#panel-{expected}-button")).to_be_focused()
        expect_tab(page, expected)
    page.keyboard.press("Tab")
    assert page.evaluate("!!document.activeElement.closest('#panel-single')")
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#panel-single-button")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == "Model card"
