"""Attacks the running app as a stranger would, and says what came of each attempt.

    make attack                     figures for docs/reliability.md

Every attack is a function below; what it claims, it asserts. `test_attack.py` runs them all each night.
"""

from __future__ import annotations

import csv
import io
import itertools
import socket
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
from figures import write_figures
from odd_photos import GPS_MARK, ODD_NAMES, PHOTOS, photo_with_metadata, quietly
from odd_sets import SETS, csv_table, in_class_folders, photos, raw_zip, zipped
from raw_calls import NOT_UPLOADS, SERVER_FILE, file_record
from repository import ROOT
from running_app import PATIENCE_S, RunningApp, running_app

from dermadeit.errors import ErrorCode

ATTACKS: dict[str, Callable[[RunningApp], int]] = {}
"""What is attacked to the attack, which returns the number of attempts."""

_SECRETS = ("root:", "PATH=", "HOME=")
_MARKUP = "<img src=x onerror=alert(1)>"
_REFUSED = (400, 403, 404, 405, 413, 422, 431)


def attack(title: str) -> Callable[[Callable[[RunningApp], int]], Callable[[RunningApp], int]]:
    """Registers an attack."""

    def register(function: Callable[[RunningApp], int]) -> Callable[[RunningApp], int]:
        ATTACKS[title] = function
        return function

    return register


def _endpoints(app: RunningApp) -> dict[str, list[dict]]:
    """Name of each listed endpoint to what it takes."""
    listed = httpx.get(f"{app.url}/gradio_api/info", timeout=PATIENCE_S).json()["named_endpoints"]
    return {name.lstrip("/"): entry["parameters"] for name, entry in listed.items()}


def _filled(parameters: list[dict], payload: object) -> list[object]:
    """Data of a call with the payload in the place of every file."""
    data = []
    for parameter in parameters:
        match parameter["component"]:
            case "Image" | "PhotoInput":
                data.append(payload)
            case "File" | "FilesInput":
                data.append([payload])
            case _:
                data.append(parameter.get("parameter_default"))
    return data


def _holds_no_secret(text: str) -> None:
    assert not any(secret in text for secret in _SECRETS), text[:500]


def _shows_no_defect(text: str) -> None:
    """An exception that is not ours has no words for strangers."""
    _holds_no_secret(text)
    assert not any(words in text for words in ("Traceback", "object has no", "KeyError", str(ROOT))), text[
        :500
    ]


# ---------------------------------------------------------------------------------------------- files


@attack("paths, data URLs and web addresses in place of uploads, at every endpoint")
def _not_uploads(app: RunningApp) -> int:
    count = 0
    for endpoint, parameters in _endpoints(app).items():
        for payload in NOT_UPLOADS.values():
            data = _filled(parameters, payload)
            event, answer = app.call(endpoint, *data)
            _holds_no_secret(str(answer))
            if event == "complete":
                assert str(ErrorCode.NOT_AN_UPLOAD) in str(answer), (endpoint, payload, str(answer)[:500])
            count += 1
    assert app.is_up()
    return count


@attack("files of the server asked for by their path")
def _server_files(app: RunningApp) -> int:
    inside = [
        str(path) for path in (ROOT / "app.py", ROOT / "requirements.txt", ROOT / "dermadeit" / "cli.py")
    ]
    checkpoints = [str(path) for path in (ROOT / "assets" / "checkpoints").rglob("*.safetensors")][:1]
    climbing = [
        f"{'../' * 9}etc/passwd",
        f"{'..%2f' * 9}etc%2fpasswd",
        f"{'%2e%2e/' * 9}etc/passwd",
        "//etc/passwd",
    ]
    paths = [
        SERVER_FILE,
        "/proc/self/environ",
        "file:///etc/passwd",
        str(app.cache),
        *inside,
        *checkpoints,
        *climbing,
    ]
    routes = (
        "gradio_api/file=",
        "gradio_api/file/",
        "file=",
        "static/",
        "assets/",
        "svelte/",
        "gradio_api/proxy=",
    )
    count = 0
    for path, route in itertools.product(paths, routes):
        for spelled in {path, quote(path, safe="")}:
            answer = httpx.get(f"{app.url}/{route}{spelled}", timeout=PATIENCE_S)
            _holds_no_secret(answer.text)
            assert answer.status_code in _REFUSED, (route, spelled, answer.status_code)
            count += 1
    return count


