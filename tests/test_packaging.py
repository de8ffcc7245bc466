"""What `pip install .` puts into an environment works from any folder, without the checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into; what it depends on comes from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--quiet")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(ROOT)]
    subprocess.run(command, check=True, cwd=folder)
    return folder


def run(installed: Path, *command: str) -> str:
    """What a command prints where nothing of the checkout can be imported."""
    environment = os.environ | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command,
        cwd=installed.anchor,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    return done.stdout


def test_the_command_reads_an_example_from_another_folder(installed: Path) -> None:
    example = installed / "dermadeit/assets/examples/ISIC_0000002.jpg"
    script = installed / "bin" / "dermadeit"
    printed = run(installed, str(script), "predict", str(example), "--task", "binary", "--format", "jsonl")
    assert json.loads(printed)["status"] == "ok"


def test_the_library_finds_checkpoints_examples_and_style(installed: Path) -> None:
    program = """\
import dermadeit, json
from dermadeit.views.page.examples import read_examples
from dermadeit.views.page.theme import style_sheets

[prediction] = dermadeit.load_predictor("multiclass").predict([read_examples()[0].path])
print(json.dumps([dermadeit.__file__, prediction.label, len(style_sheets())]))
"""
    file, label, sheets = json.loads(run(installed, sys.executable, "-c", program))
    assert Path(file).is_relative_to(installed)
    assert label in ("mel", "bcc", "scc")
    assert sheets > 0
