"""Files that may be images, and the one search for the file that a name means.

A name is compared without regard to case, Unicode form, and whose machine its folders are of: by its whole path,
by the end of one, by its last part, then without its suffix. Where several files fit equally well, copies of one
another count as one; else nothing is chosen, and the caller says that the name is ambiguous.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dermadeit.data.tabular import TABLE_SUFFIXES
from dermadeit.errors import ErrorCode, ImageError, TableError
from dermadeit.imaging.decode import MAX_BYTES, sanitise_name
from dermadeit.imaging.probe import PREFIX_LENGTH, OtherFile, probe

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".heic", ".heif",
    ".hif", ".avif", ".dcm", ".dicom", ".jp2", ".jxl",
)  # fmt: skip
"""Of pictures, those too that the decoder refuses with a reason."""

_SYSTEM_FILES = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class FoundFile:
    """A file that may be an image.

    Attributes:
        file: Its name or its path, unique, for display.
        read: Gives the encoded bytes or a path to them; raises `ImageError`.
        given: The name or path that it was given under, which others may share; as `sanitise_path` gives it.
        path: Where it lies, if it was found on disk.
        size: Its number of bytes; None where `path` tells.
    """

    file: str
    read: Callable[[], bytes | Path] = field(repr=False, compare=False)
    given: str
    path: Path | None = None
    size: int | None = field(default=None, compare=False)

    @property
    def stem(self) -> str:
        """The path that it was given under, without suffix."""
        folder, slash, name = self.given.rpartition("/")
        return folder + slash + name.rsplit(".", 1)[0]

    def digest(self) -> str:
        """Hex digest of its bytes; unique to it where they can't be read."""
        try:
            content = self.read()
            if isinstance(content, bytes):
                return hashlib.sha256(content).hexdigest()
            with Path(content).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except (ImageError, OSError):
            return f"unreadable {self.file}"


@dataclass(frozen=True)
class FolderContent:
    """What lies in a folder on disk.

    Attributes:
        images: Paths of what may be an image, in order.
        tables: Paths of the tables.
        passed_over: Paths of the files of operating systems, and of those that are no image by their name or their
            first bytes.
    """

    images: tuple[Path, ...]
    tables: tuple[Path, ...]
    passed_over: tuple[Path, ...]


def list_folder(folder: Path) -> FolderContent:
    """Sorts the files of a folder and its subfolders by what is to be done with them."""
    images, tables, passed_over = [], [], []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if is_hidden(path.relative_to(folder).parts):
            passed_over.append(path)
        elif path.name.lower().endswith(TABLE_SUFFIXES):
            tables.append(path)
        elif _may_be_an_image(path):
            images.append(path)
        else:
            passed_over.append(path)
    return FolderContent(tuple(images), tuple(tables), tuple(passed_over))


def is_hidden(parts: Sequence[str]) -> bool:
    """Whether a path is one of those that operating systems put beside people's files."""
    return any(part.startswith(".") or part.lower() in _SYSTEM_FILES for part in parts)


def sanitise_path(path: str) -> str:
    """An untrusted path for display and for comparison: each of its parts as `decode.sanitise_name` gives it."""
    parts = path.replace("\\", "/").split("/")
    return "/".join(sanitise_name(part) for part in parts if part not in ("", ".", ".."))


def find_copies(files: Sequence[FoundFile]) -> list[list[FoundFile]]:
    """Files that are byte for byte the same, two or more together; only files of one size are read.

    Empty files are no copies: they hold no photo.
    """
    of_size: dict[int, list[FoundFile]] = defaultdict(list)
    for item in files:
        of_size[_size_of(item)].append(item)
    alike: dict[str, list[FoundFile]] = defaultdict(list)
    of_size.pop(0, None)
    for same_size in of_size.values():
        for item in same_size if len(same_size) > 1 else ():
            alike[item.digest()].append(item)
    return [items for items in alike.values() if len(items) > 1]


def _size_of(item: FoundFile) -> int:
    if item.path is None:
        assert item.size is not None, "a file that lies nowhere on disk comes with its size"
        return item.size
    try:
        return item.path.stat().st_size
    except OSError:
        return -1


def without_image_suffix(name: str) -> str:
    """A name or path without the suffix of a picture; unchanged where it has none."""
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


