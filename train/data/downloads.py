"""Large files from a web server: resumed where they were cut off, and never left half written under their name."""

from __future__ import annotations

import http.client
import logging
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tqdm import tqdm

from dermadeit.about import VERSION
from dermadeit.errors import DermaDeiTError, ErrorCode

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**20
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
_CUT_OFF = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class DownloadError(DermaDeiTError):
    """A file that can't be fetched, or that is not the one it should be."""

    default_code = ErrorCode.DOWNLOAD_FAILED


def download(
    url: str,
    destination: Path,
    *,
    attempts: int = 5,
    backoff_seconds: float = 1.0,
    timeout_seconds: float = 60.0,
) -> None:
    """Fetches a file, continuing what an earlier call left beside it as ``NAME.part``.

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
    # What the part is a part of: its address, and the server's name for this version of the file.
    origin = destination.with_name(f"{part.name}.origin")
    failures, most = 0, 0
    while True:
        try:
            _fetch(url, part, origin, timeout_seconds)
            break
        except urllib.error.HTTPError as error:
            with error:
                reason = f"the server answered {error.code} {error.reason}"
            if error.code == 416:
                # It has no more bytes than have arrived, so they are of another file.
                origin.unlink()
            elif error.code not in _WORTH_ANOTHER_TRY:
                raise DownloadError(
                    f"The server refuses {destination.name}: {error.code} {error.reason}. Check --base-url, or "
                    "download the file by hand and name its folder with --archives.",
                    code=ErrorCode.DOWNLOAD_REFUSED,
                ) from None
        except _CUT_OFF as error:
            reason = str(getattr(error, "reason", error))
        if _size(part) > most:
            failures, most = 0, _size(part)
        failures += 1
        if failures >= attempts:
            raise DownloadError(
                f"The download of {destination.name} stopped {attempts} times: {reason}. What has arrived is "
                "kept; run the same command again to go on.",
                code=ErrorCode.DOWNLOAD_CUT_OFF,
            )
        logger.warning("%s: %s; trying again", destination.name, reason)
        time.sleep(backoff_seconds * 2 ** (failures - 1))
    part.replace(destination)
    origin.unlink(missing_ok=True)


def _fetch(url: str, part: Path, origin: Path, timeout_seconds: float) -> None:
    """Asks once for the bytes that are missing (RFC 9110, Range with If-Range); two versions are never mixed."""
    known = origin.read_text(encoding="utf-8").partition(" ") if origin.is_file() else ("", "", "")
    offset = _size(part) if known[0] == url else 0
    headers = {"User-Agent": f"DermaDeiT/{VERSION}", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": known[2]}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - `download` checks the scheme
    with urllib.request.urlopen(request, timeout=timeout_seconds) as response:  # noqa: S310
        etag, length = response.headers.get("ETag", ""), response.headers.get("Content-Length")
        # RFC 9110, 13.1.5: a weak ETag must not be used to continue a file.
        version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
        if response.status != 206:
            offset = 0
        elif version != known[2] or f"bytes {offset}-" not in response.headers.get("Content-Range", ""):
            origin.unlink()
            raise ConnectionError("the server answered with another file than before")
        total = None if length is None else offset + int(length)
        # What a start from zero overwrites is free again.
        free = shutil.disk_usage(part.parent).free + (0 if offset else _size(part))
        if total is not None and free < total - offset:
            raise DownloadError(
                f"{part.stem} needs {(total - offset) / 1e9:.1f} GB more, but {free / 1e9:.1f} GB are free. Make "
                "room, or choose another folder with --archives; then run the same command again.",
                code=ErrorCode.DISK_FULL,
            )
        origin.write_text(f"{url} {version}" if version else "", encoding="utf-8")
        bar = tqdm(desc=part.stem, initial=offset, total=total, unit="B", unit_scale=True, disable=None)
        with bar, part.open("ab" if offset else "wb") as stream:
            while chunk := response.read(_CHUNK_BYTES):
                bar.update(stream.write(chunk))
    if total is not None and _size(part) != total:
        raise ConnectionError(f"it was cut off after {_size(part):,} of {total:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
