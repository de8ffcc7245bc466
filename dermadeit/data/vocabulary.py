"""What people call the columns of a table, the diagnoses, and the splits: one list for every entrance.

Names are compared without case, accents, spaces and punctuation, so that ``Melanoma, NOS`` is ``melanoma_nos``.
What a name may mean is a set of diagnoses: ``Nevus`` is one, ``malignant`` several. A task can use it where all
of them lie in one of its classes; nothing is ever guessed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from dermadeit.errors import ConfigurationError, ErrorCode, TableError
from dermadeit.tasks import DIAGNOSES, TASKS, Task

SPLITS = ("train", "validation", "calibration", "test")

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training"),
        "validation": ("validation", "valid", "val", "dev"),
        "calibration": ("calibration", "cal"),
        "test": ("test", "testing"),
    }
)
"""Our splits and what else they are called."""

UNKNOWN_DIAGNOSIS = "UNK"
"""The column of ISIC 2019 for none of the eight diagnoses."""

METADATA_COLUMNS = ("diagnosis", "sex", "age", "anatomic_site", "width", "height")
"""Columns that describe the patient, the lesion and the picture, and that no network is shown."""

COLUMN_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "file": (
            "file", "filename", "file_name", "path", "file_path", "image_path", "image_file", "image_filename",
            "derm",
        ),
        "image_id": ("image_id", "isic_id", "img_id", "image_name", "image", "img", "photo", "picture", "id"),
        "label": ("label", "class", "class_name", "target_class"),
        "diagnosis": (
            "diagnosis", "dx", "diagnostic", "diagnosis_3", "diagnosis_4", "diagnosis_5", "diagnosis_label",
            "ground_truth",
        ),
        "group": ("benign_malignant", "diagnosis_2", "diagnosis_1"),
        "lesion_group": ("lesion_group", "lesion_id", "lesion", "group", "patient_id"),
        "split": ("split", "partition", "subset"),
        "dataset": ("dataset", "source"),
        "sex": ("sex", "gender"),
        "age": ("age", "age_approx"),
        "anatomic_site": (
            "anatomic_site", "anatom_site_general", "anatom_site_general_challenge", "anatom_site", "site",
            "localization", "location", "region",
        ),
        "width": ("width", "pixels_x"),
        "height": ("height", "pixels_y"),
    }
)  # fmt: skip
"""What is read from a table, and the names of its column: the first that is there, or all for `_SEVERAL`."""

_SEVERAL = ("label", "diagnosis", "group", "lesion_group")

DIAGNOSIS_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "MEL": (
            "melanomas", "malignant melanoma", "melanoma nos", "melanoma in situ", "melanoma invasive",
            "invasive melanoma", "superficial spreading melanoma", "nodular melanoma", "lentigo maligna",
            "lentigo maligna melanoma", "acral lentiginous melanoma", "amelanotic melanoma",
            "melanoma metastasis", "melanoma less than 0.76 mm", "melanoma 0.76 to 1.5 mm",
            "melanoma more than 1.5 mm", "malignant melanocytic proliferations melanoma",
        ),
        "NV": (
            "nevus", "nevi", "naevus", "naevi", "nev", "melanocytic nevi", "melanocytic naevus",
            "melanocytic naevi", "nevus nos", "common nevus", "atypical nevus", "dysplastic nevus",
            "clark nevus", "nevus atypical dysplastic or clark", "blue nevus", "nevus blue", "spitz nevus",
            "nevus spitz", "reed nevus", "nevus reed", "reed or spitz nevus", "combined nevus",
            "nevus combined", "congenital nevus", "nevus congenital", "dermal nevus", "nevus nos dermal",
            "compound nevus", "nevus nos compound", "junctional nevus", "nevus nos junctional", "halo nevus",
            "nevus halo", "recurrent nevus", "nevus recurrent or persistent", "acral nevus",
            "nevus of special anatomic site", "nevus balloon cell", "nevus spilus",
        ),
        "BCC": (
            "basal cell carcinomas", "basalioma", "basal cell carcinoma nos", "basal cell carcinoma nodular",
            "basal cell carcinoma superficial", "basal cell carcinoma infiltrating",
            "nodular basal cell carcinoma", "superficial basal cell carcinoma",
            "malignant adnexal epithelial proliferations follicular",
        ),
        "AK": ("actinic keratoses", "solar keratosis", "solar or actinic keratosis", "ack", "akiec"),
        "BKL": (
            "benign keratoses", "pigmented benign keratosis", "benign keratosis like lesions",
            "seborrheic keratosis", "seborrheic keratoses", "seborrhoeic keratosis", "seborrhoeic keratoses",
            "sek", "sk", "solar lentigo", "lentigo nos solar", "lichen planus like keratosis", "lplk",
            "lichenoid keratosis",
        ),
        "DF": ("dermatofibromas",),
        "VASC": (
            "vascular", "vascular lesions", "angioma", "cherry angioma", "hemangioma", "hemangiomas",
            "haemangioma", "hemangioma nos", "angiokeratoma", "pyogenic granuloma",
        ),
        "SCC": (
            "squamous cell carcinomas", "squamous cell carcinoma nos", "squamous cell carcinoma in situ",
            "squamous cell carcinoma invasive", "invasive squamous cell carcinoma", "bowen disease",
            "bowen's disease", "bowens disease", "bod", "keratoacanthoma", "sccka",
        ),
    }
)  # fmt: skip
"""More names of the diagnoses, besides their keys and what `DIAGNOSES` calls them.

