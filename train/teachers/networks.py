"""Teachers: anything that turns a lesion image into an embedding, and some into class logits as well."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dermadeit.data.manifest import Manifest
from dermadeit.errors import CheckpointError, ConfigurationError, ErrorCode
from dermadeit.files import read_json
from dermadeit.imaging.preprocessing import apply_dihedral
from dermadeit.models.checkpoints import CONFIG_FILE, TRAINING_FILE, Checkpoint, load_checkpoint, read_task
from dermadeit.models.specs import MODEL_SPECS
from dermadeit.tasks import DIAGNOSIS
from train.configuration import CHECKPOINT_PREFIX, is_file_teacher
from train.data.splitting import fold_of
from train.teachers.foundation import (
    FOUNDATION_MODELS,
    Encoder,
    autocast,
    describe_preprocessing,
    find_obstacle,
    load_encoder,
)

PREFERRED_TEACHERS = ("derm-foundation", "monet", "dinov2")
"""What `available_teacher` looks for, best first."""


class TeacherOutput(NamedTuple):
    """What a teacher says about B images in V views.

    Attributes:
        embeddings: float32 [B, V, D].
        logits: float32 [B, V, C], or None where the teacher is no classifier.
    """

    embeddings: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True)
class Teacher:
    """Squashes images to squares and turns each view into an embedding and, if it is a classifier, class logits.

    Attributes:
        name: Short, such as `monet` or `vit-augreg-fold0`.
        identity: Names the exact weights: id and revision on the Hub, or a hash of local files.
        encoder: The network, and the squares that it takes.
        classes: Class keys in the order of the logits, C of them; None without logits.
        folds: Parts that the lesions were dealt into when it was trained; 0 if it is not cross-fitted.
        held_out_fold: With `folds`, the part whose labels it never saw.
    """

    name: str
    identity: str
    encoder: Encoder
    classes: tuple[str, ...] | None = None
    folds: int = 0
    held_out_fold: int = 0

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """What is done to an image, ready for JSON."""
        return self.encoder.preprocessing

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding, D."""
        return self.encoder.embedding_dim

    def embed(self, images: Sequence[np.ndarray], views: Sequence[int]) -> TeacherOutput:
        """Embeds dihedral views of images; one forward pass takes one view of all of them.

        Args:
            images: B arrays, uint8 [H, W, 3] of any sizes.
            views: The V views to embed, each 0 to 7, as `imaging.preprocessing.apply_dihedral` counts them.
        """
        squares = torch.stack([self.encoder.resizing.resize(image) for image in images])
        parts = [self.encoder.encode(apply_dihedral(squares, view)) for view in views]
        embeddings = torch.stack([embedding for embedding, _ in parts], dim=1).cpu().numpy()
        logits = [logits for _, logits in parts if logits is not None]
        return TeacherOutput(embeddings, torch.stack(logits, dim=1).cpu().numpy() if logits else None)


def create_teachers(name: str, device: torch.device) -> tuple[Teacher, ...]:
    """Loads the teachers that a name stands for.

    Args:
        name: `none`; a key of `FOUNDATION_MODELS`, optionally followed by `:FOLDER`, a local copy in the Hub's
            layout; or `checkpoint:DIR[,DIR…]` for our own checkpoints, each of which is a teacher.
        device: Where they compute.

    Raises:
        ConfigurationError: An unknown name, or a model that can't be had; the message names the remedy.
        CheckpointError: A checkpoint that can't be read.
    """
    if name == "none":
        return ()
    if name.startswith(CHECKPOINT_PREFIX):
        folders = [Path(folder) for folder in name.removeprefix(CHECKPOINT_PREFIX).split(",")]
        return _tell_apart([_create_checkpoint_teacher(folder, device) for folder in folders])
    kind, _, folder = name.partition(":")
    if is_file_teacher(name):
        raise ConfigurationError(
            "A file answers only for the images that are in it. Name a teacher that can be asked, such as "
            "checkpoint:FOLDER."
        )
    if kind not in FOUNDATION_MODELS:
        raise ConfigurationError(
            f"There is no teacher “{kind}”. Choose none, filed, file:PATH, checkpoint:FOLDER[,FOLDER…], or one of "
            f"{', '.join(FOUNDATION_MODELS)} (each also as NAME:FOLDER, with a local copy)."
        )
    encoder, identity = load_encoder(FOUNDATION_MODELS[kind], Path(folder) if folder else None, device)
    return (Teacher(kind, identity, encoder),)


def unseen(teacher: Teacher, manifest: Manifest) -> np.ndarray:
    """Which images a teacher may be asked about.

    Args:
        teacher: Perhaps cross-fitted.
        manifest: N images.

    Returns:
        bool [N]: true where the lesion lies in the teacher's held-out fold, so that of the teachers of all folds
        exactly one answers for an image; all true for a teacher that is not cross-fitted.
    """
    if not teacher.folds:
        return np.ones(len(manifest.rows), dtype=bool)
    return np.array(
        [fold_of(row.lesion_group, teacher.folds) == teacher.held_out_fold for row in manifest.rows],
        dtype=bool,
    )


