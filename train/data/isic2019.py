"""The official ISIC 2019 training set: where it lies, and what its three files hold."""

from __future__ import annotations

import logging
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from dermadeit.data.labelling import marked_columns
from dermadeit.data.search import IMAGE_SUFFIXES
from dermadeit.data.tabular import read_csv
from dermadeit.data.vocabulary import UNKNOWN_DIAGNOSIS, Vocabulary
from dermadeit.errors import ConfigurationError, ErrorCode, ImageError, TableError
from dermadeit.imaging.decode import MAX_BYTES
from dermadeit.tasks import DIAGNOSES
from train.data.checksums import verify_checksums
from train.data.downloads import download
from train.data.layouts import (
    Collection,
    Listing,
    file_fingerprint,
    image_files,
    read_file,
    require_columns,
)

logger = logging.getLogger(__name__)

BASE_URL = "https://isic-archive.s3.amazonaws.com/challenges/2019"
"""Where https://challenge.isic-archive.com/data/#2019 links to. No checksums are published there. Before, it was
https://isic-challenge-data.s3.amazonaws.com/2019."""

IMAGES_ARCHIVE = "ISIC_2019_Training_Input.zip"
GROUND_TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"

FILES = (GROUND_TRUTH, METADATA, IMAGES_ARCHIVE)


