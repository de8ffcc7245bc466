"""What the student's distillation token is pulled towards: the teacher's answer to the very view it sees.

A teacher that was itself trained on these images knows their labels by heart, so its networks come in folds: each
answers only for the lesions that it did not see. Their embeddings then live in one space a fold.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from dermadeit.data.manifest import Manifest
from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.tasks import Task
from train.configuration import TrainingConfiguration, is_file_teacher
from train.data.splitting import fold_of
from train.teachers.cache import CachedEmbeddings, cached_embeddings, teacher_cache_folder
from train.teachers.file import read_teacher_file, require_advantage
from train.teachers.networks import Teacher, create_teachers, unseen

logger = logging.getLogger(__name__)

SMALLEST_PROBABILITY = 1e-6
CONSTANT_DEVIATION = 1e-6
"""A dimension that varies less than this carries nothing, and becomes 0."""

HEAD_FOLDS = 5
COMPONENTS = 256
INVERSE_REGULARISATION = 0.1


class TargetBatch(NamedTuple):
    """The teacher's answers for B images.

    Attributes:
        embeddings: float32 [B, D].
        spaces: int64 [B], which embedding space each of them lives in.
        log_probabilities: float32 [B, C]; None where no soft logits were asked for.
    """

    embeddings: torch.Tensor
    spaces: torch.Tensor
    log_probabilities: torch.Tensor | None

    def of(self, chosen: torch.Tensor) -> TargetBatch:
        """Those of some images; `chosen` is int64 [n], their positions in the batch."""
        log_probabilities = self.log_probabilities
        if log_probabilities is not None:
            log_probabilities = log_probabilities[chosen.to(log_probabilities.device)]
        return TargetBatch(self.embeddings[chosen], self.spaces[chosen], log_probabilities)


class TeacherTargets:
    """Teacher answers for a manifest, looked up image by image and view by view.

    Args:
        identity: Names the teacher.
        manifest: The N images.
        views: The V dihedral views that the caches hold.
        spaces: For each embedding space, its images (int64 positions in the manifest) and the caches of the
            networks that answer for them, in the order of those images.
        classes: The class keys of each network of a space, None where it is no classifier.
        configuration: Says how targets are normalised, and whether soft logits are wanted.

    Attributes:
        identity: Names the teacher.
        spaces: Number of embedding spaces.
        dims: Length of each network's embedding in a space.
        dim: Length of a target in each of them, which is all those side by side.
        num_logits: Number of soft logits, those of the student's classes; 0 where none were asked for.
    """

    def __init__(
        self,
        identity: str,
        manifest: Manifest,
        views: tuple[int, ...],
        spaces: Sequence[tuple[np.ndarray, Sequence[CachedEmbeddings]]],
        classes: Sequence[tuple[str, ...] | None],
        configuration: TrainingConfiguration,
    ) -> None:
        self.identity = identity
        self.spaces = len(spaces)
        self._space_of = np.full(len(manifest.rows), -1)
        self._place_of = np.full(len(manifest.rows), -1)
        self._caches = [caches for _, caches in spaces]
        for space, (positions, _) in enumerate(spaces):
            self._space_of[positions] = space
            self._place_of[positions] = np.arange(len(positions))
        assert (self._space_of >= 0).all(), "an image has no teacher"
        self.dims = tuple(cache.embedding_dim for cache in self._caches[0])
        self.dim = sum(self.dims)
        self._wants_embeddings = bool(configuration.loss.alpha)
        self._standardisations = [_fit(caches, self.dim, configuration) for caches in self._caches]
        self._log_probabilities = None
        self._view_index = {view: index for index, view in enumerate(views)}
        self.num_logits = 0
        if configuration.loss.logit_weight:
            self.num_logits = len(manifest.task.classes)
            shape = (len(manifest.rows), len(views), self.num_logits)
            self._log_probabilities = np.empty(shape, np.float32)
            for positions, caches in spaces:
                self._log_probabilities[positions] = _soft_logits(manifest, positions, caches, classes, views)
            if configuration.teacher.lesion_mean:
                lesions = [row.lesion_group for row in manifest.rows]
                means = lesion_means(self._log_probabilities, lesions)
                self._log_probabilities = np.broadcast_to(means[:, None], shape)

    def __call__(self, indices: torch.Tensor, views: torch.Tensor) -> TargetBatch:
        """Targets of B images.

        Args:
            indices: int64 [B], positions in the manifest.
            views: int64 [B], the dihedral view that each image is shown in.

        Returns:
            The targets, on the CPU; embeddings are 0 where they have no weight in the loss. In each dimension,
            standardised embeddings have zero mean and unit deviation over the images and views of a space.
        """
        positions, view_numbers = indices.numpy(), views.numpy()
        spaces = self._space_of[positions]
        embeddings = np.zeros((len(positions), self.dim), np.float32)
        for space in np.unique(spaces) if self._wants_embeddings else ():
            chosen = spaces == space
            places = self._place_of[positions[chosen]]
            parts = [cache.embeddings(places, view_numbers[chosen]) for cache in self._caches[space]]
            embeddings[chosen] = self._standardisations[space](np.concatenate(parts, axis=1))
        log_probabilities = None
        if self._log_probabilities is not None:
            view_indices = [self._view_index[view] for view in view_numbers.tolist()]
            log_probabilities = torch.from_numpy(self._log_probabilities[positions, view_indices])
        return TargetBatch(torch.from_numpy(embeddings), torch.from_numpy(spaces), log_probabilities)


class AugmentedTargets:
    """What a teacher's networks say of augmented images; each answers only for lesions that it did not see.

    Args:
        teachers: Classifiers.
        manifest: The N images that are trained on.

    Attributes:
        identity: Names the teacher.
        spaces: Number of embedding spaces.
        dims: Nothing, since no embeddings are compared.
        dim: Always 0.
        num_logits: Number of the student's classes.
        passes: Forward passes of the networks for each image.

    Raises:
        ConfigurationError: A network is no classifier or answers another task, or a fold is missing.
    """

    def __init__(self, teachers: Sequence[Teacher], manifest: Manifest) -> None:
        if not all(teacher.classes for teacher in teachers):
            raise ConfigurationError(
                "--teacher-views augmented needs a teacher that answers with classes, such as checkpoint:FOLDER. "
                "Use --teacher-views cached.",
                code=ErrorCode.TEACHER_OF_ANOTHER_TASK,
            )
        self._groups = embedding_spaces(teachers)
        self._memberships = [
            class_membership(member.classes or (), manifest.task) for member in self._groups[0]
        ]
        self._space_of = np.full(len(manifest.rows), -1)
        for space, members in enumerate(self._groups):
            self._space_of[unseen(members[0], manifest)] = space
        self.identity = "+".join(teacher.identity for teacher in teachers)
        self.spaces = len(self._groups)
        self.dims: tuple[int, ...] = ()
        self.dim = 0
        self.num_logits = len(manifest.task.classes)
        self.passes = len(self._groups[0])

    def __call__(self, images: torch.Tensor, indices: torch.Tensor) -> TargetBatch:
        """Targets of B images.

        Args:
            images: float [B, 3, S, S], 0 to 1, of any size: each network gets them at its own.
            indices: int64 [B], positions in the manifest.

        Returns:
            The targets, on the CPU.
        """
        spaces = self._space_of[indices.numpy()]
        log_probabilities = np.empty((len(spaces), self.num_logits), np.float32)
        for space in np.unique(spaces):
            chosen = np.flatnonzero(spaces == space)
            log_probabilities[chosen] = self._ask(self._groups[space], images[torch.from_numpy(chosen)])
        return TargetBatch(
            torch.zeros(len(spaces), 0), torch.from_numpy(spaces), torch.from_numpy(log_probabilities)
        )

    def _ask(self, members: Sequence[Teacher], images: torch.Tensor) -> np.ndarray:
        total = np.zeros((len(images), self.num_logits))
        for member, membership in zip(members, self._memberships, strict=True):
            size = member.encoder.resizing.size
            with torch.no_grad():
                resized = F.interpolate(
                    images.float(), (size, size), mode="bicubic", antialias=True, align_corners=False
                )
                _, logits = member.encoder.encode((resized * 255).round().clamp(0, 255).byte())
            assert logits is not None
            total += grouped_probabilities(logits.cpu().numpy(), membership) / len(members)
        return np.log(total)


def load_targets(
    configuration: TrainingConfiguration,
    manifest: Manifest,
    device: torch.device,
    whole: Manifest | None = None,
) -> TeacherTargets | AugmentedTargets | None:
    """The targets that a configuration asks for, computed where no cache has them; None without a teacher.

    Args:
        configuration: What is asked for.
        manifest: The images that are trained on.
        device: Where the teacher computes.
        whole: The images of all splits; a file that was made with another split is then refused.

    Raises:
        ConfigurationError: The teacher can't be had, its cache is of something else, or its folds don't match.
    """
    views = configuration.augmentation.views if configuration.teacher.consistent_views else (0,)
    if is_file_teacher(configuration.teacher.teacher):
        return _read_targets(configuration, manifest, views, whole)
    teachers = create_teachers(configuration.teacher.teacher, device)
    if not teachers:
        return None
    require_advantage({}, manifest.task.key, allow_weak=configuration.teacher.allow_weak_teacher)
    if not teachers[0].folds and any(teacher.classes for teacher in teachers):
        logger.warning(
            "The teacher's checkpoints were not cross-fitted: if they were trained on these images, what they "
            "say of them is too good to be true. Train them with --folds 3 --held-out-fold 0, 1 and 2."
        )
    if configuration.teacher.teacher_views == "augmented":
        return AugmentedTargets(teachers, manifest)
    spaces = []
    groups = embedding_spaces(teachers)
    for members in groups:
        positions = np.flatnonzero(unseen(members[0], manifest))
        rows = Manifest(manifest.task, tuple(manifest.rows[position] for position in positions), ())
        caches = [
            cached_embeddings(
                member, rows, views, teacher_cache_folder(configuration.teacher.cache_root, member, views)
            )
            for member in members
        ]
        spaces.append((positions, caches))
    identity = "+".join(teacher.identity for teacher in teachers)
    classes = [member.classes for member in groups[0]]
    return TeacherTargets(identity, manifest, views, spaces, classes, configuration)


def _read_targets(
    configuration: TrainingConfiguration,
    manifest: Manifest,
    views: tuple[int, ...],
    whole: Manifest | None,
) -> TeacherTargets:
    """The targets of a teacher that has said elsewhere what it says."""
    settings = configuration.teacher
    file = read_teacher_file(settings.teacher, manifest.task.classes)
    require_advantage(file.description, manifest.task.key, allow_weak=settings.allow_weak_teacher)
    if settings.teacher_views == "augmented":
        raise ConfigurationError("A file has no answers to augmented images. Use --teacher-views cached.")
    if file.classes and configuration.loss.alpha:
        raise ConfigurationError(
            f"“{file.path.name}” has log-probabilities and no embeddings. Use --alpha 0.",
            code=ErrorCode.TEACHER_UNREADABLE,
        )
    if whole is not None and (seen := file.outside(whole)):
        raise ConfigurationError(
            f"“{file.path.name}” was made with another split: the teacher was trained on {len(seen)} images that "
            f"are kept back here, such as {seen[0]}. Use the split that it was made with.",
            code=ErrorCode.TEACHER_UNREADABLE,
        )
    spaces = [(np.arange(len(manifest.rows)), [file.open(manifest, views)])]
    return TeacherTargets(file.identity, manifest, views, spaces, [file.classes], configuration)


def embedding_spaces(teachers: Sequence[Teacher]) -> list[list[Teacher]]:
    """The networks of each embedding space: one space a fold, or a single one without folds.

    Raises:
        ConfigurationError: Not every fold of every network is there.
    """
    members: dict[tuple[int, int], list[Teacher]] = defaultdict(list)
    for teacher in teachers:
        members[(teacher.folds, teacher.held_out_fold)].append(teacher)
    folds = teachers[0].folds
    wanted = {(folds, fold) for fold in range(max(folds, 1))}
    dims = {tuple(member.embedding_dim for member in group) for group in members.values()}
    if members.keys() != wanted or len(dims) > 1:
        raise ConfigurationError(
            "The teacher's checkpoints don't make a whole: they were trained with "
            + ", ".join(f"fold {held_out} of {count} held out" for count, held_out in sorted(members))
            + ". Name each network once for every fold, in the same order, or only networks without folds.",
            code=ErrorCode.INCOMPLETE_FOLDS,
        )
    return [members[key] for key in sorted(members)]


def _fit(
    caches: Sequence[CachedEmbeddings], dim: int, configuration: TrainingConfiguration
) -> Standardisation:
    if configuration.teacher.target_normalisation == "none" or not configuration.loss.alpha:
        return Standardisation(np.zeros(dim, np.float32), np.ones(dim, np.float32))
    chunks = zip(*(cache.chunks() for cache in caches), strict=True)
    return fit_standardisation(np.concatenate(parts, axis=-1) for parts in chunks)


def _view(caches: Sequence[CachedEmbeddings], view: int) -> np.ndarray:
    """One view of all images of a space, float32 [N, D]."""
    places = np.arange(len(caches[0]))
    views = np.full(len(places), view)
    return np.concatenate([cache.embeddings(places, views) for cache in caches], axis=1)


def _soft_logits(
    manifest: Manifest,
    positions: np.ndarray,
    caches: Sequence[CachedEmbeddings],
    classes: Sequence[tuple[str, ...] | None],
    views: tuple[int, ...],
) -> np.ndarray:
    """Log-probabilities of the student's classes, float32 [n, V, K], the networks' mean."""
    of_classifiers = [of_cache for of_cache in classes if of_cache is not None]
    if len(of_classifiers) < len(classes):
        embeddings = np.stack([_view(caches, view) for view in views], axis=1)
        return cross_fitted_log_probabilities(embeddings, manifest, positions)
    places = np.arange(len(positions))
    probabilities = np.zeros((len(positions), len(views), len(manifest.task.classes)), np.float32)
    for cache, of_cache in zip(caches, of_classifiers, strict=True):
        membership = class_membership(of_cache, manifest.task)
        for index, view in enumerate(views):
            logits = cache.logits(places, np.full(len(places), view))
            assert logits is not None
            probabilities[:, index] += grouped_probabilities(logits, membership) / len(caches)
    return np.log(probabilities)


def lesion_means(log_probabilities: np.ndarray, lesions: Sequence[str]) -> np.ndarray:
    """What is said of a lesion as a whole: the mean over its photos and their views.

    Args:
        log_probabilities: float [N, V, K], of N photos in V views each.
        lesions: The lesion that each photo shows.

    Returns:
        Log-probabilities, float32 [N, K], the same for all photos of a lesion.
    """
    _, lesion_of = np.unique(np.asarray(lesions), return_inverse=True)
    sums = np.zeros((lesion_of.max() + 1, log_probabilities.shape[-1]))
    np.add.at(sums, lesion_of, log_probabilities.mean(axis=1, dtype=np.float64))
    means = sums / np.bincount(lesion_of)[:, None]
    return log_softmax(means, axis=-1).astype(np.float32)[lesion_of]


def grouped_probabilities(logits: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """A teacher's logits as probabilities of other classes.

    Args:
        logits: float [N, C].
        membership: 0 or 1 [C, K], which of the other classes each of the teacher's belongs to.

    Returns:
        float [N, K], rows summing to 1, none of them 0.
    """
    probabilities = softmax(logits.astype(np.float64), axis=-1) @ membership + SMALLEST_PROBABILITY
    return probabilities / probabilities.sum(axis=-1, keepdims=True)


def class_membership(classes: Sequence[str], task: Task) -> np.ndarray:
    """Which of the student's classes each of the teacher's belongs to, 0 or 1, [C, K].

    Diagnoses outside the student's task belong to none: they are left out, and the rest is renormalised.

    Raises:
        ConfigurationError: A class of the student has no counterpart.
    """
    if tuple(classes) == task.classes:
        return np.eye(len(classes))
    membership = np.zeros((len(classes), len(task.classes)))
    for row, key in enumerate(classes):
        label = task.class_of_diagnosis.get(key.upper())
        if label:
            membership[row, task.index_of(label)] = 1
    if not membership.any(axis=0).all():
        raise ConfigurationError(
            f"The teacher's classes ({', '.join(classes)}) do not cover those of the task “{task.key}” "
            f"({', '.join(task.classes)}). Use a teacher of this task or of the task “diagnosis”, or "
            "--logit-weight 0.",
            code=ErrorCode.TEACHER_OF_ANOTHER_TASK,
        )
    return membership


# --------------------------------------------------------------------------------- comparable embeddings


@dataclass(frozen=True)
class Standardisation:
    """What gives the dimensions of embeddings zero mean and unit deviation.

    Attributes:
        mean: float32 [D].
        scale: float32 [D].
    """

    mean: np.ndarray
    scale: np.ndarray

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Float [N, D] to float32 [N, D]."""
        return (embeddings - self.mean) * self.scale


