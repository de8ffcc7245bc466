"""The images that models answer differently as HTML, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import uuid4

from dermadeit.evaluation.comparison import Disagreement
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task
from dermadeit.views.batch.gallery import PAGE_SIZE
from dermadeit.views.comparison.steps import ImagesComparison
from dermadeit.views.page.case_pictures import ISIC_ADDRESS, isic_id

NEXT, PREVIOUS = "next", "previous"
"""What the buttons below the images ask for."""


def page_of(found: Sequence[Disagreement], page: int) -> Sequence[Disagreement]:
    """The images of one page, from 0; of the nearest one where there is no such page."""
    start = nearest_page(found, page) * PAGE_SIZE
    return found[start : start + PAGE_SIZE]


def nearest_page(found: Sequence[Disagreement], page: int) -> int:
    """The page itself where there is one, else the first or the last."""
    return min(max(page, 0), max(len(found) - 1, 0) // PAGE_SIZE)


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
    if not comparison.is_compared or len(comparison.compared) < 2:
        return ""
    shown = page_of(found, page)
    return render(
        "views/comparison/disagreements.html",
        total=len(found),
        images=comparison.images,
        target=task.name_in_text(task.target),
        is_shipped=comparison.is_shipped,
        is_labelled=comparison.is_labelled,
        titles=[model.title for model in comparison.compared],
        names=task.display_names,
        shown=shown,
        pictures=pictures,
        alt={image.image_id: _alt_text(image, task) for image in shown},
        links=_links(shown) if comparison.is_shipped else {},
        before=nearest_page(found, page) * PAGE_SIZE,
        page_size=PAGE_SIZE,
        previous=PREVIOUS,
        next=NEXT,
    )


def viewer_html(comparison: ImagesComparison, place: int, address: str) -> str:
    """One of these images large, for `assets/viewer.js`, with all that its small picture says.

    Args:
        comparison: As far as it has come.
        place: Which one of all images that are answered differently, from 0.
        address: The data address of the picture; empty where there is none.
    """
    image = comparison.differing[place]
    return render(
        "views/comparison/viewer.html",
        # Never the same text twice, so that the page notices when the same picture is opened again.
        key=uuid4().hex,
        image=image,
        address=address,
        alt=_alt_text(image, comparison.task),
        place=place,
        total=len(comparison.differing),
        names=comparison.task.display_names,
        links=_links([image]) if comparison.is_shipped else {},
    )


def _alt_text(image: Disagreement, task: Task) -> str:
    """What a picture shows, for those who can't see it."""
    names = task.display_names
    named = f"{image.image_id}: truth {names[image.label]}" if image.label else image.image_id
    return ", ".join([named, *(f"{title}: {names[answer]}" for title, answer in image.answers.items())])


def _links(shown: Sequence[Disagreement]) -> dict[str, str]:
    """Image id to its address in the ISIC Archive, for those that it has."""
    public = {image.image_id: isic_id(image.image_id) for image in shown}
    return {image_id: ISIC_ADDRESS.format(known) for image_id, known in public.items() if known}
