"""Checkpoint folders: fp16 safetensors and JSON that `timm.create_model("local-dir:FOLDER")` reads too.

Reading a folder needs neither torch nor timm, which take seconds to import: the network itself is built when
somebody first asks for it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from dermadeit.errors import CheckpointError, ConfigurationError, ErrorCode, ModelError, TaskError
from dermadeit.files import ASSETS, file_sha256, read_json, write_atomically, write_json
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.models.hub import (
    names_a_checkpoint,
    open_checkpoint_folder,
    plain_architecture,
    to_distilled_weights,
)
from dermadeit.models.specs import OURS, ModelSpec, get_spec
from dermadeit.tasks import (
    DIAGNOSIS,
    OWN,
    TASKS,
    ClassGroups,
    Task,
    create_own_task,
    get_task,
    readable_tasks,
)
from dermadeit.trust.calibration import Calibration
from dermadeit.trust.files import Trust, read_trust, remove_trust
from dermadeit.trust.patient_context import PatientContext

if TYPE_CHECKING:
    import torch

    from dermadeit.models.classifier import LesionClassifier

CHECKPOINT_ROOT = ASSETS / "checkpoints"
"""Where the embedded checkpoints lie: as `<model>/`, or as `<task>/<model>/` where each task has its own."""

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TRAINING_FILE = "training.json"
FORMAT_VERSION = 2

_FORMATS_READ = (1, 2)
_NOT_TRAINED = ("running_mean", "running_var", "num_batches_tracked")
"""How the names of a batch norm's statistics end, which are no parameters."""

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")

_RECIPES = {
    "dermadeit": "dermadeit",
    "deit": "plain",
    "mobilenetv2": "mobilenetv2",
    "efficientnetv2-b0": "efficientnetv2-b0",
    "dinov2": "dinov2",
}
"""Models whose training has a recipe of its own, in train/recipes."""


class PretrainedConfig(TypedDict):
    """How the network wants its images, under timm's names.

    Attributes:
        input_size: Channels, height and width in pixels.
        fixed_input_size: Whether the network takes no other size.
        interpolation: `bilinear` or `bicubic`.
        crop_pct: 1: nothing is cropped.
        crop_mode: `squash`: the photo is scaled to a square.
        mean: Of each channel, subtracted from pixels of 0 to 1.
        std: Of each channel, divided by afterwards.
        num_classes: Number of classes.
        pool_size: timm's own, of the architecture.
        first_conv: Name of the first layer, timm's own.
        classifier: Name of the last layer, or of both heads, timm's own.
        license: Of the weights.
    """

    input_size: list[int]
    fixed_input_size: bool
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: list[float]
    std: list[float]
    num_classes: int
    pool_size: list[int] | None
    first_conv: str
    classifier: str | list[str]
    license: str


class OwnConfig(TypedDict):
    """What timm has no place for.

    Attributes:
        format: `FORMAT_VERSION`.
        model: Name of the model in `MODEL_SPECS`.
        classes: Class keys in the order of the logits.
        tasks: Keys of the tasks that these classes can form. The first is the one that the network was trained
            for, whose classes they are. Version 0.1 wrote that one alone, as `task`.
        per_image_zscore: Whether each image is standardised by itself, in place of mean and std.
        colour_constancy: What is done about the colour of the light; nothing where it is missing.
        titles: Class key to its name for people; only of classes of one's own.
        target: Key of the class that must not be missed, likewise.
        task_title: What the task is called, likewise.
        weights_sha256: Hex digest of the weights file.
        replaced_sha256: That of the weights which are being replaced, only while a checkpoint is written.
    """

    format: int
    model: str
    classes: list[str]
    tasks: list[str]
    per_image_zscore: bool
    colour_constancy: NotRequired[str]
    titles: NotRequired[dict[str, str]]
    target: NotRequired[str]
    task_title: NotRequired[str]
    weights_sha256: NotRequired[str]
    replaced_sha256: NotRequired[str]


