"""The training lesions that look most like this one, and whether they contradict the answer.

Likeness is the cosine similarity of distillation tokens, which learned from the teacher, while the answer comes
from the class token. Whether their disagreement says more than the answer's own probability is measured by
`benchmarks/evidence/error_detection.py`. The index holds ids and diagnoses, and no pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dermadeit.errors import CheckpointError, ErrorCode
from dermadeit.tasks import DIAGNOSIS, Task

NEIGHBOURS = 5
"""Lesions that are shown, unless asked otherwise."""

VOTERS = 20
"""Lesions to ask whether an answer is wrong: more than are shown tell it better (AUROC of errors .82 against .79
on calibration images of the first binary checkpoint; `benchmarks/evidence/error_detection.py`)."""

SAME_IMAGE_DISTANCE = 0.005
"""Cosine distance up to which two embeddings are taken for the same photo.

The same file comes to 0.0001 by rounding, and a copy that was resized or saved once more to 0.0003 to 0.02;
photos of two lesions came no closer than 0.04 among 6,000. So a copy may be missed, but a new lesion is not taken
for one.
"""

TEMPERATURE = 0.07
"""How fast a neighbour's vote fades with its distance (Wu et al. 2018, 1805.01978)."""

DISAGREEING_SHARE = 0.5
"""Share of the neighbours' votes against an answer above which they contradict it."""

OUTSIDE = "outside_task"
"""Key of the votes for a diagnosis that no class of the task has."""

_LARGEST_CODE = 127
_SMALLEST_NORM = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Neighbour:
    """One training image.

    Attributes:
        image_id: Identifier in the manifest that the index was built from.
        diagnosis: As that manifest gives it: an ISIC 2019 name, or a class key where it has no diagnoses.
        distance: 1 - cosine similarity of the distillation tokens, 0 to 2.
    """

    image_id: str
    diagnosis: str
    distance: float