HAM10000's ``akiec`` holds actinic keratoses and Bowen's disease, which ISIC 2019 tells apart as AK and SCC; alone
it can only be taken as AK.
"""

GROUP_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"benign": ("NV", "BKL", "DF", "VASC"), "malignant": ("MEL", "BCC", "SCC")}
)
"""Names that stand for several diagnoses, besides the classes of the tasks."""

NONE_OF_THEM = ("UNK", "unknown", "none of the eight", "ben_oth", "mal_oth", "inf")
"""Names of what is none of the eight diagnoses; MILK10k's last three columns among them."""


SEX_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "female": ("female", "f", "woman", "w", "girl"),
        "male": ("male", "m", "man", "boy"),
        "": ("unknown", "u", "other", "o", "not known", "not stated", "na", "n/a", "nan", "none", "null"),
    }
)
"""The sexes that a model may be fitted with, what else they are called, and what counts as unknown."""


@dataclass(frozen=True)
class Meaning:
    """What the name of a class may stand for.

    Attributes:
        diagnoses: The keys of `DIAGNOSES` that it may be; empty for none of the eight, or for a class of a task
            that has no diagnoses.
        name: For people and for a manifest: the diagnosis where it is one, else the name of the group or class.
    """

    diagnoses: frozenset[str]
    name: str

    @property
    def diagnosis(self) -> str:
        """The one diagnosis that it stands for, or an empty string."""
        return next(iter(self.diagnoses)) if len(self.diagnoses) == 1 else ""

    def class_of(self, task: Task) -> str | None:
        """The class of a task that it lies in as a whole.

        Returns:
            None where it lies outside the task.

        Raises:
            TableError: It may be in one class or another, or outside.
        """
        if not self.diagnoses and self.name in task.classes:
            return self.name
        classes = {task.class_of_diagnosis.get(key) for key in self.diagnoses} or {None}
        if len(classes) == 1:
            return classes.pop()
        may_be = [key for key in task.classes if key in classes]
        if None in classes:
            may_be.append("none of the classes")
        raise TableError(f"may be {' or '.join(may_be)}", code=ErrorCode.AMBIGUOUS_CLASS)


class Vocabulary:
    """What classes are called.

    Args:
        task: Its classes are known by their keys and titles too; None for those of the built-in tasks alone.
        synonyms: More names, each for a key of `DIAGNOSES` or `UNKNOWN_DIAGNOSIS`.

    Raises:
        ConfigurationError: A synonym stands for something else.
    """

    def __init__(self, task: Task | None = None, synonyms: Mapping[str, str] = MappingProxyType({})) -> None:
        self._known = dict(_built_in())
        for own in (task,) if task is not None else ():
            for key in own.classes:
                # Classes of one's own may be called after a diagnosis and mean something else.
                if fold(key) not in self._known or not own.class_of_diagnosis:
                    self._known[fold(key)] = _class_meaning(own, key)
                if fold(own.display_names[key]) not in self._known or not own.class_of_diagnosis:
                    self._known[fold(own.display_names[key])] = self._known[fold(key)]
        for alias, key in synonyms.items():
            if key not in (*DIAGNOSES, UNKNOWN_DIAGNOSIS):
                raise ConfigurationError(
                    f"“{alias}” can't stand for “{key}”: choose one of "
                    f"{', '.join((*DIAGNOSES, UNKNOWN_DIAGNOSIS))}."
                )
            self._known[fold(alias)] = self._known[fold(key)]

    def meaning(self, name: str) -> Meaning | None:
        """What a name stands for; None where nobody knows it."""
        return self._known.get(fold(name))