def available_teacher(task: str, runs: Path = Path("runs")) -> tuple[str, str]:
    """The best teacher that can be had here, for someone who named none.

    Args:
        task: Key of the student's task; a checkpoint teaches it, or all eight diagnoses.
        runs: Where trainings leave their checkpoints.

    Returns:
        A name for `create_teachers`, and a sentence that says why it is this one.
    """
    obstacles = []
    for name in PREFERRED_TEACHERS:
        model = FOUNDATION_MODELS[name]
        obstacle = find_obstacle(model)
        if not obstacle:
            return name, " ".join([f"{model.title} can be had.", *obstacles])
        obstacles.append(f"{model.title} can't: {obstacle}.")
    folders = _find_checkpoints(task, runs)
    if folders:
        name = CHECKPOINT_PREFIX + ",".join(map(str, folders))
        return name, " ".join([f"{runs} holds {len(folders)} of our own checkpoints.", *obstacles])
    return "none", " ".join([f"{runs} holds no checkpoint that could teach.", *obstacles])


def _find_checkpoints(task: str, runs: Path) -> list[Path]:
    """Checkpoints below `runs` that can teach a task: wholly cross-fitted networks, else all others."""
    members, others = defaultdict(lambda: defaultdict(list)), []
    for path in sorted(runs.rglob(CONFIG_FILE)):
        try:
            ours = read_json(path)["dermadeit"]
            spec, own_task = MODEL_SPECS[ours["model"]], read_task(path.parent).key
            folds, held_out = _read_folds(path.parent)
            if not _is_trustworthy(path.parent):
                continue
        except (OSError, ValueError, KeyError, TypeError, CheckpointError):
            continue
        # A distilled network is a student.
        if spec.distilled or own_task not in (task, DIAGNOSIS.key):
            continue
        if folds:
            members[folds, spec.name, own_task][held_out].append(path.parent)
        else:
            others.append(path.parent)
    whole = defaultdict(list)
    for (folds, *_), by_fold in members.items():
        # As many times as each of its folds was trained, for example with several seeds.
        times = min(len(by_fold[fold]) for fold in range(folds))
        whole[folds] += [folder for fold in range(folds) for folder in by_fold[fold][:times]]
    # Networks that were dealt different folds can't answer together.
    return max(whole.values(), key=len, default=[]) or others


def _is_trustworthy(folder: Path) -> bool:
    """Whether a training was not told to ignore leaks, so that it can have seen no lesion of another split."""
    training = folder / TRAINING_FILE
    if not training.is_file():
        return True
    configuration = read_json(training)["configuration"]
    return not configuration.get("allow_leaks", False)


def _create_checkpoint_teacher(folder: Path, device: torch.device) -> Teacher:
    checkpoint = load_checkpoint(folder)
    folds, held_out_fold = _read_folds(folder)
    return Teacher(
        f"{checkpoint.model}-fold{held_out_fold}" if folds else checkpoint.model,
        f"{checkpoint.model}@sha256:{checkpoint.weights_sha256}",
        _encoder_of(checkpoint, device),
        checkpoint.task.classes,
        folds,
        held_out_fold,
    )


def _encoder_of(checkpoint: Checkpoint, device: torch.device) -> Encoder:
    classifier = checkpoint.classifier.to(device)

    @torch.inference_mode()
    def encode(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(device):
            embedding, _ = classifier.embed(checkpoint.preprocessing.normalise(pixels.to(device)))
            logits = classifier.head(embedding)
        return embedding.float(), logits.float()

    return Encoder(
        checkpoint.preprocessing,
        describe_preprocessing(checkpoint.preprocessing, "class embedding"),
        classifier.embedding_dim,
        encode,
    )


def _read_folds(folder: Path) -> tuple[int, int]:
    """How a checkpoint was cross-fitted, from its `training.json`: `folds` and `held_out_fold`, or zeros."""
    path = folder / TRAINING_FILE
    if not path.is_file():
        return 0, 0
    try:
        configuration = read_json(path)["configuration"]
        folds, held_out = int(configuration.get("folds", 0)), int(configuration.get("held_out_fold", 0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Taken for a teacher that is not cross-fitted, it would answer for images whose labels it was trained on.
        raise CheckpointError(
            f"The training.json of the checkpoint “{folder.name}” is damaged, so nobody knows which labels it has "
            "seen. Copy the checkpoint again.",
            code=ErrorCode.DAMAGED_CHECKPOINT,
        ) from error
    return (folds, held_out) if folds else (0, 0)


def _tell_apart(teachers: Sequence[Teacher]) -> tuple[Teacher, ...]:
    """Adds the start of the weights' hash to names that several teachers share."""
    count = Counter(teacher.name for teacher in teachers)
    return tuple(
        replace(teacher, name=f"{teacher.name}-{teacher.identity.rpartition(':')[2][:8]}")
        if count[teacher.name] > 1
        else teacher
        for teacher in teachers
    )
