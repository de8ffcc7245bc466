"""What is staged as a Space holds what the app needs and nothing else, and is checked before it is uploaded."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from repository import ROOT

from dermadeit import load_predictor
from dermadeit.errors import ConfigurationError
from dermadeit.publishing.space import check_space, stage_space

PYTHON = ">=3.11"


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The staged Space of this checkout."""
    folder = tmp_path_factory.mktemp("space")
    stage_space(folder)
    return folder


def test_it_holds_what_the_app_needs(staged: Path) -> None:
    assert {path.name for path in staged.iterdir()} >= {
        "app.py",
        "README.md",
        "requirements.txt",
        "dermadeit",
        "assets",
    }
    assert not {"tests", "train", "benchmarks", ".git"} & {path.name for path in staged.iterdir()}
    packages = (staged / "requirements.txt").read_text(encoding="utf-8")
    assert "gradio" in packages
    assert "accelerate" not in packages


@pytest.mark.slow
def test_the_staged_folder_serves(staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    command = [sys.executable, "app.py"]
    with subprocess.Popen(command, cwd=staged, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any("Running on" in line for line in process.stdout), "app.py ended before it served"
            address = f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(f"{address}/healthz") as answer:
                assert json.load(answer)["status"] == "ok"
            example = ROOT / "assets" / "examples" / "ISIC_0000185.jpg"
            client = Client(address, verbose=False)
            [record] = client.predict(handle_file(example), "binary", api_name="/predict")
            client.close()
        finally:
            process.terminate()
    [expected] = load_predictor("binary").predict([example])
    assert record["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-3)


@pytest.fixture
def copied(staged: Path, tmp_path: Path) -> Path:
    """The two files of a staged Space that are checked, and an app."""
    for name in ("README.md", "requirements.txt", "app.py"):
        shutil.copyfile(staged / name, tmp_path / name)
    assert list(check_space(tmp_path, PYTHON)) == []
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("README.md", "sdk_version: 6.", "sdk_version: 5."),
        ("README.md", 'python_version: "3.12"', "python_version: 3.10"),
        ("README.md", 'python_version: "3.12"', 'python_version: "3.10"'),
        ("README.md", 'python_version: "3.12"\n', ""),
        ("README.md", "app_file: app.py", "app_file: main.py"),
        ("README.md", "colorTo: blue", "colorTo: teal"),
        ("README.md", "short_description: ", f"short_description: {60 * 'x'}"),
        ("requirements.txt", "torch>=2.6,<2.12", "torch>=2.6,<3"),
    ],
)
def test_what_the_hub_would_refuse_is_found(copied: Path, name: str, old: str, new: str) -> None:
    text = (copied / name).read_text(encoding="utf-8")
    assert old in text
    (copied / name).write_text(text.replace(old, new), encoding="utf-8")
    assert len(list(check_space(copied, PYTHON))) == 1


def test_files_that_git_does_not_know_stay_behind(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "assets").mkdir(parents=True)
    for name in ("README.md", "requirements.txt", "app.py", "pyproject.toml", "Dockerfile"):
        shutil.copyfile(ROOT / name, checkout / name)
    (checkout / "assets" / "style.css").write_text("")
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    (checkout / "assets" / "patient.jpg").write_bytes(b"")
    files = stage_space(tmp_path / "staged", checkout=checkout)
    assert [path.name for path in files] == ["README.md", "app.py", "style.css", "requirements.txt"]
    stage_space(tmp_path / "docker", checkout=checkout, docker=True)
    assert (tmp_path / "docker" / "Dockerfile").is_file()
    assert "sdk: docker\napp_port: 7860\n---\n" in (tmp_path / "docker" / "README.md").read_text(
        encoding="utf-8"
    )
    with pytest.raises(ConfigurationError, match="not empty"):
        stage_space(tmp_path / "staged", checkout=checkout)


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    subprocess.run([hadolint, ROOT / "Dockerfile"], check=True)
