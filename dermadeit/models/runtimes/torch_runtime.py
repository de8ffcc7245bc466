"""PyTorch, the reference: every published figure is its. It also runs on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS, Preprocessing, apply_dihedral
from dermadeit.models.classifier import LesionClassifier, embed_patches, recording_shallow_embeddings
from dermadeit.models.runtimes.runtime import ViewOutputs

_IMAGES_AT_ONCE = 16


class TorchRuntime:
    """Runs a network in float32.

    Args:
        classifier: The network; it is moved to the device.
        preprocessing: How it wants its images.
        device: Where it runs.
    """

    name = "torch"
    views_at_once = _IMAGES_AT_ONCE * DIHEDRAL_VIEWS

    def __init__(
        self, classifier: LesionClassifier, preprocessing: Preprocessing, device: torch.device
    ) -> None:
        self._classifier = classifier.to(device)
        self._preprocessing = preprocessing
        self._device = device

    def run(self, pixels: np.ndarray, views: Sequence[int]) -> list[ViewOutputs]:
        """As `Runtime.run`."""
        classifier = self._classifier
        images = self._normalised(pixels)
        logits: list[list[torch.Tensor]] = [[] for _ in views]
        # The views go through the network one after the other, which bounds the memory.
        with torch.inference_mode(), recording_shallow_embeddings(classifier) as shallow:
            for view in range(max(views)):
                seen = [index for index, count in enumerate(views) if count > view]
                batch = images if len(seen) == len(views) else images[seen]
                embeddings = classifier.embed(apply_dihedral(batch, view).to(self._device))
                for index, answer in zip(seen, classifier.head(embeddings[0]).float().cpu(), strict=True):
                    logits[index].append(answer)
                if view == 0:
                    # An embedding is a slice of all tokens, which it would keep in memory for as long as it lives.
                    of_first_view = [part.float().cpu().numpy().copy() for part in (*embeddings, *shallow)]
        stacked = [torch.stack(of_image).numpy() for of_image in logits]
        return [ViewOutputs(*parts) for parts in zip(stacked, *of_first_view, strict=True)]

    def tokens(self, pixels: np.ndarray) -> np.ndarray:
        """As `Runtime.tokens`."""
        backbone = self._classifier.backbone
        with torch.inference_mode():
            tokens = embed_patches(backbone, self._normalised(pixels).to(self._device))
            for block in backbone.blocks[:-1]:
                tokens = block(tokens)
        return tokens.float().cpu().numpy()

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """As `Runtime.logits`."""
        batch = self._preprocessing.normalise(torch.from_numpy(pixels))
        with torch.inference_mode():
            return self._classifier(batch.to(self._device)).float().cpu().numpy()

    def _normalised(self, pixels: np.ndarray) -> torch.Tensor:
        return torch.stack([self._preprocessing.normalise(image) for image in torch.from_numpy(pixels)])