@attack("a link out of the upload folder")
def _links(app: RunningApp) -> int:
    folder = next(path for path in app.cache.iterdir() if path.is_dir())
    link = folder / "link.jpg"
    link.symlink_to(SERVER_FILE)
    try:
        event, answer = app.call("predict", file_record(str(link)), "binary")
        _holds_no_secret(str(answer))
        assert event == "error" or str(ErrorCode.NOT_AN_UPLOAD) in str(answer)
        answer = httpx.get(f"{app.url}/gradio_api/file={link}", timeout=PATIENCE_S)
        _holds_no_secret(answer.text)
        assert answer.status_code in _REFUSED
    finally:
        link.unlink()
    return 2


@attack("uploads whose names climb out of their folder")
def _upload_names(app: RunningApp) -> int:
    names = [
        "../../../up.jpg",
        "/etc/up.jpg",
        "..\\..\\up.jpg",
        "up.jpg\0.png",
        ".",
        "..",
        "x" * 300 + ".jpg",
    ]
    names += list(ODD_NAMES.values())
    for name in names:
        answer = httpx.post(
            f"{app.url}/gradio_api/upload", files={"files": (name, photos()[0])}, timeout=PATIENCE_S
        )
        if answer.status_code == 200:
            [path] = answer.json()
            assert app.cache in Path(path).resolve().parents, path
            event, said = app.call("predict", {**file_record(path), "orig_name": name}, "binary")
            assert event == "complete", said
            assert "/" not in said[0][0]["file"]
        else:
            assert answer.status_code < 500, (name, answer.status_code)
    assert not list(ROOT.glob("up.jpg*"))
    return len(names)


@attack("another visitor's files, runs and events, guessed")
def _other_visitors(app: RunningApp) -> int:
    theirs = app.upload(photos()[1], "theirs.jpg")
    folder = theirs["path"].rsplit("/", 2)[0]
    guesses = [folder, f"{folder}/", f"{folder}/{'0' * 64}/theirs.jpg", f"{folder}/*/theirs.jpg"]
    for guess in guesses:
        event, answer = app.call("predict", file_record(guess), "binary")
        assert event == "error" or answer[0][0]["status"] == "failed", answer
        assert httpx.get(f"{app.url}/gradio_api/file={guess}", timeout=PATIENCE_S).status_code in _REFUSED
        for method in ("DELETE", "PUT", "PATCH"):
            answer = httpx.request(method, f"{app.url}/gradio_api/file={theirs['path']}", timeout=PATIENCE_S)
            assert answer.status_code in _REFUSED
    # What was guessed at is still there for the one whose it is.
    event, [[record]] = app.call("predict", theirs, "binary")
    assert (event, record["status"]) == ("complete", "ok")
    assert not Path(theirs["path"]).exists()
    return 5 * len(guesses)


@attack("events asked for again, made up, or of others")
def _events(app: RunningApp) -> int:
    event_id = app.start("predict", [app.upload(photos()[2]), "binary"])
    assert app.finish("predict", event_id)[0] == "complete"
    count = 1
    for asked in (event_id, "0" * 32, "../queue/data", "x" * 5000, "%00"):
        try:
            with httpx.stream("GET", f"{app.url}/gradio_api/call/predict/{asked}", timeout=5) as answer:
                said = next(answer.iter_text(), "")
        except httpx.TimeoutException:
            said = ""
        assert "probabilities" not in said, said[:300]
        count += 1
    for session in ("", "x", "undefined", event_id):
        answer = httpx.post(
            f"{app.url}/gradio_api/cancel",
            json={"session_hash": session, "fn_index": 0, "event_id": "0" * 32},
            timeout=PATIENCE_S,
        )
        assert answer.status_code < 500
        count += 1
    assert app.is_up()
    return count


@attack("endpoints that do not exist or belong to the page alone")
def _private_events(app: RunningApp) -> int:
    config = httpx.get(f"{app.url}/config", timeout=PATIENCE_S).json()
    private = [entry for entry in config["dependencies"] if entry.get("api_visibility") != "public"]
    assert private
    count = 0
    for name in ("nothing", "predict_1", "decide_1", "..", "upload"):
        for route in ("call", "run", "api"):
            answer = httpx.post(
                f"{app.url}/gradio_api/{route}/{name}", json={"data": [None]}, timeout=PATIENCE_S
            )
            assert answer.status_code >= 400, (route, name, answer.status_code)
            count += 1
    for entry in private:
        named = entry.get("api_name")
        for payload in (file_record(SERVER_FILE), _MARKUP, None):
            if not isinstance(named, str):
                continue
            data = [payload] * len(entry["inputs"])
            answer = httpx.post(f"{app.url}/gradio_api/call/{named}", json={"data": data}, timeout=PATIENCE_S)
            _shows_no_defect(answer.text)
            if answer.status_code == 200:
                # Of the page's own handlers anybody may call those that have a name.
                _, said = app.finish(named, answer.json()["event_id"])
                _shows_no_defect(str(said))
            count += 1
    assert app.is_up()
    return count


