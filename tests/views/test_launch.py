"""The app as its user starts it: `python app.py`, with the embedded checkpoints."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from repository import ROOT

import app
from dermadeit import load_predictor
from dermadeit.errors import CheckpointError
from dermadeit.models.checkpoints import answered_tasks


@pytest.fixture
def served(tmp_path: Path) -> str:
    """Address of a process that runs `python app.py`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(tmp_path),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "app.py"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        ready = any("Running on" in line for line in process.stdout)
        yield f"http://127.0.0.1:{port}" if ready else pytest.fail("app.py ended before it served")
        process.terminate()


@pytest.mark.slow
def test_serves_the_embedded_checkpoints(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client, not the app, would report its start to its makers.
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    client = Client(served, verbose=False)
    example = ROOT / "assets" / "examples" / "ISIC_0000185.jpg"
    for task in (answered.key for answered in answered_tasks()):
        [record] = client.predict(handle_file(example), task, api_name="/predict")
        [expected] = load_predictor(task).predict([example])
        assert record["status"] == "ok"
        assert record["label"] == expected.label
        assert record["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-3)
    client.close()


def test_the_page_opens_without_what_is_slow_to_import() -> None:
    program = (
        "import sys, app\n"
        "app.build_app(predictors := app.load_answering(runtime='auto'), app.ModelZoo())\n"
        "app.launch_options(predictors)\n"
        "print({'torch', 'timm', 'sklearn', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_missing_checkpoint_ends_with_its_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(folder: Path | None, runtime: str) -> None:
        raise CheckpointError("There is no checkpoint for “binary”.", code="no_checkpoint")

    monkeypatch.setattr(app, "load_answering", refuse)
    assert app.main() == 2
    assert capsys.readouterr().err == "There is no checkpoint for “binary”.\n"
