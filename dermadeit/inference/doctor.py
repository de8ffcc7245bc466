"""Whether this installation can read photos: its packages, its weights, and an example photo."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dermadeit.about import VERSION
from dermadeit.errors import CheckpointError, DermaDeiTError
from dermadeit.files import ASSETS
from dermadeit.models.checkpoints import CHECKPOINT_ROOT, answered_tasks, find_checkpoint, load_checkpoint
from dermadeit.models.specs import COMPARED_MODELS, OURS
from dermadeit.tasks import DIAGNOSIS

PACKAGES = ("numpy", "pillow", "torch", "timm", "gradio", "huggingface-hub")
"""What must be there to read photos and to open the app."""

OPTIONAL_PACKAGES = ("onnx", "onnxruntime", "openvino", "ray", "transformers")
"""What only some commands need."""

EXAMPLE = ASSETS / "examples" / "ISIC_0000002.jpg"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        text: What was found.
        works: Whether photos can be read as far as this goes.
    """

    name: str
    text: str
    works: bool = True


def examine(root: Path = CHECKPOINT_ROOT) -> Iterator[Finding]:
    """Looks at the installation.

    Args:
        root: Folder of the checkpoints.

    Yields:
        What was found, each as soon as it is known.
    """
    yield Finding("dermadeit", VERSION)
    yield Finding("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield from _examine_packages()
    yield from _examine_machine()
    yield from _examine_checkpoints(root)
    yield from _read_example(root)


def _examine_packages() -> Iterator[Finding]:
    for names, is_needed in ((PACKAGES, True), (OPTIONAL_PACKAGES, False)):
        for name in names:
            try:
                yield Finding(name, importlib.metadata.version(name))
            except importlib.metadata.PackageNotFoundError:
                text = "not installed" if is_needed else "not installed; only some commands need it"
                yield Finding(name, text, works=not is_needed)


def _examine_machine() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", f"can't be loaded: {error}", works=False)
        return
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; none is needed"
    yield Finding("GPU", gpu)
    yield Finding("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads")
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Finding("free memory", f"{free / 1e9:.1f} GB")


def _examine_checkpoints(root: Path) -> Iterator[Finding]:
    """Every checkpoint that is there; ours must be, and all must be whole."""
    for model in COMPARED_MODELS:
        try:
            answered = answered_tasks(model, root)
            if not answered and model == OURS:
                find_checkpoint(DIAGNOSIS.key, model, root)
        except CheckpointError as error:
            yield Finding(model, error.user_message, works=False)
            continue
        # A baseline that was never trained is nobody's fault.
        for folder in dict.fromkeys(find_checkpoint(task.key, model, root) for task in answered):
            name = folder.relative_to(root).as_posix()
            try:
                checkpoint = load_checkpoint(folder)
            except CheckpointError as error:
                yield Finding(name, error.user_message, works=False)
                continue
            fitted = "calibrated" if checkpoint.trust is not None else "not calibrated"
            yield Finding(name, f"{fitted}, SHA-256 {checkpoint.weights_sha256[:16]}… as named")


def _answered(root: Path) -> list[str]:
    """Keys of the tasks that our model answers; that of all diagnoses where it answers none."""
    try:
        return [task.key for task in answered_tasks(OURS, root)] or [DIAGNOSIS.key]
    except CheckpointError:
        return [DIAGNOSIS.key]


def _read_example(root: Path) -> Iterator[Finding]:
    try:
        from dermadeit.inference.predictor import DEFAULT_VIEWS, load_predictor
        from dermadeit.inference.records import Prediction
        from dermadeit.models.runtimes.choice import wanted_runtime
    except (ImportError, OSError) as error:
        yield Finding("photo", f"can't be read: {error}", works=False)
        return
    for task in _answered(root):
        try:
            # What runs the network for `predict` and the app.
            predictor = load_predictor(task, root=root, runtime=wanted_runtime())
            start = time.perf_counter()
            [record] = predictor.predict([EXAMPLE])
            seconds = time.perf_counter() - start
        except DermaDeiTError as error:
            yield Finding(f"photo, {task}", error.user_message, works=False)
            continue
        if isinstance(record, Prediction):
            yield Finding(
                f"photo, {task}", f"read by {record.runtime} in {DEFAULT_VIEWS} views, {seconds:.1f} s"
            )
        else:
            yield Finding(f"photo, {task}", record.message, works=False)
