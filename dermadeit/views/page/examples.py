"""The real photos that ship with the app, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from dermadeit.data.tabular import read_csv
from dermadeit.evaluation.slices import diagnosis_name
from dermadeit.reporting.names import capitalised
from dermadeit.views.page.uploads import EXAMPLES_FOLDER


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
        known = f"Known diagnosis: {diagnosis_name(self.diagnosis)}"
        lines = [f"{capitalised(text)}." for text in (self.note, self.details) if text]
        return (
            f'<div class="dd-known"><strong>{escape(known)}</strong>'
            f"<span>{escape(' '.join(lines))}</span>"
            f'<span class="dd-quiet">{escape(self.image_id)}, {escape(self.credit)}</span></div>'
        )


def read_examples(folder: Path = EXAMPLES_FOLDER) -> list[Example]:
    """The examples, in the order of `examples.csv`; none where the folder has no such table.

    Raises:
        ManifestError: The table can't be read.
    """
    table = folder / "examples.csv"
    if not table.is_file():
        return []
    return [
        Example(
            folder / row["file"],
            row["image_id"],
            row["diagnosis"],
            ", ".join(filter(None, (row["sex"], row["age"] and f"{row['age']} years", row["site"]))),
            row["note"],
            row["credit"],
        )
        for row in read_csv(table).rows
    ]
