"""The settings of one training, in groups. Each is declared once: its choices, limits, default and meaning.

A setting is an option of train/distill.py and a line of a recipe, both of its name. The defaults are those of the
recipe `dermadeit`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from dermadeit.errors import ConfigurationError
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS
from dermadeit.models.specs import get_spec
from dermadeit.tasks import OWN, TASKS, get_task

CHECKPOINT_PREFIX = "checkpoint:"
FILE_PREFIX = "file:"
FILED = "filed"

LEAST_BLUR = 0.004
"""The smallest deviation of the Gaussian that blurs an image, as a share of the side."""


def is_file_teacher(name: str) -> bool:
    """Whether `--teacher` names a file with what a teacher has said elsewhere."""
    return name == FILED or name.startswith(FILE_PREFIX)


def setting(
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> Any:
    """Declares a setting.

    Args:
        default: Its default.
        meaning: What it decides, for `--help`.
        least: The smallest value that it may have.
        above: What it must be greater than.
        most: The largest value that it may have.
    """
    return field(default=default, metadata={"help": meaning, "least": least, "above": above, "most": most})


@dataclass(frozen=True)
class Settings:
    """A group of settings, which checks choices and limits."""

    def __post_init__(self) -> None:
        for declared in fields(self):
            name, value, limits = declared.name, getattr(self, declared.name), declared.metadata
            choices = choices_of(type(self), name)
            if choices and value not in choices:
                raise ConfigurationError(f"{name} is “{value}”; it must be one of {', '.join(choices)}.")
            # Written so that NaN fits nowhere.
            if limits["least"] is not None and not value >= limits["least"]:
                raise ConfigurationError(f"{name} is {value}; it must be at least {limits['least']}.")
            if limits["above"] is not None and not value > limits["above"]:
                raise ConfigurationError(f"{name} is {value}; it must be above {limits['above']}.")
            if limits["most"] is not None and not value <= limits["most"]:
                raise ConfigurationError(f"{name} is {value}; it must be at most {limits['most']}.")


@cache
def types_of(group: type[Settings]) -> Mapping[str, Any]:
    """Name of each setting of a group to its type."""
    return get_type_hints(group)


def choices_of(group: type[Settings], name: str) -> tuple[str, ...]:
    """What a setting can be; nothing where it is no choice."""
    kind = types_of(group)[name]
    return get_args(kind) if get_origin(kind) is Literal else ()


# ------------------------------------------------------------------------------------------------ groups


@dataclass(frozen=True)
class DataSettings(Settings):
    """What is learnt from which images."""

    task: str = setting(
        "diagnosis",
        f"what to tell apart: {', '.join(TASKS)}, or own for the classes of the manifest; where no "
        "task is named, the manifest decides whether it is own",
    )
    data: str = setting("", "folder with manifest.csv and its images; else DERMADEIT_DATA, else data/")
    allow_leaks: bool = setting(False, "train although lesions cross splits; the checkpoint says so")
    class_balancing: Literal["none", "sampler", "source", "class_within_source"] = setting(
        "none",
        "follow the data, or draw every class equally often (sampler), or every source, or in each source its "
        "classes as often as in all, so that the source says nothing about the class",
    )
    folds: int = setting(0, "parts that the lesions are dealt into for cross-fitting; 0 for none", least=0)
    held_out_fold: int = setting(0, "with folds, the part that this training does not see, from 0", least=0)
    label_share: float = setting(
        1.0,
        "share of the lesions whose labels are learnt from; of the others only what the teacher says is learnt, "
        "and nothing without one",
        above=0,
        most=1,
    )
    label_noise: float = setting(
        0.0, "share of the lesions that get a wrong label, to measure what such labels cost", least=0, most=1
    )
    workers: int = setting(
        0,
        "processes that decode images in each epoch; with 0 they are decoded once, if they fit into 6 GiB",
        least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != OWN:
            get_task(self.task)
        if self.folds and not (self.folds > 1 and self.held_out_fold < self.folds):
            raise ConfigurationError("folds must be 0, or at least 2 with a held_out_fold below it.")
        if self.label_share < 1 and self.class_balancing in ("sampler", "class_within_source"):
            raise ConfigurationError(
                f"class_balancing {self.class_balancing} needs all labels; use it with label_share 1."
            )

    @property
    def folder(self) -> Path:
        """The data folder, with the default filled in."""
        return Path(self.data or os.environ.get("DERMADEIT_DATA", "data"))


@dataclass(frozen=True)
class ModelSettings(Settings):
    """The network that is trained."""

    model: str = setting("dermadeit", "its name, such as dermadeit, deit, mobilenetv2 or efficientnetv2-b0")
    init: str = setting("hub", "where its weights come from: hub, none, or a safetensors file")
    image_size: int = setting(128, "side of the input in pixels; 0 for the model's own", least=0)
    colour_constancy: Literal["none", "shades_of_grey"] = setting(
        "none", "take the colour of the light out of every photo, in training as when it is served"
    )
    drop_path: float = setting(0.15, "stochastic depth rate", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        get_spec(self.model)


@dataclass(frozen=True)
class TeacherSettings(Settings):
    """Who teaches, and how the student is compared with it."""

    teacher: str = setting(
        "filed",
        "filed (what train.file_teacher has filed), file:PATH, derm-foundation, medsiglip, monet or dinov2, "
        "checkpoint:FOLDER[,FOLDER...], none, or auto for the best that can be had here (none for a model without "
        "a distillation token)",
    )
    allow_weak_teacher: bool = setting(
        False, "learn also from a teacher that was found to be no better than a plain training"
    )
    teacher_cache: str = setting("", "folder of what teachers say; runs/teacher_cache without it")
    target_normalisation: Literal["standardise", "none"] = setting(
        "standardise", "whether each dimension of an embedding gets zero mean and unit variance"
    )
    consistent_views: bool = setting(
        True, "pair every image with the teacher's answer to the same dihedral view, or to the unturned image"
    )
    lesion_mean: bool = setting(
        True, "hold an image to the mean of what the teacher says of all photos and views of its lesion"
    )
    teacher_views: Literal["cached", "augmented"] = setting(
        "cached",
        "ask the teacher once about each dihedral view, or in every step about the augmented image itself, "
        "which takes a pass of each of its networks and so a GPU",
    )
    distil_into: Literal["answering_head", "distillation_head"] = setting(
        "answering_head",
        "the logits that are compared with the teacher's: those that answer and that the labels are compared "
        "with, or those of a head of its own that is thrown away",
    )
    distil_from: Literal["distillation_token", "class_token", "last_patch"] = setting(
        "distillation_token",
        "the output that is compared with embeddings, and that a distillation head reads; last_patch is the "
        "original's mistake",
    )
    projector: Literal["gelu", "relu"] = setting("gelu", "two layers with an open end, or the original's")

    @property
    def cache_root(self) -> Path:
        """The folder of teacher caches, with the default filled in."""
        return Path(self.teacher_cache or Path("runs") / "teacher_cache")


@dataclass(frozen=True)
class LossSettings(Settings):
    """What is made small: classification, embedding and soft-logit loss, each times its weight."""

    classification_loss: Literal["cross_entropy", "focal", "balanced_softmax"] = setting(
        "cross_entropy", "loss of the class token against the labels"
    )
    classification_weight: float = setting(1.0, "weight of that loss", least=0)
    gamma: float = setting(2.0, "exponent of the focal loss", least=0)
    label_smoothing: float = setting(
        0.05, "share of each label that all classes get, except in the focal loss", least=0, most=1
    )
    logit_adjustment: float = setting(
        0.5,
        "how much of the log class frequencies is added to the logits in the losses, so that rare classes are "
        "named more often; balanced_softmax is 1, and the sampler leaves none",
        least=0,
    )
    embedding_loss: Literal["cosine_smooth_l1", "kl"] = setting(
        "cosine_smooth_l1", "loss of the projector against the teacher's embedding; kl is the original's"
    )
    alpha: float = setting(0.0, "weight of the embedding loss", least=0)
    temperature: float = setting(1.0, "of the softmax over embedding dimensions in kl", above=0)
    logit_weight: float = setting(1.0, "weight of the loss against the teacher's soft logits", least=0)
    logit_temperature: float = setting(2.0, "temperature of that loss, for student and teacher", above=0)


@dataclass(frozen=True)
class AugmentationSettings(Settings):
    """What is done to the images of a batch."""

    pipeline: Literal["batch", "original"] = setting(
        "batch",
        "a batch at a time on the device, or the original's MONAI transforms, image by image, with its z-score",
    )
    flip: bool = setting(True, "mirror images at random")
    quarter_turns: bool = setting(True, "turn images by quarters at random")
    rotation_degrees: float = setting(45.0, "largest rotation beside the dihedral views", least=0)
    scale: float = setting(1.2, "largest zoom factor, in or out; 1 for none", least=1)
    shift: float = setting(0.05, "largest shift, as a share of the side", least=0)
    crop: float = setting(
        1.0, "smallest share of the side that a crop near the middle shows; 1 for none", above=0, most=1
    )
    aspect: float = setting(
        1.0, "largest factor that one side is stretched by against the other; 1 for none", least=1
    )
    elastic: float = setting(
        0.02, "deviation of the elastic displacement, as a share of half the side", least=0
    )
    colour: float = setting(0.2, "largest relative change of brightness, contrast and saturation", least=0)
    white_balance: float = setting(
        0.0, "largest relative change of each colour channel by itself: the light, and the camera", least=0
    )
    tone_curve: float = setting(
        1.0,
        "largest power that pixels are raised to, or its inverse: the camera's curve; 1 for none",
        least=1,
    )
    colour_transfer_probability: float = setting(
        0.0, "share of images that get the colours of another image of the batch", least=0
    )
    downscale_probability: float = setting(0.3, "share of images that are scaled down and up again", least=0)
    downscale_to: float = setting(0.35, "smallest share of the side that they are scaled to", above=0, most=1)
    blur_probability: float = setting(0.0, "share of images that are blurred by a Gaussian", least=0)
    blur: float = setting(
        0.012, "largest deviation of that Gaussian, as a share of the side", least=LEAST_BLUR
    )
    noise: float = setting(0.0, "largest deviation of Gaussian noise; pixels are 0 to 1", least=0)
    jpeg_probability: float = setting(0.0, "share of images that are compressed as JPEG does", least=0)
    vignette_probability: float = setting(0.0, "share of images that get dark corners", least=0)
    hair_probability: float = setting(0.0, "share of images that get hair-like strokes", least=0)
    mixup: float = setting(
        0.2, "both parameters of the beta distribution of mixup's weights; 0 for none", least=0
    )
    cutmix: float = setting(1.0, "the same for CutMix; with both, each batch takes one at random", least=0)
    mix_probability: float = setting(0.5, "share of batches that are mixed", least=0)

    @property
    def views(self) -> tuple[int, ...]:
        """The dihedral views that images are shown in, each 0 to 7. Teachers are asked about all of them."""
        return tuple(
            view
            for view in range(DIHEDRAL_VIEWS)
            if (self.flip or view < 4) and (self.quarter_turns or view % 4 == 0)
        )


@dataclass(frozen=True)
class OptimisationSettings(Settings):
    """How the weights are changed: AdamW, its schedule, and the average that is kept."""

    epochs: int = setting(10, "passes over the train split", least=1)
    epoch_steps: int = setting(
        0, "steps that count as an epoch, so that trainings on more or fewer images take as many; 0 for a pass "
        "over the images", least=0,
    )  # fmt: skip
    batch_size: int = setting(128, "images a step, over all processes and accumulated passes", least=1)
    accumulation: int = setting(1, "passes that a batch is computed in, to fit into less memory", least=1)
    learning_rate: float = setting(1e-3, "peak learning rate, of the last layers if layers decay", above=0)
    layer_decay: float = setting(
        0.0,
        "learning-rate factor from each layer to the one before it, 1 for no decay; 0 for 0.75 in a transformer "
        "and 1 in a convolutional network, which has several times as many layers",
        least=0,
        most=1,
    )
    weight_decay: float = setting(0.05, "decoupled; never on biases and norms", least=0)
    schedule: Literal["cosine", "step"] = setting("cosine", "of the learning rate: to zero, or in steps")
    warmup_epochs: float = setting(1.0, "linear warm-up, in epochs", least=0)
    step_epochs: int = setting(15, "epochs between two steps", least=1)
    step_factor: float = setting(0.2, "what each step multiplies the learning rate by", above=0)
    clip_norm: float = setting(1.0, "largest gradient norm; 0 for no clipping", least=0)
    ema_decay: float = setting(
        0.995, "decay of the moving average of the weights, which is validated and saved; 0 for none", least=0
    )
    keep: Literal["last", "best"] = setting(
        "last", "the weights that are saved: of the last epoch, or of the best one on validation"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ema_decay >= 1:
            raise ConfigurationError("ema_decay must be below 1.")
        if self.batch_size % self.accumulation:
            raise ConfigurationError(
                f"A batch of {self.batch_size} can't be computed in {self.accumulation} equal passes."
            )


@dataclass(frozen=True)
class RunSettings(Settings):
    """Where it is computed, and where the checkpoint goes."""

    output: str = setting("", "checkpoint folder to write; runs/TASK/MODEL without it")
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto", "where to compute; cuda is an Nvidia GPU, mps the GPU of a Mac"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "the fastest that the device computes natively; fp16 needs CUDA"
    )
    seed: int = setting(0, "decides every random choice", least=0)

    def resolve_device(self) -> torch.device:
        """The device to train on."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigurationError("There is no CUDA device here. Use --device cpu or auto.")
        has_mps = torch.backends.mps.is_available()
        if self.device == "mps" and not has_mps:
            raise ConfigurationError(
                "There is no MPS device here (the GPU of a Mac). Use --device cpu or auto."
            )
        automatic = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
        return torch.device(automatic if self.device == "auto" else self.device)

    def resolve_precision(self, device: torch.device) -> str:
        """The precision to train in: `auto` is the fastest that the device computes natively."""
        if self.precision == "fp16" and device.type != "cuda":
            raise ConfigurationError("fp16 needs a CUDA device. Use --precision bf16 or fp32.")
        if self.precision != "auto":
            return self.precision
        if device.type == "mps":
            return "fp32"
        if device.type == "cpu":
            return "bf16" if cpu_has_bf16() else "fp32"
        # A T4 (compute capability 7.5) only emulates bf16.
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"


