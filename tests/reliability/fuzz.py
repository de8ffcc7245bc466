"""Hands changed inputs to every reader: nothing but our own errors may come out, in bounded time and memory.

    make fuzz                       200,000 inputs, and the figures for docs/reliability.md
    make fuzz COUNT=2000            fewer
    make fuzz READER=zip INDEX=12   one input of one reader again, with its traceback

Every input follows from the name of its reader and its number alone, so that a finding can be made again. What is
found lies in fuzz-findings/, which git ignores; mend it, and make a case of it.
"""

from __future__ import annotations

import argparse
import atexit
import copy
import io
import json
import multiprocessing
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from figures import write_figures
from odd_files import CLASSES, PREDICTIONS, RECIPES, sign_weights
from odd_photos import PHOTOS, quietly
from odd_sets import SETS, photos, workbook
from repository import ROOT
from safetensors.numpy import load_file, save_file

from dermadeit.data.archives import opened_archive
from dermadeit.data.collection import UploadedFile, opened_collection
from dermadeit.data.own_classes import read_classes
from dermadeit.data.tabular import read_table_file
from dermadeit.errors import DermaDeiTError, ImageError
from dermadeit.evaluation.batch import read_uploaded_predictions
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.probe import exif_orientation, probe
from dermadeit.models.checkpoints import CHECKPOINT_ROOT, load_checkpoint
from dermadeit.tasks import BINARY

FINDINGS = ROOT / "fuzz-findings"

MOST_SECONDS = 20.0
"""Of processor time for one input."""

MOST_BYTES = 4 * 2**30
"""Of memory that a worker may ask for beyond what it has when it starts."""

_LARGEST_SEED = 60_000
_NUMBERS = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1", b"\1\0\0\0")

Read = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Reader:
    """What is fuzzed.

    Attributes:
        read: Reads bytes; it may write into the folder that it is given.
        seeds: Gives inputs to start from.
        words: What is put into inputs besides bytes.
        form: What is changed besides bytes: the members of a `zip`, the values of `json`, or those of the header
            of `safetensors`.
    """

    read: Read
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()
    form: str = ""