class NeighbourIndex:
    """Exact search among the embeddings of training images, stored as one byte a value.

    An image takes D + 5 bytes and the length of its id. Cosines need no scale, so each embedding is stretched
    until its largest value is 127 and rounded; distances are those of the rounded embeddings.
    """

    def __init__(
        self,
        codes: np.ndarray,
        image_ids: Sequence[str],
        diagnoses: Sequence[str],
        lesions: np.ndarray,
    ) -> None:
        """Args are those of `build`, but `codes` int8 [N, D] and `lesions` int32 [N], equal for one lesion."""
        self._codes = codes
        self._image_ids = tuple(image_ids)
        self._diagnoses = tuple(diagnoses)
        self._lesions = lesions
        self._directions = _directions(codes.astype(np.float32))

    @classmethod
    def build(
        cls,
        embeddings: np.ndarray,
        image_ids: Sequence[str],
        diagnoses: Sequence[str],
        lesion_groups: Sequence[str] | None = None,
    ) -> NeighbourIndex:
        """Makes an index.

        Args:
            embeddings: float [N, D], distillation tokens of the unturned images.
            image_ids: N identifiers.
            diagnoses: N diagnoses, of all images and not only of those in the task: that a lesion is like many
                nevi is worth knowing where the model can't say nevus.
            lesion_groups: N names; images that share one show the same lesion. None takes each for its own.
        """
        assert len(embeddings) == len(image_ids) == len(diagnoses)
        stretched = embeddings * (
            _LARGEST_CODE / np.maximum(np.abs(embeddings).max(axis=1, keepdims=True), _SMALLEST_NORM)
        )
        names = image_ids if lesion_groups is None else lesion_groups
        _, lesions = np.unique(np.asarray(names), return_inverse=True)
        return cls(np.rint(stretched).astype(np.int8), image_ids, diagnoses, lesions.astype(np.int32))

    def __len__(self) -> int:
        return len(self._image_ids)

    def query(self, embedding: np.ndarray, k: int = NEIGHBOURS) -> tuple[Neighbour, ...]:
        """The most similar lesions, the nearest first, each by its most similar photo.

        A lesion that `find_copy` recognises is left out with all its photos: that the model finds a lesion like
        itself is no evidence for anything.

        Args:
            embedding: float [D], the distillation token of the unturned image.
            k: How many lesions; fewer are returned where there are fewer.
        """
        distances = self._distances(embedding)
        seen = set(self._lesions[distances <= SAME_IMAGE_DISTANCE].tolist())
        found: list[Neighbour] = []
        for index in np.argsort(distances, kind="stable"):
            if len(found) == k:
                break
            if (lesion := int(self._lesions[index])) not in seen:
                seen.add(lesion)
                found.append(self._neighbour(index, distances))
        return tuple(found)

    def find_copy(self, embedding: np.ndarray) -> Neighbour | None:
        """The training image that is a copy of this one, or None.

        The model has learned the answer for it, which then says nothing about new lesions.

        Args:
            embedding: float [D], the distillation token of the unturned image.
        """
        distances = self._distances(embedding)
        nearest = int(distances.argmin())
        return self._neighbour(nearest, distances) if distances[nearest] <= SAME_IMAGE_DISTANCE else None

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` makes the same index of, for safetensors."""
        names = sorted(set(self._diagnoses))
        return {
            "codes": self._codes,
            "lesions": self._lesions,
            "image_ids": _as_bytes(self._image_ids),
            "diagnoses": np.array([names.index(name) for name in self._diagnoses], dtype=np.uint8),
            "diagnosis_names": _as_bytes(names),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> NeighbourIndex:
        """Reads what `to_arrays` wrote.

        Raises:
            CheckpointError: The arrays don't make an index.
        """
        try:
            names = _as_strings(arrays["diagnosis_names"])
            index = cls(
                arrays["codes"],
                _as_strings(arrays["image_ids"]),
                [names[code] for code in arrays["diagnoses"]],
                arrays["lesions"],
            )
        except (KeyError, IndexError, ValueError) as error:
            raise _damaged() from error
        rows = {len(part) for part in (index._codes, index._image_ids, index._diagnoses, index._lesions)}
        if len(rows) > 1 or index._codes.dtype != np.int8 or index._codes.ndim != 2:
            raise _damaged()
        return index

    def _distances(self, embedding: np.ndarray) -> np.ndarray:
        """float32 [N]."""
        return 1 - self._directions @ _directions(np.asarray(embedding, dtype=np.float32))

    def _neighbour(self, index: int, distances: np.ndarray) -> Neighbour:
        # Rounding can push the cosine of equal directions above 1.
        distance = max(float(distances[index]), 0.0)
        return Neighbour(self._image_ids[index], self._diagnoses[index], distance)


def disagreeing_share(neighbours: Sequence[Neighbour], label: str, task: Task) -> float:
    """Share of the neighbours' votes that go against an answer; a vote fades with distance (`TEMPERATURE`).

    A neighbour whose diagnosis lies outside the task has no vote. Many melanomas look like nevi to a model that
    knows no nevi, whether it is right or wrong: counted as votes against, they would drown the others.

    Args:
        neighbours: Any number.
        label: Class key of the answer.
        task: Maps diagnoses to classes.

    Returns:
        0 to 1; 0 where nobody has a vote.
    """
    classes = [class_of_neighbour(neighbour, task) for neighbour in neighbours]
    if not any(classes):
        return 0.0
    distances = np.array([neighbour.distance for neighbour in neighbours])
    votes = np.exp(-(distances - distances.min()) / TEMPERATURE) * np.array(
        [key is not None for key in classes]
    )
    against = np.array([key != label for key in classes])
    return float(votes[against].sum() / votes.sum())


def outside_share(neighbours: Sequence[Neighbour], task: Task) -> float:
    """Share of the neighbours whose diagnosis the model can't answer, 0 to 1; 0 of none.

    On lesions of the task it does not tell right from wrong answers. It is for the reader: it may be that the
    lesion lies outside the task.
    """
    outside = [class_of_neighbour(neighbour, task) is None for neighbour in neighbours]
    return sum(outside) / max(len(outside), 1)


def disagrees(neighbours: Sequence[Neighbour], label: str, task: Task) -> bool:
    """Whether the neighbours contradict an answer: more than half of their votes go against it.

    Args:
        neighbours: Any number; `VOTERS` is a good one.
        label: Class key of the answer.
        task: Maps diagnoses to classes.
    """
    return disagreeing_share(neighbours, label, task) > DISAGREEING_SHARE


def count_votes(neighbours: Sequence[Neighbour], task: Task) -> dict[str, int]:
    """How many of the neighbours have each class of the task, and `OUTSIDE` how many have none of them.

    Args:
        neighbours: Any number; `VOTERS` is a good one.
        task: Maps diagnoses to classes.
    """
    counts = Counter(class_of_neighbour(neighbour, task) or OUTSIDE for neighbour in neighbours)
    return {key: counts[key] for key in (*task.classes, OUTSIDE)}


def describe_votes(votes: Mapping[str, int], label: str, task: Task) -> str:
    """The vote for a class, such as “14 of the 20 most similar cases are nevi”.

    Args:
        votes: What `count_votes` gives.
        label: Class key.
        task: Names the classes.
    """
    one, several = task.nouns[label]
    count, total = votes[label], sum(votes.values())
    named = f"is {one}" if count == 1 else f"are {several}"
    return f"{count} of the {total} most similar cases {named}"


def describe_vote(votes: Mapping[str, int], label: str, task: Task) -> str:
    """The whole vote, such as “14 of the 20 most similar cases are nevi, 6 are not nevi”, that for a class first.

    Args:
        votes: What `count_votes` gives.
        label: Class key.
        task: Names the classes.
    """
    others = sorted((key for key in task.classes if key != label and votes[key]), key=lambda key: -votes[key])
    parts = [describe_votes(votes, label, task)]
    for key in others:
        one, several = task.nouns[key]
        parts.append(f"1 is {one}" if votes[key] == 1 else f"{votes[key]} are {several}")
    return ", ".join(parts)


def describe_outside(votes: Mapping[str, int]) -> str:
    """How many of the neighbours have a diagnosis outside the task, likewise; empty where none has."""
    count, total = votes[OUTSIDE], sum(votes.values())
    if not count:
        return ""
    verb = "has" if count == 1 else "have"
    return f"{count} of the {total} most similar cases {verb} a diagnosis that is no answer to this task"


def describe_disagreement(neighbours: Sequence[Neighbour], label: str, task: Task) -> str:
    """What the neighbours say against an answer, as sentences for a reader; empty where it is nothing.

    They may contradict it, and most of them may have diagnoses that the model can't answer.

    Args:
        neighbours: Any number.
        label: Class key of the answer.
        task: Maps diagnoses to classes.
    """
    votes = count_votes(neighbours, task)
    sentences = []
    if disagrees(neighbours, label, task):
        counted = _count_diagnoses(neighbours, task)
        sentences.append(
            f"The similar cases do not support “{task.name_in_text(label)}”: "
            f"{describe_votes(votes, label, task)} (diagnoses: {counted})."
        )
    if outside_share(neighbours, task) > DISAGREEING_SHARE:
        outside = [neighbour for neighbour in neighbours if class_of_neighbour(neighbour, task) is None]
        sentences.append(f"{describe_outside(votes)}: {_count_diagnoses(outside, task)}.")
    return " ".join(sentences)


def class_of_neighbour(neighbour: Neighbour, task: Task) -> str | None:
    """The class of a neighbour, or None for a diagnosis outside the task."""
    if neighbour.diagnosis in task.classes:
        return neighbour.diagnosis
    return task.class_of_diagnosis.get(neighbour.diagnosis.upper())


def _count_diagnoses(neighbours: Sequence[Neighbour], task: Task) -> str:
    """Such as “3 melanomas, 1 dermatofibroma”, the most frequent first."""
    counts = Counter(neighbour.diagnosis for neighbour in neighbours)
    return ", ".join(f"{count} {_diagnosis_name(key, count, task)}" for key, count in counts.most_common())


def _diagnosis_name(key: str, count: int, task: Task) -> str:
    """A diagnosis of ISIC 2019, or a class of the task, for a number of lesions."""
    known = DIAGNOSIS if key.lower() in DIAGNOSIS.classes else task
    if key.lower() not in known.classes:
        return key
    return known.name_in_text(key.lower()) if count == 1 else known.nouns[key.lower()][1]


def _directions(embeddings: np.ndarray) -> np.ndarray:
    """Float [..., D] to unit length; zeros stay zeros."""
    norms = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.maximum(norms, _SMALLEST_NORM)


def _as_bytes(strings: Sequence[str]) -> np.ndarray:
    """N strings to uint8 [N, L], UTF-8 filled up with zeros, for lack of strings in safetensors."""
    encoded = np.array([string.encode() for string in strings], dtype=bytes)
    return encoded.view(np.uint8).reshape(len(strings), -1)


def _as_strings(encoded: np.ndarray) -> list[str]:
    return [bytes(row).rstrip(b"\0").decode() for row in encoded]


def _damaged() -> CheckpointError:
    return CheckpointError(
        "The index of similar cases beside the weights is damaged. Copy the checkpoint again, or make the index "
        "again with “python -m dermadeit calibrate”.",
        code=ErrorCode.DAMAGED_CHECKPOINT,
    )
