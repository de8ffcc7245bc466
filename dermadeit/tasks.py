"""The classification tasks, how ISIC 2019 diagnoses map onto their classes, and how a network is read for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from dermadeit.errors import ErrorCode, TaskError

DIAGNOSES: Mapping[str, str] = MappingProxyType(
    {
        "MEL": "melanoma",
        "NV": "melanocytic nevus",
        "BCC": "basal cell carcinoma",
        "AK": "actinic keratosis",
        "BKL": "benign keratosis",
        "DF": "dermatofibroma",
        "VASC": "vascular lesion",
        "SCC": "squamous cell carcinoma",
    }
)
"""The eight diagnoses of ISIC 2019, by the names of its ground truth."""

_PLURALS: Mapping[str, str] = MappingProxyType(
    {
        "MEL": "melanomas",
        "NV": "melanocytic nevi",
        "BCC": "basal cell carcinomas",
        "AK": "actinic keratoses",
        "BKL": "benign keratoses",
        "DF": "dermatofibromas",
        "VASC": "vascular lesions",
        "SCC": "squamous cell carcinomas",
    }
)


def target_class(classes: Sequence[str]) -> int:
    """Index of the class that must not be missed: melanoma where there is one, else the last class."""
    return classes.index("mel") if "mel" in classes else len(classes) - 1


@dataclass(frozen=True)
class ClassGroups:
    """How the K classes of a task are made of the N classes of a network.

    Attributes:
        network: The N class keys, in the order of the logits.
        members: For each of the K classes the indices of the network's classes that it sums up. A class of the
            network that is in none is left out, and the rest is renormalised: the answer holds *if* it is none of
            those.
    """

    network: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    @property
    def is_identity(self) -> bool:
        """Whether the task's classes are the network's own."""
        return self.members == tuple((index,) for index in range(len(self.network)))

    @property
    def leaves_out(self) -> bool:
        """Whether a class of the network is in no group."""
        return sum(map(len, self.members)) < len(self.network)

    def regroup(self, labels: np.ndarray) -> np.ndarray:
        """Indices of the network's classes, int [...], as those of the task's; -1 for what is left out."""
        index_of = np.full(len(self.network), -1)
        for index, group in enumerate(self.members):
            index_of[list(group)] = index
        return index_of[labels]

    def read(self, probabilities: np.ndarray) -> np.ndarray:
        """The network's probabilities as those of the task's classes.

        Args:
            probabilities: float [..., N], summing to 1.

        Returns:
            float [..., K], summing to 1; equal shares where the network gives all to what is left out.
        """
        if self.is_identity:
            return probabilities
        summed = np.stack([probabilities[..., list(group)].sum(axis=-1) for group in self.members], axis=-1)
        if not self.leaves_out:
            return summed
        total = summed.sum(axis=-1, keepdims=True)
        equal = np.full_like(summed, 1 / len(self.members))
        return np.divide(summed, total, out=equal, where=total > 0)


@dataclass(frozen=True)
class Task:
    """One classification problem.

    Attributes:
        key: Name used by the CLI, the API and the checkpoints.
        title: Name shown to people.
        classes: Class keys in the order of the logits.
        display_names: What each class key means, for people.
        nouns: What one and several lesions of each class are called after “is” and “are”.
        class_of_diagnosis: ISIC 2019 diagnosis to class key; a diagnosis that is missing lies outside the task.
        caveat: What a reader must know before using an answer, or an empty string.
        contents: The diagnoses in a class, for people, where its name does not give them.
        target: Key of the class that must not be missed; where none is named, as `target_class` finds it.
        weighs_classes: Whether a calibrated answer is the class of the greatest weighted probability, with weights
            chosen for the macro F1, and not the most probable one.
    """

    key: str
    title: str
    classes: tuple[str, ...]
    display_names: Mapping[str, str]
    nouns: Mapping[str, tuple[str, str]]
    class_of_diagnosis: Mapping[str, str]
    caveat: str
    contents: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    target: str = ""
    weighs_classes: bool = False

    def __post_init__(self) -> None:
        if not self.target:
            object.__setattr__(self, "target", self.classes[target_class(self.classes)])

    def name_in_text(self, class_key: str) -> str:
        """The name of a class inside a sentence: in small letters, unless the user has named it ("HPV wart")."""
        name = self.display_names[class_key]
        return name if self.key == OWN else name.lower()

    def index_of(self, class_key: str) -> int:
        """Position of a class in the logits; raises `TaskError` for an unknown class."""
        try:
            return self.classes.index(class_key)
        except ValueError:
            raise TaskError(
                f"The task “{self.key}” has no class “{class_key}”. Its classes are {', '.join(self.classes)}.",
                code=ErrorCode.UNKNOWN_CLASS,
            ) from None

    def group(self, network: Sequence[str]) -> ClassGroups | None:
        """How the task is read from a network's classes; None where they can't form its classes.

        A class of the task is formed by the network's class of the same key, or by all of its diagnoses. Nothing
        may be left over but diagnoses that lie outside the task.

        Args:
            network: Class keys in the order of the logits.
        """
        members = []
        for key in self.classes:
            diagnoses = [name.lower() for name, own in self.class_of_diagnosis.items() if own == key]
            parts = [key] if key in network else diagnoses
            if not parts or not set(parts) <= set(network):
                return None
            members.append(tuple(sorted(network.index(part) for part in parts)))
        outside = {name.lower() for name in DIAGNOSES if name not in self.class_of_diagnosis}
        used = {index for group in members for index in group}
        if any(key not in outside for index, key in enumerate(network) if index not in used):
            return None
        return ClassGroups(tuple(network), tuple(members))


BINARY = Task(
    key="binary",
    title="Nevus or not",
    classes=("nevus", "others"),
    display_names=MappingProxyType({"nevus": "Nevus", "others": "Not a nevus"}),
    nouns=MappingProxyType({"nevus": ("a nevus", "nevi"), "others": ("not a nevus", "not nevi")}),
    class_of_diagnosis=MappingProxyType(
        {diagnosis: "nevus" if diagnosis == "NV" else "others" for diagnosis in DIAGNOSES}
    ),
    caveat="",
    contents=MappingProxyType(
        {"others": "melanoma, BCC, SCC, AK, benign keratosis, dermatofibroma, vascular lesion"}
    ),
)

MULTICLASS = Task(
    key="multiclass",
    title="Melanoma / BCC / SCC",
    classes=("mel", "bcc", "scc"),
    display_names=MappingProxyType(
        {"mel": "Melanoma", "bcc": "Basal cell carcinoma", "scc": "Squamous cell carcinoma"}
    ),
    nouns=MappingProxyType(
        {key: (f"a {DIAGNOSES[key.upper()]}", _PLURALS[key.upper()]) for key in ("mel", "bcc", "scc")}
    ),
    class_of_diagnosis=MappingProxyType({"MEL": "mel", "BCC": "bcc", "SCC": "scc"}),
    caveat=(
        "This answer is only for a malignant lesion: a melanoma, a basal cell carcinoma or a squamous cell "
        "carcinoma. It can't recognise a benign lesion."
    ),
    weighs_classes=True,
)

MALIGNANCY = Task(
    key="malignancy",
    title="Malignant or benign",
    classes=("benign", "malignant"),
    display_names=MappingProxyType({"benign": "Benign", "malignant": "Malignant"}),
    nouns=MappingProxyType(
        {
            "benign": ("a benign lesion", "benign lesions"),
            "malignant": ("a malignant lesion", "malignant lesions"),
        }
    ),
    class_of_diagnosis=MappingProxyType(
        {key: "malignant" if key in ("MEL", "BCC", "SCC") else "benign" for key in DIAGNOSES}
    ),
    caveat="Actinic keratosis (AK) is a precancer. It counts as benign here.",
    contents=MappingProxyType(
        {
            "benign": "nevus, benign keratosis, dermatofibroma, vascular lesion, AK (a precancer)",
            "malignant": "melanoma, BCC, SCC",
        }
    ),
)

DIAGNOSIS = Task(
    key="diagnosis",
    title="All eight diagnoses",
    classes=tuple(key.lower() for key in DIAGNOSES),
    display_names=MappingProxyType({key.lower(): name.capitalize() for key, name in DIAGNOSES.items()}),
    nouns=MappingProxyType(
        {
            key.lower(): (f"an {name}" if name.startswith("a") else f"a {name}", _PLURALS[key])
            for key, name in DIAGNOSES.items()
        }
    ),
    class_of_diagnosis=MappingProxyType({key: key.lower() for key in DIAGNOSES}),
    caveat="",
)

TASKS: Mapping[str, Task] = MappingProxyType(
    {task.key: task for task in (DIAGNOSIS, MALIGNANCY, BINARY, MULTICLASS)}
)
"""What a network can be trained for, in the order in which answers are shown: the differential diagnosis, then
what a clinician decides on. One of all eight diagnoses answers the others too (`readable_tasks`)."""


OWN = "own"
"""Key of every task whose classes are the user's own."""

