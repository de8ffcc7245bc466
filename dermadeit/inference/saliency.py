"""Where in the image the answer comes from: Grad-CAM, and attention rollout for transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from dermadeit.errors import ErrorCode, ModelError, PredictionError
from dermadeit.imaging.decode import LesionImage
from dermadeit.inference.predictor import NOT_FINITE, Predictor
from dermadeit.models.classifier import LesionClassifier, TimmModel
from dermadeit.tasks import ClassGroups

COLOUR_MAP = "viridis"
"""Perceptually uniform and readable with colour vision deficiency."""

DEFAULT_OPACITY = 0.5


@dataclass(frozen=True, eq=False)
class SaliencyMap:
    """How much each place of an image counts for a class.

    Attributes:
        values: float32 [h, w] in 0 to 1, covering the whole image: one value a patch for a transformer, one a
            pixel of the input for a convolutional network. All zero where nothing counts for the class.
        class_key: The class.
        method: Name of the method, for display.
    """

    values: np.ndarray
    class_key: str
    method: str

    def resized(self, width: int, height: int) -> np.ndarray:
        """The map at an image's size: float32 [height, width] in 0 to 1, interpolated bicubically."""
        image = Image.fromarray(self.values).resize((width, height), Image.Resampling.BICUBIC)
        return np.clip(np.asarray(image), 0, 1)

    def overlay(self, image: LesionImage, opacity: float) -> np.ndarray:
        """Blends the coloured map over its image.

        Args:
            image: The image that the map belongs to.
            opacity: 0 (only the image) to 1 (only the map).

        Returns:
            uint8 [H, W, 3].
        """
        heat = _palette()[(self.resized(image.width, image.height) * 255).astype(np.uint8)]
        return np.round(image.pixels * (1 - opacity) + heat * opacity).astype(np.uint8)


def grad_cam(predictor: Predictor, image: LesionImage, class_key: str | None = None) -> SaliencyMap:
    """Grad-CAM (Selvaraju et al. 2017, 1610.02391) of one image, as it is, without test-time augmentation.

    The features are the normalised input of the last transformer block (patch tokens only: class and
    distillation token carry no place), or the last feature map of a convolutional network.

    Args:
        predictor: The model to explain.
        image: The decoded image.
        class_key: The class to explain; None for the predicted one.

    Raises:
        TaskError: The task has no such class.
        PredictionError: The model gives no usable numbers for this image.
    """
    is_transformer = predictor.checkpoint.spec.is_transformer
    explain = _transformer_cam if is_transformer else _convolutional_cam
    return _explain(explain, predictor, image, class_key, method="Grad-CAM")


def attention_rollout(predictor: Predictor, image: LesionImage, class_key: str | None = None) -> SaliencyMap:
    """Attention rollout (Abnar and Zuidema 2020, 2005.00928) of one image, without test-time augmentation.

    How much of each patch reaches the class token if every block passes on half of a token and half of what the
    token attends to, heads averaged. All prefix tokens take part on the way, since patches also reach the class
    token through the distillation token; only the patches are shown. No head and no class has a part in it: the
    map is the same whichever class is asked for.

    Args:
        predictor: The model to explain, a transformer.
        image: The decoded image.
        class_key: The class to name in the result; None for the predicted one.

    Raises:
        ModelError: The model is no transformer.
        TaskError: The task has no such class.
        PredictionError: The model gives no usable numbers for this image.
    """
    spec = predictor.checkpoint.spec
    if not spec.is_transformer:
        raise ModelError(
            f"{spec.title} has no attention to roll out. Ask for Grad-CAM, or for a transformer.",
            code=ErrorCode.METHOD_DOES_NOT_FIT,
        )
    return _explain(_transformer_rollout, predictor, image, class_key, method="Attention rollout")


SALIENCY_METHODS: Mapping[str, Callable[[Predictor, LesionImage, str | None], SaliencyMap]] = (
    MappingProxyType({"grad-cam": grad_cam, "attention-rollout": attention_rollout})
)
"""Every method by its key, called with predictor, image and class key (None for the predicted class)."""

DEFAULT_METHOD = "grad-cam"
"""What `benchmarks/evidence/faithfulness.py` favours. Rollout hardly changes while the weights of the last blocks
become random, and no class has a part in it."""


