"""What every runtime does: pixels in, what the network says of them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class ViewOutputs:
    """What one pass through the model gives for one image.

    Attributes:
        logits: float32 [V, N], of each dihedral view, for the N classes of the network.
        class_embedding: float32 [D], of the first view, the unturned image.
        distillation_embedding: float32 [D], of the same; equal to the other where there is no such token.
        shallow_embedding: float32 [C], of the same: what the first layers see of it (`shallow_features`).
    """

    logits: np.ndarray
    class_embedding: np.ndarray
    distillation_embedding: np.ndarray
    shallow_embedding: np.ndarray


class Runtime(Protocol):
    """Runs one network. Not for several threads at a time: hold the predictor's lock."""

    @property
    def name(self) -> str:
        """What answers, for records: such as `torch` or `openvino-bf16`."""
        ...

    @property
    def views_at_once(self) -> int:
        """How many views a pass takes at most, so that its memory is bounded and nobody waits long for it."""
        ...

    def run(self, pixels: np.ndarray, views: Sequence[int]) -> list[ViewOutputs]:
        """One pass.

        Args:
            pixels: uint8 [N, 3, S, S], squashed to the input's size and not normalised; N at least 1.
            views: How many dihedral views of each image, 1 to 8.
        """
        ...

    def tokens(self, pixels: np.ndarray) -> np.ndarray:
        """What enters a transformer's last block: float32 [N, T, D], of uint8 [N, 3, S, S]."""
        ...

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """The logits of images as they are: float32 [N, K], of float32 [N, 3, S, S] in 0 to 1."""
        ...