@dataclass
class Tally:
    """What came of some inputs.

    Attributes:
        outcomes: Code of the refusal, or “read”, to the number of inputs.
        findings: What went wrong: reader, number of the input, and the exception.
        seconds: The most processor time that an input took.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, object]] = field(default_factory=list)
    seconds: float = 0.0


class TooSlowError(BaseException):
    """An input took too much time; nothing that catches `Exception` stops it."""


# ------------------------------------------------------------------------------------------------ readers


def _read_zip(data: bytes, folder: Path) -> None:
    path = folder / "set.zip"
    path.write_bytes(data)
    with opened_archive(path) as archive:
        for member in archive.members[:50]:
            if not member.refusal:
                try:
                    archive.read(member.name)
                except ImageError:
                    continue


def _read_set(data: bytes, folder: Path) -> None:
    """As labels of four photos."""
    files = []
    for number, photo in enumerate(photos()):
        (folder / str(number)).write_bytes(photo)
        files.append(UploadedFile(folder / str(number), f"p{number}.jpg"))
    (folder / "table").write_bytes(data)
    with opened_collection([*files, UploadedFile(folder / "table", "labels.csv")], BINARY):
        pass


def _read_predictions(data: bytes, folder: Path) -> None:
    (folder / "upload").write_bytes(data)
    read_uploaded_predictions(folder / "upload", "predictions.csv", BINARY)


def _reads_checkpoint(name: str) -> Read:
    """A reader of one file of a checkpoint, as a forger would change it."""

    def read(data: bytes, folder: Path) -> None:
        shutil.copytree(_small_checkpoint(), folder / "model")
        (folder / "model" / name).write_bytes(data)
        if name == "model.safetensors":
            sign_weights(folder / "model")
        load_checkpoint(folder / "model")

    return read


@cache
def _small_checkpoint() -> Path:
    """An embedded checkpoint with next to no weights: whether they fit is seen when the network is built."""
    source = next(path.parent for path in sorted(CHECKPOINT_ROOT.rglob("config.json")))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-checkpoint-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("config.json", "calibration.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    known = json.loads((source / "config.json").read_text())["dermadeit"]["weights_sha256"]
    save_file({"head.weight": np.zeros((2, 4), np.float16)}, folder / "model.safetensors")
    sign_weights(folder)
    ours = json.loads((folder / "config.json").read_text())["dermadeit"]["weights_sha256"]
    text = (folder / "calibration.json").read_text()
    (folder / "calibration.json").write_text(text.replace(known, ours))
    arrays = {key: values[:16].copy() for key, values in load_file(source / "trust.safetensors").items()}
    save_file(arrays, folder / "trust.safetensors", {"weights_sha256": ours})
    return folder


def _of_checkpoint(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(_small_checkpoint() / name).read_bytes()]


def _read_classes(data: bytes, folder: Path) -> None:
    (folder / "classes.yaml").write_bytes(data)
    read_classes(folder / "classes.yaml")


def _read_recipe(data: bytes, folder: Path) -> None:
    # It imports torch.
    from train.command_line import parse_arguments

    (folder / "recipe.yaml").write_bytes(data)
    parse_arguments(["--recipe", str(folder / "recipe.yaml"), "--task", "binary"])


def _tables() -> Sequence[bytes]:
    """The tables of the cases, and of each the start of large ones."""
    found = (data for case in SETS for name, data in case.make().items() if name == "labels.csv")
    return [data[:3000] for data in found if not data.startswith(b"PK")]


def _zips() -> Sequence[bytes]:
    """The ZIPs of the cases, but for those that take long."""
    found = (case.make().get("set.zip", b"") for case in SETS)
    return [data for data in found if 0 < len(data) < 100_000]


def _written(cases: Sequence, name: str) -> Sequence[bytes]:
    """What cases write into a folder."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            case.damage(Path(folder))
            found.append((Path(folder) / name).read_bytes())
    return found


def _small_photos() -> Sequence[bytes]:
    encoded = [quietly(case.make) for case in PHOTOS]
    return [data for data in encoded if 0 < len(data) <= _LARGEST_SEED]


_CELLS = (
    *(
        b",",
        b";",
        b"\t",
        b'"',
        b"\r",
        b"\n",
        b"\0",
        b"sep=;",
        b"nan",
        b"1e999",
        b"=1",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
    ),
    *(b"image_id", b"label", b"p_nevus", b"logit_others", b"views", b"task", b"own", b"lesion_id", b"split"),
    *(b"nevus", b"MEL", b"verdict", b"calibrated", b"conformal_set", b"abstain_codes", b"flips", b"spread"),
    *(b"diagnosis_3", b"diagnosis", b"label_true", b"lesion_group", b"model", b"source", b"weights_sha256"),
)
_YAML = (
    *(
        b": ",
        b"- ",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!int ",
        b"!!binary ",
        b"!!set ",
        b"? ",
        b"| ",
        b"null",
        b"---",
    ),
    *(b"2001-99-99", b"binary:", b"base:", b"target:", b"task:", b"learning_rate:", b"model:", b"[" * 300),
)
_VALUES = (
    None,
    [],
    {},
    "",
    "x",
    -1,
    0,
    1,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    True,
    [[]],
    [None],
    {"a": 1},
)
"""What is put into JSON."""

