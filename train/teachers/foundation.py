"""Published encoders that can teach: Derm Foundation, MedSigLIP, MONET and DINOv2, from the Hub or a folder.

Each is loaded from a folder in the Hub's own file layout. TensorFlow and transformers are imported where they are
needed, since they take seconds and TensorFlow is an optional package.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import timm
import torch
from huggingface_hub import auth_check, get_token, model_info, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError
from safetensors import SafetensorError

from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.imaging.decode import encode_png
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.models.classifier import TimmModel
from train.configuration import cpu_has_bf16

logger = logging.getLogger(__name__)

HAI_DEF_TERMS = "https://developers.google.com/health-ai-developer-foundations/terms"
DERM_FOUNDATION_SIZE = 448
DINOV2_SIZE = 224
"""Side that DINOv2 is evaluated at (Oquab et al. 2023, 2304.07193); its native 518 has five times the tokens."""

HUB_SECONDS = 5
"""How long the Hub may take to say whether it has a model."""

_SAFETENSORS = ("config.json", "model.safetensors")
_TRANSFORMERS_FILES = (*_SAFETENSORS, "preprocessor_config.json")
_RESAMPLING = {2: "bilinear", 3: "bicubic"}

Encode = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
"""uint8 [B, 3, S, S] to embeddings (float32 [B, D]) and logits (float32 [B, C]) or None, on any device."""


@dataclass(frozen=True)
class Encoder:
    """A network that embeds square images.

    Attributes:
        resizing: Gives the square that `encode` takes.
        preprocessing: All that is done to an image, and which embedding is taken, ready for JSON.
        embedding_dim: Length of an embedding, D.
        encode: The network; one call is one forward pass.
    """

    resizing: Preprocessing
    preprocessing: Mapping[str, Any]
    embedding_dim: int
    encode: Encode


@dataclass(frozen=True)
class FoundationModel:
    """What a teacher's name stands for.

    Attributes:
        name: Name used on the command line.
        title: Name shown to people.
        repository: Its id on the Hugging Face Hub.
        files: What a copy of the repository must hold.
        patterns: What is fetched of the repository.
        load: Builds the encoder from the model, the folder of its files and the device.
        gated: Whether Google's terms for health models must be accepted first.
        package: What must be installed beside our own requirements, or an empty string.
    """

    name: str
    title: str
    repository: str
    files: tuple[str, ...]
    patterns: tuple[str, ...]
    load: Callable[[FoundationModel, Path, torch.device], Encoder]
    gated: bool = False
    package: str = ""


# ------------------------------------------------------------------------------------------------ loaders


def autocast(device: torch.device) -> AbstractContextManager:
    """Half precision where the device computes in it natively; a teacher only looks, so it needs no scaling."""
    if device.type == "cuda":
        fast = torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
        return torch.autocast("cuda", fast)
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu" and cpu_has_bf16())


def _load_derm_foundation(model: FoundationModel, folder: Path, device: torch.device) -> Encoder:
    """Derm Foundation, a BiT-M ResNet101x3 that embeds a PNG of 448 × 448 pixels in 6144 dimensions.

    The input is a serialised tf.Example with the file as `image/encoded`, as in the model card
    (https://huggingface.co/google/derm-foundation). TensorFlow chooses the device.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ConfigurationError(
            f"{model.title} runs on TensorFlow, which is not installed. Install it with "
            "“pip install -e '.[teacher]'”.",
            code=ErrorCode.MISSING_PACKAGE,
        ) from error
    for gpu in tf.config.list_physical_devices("GPU"):
        # Otherwise TensorFlow takes all the memory, and none is left for the student.
        tf.config.experimental.set_memory_growth(gpu, True)
    try:
        loaded = tf.saved_model.load(str(folder))
        signature = loaded.signatures["serving_default"]
        ((input_name, specification),) = signature.structured_input_signature[1].items()
    except (OSError, KeyError, ValueError) as error:
        raise _not_a_copy(model, folder, "it has no readable “serving_default” signature") from error
    if "embedding" not in signature.structured_outputs:
        raise _not_a_copy(model, folder, "its signature has no output “embedding”")
    takes_batches = specification.shape.rank == 1 and specification.shape[0] is None

    def run(examples: list[bytes]) -> np.ndarray:
        # Through the model, since a signature alone does not keep its variables alive.
        output = loaded.signatures["serving_default"](**{input_name: tf.constant(examples)})
        return output["embedding"].numpy().reshape(len(examples), -1)

    def encode(pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
        examples = [
            tf.train.Example(
                features=tf.train.Features(
                    feature={
                        "image/encoded": tf.train.Feature(
                            bytes_list=tf.train.BytesList(value=[encode_png(image)])
                        )
                    }
                )
            ).SerializeToString()
            for image in pixels.permute(0, 2, 3, 1).cpu().numpy()
        ]
        rows = [run(examples)] if takes_batches else [run([example]) for example in examples]
        return torch.from_numpy(np.concatenate(rows).astype(np.float32)), None

    resizing = Preprocessing(DERM_FOUNDATION_SIZE)
    black = torch.zeros(1, 3, resizing.size, resizing.size, dtype=torch.uint8)
    description = {
        "size": resizing.size,
        "interpolation": resizing.interpolation,
        "encoding": "png",
        "embedding": "embedding",
    }
    return Encoder(resizing, description, encode(black)[0].shape[1], encode)


def _load_vision_tower(model: FoundationModel, folder: Path, device: torch.device) -> Encoder:
    """The image side of a CLIP or SigLIP model, pooled but not projected.

    CLIP's own linear probes take the features before the projection (Radford et al. 2021, 2103.00020, A.2), which
    hold more than what is left for the comparison with text; SigLIP has no projection. Images are squashed like
    all others, not cropped as by the model's processor, of which only the statistics are taken.
    """
    import transformers

    tower = transformers.CLIPVisionModel if model.name == "monet" else transformers.SiglipVisionModel
    level = transformers.logging.get_verbosity()
    # The text side is left out on purpose; no reader needs the list of its weights.
    transformers.logging.set_verbosity_error()
    try:
        loaded: Any = tower.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        network, report = loaded
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _not_a_copy(model, folder, "its weights or configuration can't be read") from error
    finally:
        transformers.logging.set_verbosity(level)
    if report["missing_keys"]:
        raise _not_a_copy(model, folder, f"{len(report['missing_keys'])} weights are missing")
    network = network.eval().requires_grad_(False).to(device)
    preprocessing = Preprocessing(
        network.config.image_size,
        tuple(processor.image_mean),
        tuple(processor.image_std),
        _RESAMPLING.get(int(processor.resample), "bicubic"),
    )

    @torch.inference_mode()
    def encode(pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
        with autocast(device):
            pooled = network(pixel_values=preprocessing.normalise(pixels.to(device))).pooler_output
        return pooled.float(), None

    description = describe_preprocessing(preprocessing, "pooler_output of the vision tower")
    return Encoder(preprocessing, description, network.config.hidden_size, encode)


def _load_dinov2(model: FoundationModel, folder: Path, device: torch.device) -> Encoder:
    """DINOv2, pretrained on LVD-142M (Oquab et al. 2023, 2304.07193): the class token after the last norm."""
    try:
        network: TimmModel = timm.create_model(
            f"local-dir:{folder}", pretrained=True, num_classes=0, img_size=DINOV2_SIZE
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise _not_a_copy(model, folder, "its weights or configuration can't be read") from error
    config = network.pretrained_cfg
    if config["architecture"] not in model.repository:
        raise _not_a_copy(model, folder, f"it holds a {config['architecture']}")
    network = network.eval().requires_grad_(False).to(device)
    preprocessing = replace(Preprocessing.from_pretrained_cfg(config), size=DINOV2_SIZE)

    @torch.inference_mode()
    def encode(pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
        with autocast(device):
            token = network(preprocessing.normalise(pixels.to(device)))
        return token.float(), None

    description = describe_preprocessing(preprocessing, "class token")
    return Encoder(preprocessing, description, network.num_features, encode)


def describe_preprocessing(preprocessing: Preprocessing, embedding: str) -> dict[str, Any]:
    """What is done to an image and which embedding is taken, ready for JSON."""
    return {
        "size": preprocessing.size,
        "interpolation": preprocessing.interpolation,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "embedding": embedding,
    }


# ------------------------------------------------------------------------------------------------ table


def _dinov2(name: str, size: str) -> FoundationModel:
    repository = f"timm/vit_{size}_patch14_dinov2.lvd142m"
    return FoundationModel(name, f"DINOv2 ({size})", repository, _SAFETENSORS, _SAFETENSORS, _load_dinov2)


FOUNDATION_MODELS: Mapping[str, FoundationModel] = MappingProxyType(
    {
        model.name: model
        for model in (
            FoundationModel(
                "derm-foundation",
                "Derm Foundation",
                "google/derm-foundation",
                ("saved_model.pb", "variables/variables.index"),
                ("saved_model.pb", "fingerprint.pb", "variables/*"),
                _load_derm_foundation,
                gated=True,
                package="tensorflow",
            ),
            FoundationModel(
                "medsiglip",
                "MedSigLIP",
                "google/medsiglip-448",
                _TRANSFORMERS_FILES,
                ("*.json", "*.safetensors"),
                _load_vision_tower,
                gated=True,
            ),
            FoundationModel(
                "monet",
                "MONET",
                "suinleelab/monet",
                _TRANSFORMERS_FILES,
                ("*.json", "*.safetensors"),
                _load_vision_tower,
            ),
            _dinov2("dinov2", "small"),
            _dinov2("dinov2-base", "base"),
            _dinov2("dinov2-large", "large"),
            _dinov2("dinov2-giant", "giant"),
        )
    }
)


# ------------------------------------------------------------------------------------------------ loading


def load_encoder(model: FoundationModel, folder: Path | None, device: torch.device) -> tuple[Encoder, str]:
    """Loads a published encoder.

    Args:
        model: A value of `FOUNDATION_MODELS`.
        folder: A local copy of its repository, or None for the Hub's (fetched once, then kept by the Hub's cache).
        device: Where it computes.

    Returns:
        The encoder, and the identity of its weights: id and revision on the Hub, or a hash of the local files.

    Raises:
        ConfigurationError: Its terms were not accepted, the Hub can't be reached, a package is missing, or the
            folder does not hold the model.
    """
    source = _fetch(model) if folder is None else folder
    missing = [name for name in model.files if not (source / name).is_file()]
    if missing:
        pickled = " A pickle (.bin) is not read." if any(source.glob("*.bin")) else ""
        raise _not_a_copy(model, source, f"it has no {' and no '.join(missing)}", pickled)
    if model.gated:
        logger.info(
            "%s is used under the Health AI Developer Foundations terms (%s). A student that is distilled from it "
            "counts as a model derivative: those terms apply to it too.",
            model.title,
            HAI_DEF_TERMS,
        )
    identity = (
        f"{model.repository}@{source.name}"
        if folder is None
        else f"{model.name}@sha256:{_hash_weights(source)}"
    )
    return model.load(model, source, device), identity


def find_obstacle(model: FoundationModel) -> str:
    """Why a model can't be had here, as a clause for a sentence; an empty string if it can.

    Nothing is downloaded, and a Hub that can't be reached costs seconds.
    """
    if model.package and find_spec(model.package) is None:
        return f"{model.package} is not installed"
    if all(isinstance(try_to_load_from_cache(model.repository, name), str) for name in model.files):
        return ""
    if model.gated and get_token() is None:
        return "there is no login to the Hugging Face Hub that has accepted its terms"
    try:
        if model.gated:
            auth_check(model.repository)
        else:
            model_info(model.repository, timeout=HUB_SECONDS)
    except RepositoryNotFoundError:
        # Which GatedRepoError is a kind of.
        return "the Hugging Face Hub does not give it to this login"
    except (OSError, HTTPError):
        return "the Hugging Face Hub can't be reached"
    return ""


def _fetch(model: FoundationModel) -> Path:
    """The Hub's own copy, in a folder that is named after its revision."""
    try:
        return Path(snapshot_download(model.repository, allow_patterns=list(model.patterns)))
    except RepositoryNotFoundError as error:
        raise _refused(model) from error
    except (OSError, HTTPError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
            raise _refused(model) from error
        raise ConfigurationError(
            f"{model.title} ({model.repository}) could not be fetched from the Hugging Face Hub "
            f"({type(error).__name__}). Check the connection, or name a local copy: {model.name}:FOLDER",
            code=ErrorCode.TEACHER_UNREACHABLE,
        ) from error


def _refused(model: FoundationModel) -> ConfigurationError:
    page = f"https://huggingface.co/{model.repository}"
    return ConfigurationError(
        f"The Hugging Face Hub does not give {model.title} to this computer. "
        + (
            "Accept the Health AI Developer Foundations terms at "
            f"{page}, then log in with “hf auth login”, or name a local copy: {model.name}:FOLDER"
            if model.gated
            else f"See {page}, log in with “hf auth login”, or name a local copy: {model.name}:FOLDER"
        ),
        code=ErrorCode.TEACHER_REFUSED,
    )


def _not_a_copy(model: FoundationModel, folder: Path, reason: str, more: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"“{folder.name}” is not a copy of {model.repository}: {reason}.{more} Copy the repository's files as "
        f"they are ({', '.join(model.files)}).",
        code=ErrorCode.TEACHER_UNREADABLE,
    )


def _hash_weights(folder: Path) -> str:
    """One digest of all weight files, by name and content."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.pb"), *folder.glob("variables/*")]):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
