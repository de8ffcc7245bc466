"""Rows of the table: how long a fresh process takes, of the command line and of the app."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.speed.peer import COLD_START
from benchmarks.speed.photos import make_photos
from benchmarks.speed.rounds import take_turns
from benchmarks.speed.row import OURS, PEER, make_row, times_the_peer

ROOT = Path(__file__).resolve().parents[2]

_LONGEST = 120
"""Seconds after which a process is taken to be stuck."""


def measure_start_up(
    task: str, checkpoint: Path | None, peer_folder: Path, rounds: int
) -> list[dict[str, Any]]:
    """Commands, the first label of a fresh process, and the app.

    Args:
        task: A task that the model answers.
        checkpoint: The model in place of the embedded one.
        peer_folder: Where transformers finds the same weights.
        rounds: How often each process is started.
    """
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(make_photos(1)[0])
        ours = ["-m", "dermadeit"]
        own = ["--model", str(checkpoint)] if checkpoint else []
        label = [*ours, "predict", str(photo), "--task", task, "--views", "1", *own]
        peer = ["-c", COLD_START, str(peer_folder), str(photo)]
        arms = {
            "version": lambda: _run([*ours, "--version"]),
            "models": lambda: _run([*ours, "models"]),
            OURS: lambda: _run(label),
            PEER: lambda: _run(peer),
        }
        seconds = take_turns(arms, least=rounds, most=rounds, warm_up=False)
        opened = [_open_app(task, checkpoint, photo, Path(folder)) for _ in range(rounds)]
    pages, answers = zip(*opened, strict=True)
    cold = {PEER: seconds[PEER], OURS: seconds[OURS]}
    return [
        make_row("`dermadeit --version`", "s", {OURS: seconds["version"]}, asked="at most 1.5 s"),
        make_row("`dermadeit models`", "s", {OURS: seconds["models"]}, asked="at most 1.5 s"),
        make_row("A fresh process, until it has labelled one photo", "s", cold, [times_the_peer()]),
        make_row("The app, until its page is served", "s", {OURS: pages}),
        make_row("The app, until it has answered its first photo", "s", {OURS: answers}, asked="at most 5 s"),
    ]


def _run(arguments: Sequence[str]) -> None:
    subprocess.run(  # noqa: S603
        [sys.executable, *arguments],
        cwd=ROOT,
        env=_environment(),
        check=True,
        capture_output=True,
        timeout=_LONGEST,
    )


def _environment(**others: str) -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", **others}


def _open_app(task: str, checkpoint: Path | None, photo: Path, cache: Path) -> tuple[float, float]:
    """Seconds from the start of the app to its page, and to the answer of a photo that is sent then."""
    from gradio_client import Client, handle_file

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "app.py", *(["--checkpoint", str(checkpoint)] if checkpoint else [])]
    environment = _environment(
        GRADIO_SERVER_NAME="127.0.0.1", GRADIO_SERVER_PORT=str(port), GRADIO_TEMP_DIR=str(cache)
    )
    started = time.perf_counter()
    with subprocess.Popen(  # noqa: S603
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait_for(address, process)
            page = time.perf_counter() - started
            client = Client(address, verbose=False)
            [record] = client.predict(handle_file(photo), task, api_name="/predict")
            answer = time.perf_counter() - started
            client.close()
            if record["status"] != "ok":
                raise RuntimeError(f"the app could not read the photo: {record}")
        finally:
            process.terminate()
    return page, answer


def _wait_for(address: str, process: subprocess.Popen) -> None:
    end = time.perf_counter() + _LONGEST
    while process.poll() is None and time.perf_counter() < end:
        try:
            if httpx.get(address, timeout=_LONGEST).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    raise RuntimeError("the app did not start")
