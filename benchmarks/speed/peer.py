"""What a user would write with the same weights: `pipeline` of transformers, and the heatmap of grad-cam."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from transformers import pipeline
from transformers.utils.logging import disable_progress_bar

from dermadeit.models.checkpoints import Checkpoint
from dermadeit.publishing.transformers_export import export_transformers

BATCH = 16
"""Photos that the pipeline takes at once, where it gets many."""

COLD_START = (
    "import sys; from transformers import pipeline; "
    "print(pipeline('image-classification', model=sys.argv[1], device='cpu')(sys.argv[2])[0])"
)
"""A whole program that labels one photo; its arguments are the folder of the model and the photo."""


class Peer:
    """The same network in transformers.

    Args:
        checkpoint: Whose weights it holds, a transformer.
        folder: An empty one, where it is written.

    Raises:
        ConfigurationError: transformers has no such network.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path) -> None:
        disable_progress_bar()
        export_transformers(checkpoint, folder)
        self.folder = folder
        self._classes = len(checkpoint.network.classes)
        self._pipe: Any = pipeline("image-classification", model=str(folder), device="cpu")
        layers = dict(self._pipe.model.named_modules())
        last = [layer for name, layer in layers.items() if name.endswith("layernorm_before")][-1]
        patch = checkpoint.spec.patch_size
        assert patch is not None, "the export has refused all but transformers"
        side = checkpoint.preprocessing.size // patch

        def as_picture(tokens: torch.Tensor) -> torch.Tensor:
            return tokens[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))

        self._cam = GradCAM(_Logits(self._pipe.model), [last], reshape_transform=as_picture)

    def label(self, photo: bytes) -> Mapping[str, float]:
        """Class to probability."""
        return {answer["label"]: answer["score"] for answer in self._pipe(_open(photo), top_k=self._classes)}

    def label_all(self, photos: Sequence[bytes]) -> None:
        """Labels many photos in batches."""
        self._pipe([_open(photo) for photo in photos], batch_size=BATCH)

    def overlay(self, photo: bytes) -> np.ndarray:
        """Labels a photo and draws the heatmap of its label over it: uint8 [H, W, 3]."""
        image = _open(photo)
        self._pipe(image)
        batch = self._pipe.image_processor(image, return_tensors="pt")["pixel_values"]
        heat = Image.fromarray(self._cam(batch, targets=None)[0]).resize(image.size, Image.Resampling.BICUBIC)
        shown = np.asarray(image, dtype=np.float32) / 255
        return show_cam_on_image(shown, np.asarray(heat).clip(0, 1), use_rgb=True)


class _Logits(torch.nn.Module):
    """What grad-cam wants: a network that gives a tensor."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images).logits


def _open(photo: bytes) -> Image.Image:
    return Image.open(io.BytesIO(photo)).convert("RGB")