READERS = {
    "decoder": Reader(lambda data, _: decode_image(data), _small_photos),
    "probe": Reader(lambda data, _: (probe(data), exif_orientation(data)), _small_photos),
    "zip": Reader(_read_zip, _zips),
    "table": Reader(lambda data, _: read_table_file(data, "t.csv"), _tables, _CELLS),
    "labels": Reader(_read_set, _tables, _CELLS),
    "excel": Reader(
        lambda data, _: read_table_file(data, "t.xlsx"),
        lambda: [workbook(["file", "label"], ["p0.jpg", "nevus"], ["p1.jpg", 3.5], [None, True])],
        (b"<row r='9'>", b"<c r='ZZZ1'>", b"<v>1e999</v>", b"t='s'", b"t='d'", b"t='e'", b"A1:XFD1048576"),
        form="zip",
    ),
    "predictions": Reader(_read_predictions, lambda: [case.make()[:3000] for case in PREDICTIONS], _CELLS),
    **{
        title: Reader(_reads_checkpoint(name), _of_checkpoint(name), form=form)
        for title, name, form in (
            ("checkpoint configuration", "config.json", "json"),
            ("checkpoint weights", "model.safetensors", "safetensors"),
            ("calibration", "calibration.json", "json"),
            ("calibration arrays", "trust.safetensors", "safetensors"),
        )
    },
    "classes": Reader(_read_classes, lambda: _written(CLASSES, "classes.yaml"), _YAML),
    "recipe": Reader(_read_recipe, lambda: _written(RECIPES, "recipe.yaml"), _YAML),
}  # fmt: skip


# ----------------------------------------------------------------------------------------------- inputs


def make_input(name: str, index: int, seeds: Sequence[bytes]) -> bytes:
    """The input of a reader with this number."""
    # A text seeds by all of its letters, whatever the process.
    chance, reader = random.Random(f"{name} {index}"), READERS[name]
    seed = chance.choice(seeds)
    if reader.form == "zip":
        return _changed_zip(seed, chance, reader.words)
    if reader.form and chance.random() < 0.8:
        if reader.form == "json":
            return _changed_json(seed, chance)
        length = struct.unpack_from("<Q", seed)[0]
        header = _changed_json(seed[8 : 8 + length], chance)
        return struct.pack("<Q", len(header)) + header + seed[8 + length :]
    return _changed(seed, chance, seeds, reader.words)


def _changed_zip(seed: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(seed)) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        members = source.namelist()
        chosen = chance.choice([*members, "xl/worksheets/sheet1.xml", "xl/workbook.xml"])
        for member in members:
            content = source.read(member)
            target.writestr(
                member, _changed(content, chance, [content], words) if member == chosen else content
            )
    return packed.getvalue()


def _changed_json(seed: bytes, chance: random.Random) -> bytes:
    """A few values replaced or taken away, wherever they stand."""
    content = json.loads(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        place, deep = content, chance.randrange(1, 6)
        for _ in range(deep):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.8:
                place = place[key]
                continue
            match chance.randrange(4):
                case 0:
                    del place[key]
                case 1 if isinstance(place, dict):
                    place[chance.choice(("", "x", "format", "0"))] = place.pop(key)
                case _:
                    place[key] = copy.deepcopy(chance.choice(_VALUES))
            break
    return json.dumps(content).encode()


def _changed(data: bytes, chance: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        # Parsers sit at the start.
        end = len(changed) if chance.random() < 0.5 else min(len(changed), 300)
        at = chance.randrange(end + 1)
        length = chance.choice((1, 2, 4, 8, 40, 400))
        match chance.randrange(8):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                mark = chance.choice(_NUMBERS)
                changed[at : at + len(mark)] = mark
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length] * chance.choice((1, 2, 20))
            case 4:
                changed[at:at] = chance.randbytes(length)
            case 5:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                changed[at : at + length] = other[start : start + length]
            case 6 if words:
                changed[at : at + chance.choice((0, length))] = chance.choice(words)
            case _:
                del changed[at + length :]
                changed += data[at + length : at + length + chance.randrange(len(data) + 1)]
    return bytes(changed)


def fuzz(name: str, indices: Iterable[int], keep: Path | None = None) -> Tally:
    """Hands the inputs with these numbers to a reader.

    Args:
        name: One of `READERS`.
        indices: Which inputs.
        keep: Where to put those that something is wrong with.
    """
    tally, reader = Tally(), READERS[name]
    seeds = reader.seeds()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), _alarm():
        warnings.simplefilter("ignore")
        for index in indices:
            data = make_input(name, index, seeds)
            folder = Path(scratch) / "input"
            folder.mkdir()
            start = time.process_time()
            outcome, wrong = _outcome(reader, data, folder)
            tally.seconds = max(tally.seconds, time.process_time() - start)
            tally.outcomes[outcome] += 1
            if wrong is not None:
                tally.findings.append({"reader": name, "index": index, **wrong})
                if keep is not None:
                    keep.mkdir(exist_ok=True)
                    (keep / f"{name.replace(' ', '-')}-{index}").write_bytes(data)
            shutil.rmtree(folder)
    return tally


