"""HTML of similar cases: their vote, then diagnosis, distance, public id and picture of the nearest."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from dermadeit.inference.decision import DecisionSettings
from dermadeit.inference.records import Prediction
from dermadeit.reporting.names import SIMILAR_CASES, capitalised
from dermadeit.tasks import DIAGNOSES, get_task
from dermadeit.trust.gating import SHOWS_NO_SKIN
from dermadeit.trust.neighbours import Neighbour, describe_outside, describe_votes
from dermadeit.views.page.case_pictures import FOLDER_VARIABLE, ISIC_ADDRESS, isic_id
from dermadeit.views.single.answer_card import is_hidden
from dermadeit.views.single.reading import Reading


def cases_html(reading: Reading, task_key: str, settings: DecisionSettings) -> str:
    """The training lesions nearest to the photo for a task; empty where the checkpoint has no index.

    Args:
        reading: The photo's reading.
        task_key: The chosen task.
        settings: What the visitor has set: the cases are withheld with the answer.
    """
    answer = reading.predictions[task_key]
    if not answer.neighbours:
        return ""
    if is_hidden(answer, settings):
        return _panel('<p class="dd-quiet">Withheld with the answer.</p>')
    cases = "".join(_case_html(near, task_key, reading.pictures) for near in answer.neighbours)
    pictures = (
        ""
        if reading.pictures
        else f" To see pictures, set {FOLDER_VARIABLE} to a local folder with ISIC 2019."
    )
    verdict, disagree = _verdict(answer, task_key), str(bool(answer.neighbour_disagreement)).lower()
    return _panel(f"""<p class="dd-cases-verdict" data-disagree="{disagree}">{escape(verdict)}</p>
  <p class="dd-quiet">The nearest {len(answer.neighbours)} training lesions, for comparison by eye. The smaller the
  distance (0 to 2), the more similar.{escape(pictures)}</p>
  <ol class="dd-cases">{cases}</ol>""")


def _verdict(answer: Prediction, task_key: str) -> str:
    """The vote of the most similar cases for the most probable class, as sentences."""
    if not SHOWS_NO_SKIN.isdisjoint(answer.abstain_codes):
        return "No vote, because the photo differs from all training photos."
    task, votes = get_task(task_key), answer.neighbour_votes
    sentences = (describe_votes(votes, answer.label, task), describe_outside(votes))
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _panel(content: str) -> str:
    return f'\n<div class="dd-check">\n  <h2>{SIMILAR_CASES}</h2>\n  {content}\n</div>'


def _case_html(near: Neighbour, task_key: str, pictures: Mapping[str, bytes]) -> str:
    names = get_task(task_key).display_names
    diagnosis = DIAGNOSES.get(near.diagnosis.upper()) or names.get(near.diagnosis, near.diagnosis)
    diagnosis = capitalised(diagnosis)
    public = isic_id(near.image_id)
    source = (
        f'<a href="{ISIC_ADDRESS.format(public)}" target="_blank" rel="noopener noreferrer">{public}'
        '<span class="dd-unseen"> in the ISIC Archive, opens a new tab</span></a>'
        if public
        else f"<span>{escape(near.image_id)}</span>"
    )
    picture = ""
    if near.image_id in pictures:
        data = base64.b64encode(pictures[near.image_id]).decode()
        picture = (
            f'<img src="data:image/png;base64,{data}" alt="{escape(diagnosis)}, {escape(near.image_id)}">'
        )
    return f"""<li>{picture}<span class="dd-case-text"><strong>{escape(diagnosis)}</strong>
    <span class="dd-case-distance">distance {near.distance:.3f}</span>{source}</span></li>"""
