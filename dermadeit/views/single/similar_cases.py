"""Similar cases: their vote, then diagnosis, distance, public id and picture of the nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermadeit.inference.decision import DecisionSettings
from dermadeit.inference.records import Prediction
from dermadeit.reporting.document import data_address
from dermadeit.reporting.names import capitalised
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task
from dermadeit.trust.gating import SHOWS_NO_SKIN
from dermadeit.trust.neighbours import Neighbour, describe_outside, describe_vote
from dermadeit.views.page.case_pictures import FOLDER_VARIABLE, ISIC_ADDRESS, isic_id
from dermadeit.views.single.answer_card import is_hidden
from dermadeit.views.single.exports import case_name
from dermadeit.views.single.reading import Reading


def cases_html(reading: Reading, task_key: str, settings: DecisionSettings) -> str:
    """The training lesions nearest to the photo for a task; empty where the checkpoint has no index.

    Args:
        reading: The photo's reading.
        task_key: The chosen task.
        settings: What the visitor has set: the cases are withheld with the answer.
    """
    answer, task = reading.predictions[task_key], reading.tasks[task_key]
    votes = answer.neighbour_votes
    if not answer.neighbours or votes is None:
        return ""
    return render(
        "views/single/similar_cases.html",
        is_hidden=is_hidden(answer, settings),
        vote=_vote(answer, votes, task),
        disagree=answer.neighbour_disagreement,
        cases=[_case(near, task, reading.pictures) for near in answer.neighbours],
        folder_variable=FOLDER_VARIABLE if task.class_of_diagnosis and not reading.pictures else "",
    )


def _vote(answer: Prediction, votes: Mapping[str, int], task: Task) -> str:
    """The vote of the most similar cases, that for the answer first, as sentences."""
    if not SHOWS_NO_SKIN.isdisjoint(answer.abstain_codes):
        return "No vote, because the photo differs from all training photos."
    sentences = (describe_vote(votes, answer.label, task), describe_outside(votes))
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _case(near: Neighbour, task: Task, pictures: Mapping[str, bytes]) -> dict[str, Any]:
    public, picture = isic_id(near.image_id), pictures.get(near.image_id)
    return {
        "image_id": near.image_id,
        "public_id": public,
        "address": ISIC_ADDRESS.format(public) if public else "",
        "diagnosis": capitalised(case_name(near, task)),
        "distance": near.distance,
        "picture": data_address(picture, "png") if picture else "",
    }