def cpu_has_bf16() -> bool:
    """Whether this processor computes in bfloat16 natively; emulated, it is slower than float32."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


# ------------------------------------------------------------------------------------------------- whole


@dataclass(frozen=True)
class TrainingConfiguration:
    """Everything that decides how a training goes; saved in full as part of `training.json`."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    teacher: TeacherSettings = TeacherSettings()
    loss: LossSettings = LossSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    optimisation: OptimisationSettings = OptimisationSettings()
    run: RunSettings = RunSettings()

    def __post_init__(self) -> None:
        spec, teacher = get_spec(self.model.model), self.teacher.teacher
        if self.loss.classification_loss == "balanced_softmax" and self.data.class_balancing != "none":
            raise ConfigurationError(
                "balanced_softmax balances the classes already; use it with class_balancing none."
            )
        if spec.distilled and teacher == "none":
            raise ConfigurationError(
                f"{spec.title} is distilled. Name its teacher with --teacher, such as monet or checkpoint:FOLDER, "
                "or train the plain DeiT with --recipe plain."
            )
        if self.teacher.distil_from == "last_patch" and not spec.is_transformer:
            raise ConfigurationError("distil_from last_patch needs a transformer.")
        if teacher != "none" and self.augmentation.pipeline == "original" and self.teacher.consistent_views:
            raise ConfigurationError(
                "The original's pipeline turns images by itself, unknown to the teacher. Use it with "
                "--no-consistent-views."
            )
        if self.teacher.teacher_views == "augmented":
            if self.augmentation.pipeline == "original":
                raise ConfigurationError("The original's pipeline has no --teacher-views augmented.")
            if self.loss.alpha or not self.loss.logit_weight:
                raise ConfigurationError(
                    "With --teacher-views augmented only the teacher's logits are compared. Use --alpha 0."
                )
        if teacher not in ("auto", "none") and not self.loss.alpha and not self.loss.logit_weight:
            raise ConfigurationError(
                "With alpha and logit_weight 0 the teacher is never asked; use --teacher none."
            )

    @classmethod
    def create(cls, **settings: Any) -> TrainingConfiguration:
        """The configuration with these settings, whatever their group, and defaults for all others."""
        groups: dict[str, Any] = {
            name: group(**{key: settings.pop(key) for key in types_of(group) if key in settings})
            for name, group in GROUPS.items()
        }
        assert not settings, f"unknown settings: {', '.join(settings)}"
        return cls(**groups)

    def replace(self, **settings: Any) -> TrainingConfiguration:
        """The same with other values of some settings."""
        return self.create(**self.settings | settings)

    @property
    def settings(self) -> dict[str, Any]:
        """Name to value of every setting of all groups."""
        return {name: value for group in asdict(self).values() for name, value in group.items()}

    @property
    def output_folder(self) -> Path:
        """The checkpoint folder, with the default filled in."""
        return Path(self.run.output or Path("runs") / self.data.task / self.model.model)

    @property
    def prior_shift(self) -> float:
        """How much of the log class frequencies the losses add to the logits.

        Nothing where the sampler draws every class equally often: then there is nothing to make up for.
        """
        if self.data.class_balancing == "sampler":
            return 0.0
        return 1.0 if self.loss.classification_loss == "balanced_softmax" else self.loss.logit_adjustment

    @property
    def layer_decay(self) -> float:
        """The layer decay, with the default filled in."""
        automatic = 0.75 if get_spec(self.model.model).is_transformer else 1.0
        return self.optimisation.layer_decay or automatic


GROUPS: Mapping[str, type[Settings]] = get_type_hints(TrainingConfiguration)
"""Name of each group of settings to its class."""