class CheckpointConfig(TypedDict):
    """`config.json` of a checkpoint folder, as timm reads it too.

    Attributes:
        architecture: timm architecture.
        num_classes: Number of classes.
        num_features: Length of the embedding.
        label_names: Class keys in the order of the logits.
        label_descriptions: Class key to its name for people.
        model_args: What timm needs beside the architecture: `img_size` for a transformer.
        pretrained_cfg: How the network wants its images.
        dermadeit: What timm has no place for.
    """

    architecture: str
    num_classes: int
    num_features: int
    label_names: list[str]
    label_descriptions: dict[str, str]
    model_args: dict[str, int]
    pretrained_cfg: PretrainedConfig
    dermadeit: OwnConfig


class LazyClassifier:
    """A network that is built when it is first asked for, once. Safe to share between threads."""

    def __init__(self, build: Callable[[], LesionClassifier]) -> None:
        self._build = build
        self._built: LesionClassifier | None = None
        self._lock = threading.Lock()

    def get(self) -> LesionClassifier:
        """The network, always the same one."""
        with self._lock:
            if self._built is None:
                self._built = self._build()
            return self._built


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to predict, with everything that belongs to its weights.

    Attributes:
        folder: Where it was read from.
        model: Name of the model in `MODEL_SPECS`.
        task: What is asked of it, one of `tasks`.
        network: What it was trained for: the task whose classes are its own, in the order of the logits.
        preprocessing: How it wants its images.
        lazy_classifier: Builds what `classifier` gives.
        weights: Name of each tensor of the file to its values, as they are stored: float16, counters int64. None
            for a network that was put in place of the file's.
        weights_sha256: Hex digest of the weights file.
        weights_bytes: Size of the weights file.
        trust: What was fitted for these weights after training; None for a checkpoint never calibrated.
    """

    folder: Path
    model: str
    task: Task
    network: Task
    preprocessing: Preprocessing
    lazy_classifier: LazyClassifier = field(repr=False)
    weights: Mapping[str, np.ndarray] | None = field(repr=False)
    weights_sha256: str
    weights_bytes: int
    trust: Trust | None = None

    @property
    def spec(self) -> ModelSpec:
        """What the model is; of the embedded kind, without building the network."""
        return self.classifier.spec if self.weights is None else get_spec(self.model)

    @property
    def classifier(self) -> LesionClassifier:
        """The network, float32, in evaluation mode, parameters frozen.

        Raises:
            CheckpointError: The weights don't fit the architecture.
        """
        return self.lazy_classifier.get()

    def with_classifier(self, classifier: LesionClassifier) -> Checkpoint:
        """The same checkpoint with another network in place of its own."""
        return replace(self, lazy_classifier=LazyClassifier(lambda: classifier), weights=None)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Every task that the network's classes can form, the one that it was trained for first."""
        return readable_tasks(self.network)

    @property
    def groups(self) -> ClassGroups:
        """How the task that is asked is read from the network's classes."""
        groups = self.task.group(self.network.classes)
        assert groups is not None, "load_checkpoint and for_task refuse any other"
        return groups

    @property
    def patient_context(self) -> PatientContext | None:
        """What was fitted for answers with age and sex; None where nothing was."""
        return self.trust.patient_context if self.trust else None

    @property
    def calibration(self) -> Calibration | None:
        """What was fitted for the task that is asked; None for a checkpoint that was never calibrated for it."""
        return self.trust.calibrations.get(self.task.key) if self.trust else None

    def for_task(self, key: str) -> Checkpoint:
        """The same network, asked another task.

        Raises:
            CheckpointError: Its classes can't form this task; the message names those that they can.
        """
        return replace(self, task=_pick_task(self.folder, self.network, key))

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        if self.weights is None:
            return sum(parameter.numel() for parameter in self.classifier.parameters())
        return sum(values.size for key, values in self.weights.items() if not key.endswith(_NOT_TRAINED))


