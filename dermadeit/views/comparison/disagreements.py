"""HTML of the images that models answer differently, a page at a time. Everything from outside is escaped here."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

from dermadeit.evaluation.comparison import Disagreement
from dermadeit.reporting.format import percent
from dermadeit.tasks import Task
from dermadeit.views.batch.gallery import PAGE_SIZE
from dermadeit.views.comparison.steps import ImagesComparison
from dermadeit.views.page.case_pictures import ISIC_ADDRESS, isic_id
from dermadeit.views.page.html import table_html

NEXT, PREVIOUS = "next", "previous"
"""What the buttons below the images ask for."""


def page_of(found: Sequence[Disagreement], page: int) -> Sequence[Disagreement]:
    """The images of one page, from 0; of the nearest one where there is no such page."""
    start = nearest_page(found, page) * PAGE_SIZE
    return found[start : start + PAGE_SIZE]


def nearest_page(found: Sequence[Disagreement], page: int) -> int:
    """The page itself where there is one, else the first or the last."""
    return min(max(page, 0), max(len(found) - 1, 0) // PAGE_SIZE)


def picture_address(data: bytes, kind: str) -> str:
    """A picture as a data address: no other address of it exists that could be asked for.

    Args:
        data: The encoded picture.
        kind: Its type, such as `jpeg`.
    """
    return f"data:image/{kind};base64,{b64encode(data).decode('ascii')}"


def disagreements_html(
    comparison: ImagesComparison, page: int = 0, pictures: Mapping[str, str] | None = None
) -> str:
    """One page of the images that the models answer differently; empty where there is one model or no result yet.

    Args:
        comparison: As far as it has come.
        page: Which page, from 0.
        pictures: Image id to a data address, for the images of this page; None for a list without pictures.
    """
    found, task = comparison.differing, comparison.task
    if found is None or len(comparison.compared) < 2:
        return ""
    shown = page_of(found, page)
    said = f"{len(found):,} of {comparison.images:,} images ({percent(len(found) / comparison.images)})"
    if not shown:
        listed = ""
    elif pictures is None:
        listed = _table_html(comparison, shown)
    else:
        listed = _gallery_html(comparison, shown, pictures)
    return f"""
<div class="dd-check" data-part="disagreements">
  <h2>Different answers</h2>
  <p>The models give different answers for {said}.</p>
  <p class="dd-quiet">{_explained(comparison, task)}</p>
  {listed}{_turning_html(found, nearest_page(found, page))}
</div>"""


def _explained(comparison: ImagesComparison, task: Task) -> str:
    target = escape(_target(task))
    links = " A link opens the public ISIC Archive, another website." if comparison.is_shipped else ""
    return (
        f"The largest differences in the score for “{target}” come first. Beside each answer: that "
        f"score.{links} The CSV file has all of them."
    )


def _table_html(comparison: ImagesComparison, shown: Sequence[Disagreement]) -> str:
    titles = [model.title for model in comparison.compared]
    names = comparison.task.display_names
    truth = ["Truth"] if comparison.is_labelled else []
    rows = [
        [
            _name_html(image.image_id, public=comparison.is_shipped),
            *(escape(names[image.label]) for _ in truth),
            *(_answer_html(comparison.task, image, title) for title in titles),
        ]
        for image in shown
    ]
    return table_html("Images with different answers", ["Image", *truth, *titles], rows)


def _gallery_html(
    comparison: ImagesComparison, shown: Sequence[Disagreement], pictures: Mapping[str, str]
) -> str:
    items = "".join(_picture_html(comparison, image, pictures.get(image.image_id)) for image in shown)
    return f'<ul class="dd-gallery dd-differing">{items}</ul>'


def _picture_html(comparison: ImagesComparison, image: Disagreement, address: str | None) -> str:
    names = comparison.task.display_names
    truth = f"truth {names[image.label]}" if image.label else ""
    said = ", ".join(
        [f"{image.image_id}: {truth}" if truth else image.image_id]
        + [f"{title}: {names[answer]}" for title, answer in image.answers.items()]
    )
    answers = "".join(
        f"<div><dt>{escape(title)}</dt><dd>{_answer_html(comparison.task, image, title)}</dd></div>"
        for title in image.answers
    )
    picture = (
        f'<img src="{address}" alt="{escape(said)}">'
        if address
        else f'<div class="dd-no-picture" role="img" aria-label="{escape(said)}, no picture">no picture</div>'
    )
    heading = f"<b>{escape(truth)}</b>" if truth else ""
    return f"""<li class="dd-picture">
  {picture}
  <div class="dd-words">{heading}<dl>{answers}</dl>
  <span class="dd-file" title="{escape(image.image_id)}">
  {_name_html(image.image_id, public=comparison.is_shipped)}</span></div>
</li>"""


def _name_html(image_id: str, *, public: bool) -> str:
    found = public and isic_id(image_id)
    if not found:
        return escape(image_id)
    address = ISIC_ADDRESS.format(found)
    return f'<a href="{escape(address)}" target="_blank" rel="noopener noreferrer">{escape(image_id)}</a>'


def _answer_html(task: Task, image: Disagreement, title: str) -> str:
    answer = escape(task.display_names[image.answers[title]])
    status = image.status(title)
    held = f' <span class="dd-held">{escape(status)}</span>' if status else ""
    score = f'<span class="dd-interval">{percent(image.scores[title])}</span>{held}'
    if not image.label:
        return f"{answer} {score}"
    right = image.answers[title] == image.label
    mark, word = ("✓", "right") if right else ("✗", "wrong")
    return (
        f'<span class="dd-answer-{word}"><span aria-hidden="true">{mark}</span>'
        f'<span class="dd-unseen">{word}: </span> {answer}</span> {score}'
    )


def _turning_html(found: Sequence[Disagreement], page: int) -> str:
    if len(found) <= PAGE_SIZE:
        return ""
    first, shown = page * PAGE_SIZE + 1, len(page_of(found, page))
    return (
        f'<div class="dd-pages">{_turn_html("Previous", PREVIOUS, page > 0)}'
        f"<span>{first:,} to {first + shown - 1:,} of {len(found):,}</span>"
        f"{_turn_html('Next', NEXT, first + shown <= len(found))}</div>"
    )


def _turn_html(name: str, pick: str, possible: bool) -> str:
    # Not `disabled`, which would take the keyboard away from who turns to the last page.
    disabled = "false" if possible else "true"
    return f'<button type="button" data-pick="{pick}" aria-disabled="{disabled}">{name}</button>'


def _target(task: Task) -> str:
    return task.target_name.lower()
