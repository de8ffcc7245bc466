"""Every bad or odd input through the command line as a process, and over HTTP, each night."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases import PhotoCase, SetCase
from odd_photos import PHOTOS, quietly
from odd_sets import SETS
from repository import ROOT
from running_app import RunningApp, running_app

pytestmark = pytest.mark.nightly

_EXIT_CODES = (0, 2, 3)


@pytest.fixture(scope="module")
def app():
    with running_app() as served:
        yield served


def _run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dermadeit", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def test_photos_on_the_command_line(tmp_path: Path) -> None:
    files = []
    for number, case in enumerate(PHOTOS):
        path = tmp_path / f"{number}{Path(case.file).suffix}"
        path.write_bytes(quietly(case.make))
        files.append(str(path))
    done = _run("predict", *files, "--task", "binary", "--views", "1", "--format", "jsonl")
    assert done.returncode == 3, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    given = [(record["error"] or {}).get("code") for record in records]
    assert given == [case.code and str(case.code) for case in PHOTOS]
    answered = [
        case.name
        for case, record in zip(PHOTOS, records, strict=True)
        if case.is_withheld and not record["abstain"]
    ]
    assert answered == []


@pytest.mark.parametrize("case", SETS, ids=[f"{case.row[:30]}: {case.name}" for case in SETS])
def test_a_set_on_the_command_line(case: SetCase, tmp_path: Path) -> None:
    given = case.make()
    if any(".." in name or name.startswith("/") for name in given):
        pytest.skip("no such names on disk")
    for name, data in given.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    only = [name for name in given if name.endswith((".zip", ".csv", ".xlsx"))]
    source = tmp_path / "in" / only[0] if len(only) == 1 else tmp_path / "in"
    options = ["--task", "binary", "--views", "1", "--no-slices", "--output", str(tmp_path / "out")]
    done = _run("evaluate", str(source), *options)
    assert done.returncode in _EXIT_CODES
    assert "Traceback" not in done.stderr
    assert (done.returncode == 2) == bool(case.source_code), done.stderr[-2000:]


@pytest.mark.parametrize("case", PHOTOS, ids=[f"{case.row[:30]}: {case.name}" for case in PHOTOS])
def test_a_photo_over_http(case: PhotoCase, app: RunningApp) -> None:
    record = app.predict(quietly(case.make), case.file)
    assert (record["error"] or {}).get("code") == (case.code and str(case.code))


def test_photos_in_one_batch_over_http(app: RunningApp) -> None:
    """Those that can't be read are rows, the others are answered."""
    given = [case for case in PHOTOS if not case.file.endswith(".txt") and case.row != "file name"]
    uploads = [app.upload(quietly(case.make), f"{number}.jpg") for number, case in enumerate(given)]
    event, answer = app.call("evaluate", uploads, "binary", ["dermadeit"], 1)
    assert event == "complete", answer
    failed = {int(entry["file"].split(".")[0]): entry["code"] for entry in answer[0]["failures"]}
    assert failed == {number: str(case.code) for number, case in enumerate(given) if case.code}


@pytest.mark.parametrize("case", SETS, ids=[f"{case.row[:30]}: {case.name}" for case in SETS])
def test_a_set_over_http(case: SetCase, app: RunningApp) -> None:
    uploads = []
    for name, data in case.make().items():
        uploads.append({**app.upload(data, Path(name).name), "orig_name": name})
    event, answer = app.call("evaluate", uploads, "binary", ["dermadeit"], 1)
    assert "internal error" not in str(answer)
    if case.code:
        assert event == "error", answer
    elif event == "complete":
        read = next(iter(answer[0]["models"].values()))
        assert read["n"] + read["failed"] == case.images
    else:
        assert case.images < 4, answer