def save_checkpoint(
    folder: Path,
    classifier: LesionClassifier,
    task: Task,
    preprocessing: Preprocessing,
) -> None:
    """Writes a checkpoint folder. Killed at any moment, it leaves the old checkpoint or the new one, whole.

    timm averages the two heads of a distilled transformer. Ours answers with the class token alone, so the
    distillation head is written as zeros: timm then returns half our logits, hence the same decision.

    Args:
        folder: Where to write; created when missing.
        classifier: The network; its weights are stored as float16.
        task: What it was trained for; its classes are the network's.
        preprocessing: How it wants its images.

    Raises:
        CheckpointError: A weight is not finite in float16.
    """
    state = {key: _as_stored(key, value) for key, value in classifier.backbone.state_dict().items()}
    weights = folder / WEIGHTS_FILE
    config = _describe(classifier, task, preprocessing)

    def write(temporary: Path) -> None:
        save_file(state, temporary)
        # The configuration comes first and fits the old weights too, until the rename replaces them.
        config["dermadeit"]["weights_sha256"] = file_sha256(temporary)
        if weights.is_file():
            config["dermadeit"]["replaced_sha256"] = file_sha256(weights)
        write_json(folder / CONFIG_FILE, config)
        # What was fitted for the old weights would make the new ones unreadable.
        remove_trust(folder)

    write_atomically(weights, write)
    config["dermadeit"].pop("replaced_sha256", None)
    write_json(folder / CONFIG_FILE, config)


def load_checkpoint(folder: Path, task: str | None = None, *, calibrated: bool = True) -> Checkpoint:
    """Reads a checkpoint folder.

    Args:
        folder: A folder that `save_checkpoint` wrote.
        task: Key of the task to ask; None for the one that it was trained for.
        calibrated: Whether to read what `calibrate` wrote beside the weights, where it did.

    Raises:
        CheckpointError: Missing, pickled, truncated, altered, of another format, or unable to answer the task; or
            the calibration is damaged or of other weights.
    """
    config = _read_config(folder)
    try:
        ours = config["dermadeit"]
        spec, classes = get_spec(ours["model"]), tuple(ours["classes"])
        network = _read_network(ours)
        hashes = (ours["weights_sha256"], ours.get("replaced_sha256"))
        preprocessing = Preprocessing.from_pretrained_cfg(
            config["pretrained_cfg"],
            per_image_zscore=bool(ours.get("per_image_zscore", False)),
            colour_constancy=ours.get("colour_constancy", "none"),
        )
        architecture = config["architecture"]
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        ModelError,
        TaskError,
    ) as error:
        raise CheckpointError(
            f"The {CONFIG_FILE} of the checkpoint “{folder.name}” is not one that this version writes. Train "
            "the model again with train/distill.py, or copy the checkpoint again."
        ) from error
    asked = network if task is None else _pick_task(folder, network, task)
    if classes != network.classes or architecture not in (spec.architecture, plain_architecture(spec)):
        raise CheckpointError(
            f"The checkpoint “{folder.name}” does not fit this version: it has the classes "
            f"{', '.join(map(str, classes))} and the architecture {architecture}."
        )
    weights = folder / WEIGHTS_FILE
    state, weights_sha256 = _read_weights(weights, hashes)
    if architecture != spec.architecture:
        # Published for the Hub, in the form that plain timm answers with.
        state = to_distilled_weights(state)
    return Checkpoint(
        folder,
        spec.name,
        asked,
        network,
        preprocessing,
        LazyClassifier(partial(_build, folder, spec, len(classes), preprocessing.size, state)),
        state,
        weights_sha256,
        weights.stat().st_size,
        read_trust(folder, network, weights_sha256) if calibrated else None,
    )


def _build(
    folder: Path, spec: ModelSpec, classes: int, size: int, state: Mapping[str, np.ndarray]
) -> LesionClassifier:
    # They take seconds to import, and most of what a checkpoint says needs neither.
    import timm
    import torch

    from dermadeit.models.classifier import LesionClassifier

    # The file's own model_args are for timm: taken as they are, they could name a pickle to load.
    backbone = timm.create_model(spec.architecture, num_classes=classes, **_model_arguments(spec, size))
    tensors = {key: torch.from_numpy(values) for key, values in state.items()}
    try:
        backbone.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        )
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights of the checkpoint “{folder.name}” don't fit its architecture {spec.architecture}."
        ) from error
    return LesionClassifier(spec, backbone, size).eval().requires_grad_(False)


def read_task(folder: Path) -> Task:
    """What a checkpoint was trained for, without reading its weights; raises `CheckpointError`."""
    try:
        return _read_network(_read_config(folder)["dermadeit"])
    except (KeyError, IndexError, TypeError, AttributeError, TaskError) as error:
        raise CheckpointError(
            f"The {CONFIG_FILE} of the checkpoint “{folder.name}” names no task.",
            code=ErrorCode.DAMAGED_CHECKPOINT,
        ) from error


