"""Fixtures that several test files share, and their order. Everything is synthetic and made on the spot."""

import gc
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from dermadeit.data.synthetic import write_dataset
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.models.checkpoints import save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import BINARY, DIAGNOSIS, MULTICLASS

TINY_IMAGE_SIZE = 64

# The reference runs the tests, in programs that they start too: what it says is the same to the last digit. The
# tests of the other runtime ask for it.
os.environ["DERMADEIT_RUNTIME"] = "torch"


# What is imported and collected stays. To look for garbage in it meanwhile, and in every test, takes longer.
gc.disable()

_SECONDS = {"browser": 5.0, "slow": 2.0}
"""About what a test takes that is marked so."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: of processes side by side, none then ends long after the others."""
    seconds: Counter[Path] = Counter()
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        seconds[item.path] += max((_SECONDS[name] for name in marks & _SECONDS.keys()), default=0.05)
    items.sort(key=lambda item: -seconds[item.path])


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def checkpoint_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of all diagnoses with random weights; below `binary` and `multiclass`, of fewer classes."""
    root = tmp_path_factory.mktemp("checkpoints")
    for folder, task in ((root, DIAGNOSIS), *((root / task.key, task) for task in (BINARY, MULTICLASS))):
        for name in ("dermadeit", "mobilenetv2"):
            torch.manual_seed(0)
            classifier = create_classifier(name, len(task.classes), image_size=TINY_IMAGE_SIZE)
            save_checkpoint(folder / name, classifier, task, Preprocessing(TINY_IMAGE_SIZE))
    return root


@pytest.fixture(scope="session")
def predictors(checkpoint_root: Path) -> dict[str, Predictor]:
    """Task key to a DermaDeiT predictor with random weights, each of a network of just these classes."""
    return {key: load_predictor(key, root=checkpoint_root / key) for key in (BINARY.key, MULTICLASS.key)}


@pytest.fixture(scope="session")
def synthetic_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with synthetic lesions of every diagnosis in every split, and their `manifest.csv`."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_dataset(folder, lesions=64, seed=0, size=(96, 80))
    return folder


@pytest.fixture(scope="session")
def lesion_files(synthetic_data: Path) -> list[Path]:
    """A few synthetic photos."""
    return sorted((synthetic_data / "images").iterdir())[:6]


@pytest.fixture(scope="session")
def chromium():
    """A headless browser; a process can drive only one."""
    from chromium import find_chromium
    from playwright.sync_api import expect, sync_playwright
    from visitor import PATIENCE_MS

    # The default of five seconds is too short beside other tests.
    expect.set_options(timeout=PATIENCE_MS)
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    arguments = [
        "--headless=new",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        # A camera that shows a test picture to whoever asks.
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        *(["--no-sandbox"] if is_root else []),
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=arguments)
        yield browser
        browser.close()
