"""The settings of one training: a frozen dataclass."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from dermadeit.errors import ConfigurationError
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS
from dermadeit.models.specs import get_spec
from dermadeit.tasks import TRAINABLE_TASKS, get_task

CHECKPOINT_PREFIX = "checkpoint:"

_CHOICES = {
    "pipeline": ("batch", "original"),
    "optimizer": ("adamw", "adam"),
    "schedule": ("cosine", "step"),
    "class_balancing": ("sampler", "none"),
    "classification_loss": ("focal", "cross_entropy", "balanced_softmax"),
    "embedding_loss": ("cosine_smooth_l1", "kl"),
    "target_normalisation": ("standardise", "pca", "none"),
    "distil_from": ("distillation_token", "class_token", "last_patch"),
    "projector": ("gelu", "relu"),
    "logit_classes": ("task", "teacher"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}
_AT_LEAST_ONE = ("epochs", "batch_size", "accumulation", "step_epochs", "pca_dimensions")
_POSITIVE = ("learning_rate", "step_factor", "temperature", "logit_temperature", "scale")
_NOT_NEGATIVE = (
    "weight_decay",
    "warmup_epochs",
    "layer_decay",
    "clip_norm",
    "ema_decay",
    "patience",
    "classification_weight",
    "alpha",
    "logit_weight",
    "gamma",
    "drop_path",
    "rotation_degrees",
    "shift",
    "elastic",
    "colour",
    "downscale_probability",
    "blur_probability",
    "noise",
    "vignette_probability",
    "hair_probability",
    "mixup",
    "cutmix",
    "mix_probability",
    "workers",
    "seed",
    "folds",
    "held_out_fold",
)


@dataclass(frozen=True)
class TrainingConfiguration:
    """Everything that decides how a training goes. Saved in full as part of `training.json`.

    Attributes:
        task: Key of the task.
        model: Name in `MODEL_SPECS`; empty for `dermadeit` with a teacher and `deit` without one.
        teacher: Any name that `create_teachers` knows, such as `derm-foundation`, `monet`, `dinov2` or
            `checkpoint:FOLDER[,FOLDER...]`; `none`; or `auto` for the best one that can be had (none for a
            model without a distillation token).
        teacher_cache: Folder of teacher embeddings; empty for `runs/teacher_cache`.
        data: Folder that holds `manifest.csv`, and the images that it names.
        output: Checkpoint folder to write; empty for `runs/<task>/<model>`.
        init: `hub`, `none`, or a safetensors file: where the backbone's weights come from.
        frozen: Train the classifying head alone, on the backbone's features as they are.
        image_size: Side of the input in pixels; 0 for the model's own.
        epochs: Passes over the train split.
        pipeline: `batch` augments a batch at a time on the device; `original` is the course project's MONAI
            pipeline, image by image, with its z-score in place of the backbone's normalisation.
        batch_size: Images a step, over all processes and accumulated passes.
        accumulation: Passes that the batch is computed in, to fit into less memory.
        optimizer: `adamw` or `adam`.
        learning_rate: Peak learning rate, of the last layers where `layer_decay` is below 1.
        weight_decay: Decoupled for AdamW; never on biases and norms.
        layer_decay: Learning-rate factor from each layer to the one before it, up to 1 (no decay); 0 for 0.75
            in a transformer and 1 in a convolutional network, which has several times as many layers.
        schedule: `cosine` to zero, or `step`.
        warmup_epochs: Linear warm-up, in epochs.
        step_epochs: Epochs between two steps of `step`.
        step_factor: What each step multiplies the learning rate by.
        clip_norm: Largest gradient norm; 0 for no clipping.
        ema_decay: Decay of the exponential moving average of the weights, which is then what is validated and
            saved; 0 for none.
        patience: Epochs without a better validation before the training stops; 0 to run them all.
        drop_path: Stochastic depth rate.
        classification_loss: `focal`, `cross_entropy` or `balanced_softmax`.
        classification_weight: Weight of the classification loss.
        gamma: Exponent of the focal loss.
        alpha: Weight of the embedding loss.
        embedding_loss: `kl` (the original's) or `cosine_smooth_l1`.
        temperature: Of the softmax over embedding dimensions in `kl`, student and teacher.
        target_normalisation: `standardise` gives each embedding dimension zero mean and unit variance; `pca`
            whitens them and keeps the first `pca_dimensions`.
        pca_dimensions: Most components that `pca` keeps.
        logit_weight: Weight of the loss between the distillation head and the teacher's soft logits.
        logit_temperature: Of that loss, student and teacher.
        logit_classes: The classes of that loss: those of the `task`, or all that the `teacher` knows.
        distil_from: The output that is compared with the teacher: the `distillation_token`, the `class_token` that
            also answers, or the `last_patch` as in the original, by mistake.
        projector: `gelu`, two layers with an open end; `relu`, the original's, which ends in a ReLU.
        consistent_views: Pair every image with the teacher's embedding of the same dihedral view; otherwise
            with that of the unturned image, as in the original.
        flip: Mirror images at random.
        quarter_turns: Turn images by quarters at random. Teacher embeddings are cached for every view that
            `flip` and `quarter_turns` can give, and paired with it.
        class_balancing: `sampler` draws every class equally often, `none` follows the data.
        rotation_degrees: Largest rotation beside the dihedral views.
        scale: Largest zoom factor, in or out; 1 for none.
        shift: Largest shift, as a share of the side.
        elastic: Deviation of the elastic displacement, as a share of half the side.
        colour: Largest relative change of brightness, contrast and saturation.
        downscale_probability: Share of images that are blurred by scaling down and up.
        blur_probability: Share of images that are blurred by a Gaussian.
        noise: Largest deviation of Gaussian noise, in units of the pixel range 0 to 1.
        vignette_probability: Share of images that get dark corners.
        hair_probability: Share of images that get hair-like strokes.
        mixup: Both parameters of the beta distribution that mixup weights come from; 0 for no mixup.
        cutmix: The same for cutmix; with both, each batch takes one of them at random.
        mix_probability: Share of batches that are mixed.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `fp32`, `bf16` or `fp16` (CUDA only).
        workers: Processes that decode images beside the training, again in each epoch. With 0, the training
            decodes them itself, once if the pixels of a split fit into 6 GiB of memory.
        seed: Decides every random choice.
        folds: Parts that the lesions of the train split are dealt into for cross-fitting; 0 for none.
        held_out_fold: With `folds`, the part, 0 to `folds` - 1, that this training does not see.
        allow_leaks: Train although lesions cross splits; the checkpoint says so.
    """

    task: str = "binary"
    model: str = ""
    teacher: str = "auto"
    data: str = ""
    output: str = ""
    teacher_cache: str = ""
    init: str = "hub"
    frozen: bool = False
    image_size: int = 0
    pipeline: str = "batch"
    epochs: int = 15
    batch_size: int = 64
    accumulation: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    layer_decay: float = 0.0
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    step_epochs: int = 15
    step_factor: float = 0.2
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    patience: int = 0
    drop_path: float = 0.1
    classification_loss: str = "focal"
    classification_weight: float = 1.0
    gamma: float = 2.0
    alpha: float = 1.0
    embedding_loss: str = "cosine_smooth_l1"
    temperature: float = 1.0
    target_normalisation: str = "standardise"
    pca_dimensions: int = 256
    logit_weight: float = 1.0
    logit_temperature: float = 2.0
    logit_classes: str = "task"
    distil_from: str = "distillation_token"
    projector: str = "gelu"
    consistent_views: bool = True
    flip: bool = True
    quarter_turns: bool = True
    class_balancing: str = "sampler"
    rotation_degrees: float = 45.0
    scale: float = 1.2
    shift: float = 0.05
    elastic: float = 0.02
    colour: float = 0.2
    downscale_probability: float = 0.3
    blur_probability: float = 0.1
    noise: float = 0.02
    vignette_probability: float = 0.1
    hair_probability: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 0.5
    device: str = "auto"
    precision: str = "auto"
    workers: int = 0
    seed: int = 0
    folds: int = 0
    held_out_fold: int = 0
    allow_leaks: bool = False

    def __post_init__(self) -> None:
        get_task(self.task, TRAINABLE_TASKS)
        if self.model:
            get_spec(self.model)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigurationError(
                    f"{name} is “{getattr(self, name)}”; it must be one of {', '.join(choices)}."
                )
        for names, fits, wanted in (
            (_AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
            (_POSITIVE, lambda value: value > 0, "above 0"),
            (_NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
        ):
            for name in names:
                if not fits(getattr(self, name)):
                    raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be {wanted}.")
        for fits, message in (
            (self.layer_decay <= 1 <= self.scale, "layer_decay goes up to 1, and scale starts at 1."),
            (self.ema_decay < 1, "ema_decay must be below 1."),
            (
                self.batch_size % self.accumulation == 0,
                f"A batch of {self.batch_size} can't be computed in {self.accumulation} equal passes.",
            ),
            (
                self.folds == 0 or (self.folds > 1 and self.held_out_fold < self.folds),
                "folds must be 0, or at least 2 with a held_out_fold below it.",
            ),
            (
                self.classification_loss != "balanced_softmax" or self.class_balancing == "none",
                "balanced_softmax balances the classes already; use it with class_balancing none.",
            ),
            (
                self.teacher != "none" or not get_spec(self.model_name).distilled,
                (
                    f"{get_spec(self.model_name).title} is distilled. Name its teacher with --teacher, such as "
                    "monet or checkpoint:FOLDER, or train the plain DeiT with --model deit."
                ),
            ),
            (
                not (self.frozen and get_spec(self.model_name).distilled),
                "A distilled model learns in its backbone; frozen is for baselines such as --model dinov2.",
            ),
            (
                self.distil_from != "last_patch" or get_spec(self.model_name).is_transformer,
                "distil_from last_patch needs a transformer.",
            ),
            (
                self.pipeline != "original" or self.teacher == "none" or not self.consistent_views,
                (
                    "The original's pipeline turns images by itself, unknown to the teacher. Use it with "
                    "--no-consistent-views."
                ),
            ),
            (
                self.teacher in ("auto", "none") or self.alpha > 0 or self.logit_weight > 0,
                "With alpha and logit_weight 0 the teacher is never asked; use --teacher none.",
            ),
        ):
            if not fits:
                raise ConfigurationError(message)

    @property
    def model_name(self) -> str:
        """The model to train, with the default filled in."""
        return self.model or ("deit" if self.teacher == "none" else "dermadeit")

    @property
    def teacher_cache_root(self) -> Path:
        """The folder of teacher caches, with the default filled in."""
        return Path(self.teacher_cache) if self.teacher_cache else Path("runs") / "teacher_cache"

    @property
    def output_folder(self) -> Path:
        """The checkpoint folder, with the default filled in."""
        return Path(self.output) if self.output else Path("runs") / self.task / self.model_name

    @property
    def data_folder(self) -> Path:
        """The data folder: `data`, else `DERMADEIT_DATA`, else `data/` here."""
        return Path(self.data or os.environ.get("DERMADEIT_DATA", "data"))

    @property
    def layer_decay_factor(self) -> float:
        """The layer decay, with the default filled in."""
        return self.layer_decay or (0.75 if get_spec(self.model_name).is_transformer else 1.0)

    @property
    def views(self) -> tuple[int, ...]:
        """The dihedral views that images are shown in, each 0 to 7."""
        return tuple(
            view
            for view in range(DIHEDRAL_VIEWS)
            if (self.flip or view < 4) and (self.quarter_turns or view % 4 == 0)
        )

    def resolve_device(self) -> torch.device:
        """The device to train on."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigurationError("There is no CUDA device here. Use --device cpu or auto.")
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(automatic if self.device == "auto" else self.device)

    def resolve_precision(self, device: torch.device) -> str:
        """The precision to train in: `auto` is the fastest that the device computes natively."""
        if self.precision == "fp16" and device.type == "cpu":
            raise ConfigurationError("fp16 needs a CUDA device. Use --precision bf16 or fp32.")
        if self.precision != "auto":
            return self.precision
        if device.type == "cpu":
            return "bf16" if cpu_has_bf16() else "fp32"
        # A T4 (compute capability 7.5) only emulates bf16.
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"


def cpu_has_bf16() -> bool:
    """Whether this processor computes in bfloat16 natively; emulated, it is slower than float32."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