def _outcome(reader: Reader, data: bytes, folder: Path) -> tuple[str, dict[str, str] | None]:
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        reader.read(data, folder)
    except DermaDeiTError as error:
        return str(error.code), None
    except (Exception, TooSlowError) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return "finding", {"error": type(error).__name__, "text": str(error)[:200], "place": where}
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return "read", None


@contextmanager
def _alarm() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)


def _fuzz_in_worker(work: tuple[str, int, int]) -> tuple[str, Tally, int]:
    name, start, stop = work
    tally = fuzz(name, range(start, stop), FINDINGS)
    return name, tally, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _limit_memory() -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_BYTES, held + MOST_BYTES))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzzes, writes the figures, and returns 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000, help="inputs, over all readers")
    parser.add_argument("--reader", choices=READERS, action="append", help="only these")
    parser.add_argument("--index", type=int, help="one input of one reader, again, with its traceback")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    names = options.reader or list(READERS)
    if options.index is not None:
        reader = READERS[names[0]]
        with tempfile.TemporaryDirectory() as folder:
            reader.read(make_input(names[0], options.index, reader.seeds()), Path(folder))
        return 0
    each, start = max(1, options.count // len(names)), time.monotonic()
    step = min(each, 500)
    portions = [(name, low, min(low + step, each)) for low in range(0, each, step) for name in names]
    total: dict[str, Tally] = {name: Tally() for name in names}
    memory = 0
    # A worker that hangs in C or is killed for its memory ends the run, and the portion that it had is named.
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, _limit_memory, maxtasksperchild=40) as pool:
        results = [(work, pool.apply_async(_fuzz_in_worker, [work])) for work in portions]
        for done, (work, result) in enumerate(results, start=1):
            try:
                name, tally, peak = result.get(timeout=3600)
            except multiprocessing.TimeoutError:
                name, low, high = work
                tally, peak = (
                    Tally(findings=[{"reader": name, "index": low, "error": f"hangs before {high}"}]),
                    0,
                )
            total[name].outcomes += tally.outcomes
            total[name].findings += tally.findings
            total[name].seconds = max(total[name].seconds, tally.seconds)
            memory = max(memory, peak)
            sys.stderr.write(f"\r{done} of {len(portions)} portions")
    sys.stderr.write("\n")
    findings = [finding for tally in total.values() for finding in tally.findings]
    content = {
        "inputs": sum(sum(tally.outcomes.values()) for tally in total.values()),
        "findings": findings,
        "minutes": (time.monotonic() - start) / 60,
        "largest_memory_mb": memory / 1e6,
        "readers": {
            name: {
                "inputs": sum(tally.outcomes.values()),
                "read": tally.outcomes["read"],
                "refused": sum(tally.outcomes.values()) - tally.outcomes["read"] - tally.outcomes["finding"],
                "findings": len(tally.findings),
                "most_seconds": tally.seconds,
                "outcomes": dict(tally.outcomes.most_common()),
            }
            for name, tally in total.items()
        },
    }
    write_figures("fuzz", content, options.reader is None)
    for finding in findings[:50]:
        sys.stdout.write(f"{finding}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