def _read_network(ours: Mapping[str, Any]) -> Task:
    """The task whose classes are the network's own."""
    key = ours["task"] if ours["format"] == 1 else ours["tasks"][0]
    if key != OWN:
        return get_task(key)
    titles = {str(key): str(title) for key, title in ours["titles"].items()}
    return create_own_task(tuple(ours["classes"]), titles, str(ours["target"]), str(ours["task_title"]))


def _pick_task(folder: Path, network: Task, key: str) -> Task:
    tasks = {task.key: task for task in readable_tasks(network)}
    if key not in tasks:
        raise CheckpointError(
            f"The checkpoint “{folder.name}” answers “{'”, “'.join(tasks)}”, not “{key}”.",
            code=ErrorCode.WRONG_TASK,
        )
    return tasks[key]


def find_checkpoint(task: str | None, model: str, root: Path = CHECKPOINT_ROOT) -> Path:
    """Folder of a model's checkpoint; `model` may also name a checkpoint itself.

    Args:
        task: Key of the task to ask; None where the model alone decides, as it has one network for all it answers.
        model: Name of a model, path of a checkpoint folder, or `hf-hub:ORG/NAME` on the Hugging Face Hub.
        root: Folder that holds the checkpoints as `<model>/`, and as `<task>/<model>/` for tasks that the former
            can't answer.

    Raises:
        CheckpointError: There is none; the message names the command that trains it.
        ConfigurationError: No task is given, and the model has a network for each.
    """
    if names_a_checkpoint(model):
        return open_checkpoint_folder(model)
    if task == OWN:
        raise CheckpointError(
            f"“{model}” is no checkpoint of classes of your own. Name the folder of one, such as "
            f"runs/own/{model}.",
            code=ErrorCode.NO_CHECKPOINT,
        )
    if task is not None:
        get_task(task)
    spec = get_spec(model)
    shared = root / spec.name
    network = read_task(shared) if (shared / CONFIG_FILE).is_file() else None
    if network is not None and (task is None or task in {own.key for own in readable_tasks(network)}):
        return shared
    having = [key for key in TASKS if (root / key / spec.name / CONFIG_FILE).is_file()]
    if task is None and having:
        raise ConfigurationError(
            f"{spec.title} has a network for each task. Name the task: {' or '.join(having)}."
        )
    if task in having:
        return root / task / spec.name
    if network is not None and task is not None:
        _pick_task(shared, network, task)
    wanted = task or DIAGNOSIS.key
    others = f" It has one for {' and '.join(having)}." if having else ""
    raise CheckpointError(
        f"There is no checkpoint of {spec.title} for the task “{wanted}”.{others} Train one with "
        f"“{training_command(wanted, model)}”, then give its folder "
        f"runs/{wanted}/{spec.name} in place of the name.",
        code=ErrorCode.NO_CHECKPOINT,
    )


def answered_tasks(model: str = OURS, root: Path = CHECKPOINT_ROOT) -> tuple[Task, ...]:
    """The tasks that a model has a checkpoint for; reads no weights.

    Args:
        model: Name of a model, or the path of a checkpoint folder.
        root: Folder that holds the checkpoints, as `find_checkpoint` takes it.

    Raises:
        CheckpointError: A checkpoint is damaged.
    """
    found = []
    for task in TASKS.values():
        try:
            find_checkpoint(task.key, model, root)
        except CheckpointError as error:
            if error.code not in (ErrorCode.NO_CHECKPOINT, ErrorCode.WRONG_TASK):
                raise
            continue
        found.append(task)
    return tuple(found)


def training_command(task: str, model: str) -> str:
    """The command that trains a model for a task, into `runs/<task>/<model>`."""
    teacher = " --teacher checkpoint:FOLDER" if get_spec(model).distilled else ""
    recipe = _RECIPES.get(model)
    named = f"--recipe {recipe}" if recipe else f"--model {model}"
    return f"python train/distill.py {named} --task {task}{teacher}"


