"""The page that reads photos in the browser: our answer, without a connection, and without asking anybody."""

import functools
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from eight_diagnoses import VIEWS, eight_diagnoses_root
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from dermadeit.errors import ConfigurationError
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import Checkpoint, load_checkpoint
from dermadeit.publishing.web_export import RUNTIME_PACKAGE, RUNTIME_VERSION, export_web

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def checkpoint(synthetic_data: Path) -> Checkpoint:
    """A calibrated network of eight diagnoses."""
    return load_checkpoint(eight_diagnoses_root(synthetic_data) / "dermadeit")


@pytest.fixture(scope="module")
def address(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the exported folder is served as static files."""
    package = Path(sys.prefix) / f"{RUNTIME_PACKAGE}-{RUNTIME_VERSION}.tgz"
    if not package.is_file():
        pytest.skip(f"no {package.name}; “make .venv/.onnxruntime-web” fetches it")
    folder = tmp_path_factory.mktemp("web")
    export_web(checkpoint, folder, VIEWS, package)
    handler = functools.partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".wasm": "application/wasm",
        ".mjs": "text/javascript",
    }

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page(address: str, chromium: Browser) -> Iterator[Page]:
    """The loaded page, whose network has just been cut."""
    with chromium.new_context() as context:
        page = context.new_page()
        asked, faults = [], []
        page.on("request", lambda request: asked.append((request.method, request.url)))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(f"{address}/index.html")
        expect(page.locator("#status")).to_contain_text("Ready", timeout=PATIENCE_MS)
        context.set_offline(True)
        before = list(asked)
        yield page
        assert [one for one in asked if one not in before and not one[1].startswith("blob:")] == []
        assert all(method == "GET" and url.startswith((address, "data:")) for method, url in before)
        assert faults == []


def _read(page: Page, photo: Path) -> dict[str, float]:
    """Percent of each class of every task, by its name on the page."""
    page.locator("#photo").set_input_files(photo)
    expect(page.locator("#status")).to_have_text("The photo was read.", timeout=PATIENCE_MS)
    rows = page.locator("#tasks tr").all()
    return {
        row.locator("th").inner_text().removesuffix(" (prediction)"): float(
            row.locator("td").last.inner_text().removesuffix(" %")
        )
        for row in rows[:8]
    }


def test_it_gives_our_answer_with_the_network_cut(
    checkpoint: Checkpoint, page: Page, lesion_files: list[Path]
) -> None:
    photos = [next(path for path in lesion_files if path.suffix == kind) for kind in (".png", ".jpg")]
    for photo, tolerance in zip(photos, (0.11, 1.0), strict=True):
        shown = _read(page, photo)
        [record] = Predictor(checkpoint).predict([photo], VIEWS)
        expected = {
            checkpoint.network.display_names[key]: 100 * share
            for key, share in record.class_probabilities.items()
        }
        assert shown == pytest.approx(expected, abs=tolerance)
        predicted = page.locator("#tasks section").first.locator("tr.predicted th").inner_text()
        assert (
            predicted
            == f"{checkpoint.network.display_names[record.readings['diagnosis'].label]} (prediction)"
        )
    assert page.locator("#tasks section").count() == len(checkpoint.tasks)
    assert "Not a medical device" in page.locator("#disclaimer").inner_text()


def test_a_file_that_is_no_photo_is_refused_and_the_next_one_is_read(
    page: Page, lesion_files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    page.locator("#photo").set_input_files(tmp_path / "text.jpg")
    expect(page.locator("#status")).to_contain_text("no photo that the browser can read", timeout=PATIENCE_MS)
    expect(page.locator("#answer")).to_be_hidden()
    assert _read(page, lesion_files[0])


def test_photos_are_squashed_as_pillow_does(address: str, page: Page) -> None:
    page.context.set_offline(False)
    generator = np.random.default_rng(0)
    for height, width, size, kind in (
        (97, 150, 64, "bicubic"),
        (40, 30, 64, "bicubic"),
        (97, 150, 64, "bilinear"),
    ):
        photo = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        rgba = np.dstack([photo, np.full((height, width), 255, dtype=np.uint8)]).ravel().tolist()
        program = """async ([rgba, width, height, size, kind]) => {
            const { squash } = await import("./squash.js");
            return [...squash(rgba, width, height, size, kind)];
        }"""
        found = page.evaluate(program, [rgba, width, height, size, kind])
        expected = Image.fromarray(photo).resize((size, size), Image.Resampling[kind.upper()])
        np.testing.assert_array_equal(np.reshape(found, (size, size, 3)), np.asarray(expected))


def test_another_package_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "left-pad"}')
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as archive:
        archive.add(tmp_path / "package.json", "package/package.json")
    (tmp_path / "text.tgz").write_text("no archive")
    for name in ("other.tgz", "text.tgz"):
        with pytest.raises(ConfigurationError, match="onnxruntime-web"):
            export_web(checkpoint, tmp_path / "web", 1, tmp_path / name)
