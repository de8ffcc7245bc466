"""A vision transformer as the folder that `from_pretrained` of transformers reads, 4 and 5 alike.

It needs neither this package nor timm there. Other networks transformers reads through timm: `publishing.hub`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dermadeit.errors import ConfigurationError
from dermadeit.files import require_folder, write_atomically, write_json
from dermadeit.models.checkpoints import CONFIG_FILE, WEIGHTS_FILE, Checkpoint
from dermadeit.models.specs import get_spec
from dermadeit.publishing.exports import describe

PROCESSOR_FILE = "preprocessor_config.json"

_RESAMPLING = {"bilinear": 2, "bicubic": 3}
"""Pillow's numbers, which transformers writes."""

_LAYER_NORM_EPSILON = 1e-6
"""Of timm; transformers has another one by default."""

_EMBEDDINGS = {
    "cls_token": "cls_token",
    "dist_token": "distillation_token",
    "pos_embed": "position_embeddings",
    "patch_embed.proj.weight": "patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "patch_embeddings.projection.bias",
}

_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}

_ATTENTION = ("query", "key", "value")


def export_transformers(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes weights, `config.json` and `preprocessor_config.json` of a DeiT or ViT.

    Args:
        checkpoint: What to export. Its answers are those of one view.
        folder: Created when missing.

    Raises:
        ConfigurationError: transformers has no such network, or can't prepare photos as it wants them.
    """
    _check_expressible(checkpoint)
    require_folder(folder)
    kind = "deit" if get_spec(checkpoint.model).distilled else "vit"
    weights = _rename_weights(checkpoint.classifier.backbone.state_dict(), kind)
    write_atomically(folder / WEIGHTS_FILE, lambda partial: save_file(weights, partial, {"format": "pt"}))
    write_json(folder / CONFIG_FILE, _configuration(checkpoint, kind))
    write_json(folder / PROCESSOR_FILE, _processor(checkpoint, kind))


def _check_expressible(checkpoint: Checkpoint) -> None:
    spec, preprocessing = get_spec(checkpoint.model), checkpoint.preprocessing
    if not re.fullmatch(r"(deit|vit)_\w+_patch16_224", spec.architecture):
        raise ConfigurationError(
            f"transformers reads {spec.title} through timm alone. Publish it with “push”, and give its "
            "“pipeline” the name of that repository or its folder."
        )
    if preprocessing.per_image_zscore or preprocessing.colour_constancy != "none":
        raise ConfigurationError(
            "transformers can't prepare photos as this network wants them. Export it as ONNX: there the "
            "preparation is part of the network."
        )


def _rename_weights(state: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """The names of timm to those of the published DeiT and ViT weights; query, key and value apart."""
    renamed = {f"{kind}.embeddings.{new}": state[old] for old, new in _EMBEDDINGS.items() if old in state}
    for part in ("weight", "bias"):
        renamed[f"{kind}.layernorm.{part}"] = state[f"norm.{part}"]
        renamed[f"classifier.{part}"] = state[f"head.{part}"]
    for name, value in state.items():
        if not (found := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)):
            continue
        number, layer, part = found.groups()
        block = f"{kind}.encoder.layer.{number}"
        if layer == "attn.qkv":
            for each, third in zip(_ATTENTION, value.chunk(3), strict=True):
                renamed[f"{block}.attention.attention.{each}.{part}"] = third
        else:
            renamed[f"{block}.{_BLOCK[layer]}.{part}"] = value
    return {name: value.detach().cpu().contiguous() for name, value in renamed.items()}


def _configuration(checkpoint: Checkpoint, kind: str) -> dict[str, Any]:
    backbone, network = checkpoint.classifier.backbone, checkpoint.network
    block = backbone.blocks[0]
    labels = {key: index for index, key in enumerate(network.classes)}
    return {
        "architectures": ["DeiTForImageClassification" if kind == "deit" else "ViTForImageClassification"],
        "model_type": kind,
        "image_size": checkpoint.preprocessing.size,
        "patch_size": get_spec(checkpoint.model).patch_size,
        "num_channels": 3,
        "hidden_size": checkpoint.classifier.embedding_dim,
        "num_hidden_layers": len(backbone.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": _LAYER_NORM_EPSILON,
        "qkv_bias": True,
        "id2label": {str(index): key for key, index in labels.items()},
        "label2id": labels,
        "dtype": "float32",
        # Read by nobody but people and programs of ours.
        "dermadeit": describe(checkpoint, 1),
    }


def _processor(checkpoint: Checkpoint, kind: str) -> dict[str, Any]:
    preprocessing = checkpoint.preprocessing
    size = {"height": preprocessing.size, "width": preprocessing.size}
    return {
        "image_processor_type": "DeiTImageProcessor" if kind == "deit" else "ViTImageProcessor",
        "do_resize": True,
        "size": size,
        "resample": _RESAMPLING[preprocessing.interpolation],
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