@attack("pages of the framework that are not for strangers")
def _routes(app: RunningApp) -> int:
    count = 0
    for route in (
        "monitoring",
        "monitoring/summary",
        "gradio_api/run-history/records",
        "gradio_api/vibe-code/",
    ):
        answer = httpx.get(f"{app.url}/{route}", timeout=PATIENCE_S)
        assert answer.status_code >= 400 or "not enabled" in answer.text or route.startswith("monitoring"), (
            route
        )
        _holds_no_secret(answer.text)
        count += 1
    for route in (
        "gradio_api/vibe-edit",
        "gradio_api/process_recording",
        "gradio_api/component_server",
        "login",
    ):
        answer = httpx.post(f"{app.url}/{route}", json={"prompt": "x"}, timeout=PATIENCE_S)
        assert answer.status_code >= 400, (route, answer.status_code)
        count += 1
    for origin in ("https://evil.example", "null"):
        answer = httpx.get(f"{app.url}/config", headers={"Origin": origin}, timeout=PATIENCE_S)
        assert answer.headers.get("access-control-allow-origin") in (None, app.url), answer.headers
        count += 1
    for query in (
        "__theme=<script>alert(1)</script>",
        "view=<script>alert(1)</script>",
        "task=<script>alert(1)",
    ):
        answer = httpx.get(f"{app.url}/?{query}", timeout=PATIENCE_S)
        assert "<script>alert(1)" not in answer.text
        count += 1
    return count


# ------------------------------------------------------------------------------------ bodies and bombs


@attack("bodies and headers that are too large")
def _too_large(app: RunningApp) -> int:
    answer = httpx.post(
        f"{app.url}/gradio_api/upload", files={"files": ("a.jpg", bytes(110_000_000))}, timeout=PATIENCE_S
    )
    assert answer.status_code == 413
    for headers in ({"X-Long": "x" * 200_000}, {f"X-{number}": "x" * 500 for number in range(300)}):
        try:
            assert httpx.get(app.url, headers=headers, timeout=PATIENCE_S).status_code in _REFUSED
        except httpx.TransportError:
            # It hangs up.
            continue
    deep = b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for body in (deep, b'{"data": [' + b'"x",' * 300_000 + b"1]}", b"{", b"\xff", b""):
        answer = httpx.post(
            f"{app.url}/gradio_api/call/predict",
            content=body,
            headers={"Content-Type": "application/json"},
            timeout=PATIENCE_S,
        )
        _holds_no_secret(answer.text)
    assert app.is_up()
    return 8


@attack("bodies that never end")
def _slow(app: RunningApp) -> int:
    parts = urlsplit(app.url)
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    )
    opened = [socket.create_connection((parts.hostname, parts.port)) for _ in range(100)]
    try:
        for each in opened:
            each.sendall(head.encode())
        # Whoever waits must not keep others from being served.
        assert app.predict(photos()[3])["status"] == "ok"
    finally:
        for each in opened:
            each.close()
    return len(opened)


@attack("bombs: a few bytes that would become gigabytes")
def _bombs(app: RunningApp) -> int:
    bombs = [case for case in PHOTOS if case.code in (ErrorCode.TOO_MANY_PIXELS, ErrorCode.TOO_MANY_BYTES)]
    bombs += [case for case in PHOTOS if "scans" in case.says]
    for case in bombs:
        start = time.monotonic()
        record = app.predict(quietly(case.make), case.file)
        assert record["error"]["code"] == case.code, record
        assert time.monotonic() - start < PATIENCE_S / 10
    archives = [case for case in SETS if case.code and "set.zip" in case.make()]
    for case in archives:
        event, answer = app.call("evaluate", [app.upload(case.make()["set.zip"], "set.zip")], "binary")
        assert event == "error", (case.name, answer)
    zeros = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = zeros.compress(bytes(200_000_000)) + zeros.flush()
    lying = raw_zip([{"name": b"nevus/a.jpg", "data": packed, "method": 8, "size": 15_000_000}])
    _, answer = app.call("evaluate", [app.upload(lying, "set.zip")], "binary")
    assert "internal error" not in str(answer)
    assert app.is_up()
    return len(bombs) + len(archives) + 1


