"""Killed processes, full disks, folders that can't be written and damaged files: nothing is lost, nothing is half.

    make faults                     20 kills of each work, and the figures for docs/reliability.md
    make faults KILLS=3             fewer

Each work runs undisturbed once. Then it is started again and again in a new folder, killed at a random moment, and
run to its end: what it has made must be the same, and what lay there after the kill must be whole or nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from figures import write_figures
from odd_files import CHECKPOINTS
from repository import ROOT

from dermadeit.data.synthetic import write_dataset
from dermadeit.data.tabular import read_csv
from dermadeit.errors import CheckpointError, DermaDeiTError
from dermadeit.files import read_json
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.models.checkpoints import load_checkpoint, save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import BINARY

_ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
_LESIONS = 64
_SMALL_DISK = "1m"
_WHOLE_OR_NOTHING = ("evaluation", "preparing", "calibration")
"""Works that leave what they end with; the others also leave where they have come to."""


@dataclass(frozen=True)
class Work:
    """Something that takes a while and writes files.

    Attributes:
        arguments: The command after `python`, given the folder to work in.
        result: What it has made, comparable; raises where that is half.
        prepare: Puts into a new folder what the work changes.
    """

    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda folder: folder.mkdir()


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def make_inputs(folder: Path) -> None:
    """Synthetic photos in `data`, and a checkpoint with random weights in `model`."""
    write_dataset(folder / "data", lesions=_LESIONS, seed=0, size=(96, 80))
    torch.manual_seed(0)
    classifier = create_classifier("mobilenetv2", len(BINARY.classes), image_size=64)
    save_checkpoint(folder / "model", classifier, BINARY, Preprocessing(64))


def works(inputs: Path) -> dict[str, Work]:
    """Name to work; all of them read what `make_inputs` made."""
    data, model, table = str(inputs / "data"), str(inputs / "model"), str(inputs / "data" / "manifest.csv")
    small = ["--init", "none", "--image-size", "32", "--epochs", "3", "--batch-size", "16", "--device", "cpu"]
    small += ["--precision", "fp32", "--workers", "0", "--task", "binary"]
    evaluate = ["-m", "dermadeit", "evaluate", table, "--task", "binary", "--model", model, "--views", "1"]
    return {
        "training": Work(
            lambda folder: ["train/distill.py", "--data", data, "--output", f"{folder}/run", *small,
                            "--teacher", f"checkpoint:{model}", "--teacher-cache", f"{folder}/cache"],
            lambda folder: _whole_checkpoint(folder / "run"),
        ),
        "embedding": Work(
            lambda folder: ["train/extract_embeddings.py", "--teacher", f"checkpoint:{model}", "--data", data,
                            "--output", f"{folder}/cache", "--device", "cpu", "--task", "binary",
                            "--shard-images", "8"],
            lambda folder: _shards(folder / "cache"),
        ),
        "preparing": Work(
            lambda folder: ["train/prepare_isic2019.py", "--csv", table, "--images", data, "--output",
                            f"{folder}/prepared", "--workers", "1"],
            lambda folder: _table(folder / "prepared" / "manifest.csv"),
        ),
        "evaluation": Work(
            lambda folder: [*evaluate, "--output", f"{folder}/evaluation"],
            lambda folder: _table(folder / "evaluation" / "predictions.csv"),
        ),
        "calibration": Work(
            lambda folder: ["-m", "dermadeit", "calibrate", table, "--model", f"{folder}/model", "--views", "1"],
            _calibrated,
            lambda folder: shutil.copytree(inputs / "model", folder / "model"),
        ),
        "export": Work(
            lambda folder: ["-m", "dermadeit", "export", "--model", model, "--task", "binary", "--views", "1",
                            "--format", "onnx", "--output", f"{folder}/export"],
            lambda folder: sorted(path.name for path in (folder / "export").glob("[!.]*")),
        ),
    }  # fmt: skip


def _whole_checkpoint(folder: Path) -> object:
    """Hash of the weights; None where there is no checkpoint, and an error where there is half a one."""
    if not (folder / "config.json").exists() and not (folder / "model.safetensors").exists():
        return None
    return load_checkpoint(folder).weights_sha256


def _shards(folder: Path) -> object:
    """Hash of all vectors by image; shards without their record do not count."""
    vectors = {}
    for record in sorted(folder.rglob("shard-*.json")):
        content = read_json(record)
        vectors |= dict(zip(content["image_ids"], np.load(record.with_suffix(".npy")), strict=True))
    return (
        hashlib.sha256(b"".join(vectors[key].tobytes() for key in sorted(vectors))).hexdigest()
        if vectors
        else None
    )


def _table(path: Path) -> object:
    return (len(read_csv(path).rows), _digest(path)) if path.exists() else None


def _calibrated(folder: Path) -> object:
    trust = load_checkpoint(folder / "model").trust
    return trust and str(trust.calibrations)


# ------------------------------------------------------------------------------------------------ kills


def run(arguments: Sequence[str], **options) -> subprocess.CompletedProcess:
    """Runs a command of ours to its end."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=_ENVIRONMENT, capture_output=True, text=True, check=False, **options
    )