class FileSearch:
    """Finds files by the names that a table may give them.

    Args:
        list_files: Gives the files; called once, when the first name is not found at once.
        root: Folder on disk whose files are found by their exact paths without listing it; None without.

    Attributes:
        copies: Files that were passed over because another that was found has the same bytes.
    """

    def __init__(self, list_files: Callable[[], Sequence[FoundFile]], root: Path | None = None) -> None:
        self._list_files = list_files
        self._root = root
        self._found: Sequence[FoundFile] | None = None
        self.copies: list[FoundFile] = []
        self._known_copies: set[str] = set()

    @property
    def files(self) -> Sequence[FoundFile]:
        """All files."""
        if self._found is None:
            self._found = self._list_files()
            self._by_name = _Paths((item.given, item) for item in self._found)
            self._by_stem = _Paths((item.stem, item) for item in self._found)
        return self._found

    def find(self, file: str, image_id: str) -> list[FoundFile]:
        """The files that a row may mean: none, one, or several equally good ones that are no copies.

        Args:
            file: The path that it gives, or an empty string.
            image_id: Its identifier, which may be a name with or without suffix; or an empty string.

        Raises:
            TableError: No file can have that name.
        """
        if self._root is not None and (exact := self._exact(file or image_id)):
            return [exact]
        if not self.files:
            return []
        named = [name for name in dict.fromkeys((file, image_id)) if name]
        candidates = (
            next((found for name in named if (found := self._by_name.find(name))), [])
            or next((found for name in named if (found := self._by_stem.find(name))), [])
            or next(
                (found for name in named if (found := self._by_stem.find(without_image_suffix(name)))), []
            )
        )
        if len(candidates) < 2:
            return candidates
        first, *others = candidates
        if {first.digest()} != {item.digest() for item in others}:
            return candidates
        self.copies += [item for item in others if item.file not in self._known_copies]
        self._known_copies.update(item.file for item in others)
        return [first]

    def folder(self, name: str) -> list[FoundFile]:
        """The files that lie in a folder of that name."""
        wanted = _folded(name)
        return [item for item in self.files if wanted in _folded(item.given).split("/")[:-1]]

    def _exact(self, name: str) -> FoundFile | None:
        parts = name.replace("\\", "/").split("/")
        if not name or parts[0] == "" or ".." in parts or ":" in parts[0]:
            return None
        assert self._root is not None, "only files of a folder are looked for by their exact path"
        path = self._root.joinpath(*parts)
        try:
            if not path.is_file():
                return None
        except (OSError, ValueError):
            raise TableError(
                f"“{name[:40]}…” is not a valid file name", code=ErrorCode.UNREADABLE_FILE
            ) from None
        # Linked folders are the owner's business.
        given = path.relative_to(self._root).as_posix()
        return found_on_disk(path, given)


def found_on_disk(path: Path, given: str) -> FoundFile:
    """A file on disk that was given under a path of its folder."""
    return FoundFile(given, lambda: path, given, path)


class _Paths:
    """Files by a path, by the end of one, or by its last part alone."""

    def __init__(self, items: Iterable[tuple[str, FoundFile]]) -> None:
        self._by_path: dict[str, list[tuple[str, FoundFile]]] = defaultdict(list)
        self._by_name: dict[str, list[tuple[str, FoundFile]]] = defaultdict(list)
        for path, item in items:
            folded = _folded(path)
            self._by_path[folded].append((path, item))
            self._by_name[folded.rsplit("/", 1)[-1]].append((path, item))

    def find(self, path: str) -> list[FoundFile]:
        """The files of the best kind of match; of several, those that have the same upper and lower case."""
        wanted = sanitise_path(path)
        folded = _folded(wanted)
        if not wanted:
            return []
        named = self._by_name.get(folded.rsplit("/", 1)[-1], [])
        fitting = (
            self._by_path.get(folded)
            or [(whole, item) for whole, item in named if _folded(whole).endswith(f"/{folded}")]
            or named
        )
        same_case = [item for whole, item in fitting if f"/{whole}".endswith(f"/{wanted}")]
        return same_case or [item for _, item in fitting]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _may_be_an_image(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            start = stream.read(PREFIX_LENGTH)
    except OSError:
        return False
    kind = probe(start)
    return not isinstance(kind, OtherFile) or kind.is_image


def read_limited(path: Path) -> bytes:
    """The bytes of a file, at most one more than the decoder takes; raises `ImageError`."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(
            f"The file can't be read: {error.strerror}.", code=ErrorCode.UNREADABLE_FILE
        ) from error
