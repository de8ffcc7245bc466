"""ZIP files from strangers: what is in them, which members are refused, and their bytes one at a time.

Nothing is ever extracted to disk. The sizes that a ZIP declares bind for members that are stored or deflated:
Python inflates no such member beyond its own, a chunk at a time. It inflates those of the other methods, bzip2 and
LZMA, all at once whatever their declared size, so they are refused.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dermadeit.errors import ErrorCode, ImageError, TableError
from dermadeit.imaging.decode import MAX_BYTES

MAX_MEMBERS = 10_000
MAX_INFLATED_BYTES = 1_000_000_000
MAX_RATIO = 200

_CHUNK = 1 << 20
_LARGEST_READ = 4 * _CHUNK
"""What a list of `MAX_MEMBERS` long names takes; a longer one would fill the memory before it can be counted."""

_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".jar")
_ARCHIVE_MARKS = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
)
_DRIVE = re.compile(r"[A-Za-z]:")
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, ValueError)
"""What the standard library raises for a ZIP that contradicts itself, places beyond any file among it."""


@dataclass(frozen=True)
class Member:
    """One file of a ZIP.

    Attributes:
        name: Its path in the ZIP, with forward slashes, relative and without `..`.
        refusal: Why it is not read; empty where it is.
    """

    name: str
    refusal: str = ""


class Archive:
    """An open ZIP, made by `opened_archive`.

    Attributes:
        members: Its files in the order of their names, the refused ones too; folders are left out.
    """

    def __init__(self, content: zipfile.ZipFile) -> None:
        self._content = content
        self._infos: dict[str, zipfile.ZipInfo] = {}
        members = []
        for info in content.infolist():
            # `info.is_dir()` fails for a member without a name.
            if info.filename.endswith("/"):
                continue
            name = info.filename.replace("\\", "/")
            refusal = _refusal(info, name)
            if not refusal and name in self._infos:
                refusal = "the ZIP has another file of this name"
            if not refusal:
                self._infos[name] = info
            members.append(Member(name, refusal))
        self.members = tuple(sorted(members, key=lambda member: member.name))

    def size(self, name: str) -> int:
        """The number of bytes of a member that is not refused, as the ZIP declares it."""
        return self._infos[name].file_size

    def read(self, name: str) -> bytes:
        """The bytes of a member that is not refused.

        Raises:
            ImageError: It is too large, damaged, or packed in a way that is not read.
        """
        info = self._infos[name]
        if info.file_size > MAX_BYTES:
            raise ImageError(
                f"The file has {info.file_size / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read. "
                "Save it as JPEG or crop it.",
                code=ErrorCode.TOO_MANY_BYTES,
            )
        try:
            with self._content.open(info) as stream:
                data = b"".join(iter(lambda: stream.read(_CHUNK), b""))
        except _DAMAGE as error:
            raise ImageError(
                "This file of the ZIP is damaged. Make the ZIP again.", code=ErrorCode.DAMAGED_MEMBER
            ) from error
        except (NotImplementedError, RuntimeError) as error:
            raise ImageError(
                "This file of the ZIP has an unsupported compression. Make the ZIP again with “deflate”.",
                code=ErrorCode.UNSUPPORTED_MEMBER,
            ) from error
        if data.startswith(_ARCHIVE_MARKS):
            raise ImageError(
                "This is an archive inside the ZIP. Put its files in directly.", code=ErrorCode.NESTED_ARCHIVE
            )
        return data


@contextmanager
def opened_archive(path: Path) -> Iterator[Archive]:
    """Opens a ZIP for as long as the block lasts.

    Raises:
        TableError: It is no ZIP, damaged, or beyond `MAX_MEMBERS` or `MAX_INFLATED_BYTES`.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(_BoundedReads(path))
            content = stack.enter_context(zipfile.ZipFile(stream))
        except (*_DAMAGE, NotImplementedError) as error:
            raise TableError(
                "The ZIP can't be opened: it is damaged, stops early, or is something else. Make it again.",
                code=ErrorCode.DAMAGED_ARCHIVE,
            ) from error
        _check_limits(content.infolist())
        yield Archive(content)


class _BoundedReads(io.FileIO):
    """A file that gives no more than a few megabytes at once, whatever the ZIP's own directory claims."""

    def read(self, size: int = -1) -> bytes:
        if size > _LARGEST_READ:
            raise _too_many_members()
        return super().read(size)


def _check_limits(infos: list[zipfile.ZipInfo]) -> None:
    if len(infos) > MAX_MEMBERS:
        raise _too_many_members()
    total = sum(info.file_size for info in infos)
    if total > MAX_INFLATED_BYTES:
        raise TableError(
            f"The ZIP would unpack to {total / 1e9:.1f} GB; at most {MAX_INFLATED_BYTES / 1e9:.0f} GB are read. "
            "Split it, or make the images smaller.",
            code=ErrorCode.ARCHIVE_TOO_LARGE,
        )


def _too_many_members() -> TableError:
    return TableError(
        f"The ZIP has more than {MAX_MEMBERS:,} members. Split it into smaller ones.",
        code=ErrorCode.TOO_MANY_MEMBERS,
    )


def _refusal(info: zipfile.ZipInfo, name: str) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if not name:
        return "it has no name"
    if name.startswith("/") or _DRIVE.match(name):
        return "its path is absolute"
    if ".." in name.split("/"):
        return "its path leaves the ZIP"
    if kind not in (0, stat.S_IFREG):
        return "it is a link" if kind == stat.S_IFLNK else "it is not a plain file"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if info.compress_type not in _METHODS:
        return "its compression is not supported; use “deflate”"
    if name.lower().endswith(_ARCHIVES):
        return "it is an archive itself"
    if info.file_size > MAX_RATIO * max(info.compress_size, 1):
        return f"it would unpack to more than {MAX_RATIO} times its size"
    return ""