def _explain(
    explain: Callable[[LesionClassifier, torch.Tensor, ClassGroups, int | None], tuple[np.ndarray, int]],
    predictor: Predictor,
    image: LesionImage,
    class_key: str | None,
    *,
    method: str,
) -> SaliencyMap:
    checkpoint = predictor.checkpoint
    index = None if class_key is None else checkpoint.task.index_of(class_key)
    batch = checkpoint.preprocessing(image.pixels)[None].to(predictor.device)
    with predictor.lock:
        values, index = explain(checkpoint.classifier, batch, checkpoint.groups, index)
    if not np.isfinite(values).all():
        raise PredictionError(NOT_FINITE, code=ErrorCode.NON_FINITE_OUTPUT)
    return SaliencyMap(_scaled(values), checkpoint.task.classes[index], method)


def _transformer_cam(
    classifier: LesionClassifier, batch: torch.Tensor, groups: ClassGroups, index: int | None
) -> tuple[np.ndarray, int]:
    # The gradient of the last block alone needs no hooks and touches no state of the shared model. It equals
    # the library's result at a third of the time; tests hold it against the library.
    backbone = classifier.backbone
    *first_blocks, last_block = backbone.blocks
    with torch.no_grad():
        tokens = _embedded(backbone, batch)
        for block in first_blocks:
            tokens = block(tokens)
        normalised = last_block.norm1(tokens)
    with torch.enable_grad():
        normalised.requires_grad_(True)
        out = tokens + last_block.ls1(last_block.attn(normalised))
        out = backbone.norm(out + last_block.ls2(last_block.mlp(last_block.norm2(out))))
        class_embedding, _ = classifier.pool(out)
        logits = classifier.head(class_embedding)[0]
        index = _predicted(logits, groups) if index is None else index
        (gradient,) = torch.autograd.grad(_score(logits, groups, index), normalised)
    prefix = backbone.num_prefix_tokens
    patches, gradient = normalised.detach()[0, prefix:], gradient[0, prefix:]
    cam = (patches @ gradient.mean(dim=0)).relu().view(backbone.patch_embed.grid_size)
    return cam.float().cpu().numpy(), index


def _transformer_rollout(
    classifier: LesionClassifier, batch: torch.Tensor, groups: ClassGroups, index: int | None
) -> tuple[np.ndarray, int]:
    backbone = classifier.backbone
    prefix = backbone.num_prefix_tokens
    with torch.inference_mode():
        tokens = _embedded(backbone, batch)
        itself = torch.eye(tokens.shape[1], device=tokens.device)
        rollout = itself
        for block in backbone.blocks:
            attention = _attention(block.attn, block.norm1(tokens))[0].mean(dim=0)
            rollout = (attention + itself) / 2 @ rollout
            tokens = block(tokens)
        if index is None:
            class_embedding, _ = classifier.pool(backbone.norm(tokens))
            index = _predicted(classifier.head(class_embedding)[0], groups)
    return rollout[0, prefix:].view(backbone.patch_embed.grid_size).float().cpu().numpy(), index


def _embedded(backbone: TimmModel, batch: torch.Tensor) -> torch.Tensor:
    """What enters the first block of a timm transformer: [B, 3, S, S] to [B, T, D]."""
    return backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(batch))))


def _attention(layer: TimmModel, tokens: torch.Tensor) -> torch.Tensor:
    """What each token takes from each by a timm attention layer: [B, T, D] to [B, heads, T, T], rows sum to 1."""
    shape = (3, layer.num_heads, layer.head_dim)
    queries, keys, _ = layer.qkv(tokens).unflatten(-1, shape).permute(2, 0, 3, 1, 4)
    scores = layer.q_norm(queries) * layer.scale @ layer.k_norm(keys).transpose(-2, -1)
    return scores.softmax(dim=-1)


def _convolutional_cam(
    classifier: LesionClassifier, batch: torch.Tensor, groups: ClassGroups, index: int | None
) -> tuple[np.ndarray, int]:
    from pytorch_grad_cam import GradCAM

    if index is None:
        with torch.no_grad():
            index = _predicted(classifier(batch)[0], groups)
    targets: Any = [partial(_score, groups=groups, index=index)]
    with GradCAM(classifier, [classifier.backbone.bn2]) as cam:
        return cam(batch.requires_grad_(True), targets)[0], index


def _predicted(logits: torch.Tensor, groups: ClassGroups) -> int:
    """The most probable class of the task, for logits [N] of the network."""
    return int(groups.read(logits.detach().double().softmax(dim=0).cpu().numpy()).argmax())


def _score(logits: torch.Tensor, groups: ClassGroups, index: int) -> torch.Tensor:
    """What a map explains of logits [N]: a class's logit, or that of the sum of the classes in a group."""
    return logits[list(groups.members[index])].logsumexp(dim=0)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Any finite map to 0 to 1; a flat one has no say and becomes all zero."""
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)


@cache
def _palette() -> np.ndarray:
    """uint8 [256, 3]."""
    return (colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
