"""A checkpoint for other runtimes: ONNX and OpenVINO with preprocessing, views and probabilities in the graph.

What goes in is a photo squashed to a square; what comes out is what `Predictor` says of it. So a program in any
language needs nothing of this library, and can't prepare photos in another way by mistake.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.errors import ErrorCode, ModelError
from dermadeit.files import ASSETS, require_folder, write_atomically, write_json
from dermadeit.imaging.decode import LesionImage, decode_image
from dermadeit.imaging.preprocessing import Preprocessing, dihedral_views
from dermadeit.inference.predictor import Predictor, check_views
from dermadeit.models.checkpoints import Checkpoint
from dermadeit.models.classifier import LesionClassifier
from dermadeit.models.runtimes.openvino_import import openvino as import_openvino
from dermadeit.tasks import Task
from dermadeit.trust.calibration import fitted_for_views
from dermadeit.trust.patient_context import context_to_dict

ONNX_FILE = "model.onnx"
OPENVINO_FILE = "model.xml"
DESCRIPTION_FILE = "model.json"
METADATA_KEY = "dermadeit"
"""Where the description of `describe` stands in the metadata of an ONNX or OpenVINO file."""

INPUT, LOGITS, PROBABILITIES = "pixels", "logits", "probabilities"

TOLERANCE = 1e-4
"""Greatest difference of a logit from the library's that an exported file may have."""

NO_GATES = (
    "This file never withholds an answer and gives no warning: it answers any picture. Decide yourself which "
    "photos it is shown."
)
"""What a description says of gates: they need more than the network."""

_CHECKED_PHOTOS = 3
_OPSET = 18

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""uint8 [B, S, S, 3] to logits and probabilities, each [B, N]."""


class PortableNetwork(nn.Module):
    """Squashed photos to the logits and probabilities of `Predictor`, as one graph.

    Args:
        classifier: The network; a copy of it is taken.
        preprocessing: How it wants its images.
        views: Dihedral views whose logits are averaged.
        scale: float [N], factors of the logits before the softmax.
        bias: float [N], offsets of the logits before the softmax.
    """

    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self,
        classifier: LesionClassifier,
        preprocessing: Preprocessing,
        views: int,
        scale: Sequence[float],
        bias: Sequence[float],
    ) -> None:
        super().__init__()
        self.classifier = copy.deepcopy(classifier).cpu()
        for module in self.classifier.modules():
            if hasattr(module, "fused_attn"):
                # The fused operator has no counterpart in older runtimes.
                module.fused_attn = False  # pyright: ignore[reportArgumentType]
        self.preprocessing = preprocessing
        self.views = views
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("bias", torch.tensor(bias, dtype=torch.float32))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Uint8 [B, S, S, 3] (sRGB) to logits and probabilities, float32 [B, N] each."""
        images = self.preprocessing.normalise(pixels.permute(0, 3, 1, 2))
        views = dihedral_views(images, self.views)
        logits = self.classifier(views.flatten(0, 1)).unflatten(0, (self.views, -1)).mean(dim=0)
        return logits, (logits * self.scale + self.bias).softmax(dim=-1)


def export_onnx(checkpoint: Checkpoint, folder: Path, views: int) -> float:
    """Writes `model.onnx` and checks it against the library.

    Args:
        checkpoint: What to export; its `folder` names it in messages.
        folder: Created when missing.
        views: Dihedral views in the graph, 1 to 8.

    Returns:
        The greatest difference of a logit on example photos.

    Raises:
        ConfigurationError: `views` is out of range.
        ModelError: A package is missing, or the file does not answer as the library does.
    """
    check_views(views)
    onnx, _ = _need("onnx"), _need("onnxscript")
    _need("onnxruntime")
    require_folder(folder)
    network, size = _portable(checkpoint, views), checkpoint.preprocessing.size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # What the exporter says of its own parts is nothing that a user can mend.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            external_data=False,
            input_names=[INPUT],
            output_names=[LOGITS, PROBABILITIES],
            dynamic_shapes=({0: torch.export.Dim("photos")},),
        )
    assert program is not None, "dynamo=True returns the program"
    model = program.model_proto
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(describe(checkpoint, views))})
    write_atomically(folder / ONNX_FILE, lambda partial: partial.write_bytes(model.SerializeToString()))
    return check_parity(checkpoint, views, onnx_runner(folder / ONNX_FILE))


