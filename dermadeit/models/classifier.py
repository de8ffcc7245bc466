"""One interface for every network of `specs`: made with its pretrained weights, and what its layers give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from dermadeit.errors import ConfigurationError, ErrorCode, ModelError
from dermadeit.models.specs import ModelSpec, get_spec

SHALLOW_BLOCK = 2
"""Index of the block whose output is taken; blocks 1 to 4 of a DeiT-tiny serve about as well."""

TimmModel = Any
"""A network of timm, or a layer of one. `nn.Module` takes every attribute for a tensor or a module, so that a type
checker would refuse `blocks`, `patch_embed` or `get_classifier()`."""


class LesionClassifier(nn.Module):
    """A timm backbone behind the interface that all models share.

    For a distilled transformer the logits come from the class token alone. timm itself averages the two heads
    at inference; here the distillation token belongs to the teacher.

    Attributes:
        spec: What was built.
        backbone: The timm model.
        image_size: Side of the input in pixels.
        embedding_dim: Length of the embeddings that `embed` returns.
    """

    backbone: TimmModel

    def __init__(self, spec: ModelSpec, backbone: TimmModel, image_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.image_size = image_size
        self.embedding_dim: int = (
            backbone.get_classifier()[0].in_features
            if spec.distilled
            else (backbone.get_classifier().in_features)
        )

    @property
    def head(self) -> nn.Module:
        """The layer that turns the class embedding into logits."""
        return self.backbone.head if self.spec.distilled else self.backbone.get_classifier()

    def embed(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encodes images.

        Args:
            images: float [B, 3, image_size, image_size], normalised.

        Returns:
            Class embedding and distillation embedding, each [B, embedding_dim]. They are the two tokens of a
            distilled transformer, and the same tensor for every other model.
        """
        return self.pool(self.backbone.forward_features(images))

    def pool(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The backbone's features ([B, T, D] tokens or a [B, C, h, w] map) to the embeddings of `embed`."""
        if self.spec.distilled:
            return features[:, 0], features[:, 1]
        pooled = self.backbone.forward_head(features, pre_logits=True)
        return pooled, pooled

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float [B, 3, image_size, image_size] to logits [B, K]."""
        class_embedding, _ = self.embed(images)
        return self.head(class_embedding)


def create_classifier(
    name: str,
    num_classes: int,
    *,
    image_size: int | None = None,
    init: str | Path = "none",
    drop_path_rate: float = 0.0,
) -> LesionClassifier:
    """Builds a model.

    Args:
        name: A key of `MODEL_SPECS`.
        num_classes: Number of logits.
        image_size: Side of the input in pixels; None for the spec's own.
        init: `none` for random weights, `hub` for timm's pretrained weights from the Hugging Face Hub, or a
            safetensors file with the weights of the same backbone, at any image size (a head of as many classes
            is kept, so a training can go on at a higher resolution; a plain DeiT fits its distilled twin).
        drop_path_rate: Stochastic depth rate of the last block, 0 to 1 (Huang et al. 2016, 1603.09382).

    Raises:
        ModelError: Unknown name, or weights that can't be had or don't fit.
        ConfigurationError: A size that the patches don't tile.
    """
    spec = get_spec(name)
    size = image_size or spec.image_size
    if spec.patch_size and size % spec.patch_size:
        raise ConfigurationError(
            f"{spec.title} needs an image size that is a multiple of {spec.patch_size}, not {size}."
        )
    arguments = {"num_classes": num_classes, "drop_path_rate": drop_path_rate}
    if spec.is_transformer:
        arguments["img_size"] = size
    normalisation = timm.get_pretrained_cfg(spec.pretrained)
    assert normalisation is not None, spec.pretrained
    backbone = timm.create_model(
        spec.architecture,
        pretrained=False,
        pretrained_cfg_overlay={"mean": normalisation.mean, "std": normalisation.std},
        **arguments,
    )
    if init == "hub":
        _load(backbone, spec, _fetch(spec), spec.pretrained)
    elif init != "none":
        _load(backbone, spec, _read_weights(Path(init)), Path(init).name)
    return LesionClassifier(spec, backbone, size)


@contextmanager
def recording_shallow_embeddings(classifier: LesionClassifier) -> Iterator[list[torch.Tensor]]:
    """Collects the shallow embeddings of every batch that goes through a classifier meanwhile.

    Not for several threads at a time: hold the predictor's lock.

    Yields:
        A list to which each pass of a batch of B images appends a tensor [B, C]: the mean patch token of a
        transformer, or the mean over the positions of a convolutional network's feature map.
    """
    recorded = []

    def record(_block: torch.nn.Module, _inputs: tuple, features: torch.Tensor) -> None:
        recorded.append(_shallow(classifier, features))

    handle = classifier.backbone.blocks[SHALLOW_BLOCK].register_forward_hook(record)
    try:
        yield recorded
    finally:
        handle.remove()


def shallow_embeddings(classifier: LesionClassifier, images: torch.Tensor) -> torch.Tensor:
    """The shallow embeddings alone, for a quarter of the time: the layers behind them do not run.

    Not for several threads at a time: hold the predictor's lock.

    Args:
        classifier: The network.
        images: float [B, 3, S, S], normalised.

    Returns:
        float [B, C], as `recording_shallow_embeddings` collects them.
    """

    def stop(_block: torch.nn.Module, _inputs: tuple, features: torch.Tensor) -> None:
        raise _EnoughError(_shallow(classifier, features))

    handle = classifier.backbone.blocks[SHALLOW_BLOCK].register_forward_hook(stop)
    try:
        classifier.embed(images)
    except _EnoughError as enough:
        return enough.embeddings
    finally:
        handle.remove()
    raise AssertionError("the block was never reached")


def embed_patches(backbone: TimmModel, images: torch.Tensor) -> torch.Tensor:
    """What enters the first block of a timm transformer: [B, 3, S, S] to [B, T, D]."""
    return backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(images))))


def _fetch(spec: ModelSpec) -> dict[str, torch.Tensor]:
    """The weights of timm's pretrained network, from the Hugging Face Hub or its cache."""
    try:
        return timm.create_model(spec.pretrained, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"The pretrained weights of {spec.title} could not be fetched from the Hugging Face Hub "
            f"({type(error).__name__}). Check the connection, or start from a local file.",
            code=ErrorCode.WEIGHTS_UNREACHABLE,
        ) from error


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ModelError(
            f"There is no weights file “{path}”. Name one that exists, or start from “hub” or “none”.",
            code=ErrorCode.WEIGHTS_UNREADABLE,
        )
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"“{path.name}” can't be read as safetensors weights. Start from a .safetensors file, “hub” or "
            "“none”.",
            code=ErrorCode.WEIGHTS_UNREADABLE,
        ) from error