# ------------------------------------------------------------------------------------- what is shown


@attack("HTML and formulas in names and tables, in every download")
def _markup(app: RunningApp) -> int:
    files = {
        f"nevus/{_MARKUP}{number}.jpg".replace("/>", ">"): photo for number, photo in enumerate(photos()[:2])
    }
    files |= {f"others/=cmd(1) {number}.jpg": photo for number, photo in enumerate(photos()[2:])}
    event, answer = app.call("evaluate", [app.upload(zipped(files), "<b>set</b>.zip")], "binary")
    assert event == "complete", answer
    written = httpx.get(answer[1]["url"], timeout=PATIENCE_S).content
    count = 0
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith((".html", ".svg")):
                assert _MARKUP.encode() not in content, name
            if name.endswith(".csv"):
                for row in csv.reader(io.StringIO(content.decode())):
                    assert not [cell for cell in row if cell.startswith(("=", "+", "@", "\t"))], (name, row)
            count += 1
    event, answer = app.call("report", app.upload(photos()[0], f"{_MARKUP}.jpg"), "binary")
    assert event == "complete", answer
    for record in answer:
        if isinstance(record, dict) and record.get("url"):
            content = httpx.get(record["url"], timeout=PATIENCE_S).content
            assert _MARKUP.encode() not in content
            count += 1
    table = csv_table("file,label,lesion_id,source", f'p{{n}}.jpg,{{label}},"=cmd({{n}})","{_MARKUP}"')
    uploads = [app.upload(photo, f"p{number}.jpg") for number, photo in enumerate(photos())]
    event, answer = app.call("evaluate", [*uploads, app.upload(table, "labels.csv")], "binary")
    assert event == "complete", answer
    written = httpx.get(answer[1]["url"], timeout=PATIENCE_S).content
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        for name in archive.namelist():
            if name.endswith((".html", ".svg")):
                assert _MARKUP.encode() not in archive.read(name), name
            count += 1
    return count


# ------------------------------------------------------------------------------------------ privacy


@attack("uploads and metadata left in the cache or the log")
def _left_behind(app: RunningApp) -> int:
    data = photo_with_metadata()
    app.predict(data, "Jane Doe 1986.jpg")
    event, _ = app.call("report", app.upload(data, "Jane Doe 1986.jpg"), "binary")
    assert event == "complete"
    event, answer = app.call(
        "evaluate", [app.upload(zipped(in_class_folders() | {"nevus/x.jpg": data}), "Jane.zip")], "binary"
    )
    assert event == "complete", answer
    for path in app.kept():
        content = path.read_bytes()
        assert GPS_MARK not in content, path
        assert data not in content, path
        if path.name == "log.txt":
            assert b"Jane" not in content
    return 3


@attack("what the page is allowed to keep in the browser")
def _browser_storage(app: RunningApp) -> int:
    answer = httpx.get(app.url, timeout=PATIENCE_S)
    assert "set-cookie" not in answer.headers or "photo" not in answer.headers["set-cookie"]
    own = [
        path.read_text(encoding="utf-8")
        for path in (ROOT / "assets").rglob("*.js")
        if "reader" not in path.parts
    ]
    assert own
    assert not [text for text in own if "localStorage" in text or "indexedDB" in text]
    return 1 + len(own)


def run_attacks(app: RunningApp) -> dict[str, dict[str, object]]:
    """What came of every attack: attempts, and what went wrong, empty where nothing did."""
    found = {}
    for title, function in ATTACKS.items():
        start, failure, attempts = time.monotonic(), "", 0
        try:
            attempts = function(app)
        except (AssertionError, httpx.HTTPError, OSError, ValueError, KeyError, struct.error) as error:
            failure = f"{type(error).__name__}: {error}"[:1000]
        found[title] = {"attempts": attempts, "failure": failure, "seconds": time.monotonic() - start}
        sys.stderr.write(f"{title}: {failure or 'held'}\n")
    return found


def main() -> int:
    """Attacks, writes the figures, and returns 1 where something gave way."""
    with running_app() as app:
        found = run_attacks(app)
    write_figures("attack", {"attacks": found})
    return int(any(entry["failure"] for entry in found.values()))


if __name__ == "__main__":
    sys.exit(main())
