"""OpenVINO, the fast runtime on a CPU: in bfloat16 where the CPU has instructions for it, else in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS, Preprocessing
from dermadeit.models.runtimes import graph
from dermadeit.models.runtimes.openvino_import import openvino
from dermadeit.models.runtimes.runtime import ViewOutputs
from dermadeit.models.specs import ModelSpec

_OF_FIRST_VIEW = (graph.CLASS_EMBEDDING, graph.DISTILLATION_EMBEDDING, graph.SHALLOW)


class OpenVinoRuntime:
    """Runs a network of `specs`.

    Args:
        spec: What the network is.
        weights: As `Checkpoint.weights`.
        preprocessing: How it wants its images.
        precision: `bf16` or `f32`; None for what suits the CPU.

    Raises:
        KeyError: The weights are not those of this network.
        RuntimeError: OpenVINO can't run it.
    """

    views_at_once = 4 * DIHEDRAL_VIEWS

    def __init__(
        self,
        spec: ModelSpec,
        weights: Mapping[str, np.ndarray],
        preprocessing: Preprocessing,
        precision: str | None = None,
    ) -> None:
        core = _core()
        if precision is None:
            precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        model = graph.build_graph(spec, weights, preprocessing.size)
        # Of two runs on one machine the same bits are wanted, and of a batch what each photo gets alone.
        settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self._preprocessing = preprocessing
        self.name = f"openvino-{precision}"

    def run(self, pixels: np.ndarray, views: Sequence[int]) -> list[ViewOutputs]:
        """As `Runtime.run`; more views than `views_at_once` go through it in one pass all the same."""
        counts = np.asarray(views)
        turned = [
            _turned(image, view) for image, count in zip(pixels, views, strict=True) for view in range(count)
        ]
        first = np.cumsum(counts) - counts
        scale, shift = (part.repeat(counts, axis=0) for part in self._preprocessing.standardisation(pixels))
        outputs = self._infer(np.stack(turned), scale, shift, first)
        logits = np.split(outputs[graph.LOGITS], first[1:])
        return [
            ViewOutputs(*parts)
            for parts in zip(logits, *(outputs[name].copy() for name in _OF_FIRST_VIEW), strict=True)
        ]

    def tokens(self, pixels: np.ndarray) -> np.ndarray:
        """As `Runtime.tokens`."""
        scale, shift = self._preprocessing.standardisation(pixels)
        return self._infer(pixels, scale, shift, np.arange(len(pixels)))[graph.TOKENS]

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """As `Runtime.logits`, of the pixels rounded to 8 bits."""
        rounded = np.round(pixels * 255).clip(0, 255).astype(np.uint8)
        scale, shift = self._preprocessing.standardisation(rounded)
        step = self.views_at_once
        parts = [
            self._infer(rounded[at : at + step], scale[at : at + step], shift[at : at + step], np.zeros(1))
            for at in range(0, len(rounded), step)
        ]
        return np.concatenate([part[graph.LOGITS] for part in parts])

    def _infer(
        self, images: np.ndarray, scale: np.ndarray, shift: np.ndarray, kept: np.ndarray
    ) -> dict[str, np.ndarray]:
        inputs = {"images": images, "scale": scale, "shift": shift, "kept": kept.astype(np.int64)}
        found = self._request.infer(inputs, share_inputs=True)
        return {output.get_any_name(): values for output, values in found.items()}


@cache
def _core() -> Any:
    return openvino().Core()


def _turned(image: np.ndarray, view: int) -> np.ndarray:
    """As `preprocessing.apply_dihedral`: uint8 [3, S, S], S pixels a side."""
    mirrored = image[:, :, ::-1] if view >= 4 else image
    return np.rot90(mirrored, view % 4, axes=(1, 2))
