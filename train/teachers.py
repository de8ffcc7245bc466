"""Teachers: anything that turns a lesion image into an embedding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dermadeit.checkpoints import Checkpoint, load_checkpoint
from dermadeit.preprocessing import apply_dihedral
from train.configuration import CHECKPOINT_PREFIX, cpu_has_bf16


class CheckpointTeacher:
    """One or several of our own checkpoints; their class embeddings are concatenated.

    Attributes:
        identity: Names the models and their exact weights, for cache headers.
        embedding_dim: Length of an embedding.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], device: torch.device) -> None:
        self.checkpoints = tuple(checkpoints)
        self.device = device
        for checkpoint in self.checkpoints:
            checkpoint.classifier.to(device)
        weights = "+".join(checkpoint.weights_sha256 for checkpoint in self.checkpoints)
        names = "+".join(checkpoint.model for checkpoint in self.checkpoints)
        self.identity = f"{CHECKPOINT_PREFIX}{names}@{hashlib.sha256(weights.encode()).hexdigest()[:16]}"
        self.embedding_dim = sum(checkpoint.classifier.embedding_dim for checkpoint in self.checkpoints)

    @torch.inference_mode()
    def embed(self, images: Sequence[np.ndarray], views: Sequence[int]) -> np.ndarray:
        """Embeds dihedral views of images.

        Args:
            images: B arrays, uint8 [H, W, 3].
            views: The V dihedral views to embed, each 0 to 7.

        Returns:
            float32 [B, V, embedding_dim].
        """
        parts = []
        for checkpoint in self.checkpoints:
            tensors = torch.stack([checkpoint.preprocessing(image) for image in images]).to(self.device)
            batch = torch.stack([apply_dihedral(tensors, view) for view in views], dim=1).flatten(0, 1)
            fast = self.device.type == "cpu" and cpu_has_bf16()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
                embedding, _ = checkpoint.classifier.embed(batch)
            parts.append(embedding.float().view(len(images), len(views), -1))
        return torch.cat(parts, dim=-1).cpu().numpy()


def create_teacher(name: str, device: torch.device) -> CheckpointTeacher | None:
    """Builds the teacher that a configuration names; None for `none`.

    Raises:
        CheckpointError: A checkpoint that can't be read.
    """
    if name == "none":
        return None
    folders = name.removeprefix(CHECKPOINT_PREFIX).split(",")
    return CheckpointTeacher([load_checkpoint(Path(folder)) for folder in folders], device)
