"""Whether files are the ones that they should be, and the ones that they were."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from dermadeit.errors import ErrorCode
from dermadeit.files import file_sha256, read_json_if_there, write_json
from train.data.downloads import DownloadError

logger = logging.getLogger(__name__)

CHECKSUMS_FILE = "checksums.json"


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
    noted = read_json_if_there(noted_file)
    found = {name: file_sha256(folder / name) for name in names}
    for name, digest in found.items():
        wanted = (expected or {}).get(name, "").strip().lower()
        if wanted and digest != wanted:
            raise DownloadError(
                f"{name} has the SHA-256 {digest}, not {wanted}. Delete it and download it again, or correct "
                "--sha256.",
                code=ErrorCode.WRONG_CHECKSUM,
            )
        if not wanted and noted.get(name, digest) != digest:
            raise DownloadError(
                f"{name} is not the file that was here before: its SHA-256 is {digest}, but {CHECKSUMS_FILE} "
                f"notes {noted[name]}. Delete it and download it again; if you replaced it on purpose, delete "
                f"{CHECKSUMS_FILE}.",
                code=ErrorCode.WRONG_CHECKSUM,
            )
    if noted | found != noted:
        try:
            write_json(noted_file, noted | found)
        except OSError as error:
            # Archives on a read-only disk are as good as any; they can only not be recognised next time.
            logger.warning("%s could not be written: %s", CHECKSUMS_FILE, error.strerror)
