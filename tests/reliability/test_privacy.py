"""What leaves the process, and what outlives it: nothing. Each night, with processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from odd_photos import GPS_MARK, photo_with_metadata
from odd_sets import in_class_folders
from repository import ROOT
from running_app import running_app

pytestmark = pytest.mark.nightly

_WATCHED = """
import socket, sys
def refuse(*asked, **_):
    sys.stderr.write(f"asked for {asked}\\n")
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from dermadeit.cli import app
app(sys.argv[1:])
"""


def _watched(*arguments: str) -> subprocess.CompletedProcess:
    """A command, with every look-up and connection refused and told."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    return subprocess.run(
        [sys.executable, "-c", _WATCHED, *arguments],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name, data in (in_class_folders() | {"nevus/place.jpg": photo_with_metadata()}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_no_command_asks_for_another_host_or_keeps_a_place(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments in (
        ["predict", str(photos), "--task", "binary", "--saliency", str(out / "overlays")],
        ["evaluate", str(photos), "--task", "binary", "--views", "1", "--output", str(out / "evaluation")],
        ["models"],
        ["doctor"],
    ):
        done = _watched(*arguments)
        assert done.returncode in (0, 3), done.stderr[-2000:]
        assert "asked for" not in done.stderr
        assert GPS_MARK.decode() not in done.stdout + done.stderr
    written = [path for path in out.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if GPS_MARK in path.read_bytes()]


def test_uploads_are_gone_when_the_app_has_ended(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with running_app(cache=cache) as app:
        app.upload(photo_with_metadata())
        assert app.kept()
        app.process.terminate()
        app.process.wait()
        assert app.kept() == []
