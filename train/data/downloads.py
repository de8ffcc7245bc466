"""Large files from a web server: resumed where they were cut off, and never left half written under their name."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from dermadeit.about import VERSION
from dermadeit.errors import DermaDeiTError
from dermadeit.files import write_json

logger = logging.getLogger(__name__)

CHECKSUMS_FILE = "checksums.json"

_CHUNK_BYTES = 2**20
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(DermaDeiTError):
    """A file that can't be fetched, or that is not the one it should be."""

    default_code = "download_failed"


class _CutOffError(Exception):
    """A try that may go better next time."""


@dataclass(frozen=True)
class _PartialState:
    """What a partial file is a part of.

    Attributes:
        url: Where it comes from.
        validator: Strong ETag, else Last-Modified; an empty string if the server gave neither.
        total: Bytes of the whole file; None if the server did not say.
    """

    url: str
    validator: str
    total: int | None


def download(
    url: str,
    destination: Path,
    *,
    attempts: int = 5,
    backoff_seconds: float = 1.0,
    timeout_seconds: float = 60.0,
) -> None:
    """Fetches a file, continuing what an earlier call left beside it as ``NAME.part``.

    A continuation asks for the missing bytes only (RFC 9110, Range with If-Range), so that a file that changed
    on the server, or a server without ranges, starts it over instead of mixing two files.

    Args:
        url: http or https.
        destination: The file to create; untouched until all bytes are there.
        attempts: Tries in a row that may bring nothing new.
        backoff_seconds: Pause before the second try; doubled with each. 0 for none.
        timeout_seconds: Longest silence of the server.

    Raises:
        DownloadError: The server refuses, the tries are used up, or the disk is too small.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"“{url}” is not a web address. It must start with https:// or http://.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(f"{destination.name}.part")
    failures, most = 0, 0
    while True:
        try:
            _fetch(url, part, timeout_seconds)
            break
        except _CutOffError as error:
            size = _size(part)
            failures = 1 if size > most else failures + 1
            most = max(most, size)
            if failures >= attempts:
                raise DownloadError(
                    f"The download of {destination.name} stopped {attempts} times: {error}. What has arrived "
                    "is kept; run the same command again to go on.",
                    code="download_cut_off",
                ) from error
            logger.warning("%s: %s; trying again", destination.name, error)
            time.sleep(backoff_seconds * 2 ** (failures - 1))
    part.replace(destination)
    _state_file(part).unlink(missing_ok=True)


def verify_checksums(folder: Path, names: list[str], expected: Mapping[str, str] | None = None) -> None:
    """Compares files with given SHA-256 sums and with those that `checksums.json` noted when it first saw them.

    Args:
        folder: Holds the files and `checksums.json`, which gets the sums of new files.
        names: The files.
        expected: File name to hex digest, where one is known.

    Raises:
        DownloadError: A file differs.
    """
    noted_file = folder / CHECKSUMS_FILE
    noted = _read_json(noted_file)
    found = {name: _sha256(folder / name) for name in names}
    for name, digest in found.items():
        wanted = (expected or {}).get(name, "").strip().lower()
        if wanted and digest != wanted:
            raise DownloadError(
                f"{name} has the SHA-256 {digest}, not {wanted}. Delete it and download it again, or correct "
                "--sha256.",
                code="wrong_checksum",
            )
        if not wanted and noted.get(name, digest) != digest:
            raise DownloadError(
                f"{name} is not the file that was here before: its SHA-256 is {digest}, but {CHECKSUMS_FILE} "
                f"notes {noted[name]}. Delete it and download it again; if you replaced it on purpose, delete "
                f"{CHECKSUMS_FILE}.",
                code="wrong_checksum",
            )
    if noted | found != noted:
        try:
            write_json(noted_file, noted | found)
        except OSError as error:
            # Archives on a read-only disk are as good as any; they can only not be recognised next time.
            logger.warning("%s could not be written: %s", CHECKSUMS_FILE, error.strerror)


def _fetch(url: str, part: Path, timeout_seconds: float) -> None:
    """One try; raises `_CutOffError` where another one makes sense."""
    state = _read_state(part, url)
    offset = _size(part) if state and state.validator else 0
    if state and offset and offset == state.total:
        return
    headers = {"User-Agent": f"DermaDeiT/{VERSION}", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": state.validator}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - `download` checks the scheme
    try:
        response = urllib.request.urlopen(request, timeout=timeout_seconds)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error, part) from None
    except (OSError, http.client.HTTPException) as error:
        raise _CutOffError(f"the server can't be reached ({getattr(error, 'reason', error)})") from error
    with response:
        if response.status != 206:
            offset = 0
        new_state = _PartialState(url, _validator(response), _announced_total(response))
        continues = (response.headers.get("Content-Range") or "").startswith(f"bytes {offset}-")
        if offset and not (continues and new_state == state):
            _discard(part)
            raise _CutOffError("the server answered with another file than before")
        _check_space(part, new_state.total, offset)
        write_json(_state_file(part), asdict(new_state))
        _store(response, part, offset, new_state.total, timeout_seconds)
    if new_state.total is not None and _size(part) != new_state.total:
        raise _CutOffError(f"it was cut off after {_size(part):,} of {new_state.total:,} bytes")


def _store(
    response: http.client.HTTPResponse, part: Path, offset: int, total: int | None, timeout_seconds: float
) -> None:
    progress = tqdm(
        desc=part.stem,
        initial=offset,
        total=total,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=None,
    )
    with progress, part.open("ab" if offset else "wb") as stream:
        while True:
            try:
                chunk = response.read(_CHUNK_BYTES)
            except TimeoutError as error:
                raise _CutOffError(f"the server was silent for {timeout_seconds:g} seconds") from error
            except (OSError, http.client.HTTPException) as error:
                raise _CutOffError(f"the connection broke ({error})") from error
            if not chunk:
                break
            stream.write(chunk)
            progress.update(len(chunk))
        stream.flush()
        os.fsync(stream.fileno())


def _refusal(error: urllib.error.HTTPError, part: Path) -> Exception:
    if error.code == 416:
        _discard(part)
        return _CutOffError("the server has fewer bytes than before")
    if error.code in _WORTH_ANOTHER_TRY:
        return _CutOffError(f"the server answered {error.code} {error.reason}")
    return DownloadError(
        f"The server refuses {part.stem}: {error.code} {error.reason}. Check --base-url, or download the file "
        "by hand and name its folder with --archives.",
        code="download_refused",
    )


def _validator(response: http.client.HTTPResponse) -> str:
    etag = response.headers.get("ETag") or ""
    # RFC 9110, 13.1.5: a weak ETag must not be used to continue a file.
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified") or ""


def _announced_total(response: http.client.HTTPResponse) -> int | None:
    value = response.headers.get("Content-Length")
    if response.status == 206:
        value = (response.headers.get("Content-Range") or "").rpartition("/")[2]
    return int(value) if value and value.isdigit() else None


def _check_space(part: Path, total: int | None, offset: int) -> None:
    free = shutil.disk_usage(part.parent).free
    # What a start from zero overwrites is free again.
    free += 0 if offset else _size(part)
    if total is not None and free < total - offset:
        raise DownloadError(
            f"{part.stem} needs {(total - offset) / 1e9:.1f} GB more, but the disk has {free / 1e9:.1f} GB "
            "left. Make room, or choose another folder with --archives; then run the same command again.",
            code="disk_full",
        )


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path, url: str) -> _PartialState | None:
    content = _read_json(_state_file(part))
    try:
        state = _PartialState(**content)
    except TypeError:
        return None
    return state if state.url == url else None


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    if path.stat().st_size > 2**30:
        logger.info("Computing the checksum of %s", path.name)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
