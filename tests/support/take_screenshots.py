"""Photographs the app: README's picture, and every tab on a wide and a narrow screen, in light and in dark.

    make screenshots

Starts the app with the embedded checkpoints and shows it the photos that ship with it, no others. Writes
assets/screenshot.png, and the others into screenshots/, which git ignores.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

from chromium import find_chromium
from filled_tabs import FILL
from playwright.sync_api import Browser, Page, sync_playwright
from repository import ROOT

from dermadeit.views.application import TAB_TITLES

README_PICTURE = ROOT / "assets" / "screenshot.png"
GALLERY = ROOT / "screenshots"
WIDTHS = (1440, 390)
PATIENCE_MS = 120_000


def main() -> int:
    """Takes them all; returns the exit code."""
    GALLERY.mkdir(exist_ok=True)
    (GALLERY / ".gitignore").write_text("*\n", encoding="utf-8")
    with served_app() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright))
        for theme in ("light", "dark"):
            for width in WIDTHS:
                for key in TAB_TITLES:
                    with opened(browser, address, key, width, theme) as page:
                        page.screenshot(path=GALLERY / f"{key}-{width}-{theme}.png", full_page=True)
        with opened(browser, address, "single", 1280, "light", height=1100) as page:
            page.screenshot(path=README_PICTURE)
        browser.close()
    sys.stdout.write(f"{README_PICTURE}\n{GALLERY}\n")
    return 0


@contextlib.contextmanager
def served_app() -> Iterator[str]:
    """Address of a process that runs `python app.py`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "app.py"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            if not any("Running on" in line for line in process.stdout):
                raise RuntimeError("app.py ended before it served.")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextlib.contextmanager
def opened(
    browser: Browser, address: str, key: str, width: int, theme: str, height: int = 900
) -> Iterator[Page]:
    """A page at a tab that has been filled."""
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{address}/?__theme={theme}#{key}")
    page.wait_for_selector(f"#panel-{key}", state="visible")
    FILL[key](page)
    # The pointer would leave what it was last on in its hover colour.
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.wait_for_function(
        "() => !document.querySelector('.pending, .generating')"
        " && [...document.images].every(image => image.complete)"
        " && document.getAnimations().every(motion => motion.playState !== 'running')"
    )
    yield page
    context.close()


if __name__ == "__main__":
    sys.exit(main())
