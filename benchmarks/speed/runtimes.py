"""What could run a network on a CPU: how fast each way is, and what it costs in accuracy.

    python -m benchmarks.speed.runtimes
    python -m benchmarks.speed.runtimes manifest.csv --split validation --output runtimes.json

PyTorch in float32 is the reference: all ways take turns on the same batches, and a speed is a ratio to it within a
round. With labelled images, each way's accuracy and AUROC stand beside the reference's, for every task that the
network answers, from one view and by plain softmax.

`--compile` adds torch.compile, which takes a minute and a C++ compiler. `--int8` adds the weights and activations
of OpenVINO in 8 bits, chosen by NNCF (`pip install nncf`) on images of the calibration split. A way ships if it
loses at most 0.1 points of accuracy and 0.002 of AUROC.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from benchmarks.speed.machine import describe_machine
from benchmarks.speed.photos import make_photos
from benchmarks.speed.rounds import divide, summarise, take_turns
from dermadeit.data.manifest import Manifest, read_source
from dermadeit.files import write_json
from dermadeit.imaging.decode import READING_SIDE, decode_image
from dermadeit.inference.zoo import load_answering
from dermadeit.metrics.classification import classification_metrics
from dermadeit.models.checkpoints import Checkpoint
from dermadeit.models.runtimes import graph
from dermadeit.models.runtimes.openvino_import import openvino
from dermadeit.models.runtimes.openvino_runtime import OpenVinoRuntime
from dermadeit.publishing.exports import ONNX_FILE, export_onnx, onnx_runner
from dermadeit.reporting.format import decimal, rounded
from dermadeit.reporting.markdown import around_marks, markdown_table, write_between_marks

logger = logging.getLogger("benchmarks.speed.runtimes")

Run = Callable[[np.ndarray], np.ndarray]
"""uint8 [N, 3, S, S] to logits, float [N, K]."""

PLACE = "runtimes"
"""Marks of the table in a Markdown file."""

REFERENCE = "PyTorch, float32"
BATCH = 32
CALIBRATION_IMAGES = 300
FIGURES = ("accuracy", "roc_auc")


def list_runs(
    checkpoint: Checkpoint, folder: Path, *, compiled: bool = False, calibration: np.ndarray | None = None
) -> dict[str, Run]:
    """Name of each way to what does it, the reference first.

    Args:
        checkpoint: Whose network is run.
        folder: For what an export writes.
        compiled: Whether torch.compile is one of them.
        calibration: uint8 [N, 3, S, S] to choose the scales of int8 on; None for no int8.
    """
    assert checkpoint.weights is not None, "they come from its file"
    runs: dict[str, Run] = {
        REFERENCE: _torch_run(checkpoint, checkpoint.classifier, bf16=False),
        "PyTorch, bfloat16": _torch_run(checkpoint, checkpoint.classifier, bf16=True),
    }
    if compiled:
        network = torch.compile(checkpoint.classifier)
        runs["torch.compile, float32"] = _torch_run(checkpoint, network, bf16=False)
    export_onnx(checkpoint, folder, 1)
    session = onnx_runner(folder / ONNX_FILE)
    runs["ONNX Runtime, float32"] = lambda pixels: session(pixels.transpose(0, 2, 3, 1))[0]
    for precision, name in (("f32", "float32"), ("bf16", "bfloat16")):
        runtime = OpenVinoRuntime(checkpoint.spec, checkpoint.weights, checkpoint.preprocessing, precision)
        runs[f"OpenVINO, {name}"] = _openvino_run(runtime)
    if calibration is not None:
        runs["OpenVINO, int8"] = quantise(checkpoint, calibration)
    return runs


def quantise(checkpoint: Checkpoint, calibration: np.ndarray) -> Run:
    """The network in 8 bits, with scales chosen on images: uint8 [N, 3, S, S]."""
    nncf = import_module("nncf")
    assert checkpoint.weights is not None, "they come from its file"
    model = graph.build_graph(checkpoint.spec, checkpoint.weights, checkpoint.preprocessing.size)
    quantised = nncf.quantize(
        model,
        nncf.Dataset(
            [_inputs(checkpoint, calibration[index : index + 1]) for index in range(len(calibration))]
        ),
        subset_size=len(calibration),
        model_type=nncf.ModelType.TRANSFORMER if checkpoint.spec.is_transformer else None,
        preset=nncf.QuantizationPreset.MIXED,
    )
    request = openvino().Core().compile_model(quantised, "CPU", {"PERFORMANCE_HINT": "LATENCY"})

    def run(pixels: np.ndarray) -> np.ndarray:
        parts = [request(_inputs(checkpoint, batch))[graph.LOGITS] for batch in _batches(pixels)]
        return np.concatenate(parts)

    return run


def _inputs(checkpoint: Checkpoint, pixels: np.ndarray) -> dict[str, np.ndarray]:
    scale, shift = checkpoint.preprocessing.standardisation(pixels)
    return {"images": pixels, "scale": scale, "shift": shift, "kept": np.zeros(1, dtype=np.int64)}


def _torch_run(checkpoint: Checkpoint, network: Callable[[torch.Tensor], torch.Tensor], *, bf16: bool) -> Run:
    def run(pixels: np.ndarray) -> np.ndarray:
        parts = []
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for batch in _batches(pixels):
                images = checkpoint.preprocessing.normalise(torch.from_numpy(batch))
                parts.append(network(images).float().numpy())
        return np.concatenate(parts)

    return run


def _openvino_run(runtime: OpenVinoRuntime) -> Run:
    def run(pixels: np.ndarray) -> np.ndarray:
        found = [output for batch in _batches(pixels) for output in runtime.run(batch, [1] * len(batch))]
        return np.stack([output.logits[0] for output in found])

    return run


def _batches(pixels: np.ndarray) -> list[np.ndarray]:
    return [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]


def measure_speed(runs: Mapping[str, Run], pixels: np.ndarray, seconds: float, least: int) -> dict[str, Any]:
    """Each way's photos a second, how many times as fast as the reference, and the largest difference of a logit.

    Args:
        runs: The reference is one of them.
        pixels: uint8 [N, 3, S, S], which each goes through in a round.
        seconds: How long it may take.
        least: Rounds in any case.
    """
    reference = runs[REFERENCE](pixels)
    measured = take_turns(
        {name: lambda run=run: run(pixels) for name, run in runs.items()}, seconds=seconds, least=least
    )
    return {
        name: {
            "photos_per_second": summarise([len(pixels) / value for value in rounds]),
            "times_the_reference": summarise(divide(measured[REFERENCE], rounds)),
            "largest_difference_of_a_logit": float(np.abs(runs[name](pixels) - reference).max()),
        }
        for name, rounds in measured.items()
    }


def measure_accuracy(
    runs: Mapping[str, Run], checkpoint: Checkpoint, manifests: Mapping[str, Manifest]
) -> dict[str, dict[str, Any]]:
    """Each way's figures for each task, with their differences to the reference's.

    Args:
        runs: The reference is one of them.
        checkpoint: Whose network it is.
        manifests: Key of each task to its labelled images.
    """
    rows = {row.image_id: row for manifest in manifests.values() for row in manifest.rows}
    place = {image_id: index for index, image_id in enumerate(rows)}
    pixels = np.stack([_squash(checkpoint, row.content()) for row in rows.values()])
    shares = {name: softmax(run(pixels).astype(float), axis=1) for name, run in runs.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in runs}
    for task in checkpoint.tasks:
        groups, manifest = task.group(checkpoint.network.classes), manifests[task.key]
        assert groups is not None, "the network answers it"
        chosen = [place[row.image_id] for row in manifest.rows]
        labels = np.array([task.index_of(row.label) for row in manifest.rows])
        for name, of_image in shares.items():
            figures = classification_metrics(labels, groups.read(of_image[chosen]), task.classes)
            found[name][task.key] = {"n": len(labels), **{figure: figures[figure] for figure in FIGURES}}
    for of_tasks in found.values():
        for key, figures in of_tasks.items():
            reference = found[REFERENCE][key]
            figures["differences"] = {figure: figures[figure] - reference[figure] for figure in FIGURES}
    return found


def _squash(checkpoint: Checkpoint, source: bytes | Path) -> np.ndarray:
    return checkpoint.preprocessing.squash(decode_image(source, enough_side=READING_SIDE).pixels)


def render(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    tasks = list(next(iter(report["runtimes"].values())).get("tasks", {}))
    header = ["", "photos/s", "times PyTorch", "largest difference of a logit"]
    header += [f"{key}: {name}" for key in tasks for name in ("accuracy", "AUROC")]
    rows = []
    for name, found in report["runtimes"].items():
        low, high = found["times_the_reference"]["interval"]
        rows.append(
            [
                name,
                rounded(found["photos_per_second"]["median"]),
                f"{found['times_the_reference']['median']:.2f} [{low:.2f}, {high:.2f}]",
                rounded(found["largest_difference_of_a_logit"]),
                *(_figure_text(found["tasks"][key], figure) for key in tasks for figure in FIGURES),
            ]
        )
    return markdown_table(header, rows)


def _figure_text(figures: Mapping[str, Any], name: str) -> str:
    return f"{decimal(figures[name], 4)} ({figures['differences'][name]:+.4f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "manifest", type=Path, nargs="?", help="labelled images; without them only speed is measured"
    )
    parser.add_argument("--split", default="validation", help="whose images are asked about")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder in place of the embedded one")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument(
        "--int8", action="store_true", help="OpenVINO in 8 bits too; needs a manifest and nncf"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="how long speed is measured")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in any case")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--results", type=Path, help="a Markdown file to put the table into")
    options = parser.parse_args(arguments)
    if options.results:
        around_marks(options.results, PLACE)
    if options.int8 and options.manifest is None:
        parser.error("--int8 needs a manifest: its scales are chosen on images of the calibration split")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    checkpoint = next(iter(load_answering(options.checkpoint).values())).checkpoint
    manifests = {
        task.key: read_source(options.manifest, task) for task in checkpoint.tasks if options.manifest
    }
    calibration = None
    if options.int8:
        known = manifests[checkpoint.network.key].select("calibration").rows[:CALIBRATION_IMAGES]
        calibration = np.stack([_squash(checkpoint, row.content()) for row in known])
    pixels = np.stack([_squash(checkpoint, photo) for photo in make_photos(BATCH)])
    with tempfile.TemporaryDirectory() as folder:
        runs = list_runs(checkpoint, Path(folder), compiled=options.compile, calibration=calibration)
        found = measure_speed(runs, pixels, options.seconds, options.rounds)
        if manifests:
            asked = {key: manifest.select(options.split) for key, manifest in manifests.items()}
            for name, tasks in measure_accuracy(runs, checkpoint, asked).items():
                found[name]["tasks"] = tasks
    report = {
        "machine": describe_machine(),
        "model": checkpoint.model,
        "image_size": checkpoint.preprocessing.size,
        "weights_sha256": checkpoint.weights_sha256,
        "split": options.split if manifests else None,
        "calibration_images": 0 if calibration is None else len(calibration),
        "runtimes": found,
    }
    if options.output:
        write_json(options.output, report)
    logger.info("%s", render(report))
    if options.results:
        write_between_marks(options.results, PLACE, render(report))


if __name__ == "__main__":
    main()
