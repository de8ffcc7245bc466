"""The real photos that ship with the app, and what is known of them: examples one by one, and a labelled set."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dermadeit.data.tabular import read_csv
from dermadeit.evaluation.slices import diagnosis_name
from dermadeit.reporting.names import capitalised
from dermadeit.reporting.templates import render
from dermadeit.views.page.uploads import EXAMPLES_FOLDER, private_folder

SAMPLE_SET = EXAMPLES_FOLDER / "sample_set"
"""A folder of labelled photos for the batch tab, with `labels.csv`."""


@dataclass(frozen=True)
class Example:
    """One photo, as `examples.csv` describes it.

    Attributes:
        path: The photo.
        image_id: Its number in the ISIC archive.
        diagnosis: ISIC 2019 name of the known diagnosis, such as `NV`.
        details: Sex, age and site as far as they are known, for people; may be empty.
        note: What the photo is an example of, as a part of a sentence.
        credit: Whose photo it is.
    """

    path: Path
    image_id: str
    diagnosis: str
    details: str
    note: str
    credit: str

    @property
    def title(self) -> str:
        """Diagnosis and note in a few words."""
        name = "nevus" if self.diagnosis == "NV" else diagnosis_name(self.diagnosis)
        return f"{capitalised(name)}: {self.note}"

    def caption_html(self) -> str:
        """The known diagnosis, what the photo is an example of, and the credit."""
        lines = [f"{capitalised(text)}." for text in (self.note, self.details) if text]
        return render(
            "views/page/example_caption.html",
            diagnosis=diagnosis_name(self.diagnosis),
            details=" ".join(lines),
            image_id=self.image_id,
            credit=self.credit,
        )


def read_examples() -> list[Example]:
    """The examples, in the order of `examples.csv`; none where there is no such table.

    Raises:
        TableError: The table can't be read.
    """
    table = EXAMPLES_FOLDER / "examples.csv"
    if not table.is_file():
        return []
    return [
        Example(
            EXAMPLES_FOLDER / row["file"],
            row["image_id"],
            row["diagnosis"],
            ", ".join(filter(None, (row["sex"], row["age"] and f"{row['age']} years", row["site"]))),
            row["note"],
            row["credit"],
        )
        for row in read_csv(table).rows
    ]


def pack_sample_set() -> Path:
    """Copies the labelled set as a ZIP to where uploads lie, to be treated as one."""
    path = private_folder() / "sample_set.zip"
    # Stored as they are: JPEG files don't get smaller.
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(SAMPLE_SET.iterdir()):
            archive.write(file, file.name)
    return path


def sample_set_html() -> str:
    """What the labelled set holds, and the credit; empty where it does not ship with the app."""
    labels = SAMPLE_SET / "labels.csv"
    if not labels.is_file():
        return ""
    rows = read_csv(labels).rows
    counts = Counter(diagnosis_name(row["diagnosis"]) for row in rows)
    parts = " and ".join(f"{count} {_plural(name)}" for name, count in counts.most_common())
    return render("views/page/sample_set.html", images=len(rows), diagnoses=parts, credit=rows[0]["credit"])


def _plural(name: str) -> str:
    return f"{name.removesuffix('us')}i" if name.endswith("us") else f"{name}s"
