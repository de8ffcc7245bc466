"""Photos of a collection, decoded once and stored at the size that a training reads.

A photo that is wider or higher than the limit is scaled down and saved as JPEG of quality 95 with full colour
resolution. Any other is copied byte for byte, with the metadata that it carries, if it is an RGB JPEG or PNG, and
re-encoded if the decoder had to turn or convert it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from dermadeit.errors import ImageError
from dermadeit.files import write_atomically
from dermadeit.imaging.decode import LesionImage, decode_image
from train.data.layouts import Collection, ExcludedImage, SourceImage
from train.data.near_duplicates import perceptual_hash

logger = logging.getLogger(__name__)

JOURNAL = "prepared.jsonl"
"""One line for each finished image, so that a run that was cut off goes on where it was."""

IMAGES_FOLDER = "images"
JPEG_QUALITY = 95

_KEPT_FORMATS = {"JPEG": "jpg", "PNG": "png"}


@dataclass(frozen=True)
class PreparedImage:
    """One stored photo.

    Attributes:
        image_id: Of the source image.
        fingerprint: Of the file that it was made from.
        max_side: The limit that it was made with.
        file: Relative to the data folder.
        width, height: In pixels.
        byte_count: Size of the file.
        sha256: Hex digest of the file.
        perceptual_hash: 16 hex digits.
    """

    image_id: str
    fingerprint: str
    max_side: int
    file: str
    width: int
    height: int
    byte_count: int
    sha256: str
    perceptual_hash: str


def prepare_images(
    collection: Collection, output: Path, *, max_side: int, workers: int
) -> tuple[dict[str, PreparedImage], list[ExcludedImage]]:
    """Stores every photo of a collection that can be read; those that an earlier run finished stay as they are.

    Args:
        collection: What to read.
        output: The data folder.
        max_side: Longest side in pixels; 0 for no limit.
        workers: Threads. Decoding, scaling and encoding run side by side.

    Returns:
        The stored images by id, and those that the decoder refuses.

    Raises:
        OSError: The data folder can't be written.
    """
    finished = _read_journal(output)
    prepared, todo = {}, []
    for image in collection.images:
        earlier = finished.get(image.image_id)
        if earlier and _still_holds(earlier, image, output, max_side):
            prepared[image.image_id] = earlier
        else:
            todo.append(image)
    if prepared:
        logger.info("%d images are there already, %d to go", len(prepared), len(todo))
    refused = []
    (output / IMAGES_FOLDER).mkdir(parents=True, exist_ok=True)
    with (output / JOURNAL).open("a", encoding="utf-8") as journal:
        for result in _run(partial(_prepare, collection, output, max_side), todo, workers):
            if isinstance(result, ExcludedImage):
                refused.append(result)
            else:
                prepared[result.image_id] = result
                journal.write(f"\n{json.dumps(asdict(result))}")
                journal.flush()
    _tidy(output, finished, prepared)
    return prepared, refused


def _run(work: partial, todo: Sequence[SourceImage], workers: int) -> Iterator[PreparedImage | ExcludedImage]:
    progress = tqdm(total=len(todo), desc="images", unit="image", disable=None)
    with progress, ThreadPoolExecutor(workers) as pool:
        # A few at a time: `map` alone would queue all results, and go on after Ctrl-C.
        for start in range(0, len(todo), 16 * workers):
            for result in pool.map(work, todo[start : start + 16 * workers]):
                progress.update()
                yield result


def _prepare(
    collection: Collection, output: Path, max_side: int, image: SourceImage
) -> PreparedImage | ExcludedImage:
    try:
        data = collection.read(image.location)
        decoded = decode_image(data, name=image.image_id)
    except ImageError as error:
        return ExcludedImage(image.image_id, image.location, image.diagnosis, error.code, error.user_message)
    content, suffix, size = _encode(decoded, data, max_side)
    file = f"{IMAGES_FOLDER}/{_file_stem(image.image_id)}.{suffix}"
    write_atomically(output / file, lambda partial_file: partial_file.write_bytes(content))
    return PreparedImage(
        image_id=image.image_id,
        fingerprint=image.fingerprint,
        max_side=max_side,
        file=file,
        width=size[0],
        height=size[1],
        byte_count=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        perceptual_hash=f"{perceptual_hash(decoded.pixels):016x}",
    )


def _encode(decoded: LesionImage, data: bytes, max_side: int) -> tuple[bytes, str, tuple[int, int]]:
    fits = not max_side or max(decoded.width, decoded.height) <= max_side
    if fits and not decoded.ledger and decoded.format in _KEPT_FORMATS:
        return data, _KEPT_FORMATS[decoded.format], (decoded.width, decoded.height)
    picture = decoded.to_pil()
    if not fits:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue(), "jpg", picture.size


def _file_stem(image_id: str) -> str:
    """A file name for an id that may be anything, such as a path or 300 characters."""
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", image_id):
        return image_id
    return hashlib.sha256(image_id.encode()).hexdigest()[:32]


def _still_holds(earlier: PreparedImage, image: SourceImage, output: Path, max_side: int) -> bool:
    path = output / earlier.file
    return (
        (earlier.fingerprint, earlier.max_side) == (image.fingerprint, max_side)
        and path.is_file()
        and path.stat().st_size == earlier.byte_count
    )


def _read_journal(output: Path) -> dict[str, PreparedImage]:
    path = output / JOURNAL
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entry = PreparedImage(**json.loads(line))
        # The last line of a killed run is torn, and one of another version has other fields.
        except (ValueError, TypeError):
            continue
        found[entry.image_id] = entry
    return found


def _tidy(output: Path, earlier: dict[str, PreparedImage], prepared: dict[str, PreparedImage]) -> None:
    """Removes what an earlier run made that is no part of this one, and its lines."""
    kept = {entry.file for entry in prepared.values()}
    for entry in earlier.values():
        if entry.file not in kept and Path(entry.file).parent == Path(IMAGES_FOLDER):
            (output / entry.file).unlink(missing_ok=True)
    lines = "".join(f"{json.dumps(asdict(prepared[key]))}\n" for key in sorted(prepared))
    write_atomically(output / JOURNAL, lambda path: path.write_text(lines, encoding="utf-8"))
