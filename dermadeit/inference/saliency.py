"""Where in the image the answer comes from: Grad-CAM; of transformers also Grad-SAM and attention rollout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from dermadeit.errors import ErrorCode, ModelError, PredictionError
from dermadeit.imaging.decode import LesionImage
from dermadeit.inference.predictor import NOT_FINITE, Predictor
from dermadeit.tasks import ClassGroups

if TYPE_CHECKING:
    import torch

    from dermadeit.models.classifier import LesionClassifier, TimmModel

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
        shade = (self.resized(image.width, image.height) * 255).astype(np.uint8)
        blended = np.multiply(image.pixels, 1 - opacity, dtype=np.float32)
        blended += np.multiply(_palette(), opacity, dtype=np.float32)[shade]
        return np.rint(blended, out=blended).astype(np.uint8)


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
    task = predictor.checkpoint.task
    if not predictor.checkpoint.spec.is_transformer:
        return _explain(_convolutional_cam, predictor, image, class_key, method="Grad-CAM")
    asked = None if class_key is None else task.index_of(class_key)
    values, index = _transformer_cam(predictor, image, asked)
    return _as_map(values, task.classes[index], "Grad-CAM")


def grad_sam(predictor: Predictor, image: LesionImage, class_key: str | None = None) -> SaliencyMap:
    """Grad-SAM (Barkan et al. 2021, 2204.11073) of one image, without test-time augmentation.

    What the class token takes from each patch, where taking more of it would raise the score: the attention of
    every block times the positive part of its gradient, added up over heads and blocks. Only the patches are
    shown.

    Args:
        predictor: The model to explain, a transformer.
        image: The decoded image.
        class_key: The class to explain; None for the predicted one.

    Raises:
        ModelError: The model is no transformer.
        TaskError: The task has no such class.
        PredictionError: The model gives no usable numbers for this image.
    """
    _require_attention(predictor, "to weigh")
    return _explain(_transformer_grad_sam, predictor, image, class_key, method="Grad-SAM")


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
    _require_attention(predictor, "to roll out")
    return _explain(_transformer_rollout, predictor, image, class_key, method="Attention rollout")


SALIENCY_METHODS: Mapping[str, Callable[[Predictor, LesionImage, str | None], SaliencyMap]] = (
    MappingProxyType({"grad-sam": grad_sam, "grad-cam": grad_cam, "attention-rollout": attention_rollout})
)
"""Every method by its key, called with predictor, image and class key (None for the predicted class)."""

WITHOUT_CLASS = "attention-rollout"
"""The method whose map is the same for every class."""


def default_method(*predictors: Predictor) -> str:
    """Key of the method whose maps pass their test most often, of those that fit all of the models."""
    of_transformers = all(predictor.checkpoint.spec.is_transformer for predictor in predictors)
    return "grad-sam" if of_transformers else "grad-cam"


def explain_every_class(predictor: Predictor, image: LesionImage) -> dict[str, SaliencyMap]:
    """The map of every class of the task by the default method, in the order of the classes.

    Args:
        predictor: The model to explain.
        image: The decoded image.

    Raises:
        PredictionError: The model gives no usable numbers for this image.
    """
    explain = SALIENCY_METHODS[default_method(predictor)]
    return {key: explain(predictor, image, key) for key in predictor.checkpoint.task.classes}


def _require_attention(predictor: Predictor, purpose: str) -> None:
    spec = predictor.checkpoint.spec
    if not spec.is_transformer:
        raise ModelError(
            f"{spec.title} has no attention {purpose}. Ask for Grad-CAM, or for a transformer.",
            code=ErrorCode.METHOD_DOES_NOT_FIT,
        )


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
        values, index = explain(_classifier_on_device(predictor), batch, checkpoint.groups, index)
    return _as_map(values, checkpoint.task.classes[index], method)


def _as_map(values: np.ndarray, class_key: str, method: str) -> SaliencyMap:
    if not np.isfinite(values).all():
        raise PredictionError(NOT_FINITE, code=ErrorCode.NON_FINITE_OUTPUT)
    return SaliencyMap(_scaled(values), class_key, method)


def _transformer_cam(predictor: Predictor, image: LesionImage, index: int | None) -> tuple[np.ndarray, int]:
    """Raw map of a transformer for a class, the predicted one for None: float32 [h, w], and the class."""
    checkpoint = predictor.checkpoint
    with predictor.lock:
        tokens = predictor.runtime.tokens(checkpoint.preprocessing.squash(image.pixels)[None])
    # What follows is a single block, without hooks or any state of the shared model: others need not wait.
    return _last_block_cam(_classifier_on_device(predictor), tokens, checkpoint.groups, index)


def _classifier_on_device(predictor: Predictor) -> LesionClassifier:
    import torch

    classifier = predictor.checkpoint.classifier
    # To ask each of its tensors to stay takes as long as a third of a heatmap.
    if next(classifier.parameters()).device == torch.device(predictor.device):
        return classifier
    return classifier.to(predictor.device)


def _last_block_cam(
    classifier: LesionClassifier, tokens: np.ndarray, groups: ClassGroups, index: int | None
) -> tuple[np.ndarray, int]:
    """Grad-CAM for a class from what enters the last block, float32 [1, T, D].

    The logits rest on the class token alone, and from other tokens' normalised input that takes only keys and
    values. So one token goes through the block, and the gradient is followed back to keys and values; from there
    it is linear, and the mean over the patches can be taken first. This equals the library's result; tests hold
    it against the library.
    """
    import torch

    backbone = classifier.backbone
    block, prefix = backbone.blocks[-1], backbone.num_prefix_tokens
    layer = block.attn
    heads, width = layer.num_heads, layer.head_dim
    with torch.no_grad():
        given = torch.from_numpy(tokens).to(layer.qkv.weight.device)
        normalised = block.norm1(given)
        queries, keys, values = layer.qkv(normalised).unflatten(-1, (3, heads, width)).permute(2, 0, 3, 1, 4)
        query = layer.q_norm(queries[:, :, :1]) * layer.scale
        keys, values = keys.clone(), values.clone()
    with torch.enable_grad():
        keys.requires_grad_(True)
        values.requires_grad_(True)
        attended = (query @ layer.k_norm(keys).transpose(-2, -1)).softmax(dim=-1) @ values
        token = given[:, :1] + block.ls1(layer.proj(attended.transpose(1, 2).flatten(2)))
        token = backbone.norm(token + block.ls2(block.mlp(block.norm2(token))))
        [logits] = classifier.head(token[:, 0])
        if index is None:
            index = _predicted(logits, groups)
        gradients = torch.autograd.grad(_score(logits, groups, index), (keys, values))
    with torch.no_grad():
        # float [1, heads, T, width] to the mean over the patches, float [1, D].
        means = [gradient[:, :, prefix:].mean(dim=2).flatten(1) for gradient in gradients]
        _, of_keys, of_values = layer.qkv.weight.chunk(3)
        weights = means[0] @ of_keys + means[1] @ of_values
        values_of_patches = (weights @ normalised[0, prefix:].T).relu()
        shaped = values_of_patches.view(backbone.patch_embed.grid_size).float().cpu().numpy()
    return shaped, index


def _transformer_grad_sam(
    classifier: LesionClassifier, batch: torch.Tensor, groups: ClassGroups, index: int | None
) -> tuple[np.ndarray, int]:
    import torch

    from dermadeit.models.classifier import embed_patches

    backbone = classifier.backbone
    prefix, attentions = backbone.num_prefix_tokens, []
    with torch.no_grad():
        tokens = embed_patches(backbone, batch)
    with torch.enable_grad():
        for block in backbone.blocks:
            attention, values = _attention(block.attn, block.norm1(tokens))
            if not attention.requires_grad:
                attention.requires_grad_(True)
            attentions.append(attention)
            attended = block.attn.proj((attention @ values).transpose(1, 2).flatten(2))
            tokens = tokens + block.ls1(attended)
            tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        class_embedding, _ = classifier.pool(backbone.norm(tokens))
        [logits] = classifier.head(class_embedding)
        if index is None:
            index = _predicted(logits, groups)
        gradients = torch.autograd.grad(_score(logits, groups, index), attentions)
    with torch.no_grad():
        weighed = [
            (attention * gradient.relu())[0, :, 0, prefix:].sum(dim=0)
            for attention, gradient in zip(attentions, gradients, strict=True)
        ]
    return torch.stack(weighed).sum(dim=0).view(backbone.patch_embed.grid_size).float().cpu().numpy(), index


def _transformer_rollout(
    classifier: LesionClassifier, batch: torch.Tensor, groups: ClassGroups, index: int | None
) -> tuple[np.ndarray, int]:
    import torch

    from dermadeit.models.classifier import embed_patches

    backbone = classifier.backbone
    prefix = backbone.num_prefix_tokens
    with torch.inference_mode():
        tokens = embed_patches(backbone, batch)
        itself = torch.eye(tokens.shape[1], device=tokens.device)
        rollout = itself
        for block in backbone.blocks:
            attention = _attention(block.attn, block.norm1(tokens))[0][0].mean(dim=0)
            rollout = (attention + itself) / 2 @ rollout
            tokens = block(tokens)
        if index is None:
            class_embedding, _ = classifier.pool(backbone.norm(tokens))
            index = _predicted(classifier.head(class_embedding)[0], groups)
    return rollout[0, prefix:].view(backbone.patch_embed.grid_size).float().cpu().numpy(), index


def _attention(layer: TimmModel, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each token takes from each by a timm attention layer, and the values that it takes.

    Of [B, T, D]: [B, heads, T, T], whose rows sum to 1, and [B, heads, T, D / heads].
    """
    shape = (3, layer.num_heads, layer.head_dim)
    queries, keys, values = layer.qkv(tokens).unflatten(-1, shape).permute(2, 0, 3, 1, 4)
    scores = layer.q_norm(queries) * layer.scale @ layer.k_norm(keys).transpose(-2, -1)
    return scores.softmax(dim=-1), values


def _convolutional_cam(
    classifier: LesionClassifier, batch: torch.Tensor, groups: ClassGroups, index: int | None
) -> tuple[np.ndarray, int]:
    import torch
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