def kill(arguments: Sequence[str], seconds: float) -> bool:
    """Kills a command and all that it has started after so many seconds; False where it had ended before."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=_ENVIRONMENT, start_new_session=True, **quiet
    ) as process:
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True


def disturb(name: str, work: Work, inputs: Path, kills: int) -> dict[str, object]:
    """Kills a work at random moments; says how often what came of it was the same."""
    undisturbed, chance = inputs / f"{name} undisturbed", random.Random(name)
    work.prepare(undisturbed)
    start = time.monotonic()
    done = run(work.arguments(undisturbed))
    took, expected = time.monotonic() - start, work.result(undisturbed)
    if done.returncode or expected is None:
        return {
            "kills": 0,
            "same": 0,
            "half": [],
            "differing": [],
            "failure": done.stderr[-500:].replace(str(inputs), "…"),
        }
    killed = same = 0
    half, differing = [], []
    for number in range(kills):
        folder = inputs / f"{name} {number}"
        work.prepare(folder)
        moment = chance.uniform(0.1, 1.0) * took
        killed += kill(work.arguments(folder), moment)
        try:
            left = work.result(folder)
            if left not in (None, expected) and name in _WHOLE_OR_NOTHING:
                half.append(f"after {moment:.1f} s: other files")
        except (DermaDeiTError, OSError, ValueError) as error:
            half.append(f"after {moment:.1f} s: {error}".replace(str(inputs), "…"))
        again = run(work.arguments(folder))
        result = work.result(folder) if again.returncode == 0 else again.stderr[-500:]
        if result == expected:
            same += 1
        else:
            differing.append(f"after {moment:.1f} s: {str(result)[:500]}")
        shutil.rmtree(folder)
    return {
        "kills": killed,
        "runs": kills,
        "same": same,
        "half": half,
        "differing": differing,
        "seconds": took,
    }


# ---------------------------------------------------------------------------------------- disks, files


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A small disk in memory; raises `PermissionError` where none may be mounted."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise PermissionError("no disk may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(name: str, work: Work, inputs: Path) -> dict[str, object]:
    """Lets a work write to a disk of a megabyte that is nearly full, or to one that can't be written."""
    found = {}
    for title, options in (("full disk", [f"size={_SMALL_DISK}"]), ("read-only folder", ["ro"])):
        try:
            with mounted(inputs / f"{name} disk", *options) as disk:
                if "ro" not in options:
                    (disk / "ballast").write_bytes(bytes(1_000_000))
                done = run(work.arguments(disk))
                message = (done.stderr.strip().splitlines() or [""])[-1].replace(str(inputs), "…")
                found[title] = {
                    "exit code": done.returncode,
                    "message": message[-300:],
                    "traceback": "Traceback" in done.stderr,
                }
                if "ro" not in options:
                    (disk / "ballast").unlink()
                    left = [path for path in disk.rglob("*.safetensors") if not path.name.startswith(".")]
                    found[title]["half files"] = [path.name for path in left if not _is_whole(path.parent)]
        except PermissionError as error:
            return {"not possible here": str(error)}
    return found  # fmt: skip


def _is_whole(folder: Path) -> bool:
    try:
        load_checkpoint(folder)
    except CheckpointError:
        return False
    return True


def damage_checkpoints(inputs: Path) -> dict[str, object]:
    """Damages a calibrated checkpoint in every way of the cases, and counts what is refused by its name."""
    whole = inputs / "calibration undisturbed" / "model"
    counts, wrong = {"refused": 0, "used": 0}, []
    for case in CHECKPOINTS:
        folder = inputs / "damaged"
        shutil.copytree(whole, folder)
        case.damage(folder)
        try:
            load_checkpoint(folder)
            code = None
        except DermaDeiTError as error:
            code = error.code
        counts["used" if code is None else "refused"] += 1
        if code != case.code:
            wrong.append(f"{case.name}: {code}")
        shutil.rmtree(folder)
    return {"cases": len(CHECKPOINTS), **counts, "unexpected": wrong}


def damage_cache(work: Work, inputs: Path) -> dict[str, object]:
    """Damages the cache of a teacher: it is made anew, or refused."""
    expected = work.result(inputs / "embedding undisturbed")
    found = {}
    for title, pattern, change in (
        ("half a shard", "shard-*.npy", lambda data: data[: len(data) // 2]),
        ("half the record of a shard", "shard-*.json", lambda data: data[: len(data) // 2]),
        ("an empty shard", "shard-*.npy", lambda data: b""),
        ("a bit of a shard flipped", "shard-*.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("half a header", "header.json", lambda data: data[: len(data) // 2]),
        (
            "the header of another teacher",
            "header.json",
            lambda data: data.replace(b"checkpoint", b"chequepoint"),
        ),
    ):
        folder = inputs / "damaged cache"
        shutil.copytree(inputs / "embedding undisturbed", folder)
        path = next((folder / "cache").rglob(pattern))
        path.write_bytes(change(path.read_bytes()))
        done = run(work.arguments(folder))
        if done.returncode == 0:
            found[title] = "made anew" if work.result(folder) == expected else "used as it is"
        else:
            found[title] = f"refused: {done.stderr.strip().splitlines()[-1][-300:]}".replace(str(inputs), "…")
        shutil.rmtree(folder)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturbs every work, writes the figures, and returns 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--work", action="append", help="only these")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        inputs = Path(name)
        make_inputs(inputs)
        chosen = {key: work for key, work in works(inputs).items() if not options.work or key in options.work}
        content: dict[str, object] = {"kills": {}, "disks": {}}
        for key, work in chosen.items():
            content["kills"][key] = disturb(key, work, inputs, options.kills)
            content["disks"][key] = fill_disk(key, work, inputs)
            sys.stderr.write(f"{key}: {content['kills'][key]} {content['disks'][key]}\n")
        if "calibration" in chosen:
            content["checkpoints"] = damage_checkpoints(inputs)
        if "embedding" in chosen:
            content["cache"] = damage_cache(chosen["embedding"], inputs)
    write_figures("faults", content, not options.work)
    kills = content["kills"].values()
    return int(any(entry.get("failure") or entry["half"] or entry["differing"] for entry in kills))


if __name__ == "__main__":
    sys.exit(main())
