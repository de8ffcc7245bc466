"""One checkpoint as a model repository of the Hugging Face Hub: staged in a folder, and pushed from there.

timm, the `pipeline` of transformers, and `load_predictor` read the same folder, with the same logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.files import file_sha256, read_json, write_atomically, write_json
from dermadeit.models.checkpoints import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    CheckpointConfig,
    load_checkpoint,
)
from dermadeit.models.hub import plain_architecture, to_plain_weights
from dermadeit.models.specs import get_spec
from dermadeit.publishing.benchmark import BENCHMARK_ROOT
from dermadeit.publishing.hub_card import render_hub_card
from dermadeit.trust.files import ARRAYS_FILE, CALIBRATION_FILE

CARD_FILE = "README.md"


def stage_model(
    checkpoint: Checkpoint, folder: Path, repository: str, benchmark: Path = BENCHMARK_ROOT
) -> tuple[Path, ...]:
    """Writes what a model repository holds: weights, configuration, trust files, model card.

    The training record stays behind: it may name folders of this machine.

    A distilled transformer is written with one head (`models.hub.to_plain_weights`), so that timm alone gives its
    logits, and all weights as float32: transformers computes in the type that it finds. So the weights file is
    another one, and what names it by its hash is written anew.

    Args:
        checkpoint: What to publish.
        folder: Where to write; a folder that is new or empty.
        repository: `ORG/NAME`, for the examples of the card.
        benchmark: Holds `<task>/metrics.json` with the figures for the card; those of other weights are left out.

    Returns:
        The files, in alphabetical order.

    Raises:
        ConfigurationError: The folder holds something, or the name is no `ORG/NAME`.
        CheckpointError: What was written can't be read again.
    """
    check_repository(repository)
    require_empty_folder(folder)
    config = cast(CheckpointConfig, read_json(checkpoint.folder / CONFIG_FILE))
    spec = get_spec(checkpoint.model)
    weights = {
        key: value.astype(np.float32) if np.issubdtype(value.dtype, np.floating) else value
        for key, value in load_file(checkpoint.folder / WEIGHTS_FILE).items()
    }
    if spec.distilled and config["architecture"] == spec.architecture:
        weights = to_plain_weights(weights)
        config["architecture"] = plain_architecture(spec)
        config["model_args"]["reg_tokens"] = 1
        config["pretrained_cfg"]["classifier"] = "head"
    write_atomically(folder / WEIGHTS_FILE, lambda partial: save_file(weights, partial, {"format": "pt"}))
    written = file_sha256(folder / WEIGHTS_FILE)
    config["dermadeit"]["weights_sha256"] = written
    write_json(folder / CONFIG_FILE, config)
    if checkpoint.trust is not None:
        _copy_trust(checkpoint.folder, folder, checkpoint.weights_sha256, written)
    card = render_hub_card(checkpoint, repository, benchmark)
    write_atomically(folder / CARD_FILE, lambda partial: partial.write_text(card, encoding="utf-8"))
    # It is refused here rather than by whoever fetches it.
    _ = load_checkpoint(folder).classifier
    return tuple(sorted(folder.iterdir()))


def push_model(folder: Path, repository: str, *, private: bool = False) -> str:
    """Uploads a staged folder in one commit, to a repository that is made where there is none.

    Args:
        folder: As `stage_model` wrote it.
        repository: `ORG/NAME`.
        private: Whether a repository that is made is shown to nobody else.

    Returns:
        The address of the commit.

    Raises:
        ConfigurationError: Nobody is logged in, the Hub refuses the upload, or it can't be reached.
    """
    return upload_folder(folder, repository, "model", private=private)


def upload_folder(
    folder: Path, repository: str, kind: str, *, private: bool, space_sdk: str | None = None
) -> str:
    """Uploads all files of a folder to the Hub in one commit; see `push_model`.

    Args:
        folder: What to upload, hidden files too.
        repository: `ORG/NAME`.
        kind: `model` or `space`.
        private: Whether a repository that is made is shown to nobody else.
        space_sdk: `gradio` or `docker`, of a Space.
    """
    import httpx
    from huggingface_hub import HfApi

    api = HfApi(library_name="dermadeit")
    try:
        api.create_repo(
            repository,
            repo_type=kind,
            # Otherwise it is as the organisation has it.
            private=True if private else None,
            exist_ok=True,
            space_sdk=space_sdk,
        )
        commit = api.upload_folder(
            repo_id=repository,
            repo_type=kind,
            folder_path=folder,
            commit_message="Upload with the command line of DermaDeiT",
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise ConfigurationError(
            f"“{repository}” can't be written on the Hugging Face Hub: {_first_line(error)} Log in with “hf auth "
            "login”, with a token that may write there, and try again.",
            code=ErrorCode.HUB_REFUSED,
        ) from error
    return str(commit.commit_url)


def check_repository(name: str) -> None:
    """Raises `ConfigurationError` unless `name` is `ORG/NAME`, as the Hub takes it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        valid = False
    else:
        valid = name.count("/") == 1
    if not valid:
        raise ConfigurationError(
            f"“{name}” is no name of a repository. Write ORG/NAME, in letters, digits, “-”, “_” and “.”."
        )


def require_empty_folder(folder: Path) -> None:
    """Makes a folder, and raises `ConfigurationError` where it holds something already."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigurationError(
            f"The folder “{folder}” is not empty. Name a new one, so that nothing else is published.",
            code=ErrorCode.NOT_WRITABLE,
        )


def _copy_trust(source: Path, folder: Path, old: str, new: str) -> None:
    """Copies both trust files, with the hash of the weights that they belong to."""
    text = (source / CALIBRATION_FILE).read_text(encoding="utf-8").replace(old, new)
    with safe_open(source / ARRAYS_FILE, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {key: value.replace(old, new) for key, value in (file.metadata() or {}).items()}
    write_atomically(folder / ARRAYS_FILE, lambda partial: save_file(arrays, partial, metadata))
    write_atomically(folder / CALIBRATION_FILE, lambda partial: partial.write_text(text, encoding="utf-8"))


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else f"{line}."
