"""Turn labelled lesion photos into the data folder that train/distill.py takes: manifest.csv and images.

    python -m train.prepare_isic2019 --download                      # fetches ISIC 2019, 9 GB
    python -m train.prepare_isic2019 --archives DOWNLOADS            # its three files are there already
    python -m train.prepare_isic2019 --class-folders FOLDER          # train/<class>/, val/<class>/
    python -m train.prepare_isic2019 --ham10000 FOLDER               # two image folders and their metadata
    python -m train.prepare_isic2019 --csv FILE --images FOLDER      # any table

Images of one lesion, and copies of one photo, stay in one split. Splits that the photos came with are kept:
missing ones (such as calibration) are cut out of train, and train images of a lesion that is evaluated on are
left out. Everything that is left out has a row in exclusions.csv. The same command goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dermadeit.data.own_classes import CLASSES_FILE, has_own_classes, read_own_task, write_classes
from dermadeit.data.vocabulary import SPLITS
from dermadeit.errors import ConfigurationError, ErrorCode, TableError
from dermadeit.files import require_folder
from dermadeit.imaging.decode import MAX_ASPECT, MIN_SIDE, decode_image
from dermadeit.tasks import TASKS, Task
from train.command_line import explaining_mistakes
from train.data.images import JOURNAL, PreparedImage, prepare_images
from train.data.isic2019 import BASE_URL, get_archives, open_isic2019
from train.data.layouts import (
    Collection,
    ExcludedImage,
    SourceImage,
    read_class_folders,
    read_ham10000,
    read_labelled_csv,
)
from train.data.near_duplicates import find_near_duplicates
from train.data.report import log_summary, write_tables
from train.data.splitting import (
    DEFAULT_SHARES,
    NEEDED_SPLITS,
    advise_shares,
    classes_in,
    complete_splits,
    lesion_groups,
    missing_classes,
)

logger = logging.getLogger("train.prepare_isic2019")

_LICENCE = (
    "ISIC 2019 is licensed CC BY-NC 4.0, for research and non-commercial use. Cite HAM10000 (Tschandl 2018), "
    "BCN_20000 (Combalia 2019) and MSK (Codella 2018)."
)


@dataclass(frozen=True)
class PreparationSettings:
    """How photos are stored and split.

    Attributes:
        max_side: Longest side of the stored images in pixels; 0 keeps their size. 600 is HAM10000's own, more
            than any model here takes, and a JPEG of it decodes several times faster than an original.
        shares: Of `SPLITS`, in their order. Any scale.
        seed: Another one gives another split.
        resplit: Ignore the splits that the photos came with.
        image_level_split: Split images instead of lesions. The manifest then leaks on purpose, and a training
            takes it only with --allow-leaks: that measures how much a leak flatters the figures.
        workers: Threads; 0 for one a core, at most 8.
    """

    max_side: int = 600
    shares: tuple[float, ...] = tuple(DEFAULT_SHARES.values())
    seed: int = 0
    resplit: bool = False
    image_level_split: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        smallest = MIN_SIDE * MAX_ASPECT
        if self.max_side and self.max_side < smallest:
            raise ConfigurationError(f"--max-side must be 0 or at least {smallest}, not {self.max_side}.")
        if len(self.shares) != len(SPLITS) or not all(0 < share < float("inf") for share in self.shares):
            raise ConfigurationError(f"--shares takes a number above 0 for each of {', '.join(SPLITS)}.")
        if self.workers < 0:
            raise ConfigurationError(f"--workers must be 0 or more, not {self.workers}.")


# ------------------------------------------------------------------------------------------ preparation


def prepare_isic2019(
    output: Path,
    *,
    archives: Path | None = None,
    download: bool = False,
    base_url: str = BASE_URL,
    sha256: str = "",
    backoff_seconds: float = 1.0,
    settings: PreparationSettings | None = None,
) -> Path:
    """Makes a data folder from the official ISIC 2019 training archives.

    Args:
        output: The data folder; created when missing.
        archives: Folder of the three files; `output`/archives by default.
        download: Fetch those that are missing.
        base_url: Where from.
        sha256: Hex digest of the images' archive, where one is known.
        backoff_seconds: Pause before a second try of the download.
        settings: The defaults, where None.

    Returns:
        The path of manifest.csv.

    Raises:
        DermaDeiTError: What `isic2019.get_archives` and `prepare` raise.
    """
    archives = archives or output / "archives"
    logger.info("%s", _LICENCE)
    with _naming_a_full_disk(archives):
        get_archives(
            archives,
            fetch=download,
            base_url=base_url,
            sha256=sha256,
            backoff_seconds=backoff_seconds,
            command=f"python -m train.prepare_isic2019 --download --archives {shlex.quote(str(archives))} "
            f"--output {shlex.quote(str(output))}",
        )
    with open_isic2019(archives) as collection:
        return prepare(collection, output, settings or PreparationSettings())


def prepare(collection: Collection, output: Path, settings: PreparationSettings) -> Path:
    """Stores the photos of a collection, finds copies, splits, and writes manifest.csv and exclusions.csv.

    The manifest is the same whatever the order of the collection.

    Args:
        collection: The photos and their labels.
        output: The data folder.
        settings: How.

    Returns:
        The path of manifest.csv.

    Raises:
        ConfigurationError: The folder has a manifest of another origin, or can't be written.
        TableError: No image is left, or none for train.
    """
    manifest_file = output / "manifest.csv"
    if manifest_file.is_file() and not (output / JOURNAL).is_file():
        raise ConfigurationError(
            f"“{output}” already has a manifest.csv that this program did not write. Choose another --output.",
            code=ErrorCode.FOREIGN_MANIFEST,
        )
    logger.info("%s: %d labelled images", collection.name, len(collection.images))
    with _naming_a_full_disk(output):
        prepared, refused = prepare_images(
            collection,
            output,
            max_side=settings.max_side,
            workers=settings.workers or min(8, os.cpu_count() or 1),
        )
        images = sorted(
            (image for image in collection.images if image.image_id in prepared),
            key=lambda image: image.image_id,
        )
        if not images:
            raise TableError(
                f"{collection.name} has no image that can be read; the first is refused because: "
                f"{refused[0].detail}",
                code=ErrorCode.NO_IMAGES,
            )
        rows, left_out = _arrange(images, prepared, output, settings, collection.task)
        exclusions = [*collection.exclusions, *refused, *left_out]
        settings_record = dataclasses.asdict(settings)
        del settings_record["workers"]
        write_tables(output, rows, exclusions, {"source": collection.name, **settings_record})
    log_summary(output, rows, exclusions, leaks=settings.image_level_split, task=collection.task)
    return manifest_file


def _arrange(
    images: Sequence[SourceImage],
    prepared: dict[str, PreparedImage],
    output: Path,
    settings: PreparationSettings,
    task: Task | None,
) -> tuple[list[dict[str, str | int]], list[ExcludedImage]]:
    """Rows of the manifest, and images that must not be in it."""
    pairs = find_near_duplicates(
        [int(prepared[image.image_id].perceptual_hash, 16) for image in images],
        lambda position: decode_image(output / prepared[images[position].image_id].file).pixels,
    )
    groups = lesion_groups([image.image_id for image in images], [image.lesion_id for image in images], pairs)
    logger.info("%d pairs of near duplicates, %d lesions", len(pairs), len(set(groups)))
    contradicting = _contradicting(images, pairs)
    left_out = [
        _excluded(images[index], prepared, "contradicting_duplicate", detail)
        for index, detail in contradicting.items()
    ]
    kept = [index for index in range(len(images)) if index not in contradicting]
    images = [images[index] for index in kept]
    groups = [groups[index] for index in kept]
    units = [image.image_id for image in images] if settings.image_level_split else groups
    splits, leaking = complete_splits(
        units,
        _strata(images),
        ["" if settings.resplit else image.split for image in images],
        dict(zip(SPLITS, settings.shares, strict=True)),
        settings.seed,
    )
    used = ["" if index in leaking else split for index, split in enumerate(splits)]
    _warn_of_missing_classes(images, units, used, settings, task)
    left_out += [
        _excluded(images[index], prepared, "lesion_in_other_split", detail)
        for index, detail in leaking.items()
    ]
    rows = [
        _row(image, prepared[image.image_id], group, split)
        for index, (image, group, split) in enumerate(zip(images, groups, splits, strict=True))
        if index not in leaking
    ]
    return rows, left_out


def _strata(images: Sequence[SourceImage]) -> list[tuple[str, str]]:
    return [(image.diagnosis or image.label, image.dataset) for image in images]


def _warn_of_missing_classes(
    images: Sequence[SourceImage],
    groups: Sequence[str],
    splits: Sequence[str],
    settings: PreparationSettings,
    own: Task | None,
) -> None:
    """For each task whose classes there are: the splits that lack one, and which shares would help."""
    names = [image.label or image.diagnosis for image in images]
    shares: dict[str, float] = dict(zip(SPLITS, settings.shares, strict=True))
    for task in [own] if own else TASKS.values():
        labels = classes_in(task, names)
        missing = missing_classes(splits, labels, SPLITS)
        if missing and {*task.classes} <= {*labels}:
            lacking = "; ".join(f"“{split}” lacks {', '.join(classes)}" for split, classes in missing.items())
            trainable = missing.keys().isdisjoint(NEEDED_SPLITS)
            advice = advise_shares(
                groups, _strata(images), labels, shares, settings.seed, trainable=trainable
            )
            logger.warning("Task %s: %s. %s", task.key, lacking, advice)


def _contradicting(images: Sequence[SourceImage], pairs: np.ndarray) -> dict[int, str]:
    """Copies of one photo under two diagnoses: nobody knows which is right, so both must go."""
    found = {}
    for first, second in pairs.tolist():
        one, other = images[first], images[second]
        if (one.diagnosis, one.label) != (other.diagnosis, other.label):
            found[first] = f"copy of {other.image_id}, which is {other.diagnosis or other.label}"
            found[second] = f"copy of {one.image_id}, which is {one.diagnosis or one.label}"
    return found


def _excluded(
    image: SourceImage, prepared: dict[str, PreparedImage], reason: str, detail: str
) -> ExcludedImage:
    return ExcludedImage(
        image.image_id, prepared[image.image_id].file, image.diagnosis or image.label, reason, detail
    )


def _row(image: SourceImage, stored: PreparedImage, group: str, split: str) -> dict[str, str | int]:
    copied = ("image_id", "dataset", "diagnosis", "label", "lesion_id", "sex", "age", "anatomic_site")
    return {
        **{name: getattr(image, name) for name in copied},
        **{name: getattr(stored, name) for name in ("file", "width", "height", "sha256")},
        "lesion_group": group,
        "split": split,
    }


# ------------------------------------------------------------------------------------------------- main


@explaining_mistakes
def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares as asked; returns the exit code: 0, or 2 for a mistake that the message explains."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = _parse(arguments)
    settings = PreparationSettings(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(PreparationSettings)}
    )
    require_folder(options.output)
    with ExitStack() as opened:
        if collection := _read_collection(options, opened):
            if collection.task is not None:
                write_classes(options.output / CLASSES_FILE, collection.task)
            prepare(collection, options.output, settings)
        else:
            prepare_isic2019(
                options.output,
                archives=options.archives,
                download=options.download,
                base_url=options.base_url,
                sha256=options.sha256,
                settings=settings,
            )
    return 0


def _read_collection(options: argparse.Namespace, opened: ExitStack) -> Collection | None:
    """The layout that the options name; None for the ISIC 2019 archives."""
    class_names = dict(options.class_name)
    if options.class_folders:
        return read_class_folders(options.class_folders, class_names, opened=opened)
    if options.ham10000:
        return read_ham10000(options.ham10000, class_names)
    if not options.csv:
        return None
    given = {role: getattr(options, f"{role}_column") for role in ("image", "label", "group", "split")}
    columns = {role: name for role, name in given.items() if name}
    if options.resplit:
        columns["split"] = ""
    images = options.images or options.csv.parent
    task = read_own_task(options.csv) if options.csv.is_file() and has_own_classes(options.csv) else None
    return read_labelled_csv(options.csv, images, class_names, columns=columns, task=task, opened=opened)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=str(__doc__).split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    defaults = PreparationSettings()
    add = parser.add_argument
    add("--output", type=Path, default=Path("data"), help="data folder to make")
    add("--max-side", type=int, default=defaults.max_side, help="longest side in pixels; 0 keeps the size")
    add("--shares", type=_shares, default=",".join(map(str, defaults.shares)), help=f"of {','.join(SPLITS)}")
    add("--seed", type=int, default=defaults.seed, help="another one gives another split")
    add("--resplit", action="store_true", help="ignore the splits that the photos came with")
    add("--image-level-split", action="store_true", help="split images instead of lesions: leaks on purpose")
    add("--workers", type=int, default=defaults.workers, help="threads; 0 for one a core, at most 8")
    layout = parser.add_mutually_exclusive_group()
    layout.add_argument(
        "--archives", type=Path, help="folder of the ISIC 2019 files; OUTPUT/archives by default"
    )
    layout.add_argument(
        "--class-folders",
        type=Path,
        help="folder or ZIP with train/<class>/, val/<class>/, or with a folder a class",
    )
    layout.add_argument("--ham10000", type=Path, help="folder with HAM10000's image folders and metadata")
    layout.add_argument("--csv", type=Path, help="table with an image column and a label column")
    isic = parser.add_argument_group("ISIC 2019")
    isic.add_argument("--download", action="store_true", help="fetch what is missing, 9 GB in all")
    isic.add_argument("--base-url", default=BASE_URL, help="where from")
    isic.add_argument("--sha256", default="", help="checksum of the images' archive, where you know it")
    table = parser.add_argument_group("tables and class folders")
    table.add_argument("--images", type=Path, help="folder or ZIP of the table's images; its own by default")
    for role in ("image", "label", "group", "split"):
        table.add_argument(f"--{role}-column", help="the usual names by default")
    table.add_argument(
        "--class-name", type=_class_name, action="append", default=[], metavar="NAME=DIAGNOSIS",
        help="what a class of yours is called in ISIC 2019, or UNK to leave it out; repeat as needed",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.download and (options.class_folders or options.ham10000 or options.csv):
        parser.error("--download gets ISIC 2019 and can't be combined with another layout")
    return options


def _shares(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _class_name(text: str) -> tuple[str, str]:
    name, separator, diagnosis = text.rpartition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIAGNOSIS")
    return name, diagnosis.upper()


@contextmanager
def _naming_a_full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigurationError(
                f"The disk of “{folder}” is full. Make room and run the same command again: it goes on where it "
                "stopped.",
                code=ErrorCode.DISK_FULL,
            ) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise ConfigurationError(
                f"“{folder}” can't be written ({error.strerror}). Choose another --output.",
                code=ErrorCode.NOT_WRITABLE,
            ) from error
        raise


if __name__ == "__main__":
    sys.exit(main())