def class_folder(folders: Sequence[str], vocabulary: Vocabulary) -> str | None:
    """The outermost of some nested folders that is named after a class; None where none is."""
    return next((name for name in folders if vocabulary.meaning(name) is not None), None)


def split_of(name: str) -> str | None:
    """The split of that name, an empty string for an empty one; None where nobody knows it."""
    return _splits().get(fold(name)) if name.strip() else ""


def sex_of(name: str) -> str | None:
    """The sex of that name, an empty string for an empty or unknown one; None where nobody knows the name."""
    return _sexes().get(fold(name)) if fold(name) else ""


def find_columns(
    columns: Sequence[str], given: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Which columns of a table are taken for what.

    Args:
        columns: Of the table.
        given: Names of `COLUMN_NAMES` to the column that is to be taken for it, or to an empty string for none.

    Returns:
        Names of `COLUMN_NAMES` to columns, most telling first; names without a column are missing.

    Raises:
        TableError: A column that is given is not there.
    """
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(fold(column), column)
    found, given = {}, given or {}
    for role, usual in COLUMN_NAMES.items():
        if role in given:
            if given[role] and given[role] not in columns:
                raise TableError(
                    f"The table has no column {given[role]}. Its columns are {', '.join(columns)}.",
                    code=ErrorCode.MISSING_COLUMN,
                )
            matches = [given[role]] if given[role] else []
        else:
            taken = set(given.values())
            matches = [by_name[fold(name)] for name in usual if fold(name) in by_name]
            matches = [name for name in dict.fromkeys(matches) if name not in taken]
        if matches:
            found[role] = tuple(matches if role in _SEVERAL else matches[:1])
    return found


def one_hot_columns(columns: Iterable[str]) -> dict[str, Meaning]:
    """The columns that are named after one diagnosis, or none of the eight, where there are at least two."""
    found = {}
    for column in columns:
        meaning = _built_in().get(fold(column))
        if meaning is not None and len(meaning.diagnoses) <= 1 and fold(column) != fold("unknown"):
            found[column] = meaning
    return found if sum(bool(meaning.diagnosis) for meaning in found.values()) > 1 else {}


@lru_cache(maxsize=65_536)
def fold(name: str) -> str:
    """A name without case, accents, spaces and punctuation, for comparison."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    return "".join(mark for mark in plain if mark.isalnum())


@lru_cache(maxsize=1)
def _splits() -> dict[str, str]:
    return {fold(name): split for split, names in SPLIT_NAMES.items() for name in names}


@lru_cache(maxsize=1)
def _sexes() -> dict[str, str]:
    return {fold(name): sex for sex, names in SEX_NAMES.items() for name in names}


@lru_cache(maxsize=1)
def _built_in() -> dict[str, Meaning]:
    known = {}
    for key, full_name in DIAGNOSES.items():
        meaning = Meaning(frozenset({key}), key)
        for name in (key, full_name, *DIAGNOSIS_NAMES[key]):
            known[fold(name)] = meaning
    for name, members in GROUP_NAMES.items():
        known[fold(name)] = Meaning(frozenset(members), name)
    for task in TASKS.values():
        for key in task.classes:
            known.setdefault(fold(key), _class_meaning(task, key))
    for name in NONE_OF_THEM:
        known[fold(name)] = Meaning(frozenset(), UNKNOWN_DIAGNOSIS)
    return known


def _class_meaning(task: Task, key: str) -> Meaning:
    members = frozenset(diagnosis for diagnosis, label in task.class_of_diagnosis.items() if label == key)
    return Meaning(members, next(iter(members)) if len(members) == 1 else key)
