"""The confusion matrix as buttons, and the pictures behind its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from dermadeit.evaluation.batch import BatchItem
from dermadeit.evaluation.comparison import Disagreement
from dermadeit.evaluation.slices import diagnosis_name
from dermadeit.inference.records import Prediction
from dermadeit.reporting.drawing import readable_on
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task
from dermadeit.trust.gating import answer_state, gate_status
from dermadeit.views.batch.tables import figure_name
from dermadeit.views.page.case_pictures import ISIC_ADDRESS, isic_id
from dermadeit.views.page.html import score_name

Picture = tuple[BatchItem, Prediction, str]
"""Image, what the model answered, and the key of what is answered at the chosen threshold."""

Answers = Mapping[str, Disagreement]
"""Id of an image to what each model answers, of those whose captions are to say it."""

Addresses = Callable[[BatchItem, bool], str]
"""The data address of an image, in large or not; empty where there is no picture."""

PAGE_SIZE = 24
"""Pictures that are shown at once."""

PICKING = """
let picked = null;
element.addEventListener('click', event => {
  const button = event.target.closest('[data-pick]');
  if (!button) return;
  picked = button.dataset.pick;
  document.getElementById(button.dataset.goal)?.scrollIntoView();
  trigger('select', {pick: picked});
});
// The buttons are made anew with every answer: the keyboard would be back at the top of the page.
watch('value', () => {
  if (picked === null || document.activeElement !== document.body) return;
  const again = element.querySelector(`[data-pick="${picked}"]`);
  if (again) again.focus();
});
"""
"""JavaScript of an HTML part whose buttons have `data-pick`: it triggers `select` with the value as `pick`."""

_SHOWN_FIGURES = (
    "sensitivity", "specificity", "ppv", "npv", "accuracy", "balanced_accuracy", "f1_macro", "cohen_kappa",
)  # fmt: skip


@dataclass(frozen=True)
class _Caption:
    """What is written below a picture.

    Attributes:
        file: Name of the file, with its folder.
        decided: The answer, and the truth where it is known.
        status: Why the answer is withheld or has a warning; empty for one without.
        state: As `gating.answer_state` gives it.
        score_name: What the score may be called.
        score: Of what is answered, 0 to 1.
        answers: What each model answers; None for the one model that is looked at.
        link: Address of the image in the ISIC Archive; empty for none.
        names: Class key to its name.
        target: Name of the class whose score the answers of several models come with.
    """

    file: str
    decided: str
    status: str
    state: str
    score_name: str
    score: float
    names: Mapping[str, str]
    target: str
    answers: Disagreement | None = None
    link: str = ""

    @property
    def alt(self) -> str:
        """The same without the probability, for those who can't see the picture."""
        if self.answers is None:
            return ", ".join(filter(None, (f"{self.file}: {self.decided}", self.status)))
        said = (f"{title}: {self.names[answer]}" for title, answer in self.answers.answers.items())
        truth = f"truth {self.names[self.answers.label]}" if self.answers.label else ""
        return f"{self.file}: {', '.join(filter(None, (truth, *said)))}"


def matrix_html(task: Task, counts: np.ndarray, picked: tuple[int, int] | None) -> str:
    """A confusion matrix of counts and shares of the true class; each cell with images is a button.

    Args:
        task: Names the classes.
        counts: int [K, K], a row for each true class.
        picked: The cell whose images are shown.
    """
    rows = []
    for truth, answers in enumerate(counts.tolist()):
        total = sum(answers)
        cells = [
            _cell(count, total, is_picked=picked == (truth, answer)) for answer, count in enumerate(answers)
        ]
        rows.append((total, cells))
    return render(
        "views/batch/matrix.html", names=[task.display_names[key] for key in task.classes], rows=rows
    )


def _cell(count: int, total: int, *, is_picked: bool) -> dict[str, Any]:
    share = count / total if total else 0.0
    colour = colormaps["cividis"](share)
    return {
        "count": count,
        "share": share,
        "background": to_hex(colour),
        "colour": readable_on(colour),
        "is_picked": is_picked,
    }


def point_figures_html(task: Task, target: int, figures: Mapping[str, float | None]) -> str:
    """Point figures at the chosen threshold."""
    return render(
        "views/batch/point_figures.html",
        figures=[(figure_name(key), figures[key]) for key in _SHOWN_FIGURES],
        target=task.display_names[task.classes[target]],
    )


def gallery_html(
    task: Task,
    title: str,
    pictures: Sequence[Picture],
    page: int,
    address: Addresses,
    *,
    answers: Answers = MappingProxyType({}),
    is_shipped: bool = False,
    way_back: str = "",
) -> str:
    """One page of images with truth, answer and score.

    Args:
        task: Names the classes.
        title: What they have in common.
        pictures: All of them.
        page: Which page, from 0.
        address: Finds their pictures.
        answers: What each model answers, to be said too.
        is_shipped: Whether the images are those of ISIC, so that they have links.
        way_back: Name of the button that leads back from a selection; empty for none.
    """
    page = min(max(page, 0), max(len(pictures) - 1, 0) // PAGE_SIZE)
    shown = pictures[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
    return render(
        "views/batch/gallery.html",
        title=title,
        way_back=way_back,
        shown=[
            (address(picture[0], False), _caption(task, *picture, answers, is_shipped=is_shipped))
            for picture in shown
        ],
        number=page,
        page_size=PAGE_SIZE,
        total=len(pictures),
    )


def viewer_html(
    task: Task,
    pictures: Sequence[Picture],
    place: int,
    address: Addresses,
    *,
    answers: Answers = MappingProxyType({}),
    is_shipped: bool = False,
) -> str:
    """One image large, for `assets/viewer.js`, with all that its small picture says and buttons for the others.

    Args:
        task: Names the classes.
        pictures: All that it can be left for.
        place: Which one, from 0.
        address: Finds its picture.
        answers: As for `gallery_html`.
        is_shipped: Likewise.
    """
    return render(
        "views/batch/viewer.html",
        # Never the same text twice, so that the page notices when the same picture is opened again.
        key=uuid4().hex,
        address=address(pictures[place][0], True),
        caption=_caption(task, *pictures[place], answers, is_shipped=is_shipped),
        place=place,
        total=len(pictures),
    )


def _caption(
    task: Task, item: BatchItem, record: Prediction, decided: str, answers: Answers, *, is_shipped: bool
) -> _Caption:
    image, names = item.image, task.display_names
    words = f"answer {names[decided]}"
    if image.label:
        words += f", truth {names[image.label]}{_finer(item, names[image.label])}"
    public = isic_id(image.image_id) if is_shipped else None
    return _Caption(
        image.file,
        words,
        gate_status(record),
        answer_state(record),
        score_name(record),
        record.probabilities[decided],
        names,
        names[task.target],
        answers.get(image.image_id),
        ISIC_ADDRESS.format(public) if public else "",
    )


def _finer(item: BatchItem, label: str) -> str:
    """The diagnosis in brackets, where it says more than the true class."""
    name = diagnosis_name(item.image.metadata.get("diagnosis", ""))
    return f" ({name})" if name and name.casefold() != label.casefold() else ""
