"""A running app with random weights, and a headless chromium to visit it."""

import asyncio
import io
import shutil
import socket
import zipfile
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Whatever needs a running app is slow."""
    for item in items:
        if {"app_url", "start_app"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def zoo(checkpoint_root, predictors):
    """Every compared model; of DermaDeiT and MobileNetV2 there are checkpoints, with random weights."""
    from dermadeit.inference.predictor import load_predictor
    from dermadeit.inference.zoo import ModelZoo

    baselines = {
        task: load_predictor(task, "mobilenetv2", root=checkpoint_root / task) for task in predictors
    }
    loaded = {(task, "dermadeit"): predictor for task, predictor in predictors.items()}
    return ModelZoo(
        checkpoint_root, loaded | {(task, "mobilenetv2"): baseline for task, baseline in baselines.items()}
    )


@pytest.fixture(scope="session", autouse=True)
def event_loops():
    """Closes what Gradio leaves: it makes event loops, in every `Blocks`, that it neither runs nor closes."""
    loops, create_loop = [], asyncio.new_event_loop

    def create_remembered_loop():
        loops.append(create_loop())
        return loops[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", create_remembered_loop)
        yield
    for loop in loops:
        if not loop.is_running():
            loop.close()


@pytest.fixture(scope="session")
def start_app(predictors, zoo):
    """Builds and launches an app on a free port: `start_app()` gives the app and its address.

    `start_app(predictors, zoo)` takes others than those with random weights.
    """
    from dermadeit.views.application import build_app, launch_options

    def start(predictors=predictors, zoo=zoo):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        app = build_app(predictors, zoo)
        options = launch_options(predictors)
        with pytest.MonkeyPatch.context() as patch:
            # Gradio gives up where its page takes three seconds, which it does beside other tests.
            patch.setattr("gradio.networking.url_ok", lambda url: True)
            _, url, _ = app.launch(**options, server_port=port, prevent_thread_lock=True, quiet=True)
        return app, url.rstrip("/")

    return start


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The folder that Gradio keeps uploads in."""
    folder = tmp_path_factory.mktemp("gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def running(cache, start_app):
    """A running app and its address."""
    app, url = start_app()
    yield app, url
    app.close(verbose=False)


@pytest.fixture(scope="session")
def app_url(running):
    """Address of a running app."""
    return running[1]


@pytest.fixture
def open_tab(chromium, app_url):
    """Opens the page at a tab: `open_tab("training", width=320, dark=True)`; nothing may go wrong in it."""
    from visitor import Visit

    visits, contexts = [], []

    def open_page(key="single", width=1280, dark=False):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}))
        visits.append(Visit(contexts[-1].new_page(), f"{app_url}/?__theme={'dark' if dark else 'light'}"))
        visits[-1].page.locator(f"#panel-{key}-button").click()
        visits[-1].page.wait_for_selector(f"#panel-{key}")
        return visits[-1].page

    yield open_page
    for context in contexts:
        context.close()
    assert [visited.errors for visited in visits if visited.errors] == []
    assert [visited.foreign for visited in visits if visited.foreign] == []


@pytest.fixture
def class_zip(tmp_path, photos):
    """A ZIP of the test module's own `photos`, name to bytes."""
    path = tmp_path / "classes.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in photos.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def uploaded(cache):
    """Puts a file where Gradio puts uploads: `uploaded(path)` gives its record."""

    def upload(path):
        folder = Path(cache) / uuid4().hex
        folder.mkdir()
        return {"path": str(shutil.copy(path, folder)), "orig_name": path.name}

    return upload


@pytest.fixture(scope="session")
def encoded_photo():
    """Makes the bytes of a photo, a blob on skin, different for every seed: `encoded_photo(3, "TIFF")`."""

    def encode(seed=0, kind="JPEG", width=240, height=180, **options):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width]
        centre_x, centre_y = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height
        inside = ((x - centre_x) ** 2 + (y - centre_y) ** 2 < (height / 4) ** 2)[..., None]
        skin, mole = rng.integers(150, 240, 3), rng.integers(20, 120, 3)
        pixels = np.where(inside, mole, skin) + rng.integers(-12, 13, (height, width, 3))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def file_of(tmp_path):
    """Writes bytes into a file and returns its path: `file_of(data, "name.jpg")`."""

    def write(data, name="lesion.jpg"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write