def _describe(classifier: LesionClassifier, task: Task, preprocessing: Preprocessing) -> CheckpointConfig:
    backbone_cfg = cast(dict[str, Any], classifier.backbone.pretrained_cfg)
    return {
        "architecture": classifier.spec.architecture,
        "num_classes": len(task.classes),
        "num_features": classifier.embedding_dim,
        "label_names": list(task.classes),
        "label_descriptions": dict(task.display_names),
        "model_args": _model_arguments(classifier.spec, preprocessing.size),
        "pretrained_cfg": {
            "input_size": [3, preprocessing.size, preprocessing.size],
            "fixed_input_size": classifier.spec.is_transformer,
            "interpolation": preprocessing.interpolation,
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "num_classes": len(task.classes),
            "pool_size": backbone_cfg.get("pool_size"),
            "first_conv": backbone_cfg["first_conv"],
            "classifier": backbone_cfg["classifier"],
            "license": "cc-by-nc-4.0",
        },
        "dermadeit": _describe_ours(classifier, task, preprocessing),
    }


def _describe_ours(classifier: LesionClassifier, task: Task, preprocessing: Preprocessing) -> OwnConfig:
    ours = OwnConfig(
        format=FORMAT_VERSION,
        model=classifier.spec.name,
        classes=list(task.classes),
        tasks=[readable.key for readable in readable_tasks(task)],
        per_image_zscore=preprocessing.per_image_zscore,
    )
    if preprocessing.colour_constancy != "none":
        ours.update(colour_constancy=preprocessing.colour_constancy)
    if task.key == OWN:
        # What no version can know by itself.
        ours.update(titles=dict(task.display_names), target=task.target, task_title=task.title)
    return ours


def _model_arguments(spec: ModelSpec, size: int) -> dict[str, Any]:
    return {"img_size": size} if spec.is_transformer else {}


def _as_stored(key: str, tensor: torch.Tensor) -> np.ndarray:
    value = tensor.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value.numpy()
    stored = (value.new_zeros(value.shape) if key.startswith("head_dist.") else value).half().numpy()
    if not np.isfinite(stored).all():
        raise CheckpointError(
            f"The weights {key} are not finite in float16: the training failed. Lower the learning "
            "rate and train again.",
            code=ErrorCode.WEIGHTS_NOT_FINITE,
        )
    return stored


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        pickles = (
            [child.name for child in folder.glob("*") if child.suffix in _PICKLES] if folder.is_dir() else []
        )
        if pickles:
            raise CheckpointError(
                f"“{folder.name}” contains a pickle ({pickles[0]}), which can run code when it is opened. "
                f"Only "
                "safetensors checkpoints written by train/distill.py are read.",
                code=ErrorCode.PICKLE_REFUSED,
            )
        raise CheckpointError(
            f"“{folder.name}” is not a checkpoint folder: it has no {CONFIG_FILE}.",
            code=ErrorCode.NO_CHECKPOINT,
        )
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The {CONFIG_FILE} of the checkpoint “{folder.name}” is damaged. Copy the checkpoint again.",
            code=ErrorCode.DAMAGED_CHECKPOINT,
        ) from error
    ours = config.get("dermadeit") if isinstance(config, dict) else None
    version = ours.get("format") if isinstance(ours, dict) else None
    if version not in _FORMATS_READ:
        raise CheckpointError(
            f"The checkpoint “{folder.name}” has the format {version}; this version reads "
            f"{' and '.join(map(str, _FORMATS_READ))}."
        )
    return config


def _read_weights(path: Path, accepted: Sequence[str | None]) -> tuple[dict[str, np.ndarray], str]:
    try:
        # Hashed and read are the same bytes: a training may replace the file at any moment.
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint “{path.parent.name}” has no readable {path.name}. Copy it again.",
            code=ErrorCode.DAMAGED_CHECKPOINT,
        ) from error
    actual = hashlib.sha256(data).hexdigest()
    if actual not in accepted:
        raise CheckpointError(
            f"The weights of the checkpoint “{path.parent.name}” are not the ones its configuration names: "
            "the file is truncated or was altered. Copy the checkpoint again.",
            code=ErrorCode.WRONG_HASH,
        )
    try:
        return load(data), actual
    # NumPy lacks some of the types that safetensors has.
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The weights of the checkpoint “{path.parent.name}” are not safetensors.",
            code=ErrorCode.DAMAGED_CHECKPOINT,
        ) from error