def fit_standardisation(chunks: Iterable[np.ndarray]) -> Standardisation:
    """Zero mean and unit deviation in each dimension, over all images and views.

    Args:
        chunks: Blocks of embeddings, float [n, V, D].
    """
    scaler = StandardScaler()
    for chunk in chunks:
        scaler.partial_fit(chunk.reshape(-1, chunk.shape[-1]).astype(np.float64))
    assert scaler.mean_ is not None
    deviation = np.sqrt(np.asarray(scaler.var_))
    scale = np.where(deviation > CONSTANT_DEVIATION, 1 / np.maximum(deviation, CONSTANT_DEVIATION), 0)
    return Standardisation(np.asarray(scaler.mean_, np.float32), scale.astype(np.float32))


# ----------------------------------------------------------------------------------------- head on embeddings


def create_head(num_images: int, dim: int) -> Pipeline:
    """Logistic regression on whitened principal components."""
    components = min(COMPONENTS, dim, num_images - 1)
    return make_pipeline(
        StandardScaler(),
        # Of the 6144 numbers of Derm Foundation all eigenvectors would take minutes; it then draws the first ones.
        PCA(components, whiten=True, svd_solver="auto", random_state=0),
        LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000),
    )


def cross_fitted_log_probabilities(
    embeddings: np.ndarray, manifest: Manifest, positions: np.ndarray
) -> np.ndarray:
    """Answers for each image from a head that was fitted on the other folds of lesions (stacking, Wolpert 1992).

    Args:
        embeddings: float [N, V, D]; the head is fitted on the first view and answers for all of them.
        manifest: Says labels and lesions.
        positions: int [N], which of the manifest's images they are.

    Returns:
        float32 [N, V, K].
    """
    rows = [manifest.rows[position] for position in positions]
    labels = np.array([manifest.task.index_of(row.label) if row.label else -1 for row in rows])
    folds, labelled = np.array([fold_of(row.lesion_group, HEAD_FOLDS) for row in rows]), labels >= 0
    num_images, num_views, dim = embeddings.shape
    answers = np.full((num_images, num_views, len(manifest.task.classes)), -np.inf, np.float32)
    for fold in range(HEAD_FOLDS):
        held_out = folds == fold
        if not held_out.any():
            continue
        fitted_on = ~held_out & labelled
        head = create_head(int(fitted_on.sum()), dim)
        head.fit(embeddings[fitted_on, 0], labels[fitted_on])
        flat = embeddings[held_out].reshape(-1, dim)
        log_probabilities = head.predict_log_proba(flat).reshape(-1, num_views, len(head.classes_))
        answers[np.ix_(held_out, np.arange(num_views), head.classes_)] = log_probabilities
    agreement = (answers[:, 0].argmax(axis=1) == labels)[labelled].mean()
    logger.info("The cross-fitted head on the teacher's embeddings is right for %.1f %%", 100 * agreement)
    # A class that a fold lacked would be impossible for ever.
    return np.maximum(answers, np.log(1e-6), dtype=np.float32)
