"""What a bad or odd input is called, how it is made, and what each gets. Nothing here is anybody's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dermadeit.errors import ErrorCode


@dataclass(frozen=True)
class PhotoCase:
    """A file that is given as a photo.

    Attributes:
        row: Row of the documented table that it belongs to.
        name: What it is, in words.
        make: Gives its bytes.
        code: Why it is refused; None where it is read.
        says: A part of the ledger or of the warnings, where it is read; of the message, where it is refused.
        file: The name that it is given under.
        is_withheld: Whether the shipped network withholds its answer.
    """

    row: str
    name: str
    make: Callable[[], bytes] = field(repr=False)
    code: ErrorCode | None = None
    says: str = ""
    file: str = "photo.jpg"
    is_withheld: bool = False


@dataclass(frozen=True)
class SetCase:
    """Files that are uploaded together, as a batch or for an evaluation.

    Attributes:
        row: As of `PhotoCase`.
        name: As of `PhotoCase`.
        make: Gives the name of each file, or its path in an uploaded folder, and its bytes.
        images: How many images are left to read.
        left_out: Why something is left out, as `labelling.Reason` has it, and how many for that reason.
        code: Why all of it is refused.
        is_labelled: Whether the true classes are known.
        source_code: Why the command line refuses it; where it is labelled, it reads what the app reads.
    """

    row: str
    name: str
    make: Callable[[], Mapping[str, bytes]] = field(repr=False)
    images: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict, hash=False)
    code: ErrorCode | None = None
    is_labelled: bool = False
    source_code: ErrorCode | None = None


@dataclass(frozen=True)
class PredictionsCase:
    """A table of predictions that is given to be compared.

    Attributes:
        row: As of `PhotoCase`.
        name: As of `PhotoCase`.
        make: Gives its bytes.
        images: How many images it has predictions of.
        code: Why it is refused.
        file: The name that it is given under.
    """

    row: str
    name: str
    make: Callable[[], bytes] = field(repr=False)
    images: int = 0
    code: ErrorCode | None = None
    file: str = "predictions.csv"


@dataclass(frozen=True)
class FolderCase:
    """A file of ours on disk that was damaged, swapped or forged: of a checkpoint, or with settings.

    Attributes:
        row: As of `PhotoCase`.
        name: As of `PhotoCase`.
        damage: Changes what lies in the folder.
        code: Why the folder is refused; None where it can be used all the same.
    """

    row: str
    name: str
    damage: Callable[[Path], Any] = field(repr=False)
    code: ErrorCode | None = None


Case = PhotoCase | SetCase | PredictionsCase | FolderCase
