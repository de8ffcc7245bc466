"""The app as a process of its own, with a cache that can be looked into, and calls of it as programs make them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from raw_calls import file_record
from repository import ROOT

PATIENCE_S = 600
"""For an answer on a busy machine."""


@dataclass(frozen=True)
class RunningApp:
    """A process that serves the app.

    Attributes:
        url: Its address.
        cache: Folder that holds the folder of its uploads.
        process: The process; None where the app runs in this one.
    """

    url: str
    cache: Path
    process: subprocess.Popen | None = None

    def upload(self, data: bytes, name: str = "photo.jpg") -> dict[str, Any]:
        """Uploads a file; the record to hand in."""
        answer = httpx.post(
            f"{self.url}/gradio_api/upload", files={"files": (name, data)}, timeout=PATIENCE_S
        )
        [path] = answer.raise_for_status().json()
        return {**file_record(path), "orig_name": name}

    def start(self, endpoint: str, data: Sequence[Any]) -> str:
        """Calls an endpoint; the id of the event."""
        answer = httpx.post(
            f"{self.url}/gradio_api/call/{endpoint}", json={"data": list(data)}, timeout=PATIENCE_S
        )
        return answer.raise_for_status().json()["event_id"]

    def finish(self, endpoint: str, event_id: str) -> tuple[str, Any]:
        """The last event of a call, and what it says."""
        answer = httpx.get(f"{self.url}/gradio_api/call/{endpoint}/{event_id}", timeout=PATIENCE_S)
        lines = answer.raise_for_status().text.strip().splitlines()
        return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))

    def call(self, endpoint: str, *data: Any) -> tuple[str, Any]:
        """As `start` and `finish`."""
        return self.finish(endpoint, self.start(endpoint, data))

    def predict(self, photo: bytes, name: str = "photo.jpg", task: str = "binary") -> dict[str, Any]:
        """The record that `/predict` gives for a photo."""
        event, answer = self.call("predict", self.upload(photo, name), task)
        assert event == "complete", answer
        [[record]] = answer
        return record

    def is_up(self) -> bool:
        """Whether it answers."""
        return httpx.get(f"{self.url}/healthz", timeout=PATIENCE_S).json()["status"] == "ok"

    def kept(self) -> list[Path]:
        """The files in its cache."""
        return [path for path in self.cache.rglob("*") if path.is_file()]


@contextmanager
def running_app(
    environment: Mapping[str, str] | None = None, cache: Path | None = None
) -> Iterator[RunningApp]:
    """Runs `python app.py` with the embedded checkpoints for as long as the block lasts.

    Args:
        environment: More of its environment.
        cache: Folder that it may keep its uploads in; one of its own without it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        folder = cache or Path(own)
        whole = os.environ | {
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(folder),
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        log = (folder / "log.txt") if cache is None else (cache.parent / f"{cache.name}.log")
        with (
            log.open("w") as errors,
            subprocess.Popen(
                [sys.executable, "app.py"],
                cwd=ROOT,
                env=whole,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            try:
                if not any("Running on" in line for line in process.stdout):
                    raise RuntimeError(f"app.py ended before it served: {log.read_text()}")
                yield RunningApp(f"http://127.0.0.1:{port}", folder, process)
            finally:
                process.terminate()