def _load(backbone: TimmModel, spec: ModelSpec, pretrained: dict[str, torch.Tensor], name: str) -> None:
    heads = tuple(f"{head}." for head in _as_names(backbone.pretrained_cfg["classifier"]))
    state = {key: value.float() for key, value in pretrained.items() if not key.startswith(heads)}
    if spec.is_transformer:
        state = _fit_prefix_and_positions(state, backbone)
    wanted = {key: value for key, value in backbone.state_dict().items() if not key.startswith(heads)}
    wrong = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
    wrong += [key for key in state if key not in wanted]
    if wrong:
        raise ModelError(
            f"“{name}” does not have the weights of {spec.title}: {len(wrong)} tensors are missing, "
            f"unknown "
            f"or of another shape, such as {wrong[0]}.",
            code=ErrorCode.WEIGHTS_DO_NOT_FIT,
        )
    fitting_heads = {
        key: pretrained[key].float()
        for key, value in backbone.state_dict().items()
        # Checkpoints hold zeros for the head of the distillation token.
        if key.startswith(heads) and key in pretrained and pretrained[key].shape == value.shape
        if pretrained[key].any()
    }
    backbone.load_state_dict(state | fitting_heads, strict=False)


def _as_names(classifier: str | tuple[str, ...]) -> tuple[str, ...]:
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def _fit_prefix_and_positions(state: dict[str, torch.Tensor], backbone: TimmModel) -> dict[str, torch.Tensor]:
    positions = state.get("pos_embed")
    if positions is None:
        return state
    if backbone.num_prefix_tokens == 2 and "dist_token" not in state:
        # A distillation token that started as a copy of the class token would stay one: all that follows treats
        # the two alike, and what tells them apart reaches the first layer too weakly.
        state["dist_token"] = backbone.dist_token.detach().clone()
        positions = torch.cat([positions[:, :1], positions], dim=1)
    patches = positions.shape[1] - backbone.num_prefix_tokens
    # Weights of another network need not fill a square; they are refused by the shapes they have.
    if positions.shape[1] != backbone.pos_embed.shape[1] and math.isqrt(patches) ** 2 == patches:
        # Its decorator, torch.fx.wrap, may return a name as well, for a type checker.
        resample = cast("Callable[..., torch.Tensor]", resample_abs_pos_embed)
        positions = resample(
            positions, list(backbone.patch_embed.grid_size), num_prefix_tokens=backbone.num_prefix_tokens
        )
    return state | {"pos_embed": positions}


class _EnoughError(Exception):
    """Ends a pass at the block whose output is wanted."""

    def __init__(self, embeddings: torch.Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings


def _shallow(classifier: LesionClassifier, features: torch.Tensor) -> torch.Tensor:
    if classifier.spec.is_transformer:
        return features[:, classifier.backbone.num_prefix_tokens :].mean(dim=1)
    return features.mean(dim=(2, 3))