def export_openvino(checkpoint: Checkpoint, folder: Path, views: int) -> float:
    """Writes `model.xml` and `model.bin`, by way of ONNX; see `export_onnx`.

    OpenVINO's own converter of torch networks would report its use to its makers; reading ONNX does not.
    """
    openvino = _need("openvino")
    export_onnx(checkpoint, folder, views)
    model = openvino.Core().read_model(folder / ONNX_FILE)
    model.set_rt_info(json.dumps(describe(checkpoint, views)), METADATA_KEY)
    openvino.save_model(model, folder / OPENVINO_FILE, compress_to_fp16=False)
    (folder / ONNX_FILE).unlink()
    compiled = openvino.Core().compile_model(
        folder / OPENVINO_FILE, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled({INPUT: pixels})
        return found[LOGITS], found[PROBABILITIES]

    return check_parity(checkpoint, views, run)


def describe(checkpoint: Checkpoint, views: int) -> dict[str, Any]:
    """What a program must know to prepare photos and to read the answers, as JSON-ready values."""
    preprocessing = checkpoint.preprocessing
    return {
        "model": checkpoint.model,
        "weights_sha256": checkpoint.weights_sha256,
        "dermadeit_version": VERSION,
        "disclaimer": DISCLAIMER,
        "licence": "CC BY-NC 4.0",
        "classes": list(checkpoint.network.classes),
        "titles": dict(checkpoint.network.display_names),
        "views": views,
        "calibrated": fitted_for_views(checkpoint.calibration, views) is not None,
        "input": {
            "name": INPUT,
            "layout": "uint8, photo × height × width × channel; sRGB, turned as EXIF says",
            "size": preprocessing.size,
            "resize": "squash to the square; nothing is cropped",
            "interpolation": preprocessing.interpolation,
            "antialias": True,
        },
        "in_the_graph": {
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "per_image_zscore": preprocessing.per_image_zscore,
            "colour_constancy": preprocessing.colour_constancy,
        },
        "tasks": {task.key: _describe_task(checkpoint, task, views) for task in checkpoint.tasks},
        "not_in_the_graph": {"gates": NO_GATES, "age_and_sex": _describe_context(checkpoint)},
    }


def check_parity(checkpoint: Checkpoint, views: int, run: Run, photos: Sequence[LesionImage] = ()) -> float:
    """Asks an exported network and the library about the same photos.

    Args:
        checkpoint: What was exported.
        views: Dihedral views in its graph.
        run: The exported network.
        photos: Decoded photos; a few of the shipped examples by default.

    Returns:
        The greatest difference of a logit.

    Raises:
        ModelError: It is more than `TOLERANCE`.
    """
    photos = photos or [decode_image(path) for path in example_photos()[:_CHECKED_PHOTOS]]
    prepare = checkpoint.preprocessing
    batch = np.stack([prepare.resize(photo.pixels).permute(1, 2, 0).numpy() for photo in photos])
    logits, _ = run(batch)
    ours = np.stack([found.logits.mean(axis=0) for found in Predictor(checkpoint).outputs(photos, views)])
    difference = float(np.abs(logits - ours).max())
    # Written so that NaN is refused too.
    if not difference <= TOLERANCE:
        raise ModelError(
            f"The exported network differs from this one by {difference:.1e} in a logit; {TOLERANCE:.0e} is "
            "allowed. Don't use it. Try other versions of the packages of the extra “export”.",
            code=ErrorCode.EXPORT_DIFFERS,
        )
    return difference


def example_photos() -> list[Path]:
    """The shipped photos, in alphabetical order."""
    return sorted((ASSETS / "examples").glob("*.jpg"))


def onnx_runner(path: Path) -> Run:
    """Runs an ONNX file on the CPU."""
    onnxruntime = _need("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: tuple(session.run([LOGITS, PROBABILITIES], {INPUT: pixels}))


def write_description(checkpoint: Checkpoint, views: int, folder: Path) -> None:
    """Writes `model.json`, for programs that can't read the metadata of a model file."""
    write_json(folder / DESCRIPTION_FILE, describe(checkpoint, views))


def _describe_task(checkpoint: Checkpoint, task: Task, views: int) -> dict[str, Any]:
    groups = task.group(checkpoint.network.classes)
    assert groups is not None, "`Checkpoint.tasks` are those that the network answers"
    trust = checkpoint.trust
    calibration = fitted_for_views(trust.calibrations.get(task.key) if trust else None, views)
    return {
        "title": task.title,
        "caveat": task.caveat,
        "classes": list(task.classes),
        "titles": dict(task.display_names),
        "contents": dict(task.contents),
        # Indices of the network's classes whose probabilities each class of the task sums up.
        "members": [list(group) for group in groups.members],
        # What is left out is divided away: the answer holds *if* the lesion is none of those.
        "renormalise": groups.leaves_out,
        "target": task.target,
        "class_weights": list(calibration.class_weights) or None if calibration else None,
        "operating_points": {
            name: point.threshold for name, point in calibration.by_views[views].operating_points.items()
        }
        if calibration
        else {},
    }


def _describe_context(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What joins age and sex with the probabilities of a photo; None where that was not fitted."""
    context = checkpoint.trust and checkpoint.trust.patient_context
    if not context:
        return None
    fitted = context_to_dict(context)
    return {
        "formula": (
            "softmax(log(probabilities) + coefficients · [(clip(age, least, greatest) - mean) / deviation, sex] + "
            "intercepts), with sex 1 for female, -1 for male, 0 for unknown; without an age the probabilities stay"
        ),
        **{key: fitted[key] for key in ("inputs", "age", "coefficients", "intercepts")},
    }


def _portable(checkpoint: Checkpoint, views: int) -> PortableNetwork:
    count = len(checkpoint.network.classes)
    scale, bias = (1.0,) * count, (0.0,) * count
    if calibration := fitted_for_views(checkpoint.calibration, views):
        scaling = calibration.by_views[views].scaling
        scale, bias = scaling.scale, scaling.bias
    network = PortableNetwork(checkpoint.classifier, checkpoint.preprocessing, views, scale, bias)
    return network.eval().requires_grad_(False)


def _need(package: str) -> Any:
    """A package of the extra `export`; raises `ModelError` where it is not installed."""
    import importlib

    try:
        # OpenVINO as it is would report the import to its makers.
        return import_openvino() if package == "openvino" else importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            f"This export needs the package {package}. Install it with “pip install 'dermadeit[export]'”.",
            code=ErrorCode.MISSING_PACKAGE,
        ) from error