_CLASS_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


def create_own_task(
    classes: Sequence[str],
    titles: Mapping[str, str] = MappingProxyType({}),
    target: str = "",
    title: str = "",
) -> Task:
    """A task whose classes are the user's own.

    Args:
        classes: Two or more class keys in the order of the logits: small letters, digits, _ and -.
        titles: Class key to its name for people; else the key, written as words.
        target: Key of the class that must not be missed; else as `target_class` finds it.
        title: What the task is called.

    Raises:
        TaskError: A key can't be used or is repeated, there are fewer than two, or titles or target name another.
    """
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise TaskError(
            f"A task needs two or more different classes, not {', '.join(classes) or 'none'}.",
            code=ErrorCode.UNKNOWN_CLASS,
        )
    wrong = [key for key in classes if not _CLASS_KEY.fullmatch(key)]
    if wrong:
        raise TaskError(
            f"“{wrong[0]}” can't be the key of a class. Use up to 40 small letters, digits, _ and -, and give "
            "the class its full name as a title.",
            code=ErrorCode.UNKNOWN_CLASS,
        )
    unknown = [key for key in (*titles, *([target] if target else [])) if key not in classes]
    if unknown:
        raise TaskError(
            f"“{unknown[0]}” is not one of the classes {', '.join(classes)}.", code=ErrorCode.UNKNOWN_CLASS
        )
    names = {key: titles.get(key) or key.replace("_", " ").capitalize() for key in classes}
    return Task(
        key=OWN,
        title=title or " / ".join(names.values()),
        classes=tuple(classes),
        display_names=MappingProxyType(names),
        nouns=MappingProxyType({key: (f"“{name}”", f"“{name}”") for key, name in names.items()}),
        class_of_diagnosis=MappingProxyType({}),
        caveat="",
        target=target,
    )


def get_task(key: str, among: Mapping[str, Task] = TASKS) -> Task:
    """Returns the task called `key`; raises `TaskError` for one that is not among the given ones."""
    try:
        return among[key]
    except KeyError:
        raise TaskError(f"There is no task “{key}”. Choose one of {', '.join(among)}.") from None


def readable_tasks(network: Task) -> tuple[Task, ...]:
    """The tasks that a network can answer.

    Args:
        network: The task whose classes are the network's own.

    Returns:
        That task first, then those whose classes can be formed of its.
    """
    formed = (task for task in TASKS.values() if task.key != network.key and task.group(network.classes))
    return (network, *formed)
