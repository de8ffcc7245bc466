"""Checkpoints on the Hugging Face Hub: fetched, and their weights in the form that plain timm answers with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dermadeit.errors import CheckpointError, ErrorCode

if TYPE_CHECKING:
    from dermadeit.models.specs import ModelSpec

HUB_PREFIX = "hf-hub:"
"""Stands before ORG/NAME, as in timm; `@REVISION` may follow."""

FOLDER_PREFIX = "local-dir:"
"""Stands before a folder, as in timm."""

_FETCHED = ("config.json", "model.safetensors", "calibration.json", "trust.safetensors")
"""Nothing else of a repository is read, above all no pickle."""


def names_a_checkpoint(name: str) -> bool:
    """Whether a name is that of one checkpoint, on the Hub or in a folder, and not of a model or a task."""
    return name in (".", "..") or any(mark in name for mark in ("/", "\\", ":"))


def open_checkpoint_folder(name: str) -> Path:
    """The folder of `hf-hub:ORG/NAME`, which is fetched first, of `local-dir:FOLDER` or of `FOLDER`.

    Raises:
        CheckpointError: The Hub has no such repository, or can't be reached.
    """
    if name.startswith(HUB_PREFIX):
        return fetch_checkpoint(name.removeprefix(HUB_PREFIX))
    return Path(name.removeprefix(FOLDER_PREFIX))


def fetch_checkpoint(name: str) -> Path:
    """Fetches a checkpoint from the Hugging Face Hub, or finds it in the local cache where that is up to date.

    Args:
        name: `ORG/NAME`, or `ORG/NAME@REVISION`. With HF_HUB_OFFLINE=1 the cache alone is read.

    Returns:
        Its folder in the cache of huggingface_hub.

    Raises:
        CheckpointError: There is no such repository, it is not open to this account, or the Hub can't be reached.
    """
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(repository, revision=revision or None, allow_patterns=list(_FETCHED))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"The Hugging Face Hub has no model “{name}”, or does not show it to you. Check the name, and log in "
            "with “hf auth login” if it is private.",
            code=ErrorCode.NO_CHECKPOINT,
        ) from error
    except (OSError, httpx.HTTPError) as error:
        raise CheckpointError(
            f"“{name}” can't be fetched from the Hugging Face Hub ({type(error).__name__}). Check the connection, "
            "or name a folder that holds the checkpoint.",
            code=ErrorCode.WEIGHTS_UNREACHABLE,
        ) from error
    return Path(folder)


def plain_architecture(spec: ModelSpec) -> str:
    """Name in timm of the network with one head, which gives our logits."""
    return spec.architecture.replace("_distilled", "")


def to_plain_weights(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of a distilled transformer as those of a plain one, whose distillation token is a register token.

    timm averages the two heads of a distilled transformer. Ours answers with the class token alone, and a plain
    transformer with a register does exactly that.
    """
    kept = {key: value for key, value in state.items() if not key.startswith("head_dist.")}
    kept["reg_token"] = kept.pop("dist_token")
    return kept


def to_distilled_weights(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `to_plain_weights`, with zeros for the head that does not answer.

    What lacks the tensors of a plain transformer with a register is given back as it is.
    """
    restored = dict(state)
    if not {"reg_token", "head.weight", "head.bias"} <= state.keys():
        return restored
    restored["dist_token"] = restored.pop("reg_token")
    for part in ("weight", "bias"):
        restored[f"head_dist.{part}"] = np.zeros_like(state[f"head.{part}"])
    return restored