def get_archives(
    folder: Path, *, fetch: bool, base_url: str, sha256: str, backoff_seconds: float, command: str
) -> None:
    """Makes sure that a folder has the three files, unchanged.

    Args:
        folder: Where they lie, or shall lie.
        fetch: Download what is missing.
        base_url: Folder on a web server that holds the three.
        sha256: Hex digest of the images' archive, or an empty string where none is known.
        backoff_seconds: Pause before a second try.
        command: What to run to get a file that is missing.

    Raises:
        ConfigurationError: A file is missing and may not be fetched, or the archive is damaged.
        DownloadError: A file can't be fetched, or has another checksum than given or than before.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if IMAGES_ARCHIVE in missing and (folder / Path(IMAGES_ARCHIVE).stem).is_dir():
        missing.remove(IMAGES_ARCHIVE)
    if missing and not fetch:
        raise ConfigurationError(
            f"“{folder}” lacks {', '.join(missing)}. Get what is missing (9 GB in all) with: {command}",
            code=ErrorCode.MISSING_ARCHIVE,
        )
    for name in missing:
        download(f"{base_url.rstrip('/')}/{name}", folder / name, backoff_seconds=backoff_seconds)
    if (folder / IMAGES_ARCHIVE).is_file():
        # Before its checksum is noted, so that a truncated file is never what a whole one is compared with.
        _open_archive(folder / IMAGES_ARCHIVE).close()
    present = [name for name in FILES if (folder / name).is_file()]
    verify_checksums(folder, present, {IMAGES_ARCHIVE: sha256})


@contextmanager
def open_isic2019(folder: Path) -> Iterator[Collection]:
    """The ISIC 2019 training set from its archive, or from a folder that it was unpacked into.

    The source is told from the lesion number (HAM_, BCN_, MSK), and images without one are MSK's, as are those
    whose name ends in ``_downsampled``, which is no part of the image's number in the ISIC archive.

    Raises:
        ConfigurationError: The archive is damaged.
        TableError: The tables contradict themselves or each other.
    """
    archive_file, unpacked = folder / IMAGES_ARCHIVE, folder / Path(IMAGES_ARCHIVE).stem
    if not archive_file.is_file() and unpacked.is_dir():
        yield _list_isic2019(folder, _files_below(unpacked), read_file, Listing())
        return
    with _open_archive(archive_file) as archive:
        listing = Listing()
        members = dict(_safe_members(archive, listing))
        yield _list_isic2019(folder, members, partial(_read_member, archive), listing)


def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise ConfigurationError(
            f"{path.name} is damaged or was not downloaded to its end. Delete it and get it again: run the "
            "same command with --download.",
            code=ErrorCode.DAMAGED_ARCHIVE,
        ) from None


def _list_isic2019(
    folder: Path, members: dict[str, tuple[str, str]], read: Callable[[str], bytes], listing: Listing
) -> Collection:
    truth, metadata = read_csv(folder / GROUND_TRUTH), read_csv(folder / METADATA)
    require_columns(truth, GROUND_TRUTH, ("image", *DIAGNOSES))
    require_columns(metadata, METADATA, ("image", "lesion_id"))
    vocabulary = Vocabulary()
    details = {record["image"]: record for record in metadata.rows}
    names = {record["image"] for record in truth.rows}
    for record, line in zip(truth.rows, truth.line_numbers, strict=True):
        name = record["image"].strip()
        diagnosis = _one_hot_diagnosis(record, line)
        meaning = vocabulary.meaning(diagnosis)
        assert meaning is not None, "a diagnosis that the vocabulary lacks"
        if name not in members:
            listing.exclude(name, f"{name}.jpg", "no_image", f"line {line} of {GROUND_TRUTH}")
            continue
        location, fingerprint = members[name]
        number = name.removesuffix("_downsampled")
        detail = details.get(name, {})
        lesion = detail.get("lesion_id", "").strip()
        listing.add(
            meaning,
            diagnosis,
            image_id=name if number in names else number,
            location=location,
            fingerprint=fingerprint,
            dataset={"HAM": "ham10000", "BCN": "bcn20000"}.get(lesion[:3], "msk"),
            lesion_id=lesion,
            sex=detail.get("sex", ""),
            age=detail.get("age_approx", ""),
            anatomic_site=detail.get("anatom_site_general", ""),
        )
    for name in members.keys() - names:
        listing.exclude(name, members[name][0], "no_label", f"no row in {GROUND_TRUTH}")
    return listing.finish("ISIC 2019", read)


def _one_hot_diagnosis(record: Mapping[str, str], line: int) -> str:
    columns = (*DIAGNOSES, UNKNOWN_DIAGNOSIS)
    marked = marked_columns(record, columns)
    if len(marked) != 1:
        raise TableError(
            f"Line {line} of {GROUND_TRUTH} has {len(marked)} diagnoses instead of one. Download it again.",
            code=ErrorCode.DAMAGED_GROUND_TRUTH,
        )
    return marked[0]


def _safe_members(archive: zipfile.ZipFile, listing: Listing) -> Iterator[tuple[str, tuple[str, str]]]:
    """Stem, and member name with fingerprint, of every image; nothing is ever written under a member's name."""
    seen, others = set(), 0
    for info in archive.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if info.is_dir() or path.suffix.lower() not in IMAGE_SUFFIXES:
            others += not info.is_dir()
        elif ".." in path.parts or path.is_absolute() or re.match(r"[A-Za-z]:", info.filename):
            listing.exclude(path.stem, info.filename, "unsafe_name", "its name points outside the archive")
        elif path.stem in seen:
            listing.exclude(path.stem, info.filename, "repeated_name", "the archive has this image twice")
        elif "__MACOSX" not in path.parts:
            seen.add(path.stem)
            yield path.stem, (info.filename, f"{info.CRC:08x}-{info.file_size}")
    if others:
        logger.info("%d files of %s are not images and were skipped", others, IMAGES_ARCHIVE)


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        # Reading to the end checks the CRC; a bomb is not read to its end, and the decoder refuses it.
        with archive.open(name) as stream:
            return stream.read(MAX_BYTES + 1)
    # RuntimeError is how zipfile says that a member is encrypted.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ImageError(f"Damaged in the archive: {error}.", code=ErrorCode.DAMAGED_IN_ARCHIVE) from error


def _files_below(folder: Path) -> dict[str, tuple[str, str]]:
    return {path.stem: (str(path), file_fingerprint(path)) for path in image_files(folder)}
