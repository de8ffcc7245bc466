"""Fixtures of the training tests."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps precision and device for a whole process; each test is a program of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def own_checkpoint(checkpoint_root: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of a checkpoint that may have been cross-fitted."""

    def make(name: str, model: str = "mobilenetv2", task: str = "binary", **configuration: int) -> Path:
        folder = Path(shutil.copytree(checkpoint_root / task / model, tmp_path / name))
        if configuration:
            (folder / "training.json").write_text(json.dumps({"configuration": configuration}))
        return folder

    return make
