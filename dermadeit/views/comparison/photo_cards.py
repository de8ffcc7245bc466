"""HTML of one photo read by several models. Everything from outside is escaped here."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from PIL import Image

from dermadeit.imaging.decode import LesionImage
from dermadeit.inference.decision import OPERATING_POINT_TITLES
from dermadeit.inference.faithfulness import outline_removed_area
from dermadeit.inference.records import ABSTAIN, Prediction
from dermadeit.inference.saliency import DEFAULT_OPACITY
from dermadeit.inference.side_by_side import SCALE_NOTE, Agreement, ModelReading, PairAgreement
from dermadeit.inference.zoo import ZooEntry
from dermadeit.models.checkpoints import training_command
from dermadeit.reporting.format import counted, percent
from dermadeit.reporting.names import WITHHELD
from dermadeit.tasks import BINARY, Task
from dermadeit.trust.calibration import OPERATING_POINTS
from dermadeit.trust.gating import warning_sentences
from dermadeit.views.comparison.teacher import teacher_card_html
from dermadeit.views.page.failures import Failure
from dermadeit.views.page.html import (
    badge_html,
    check_finding,
    check_state,
    notes_html,
    score_name,
    table_html,
)

OWN_ANSWER = "answer"
"""Choice of the heatmaps: what each model answers, instead of one class for all."""

POINT_TITLES: Mapping[str, str] = MappingProxyType(
    {key: title for key, title in OPERATING_POINT_TITLES.items() if key in OPERATING_POINTS}
)
"""Each operating point to its name for people. An own threshold would be another one for each model."""

EMPTY_AGREEMENT = """
<div class="dd-check dd-agreement">
  <h2>Agreement</h2>
  <p class="dd-empty-title">No photo yet</p>
  <p class="dd-quiet">Choose a photo or an example. Each model's card appears below when that model has read
  it. Which models agree appears here.</p>
</div>"""

_PICTURE_QUALITY = 88

Outcome = ModelReading | Failure
"""What came of one model: its reading, or why it gave none."""


def cards_html(
    entries: Sequence[ZooEntry],
    outcomes: Mapping[str, Outcome],
    task: Task,
    preview: LesionImage | None,
    *,
    shown_class: str,
    point: str,
    running: bool,
) -> str:
    """A card for each model, those without weights and the teacher too.

    Args:
        entries: Every compared model.
        outcomes: Name of a model to what came of it, as far as it was asked.
        task: What was asked.
        preview: The photo in the size in which it is shown; None before there is one.
        shown_class: Class of the heatmaps, or `OWN_ANSWER`.
        point: The operating point whose decision is shown.
        running: Whether models that were not asked yet still will be.
    """
    cards = []
    for entry in entries:
        outcome = outcomes.get(entry.name)
        if isinstance(outcome, ModelReading) and preview is not None:
            body, state = _reading_html(outcome, task, preview, shown_class, point), "read"
        elif isinstance(outcome, Failure):
            body, state = _note_html(f'<p class="dd-failure">{escape(outcome.message)}</p>'), "failed"
        elif not entry.available:
            body, state = _note_html(_missing_html(entry, task)), "missing"
        else:
            waiting = "Waiting …" if running else "No photo yet." if preview is None else "Not run."
            body, state = _note_html(f'<p class="dd-quiet">{waiting}</p>'), "waiting"
        cards.append(
            f'<article class="dd-model" data-model="{escape(entry.name)}" data-state="{state}">'
            f"<h3>{escape(entry.title)}</h3>{body}</article>"
        )
    return f'<div class="dd-models">{"".join(cards)}{teacher_card_html(task)}</div>'


def scale_html() -> str:
    """The one colour bar of all heatmaps, and what it says."""
    return f"""
<div class="dd-legend dd-shared-scale">
  <p class="dd-scale"><span>0, low</span><span class="dd-ramp" aria-hidden="true"></span>
  <span>1, high</span></p>
  <p class="dd-quiet">One colour scale for all heatmaps. {escape(SCALE_NOTE)} The
  area inside the line is the highlighted one, which the test of the heatmap hides.</p>
</div>"""


def agreement_html(found: Agreement, *, only_one: bool = False) -> str:
    """Who says what, and which models agree.

    Args:
        found: What came of the photo so far.
        only_one: Whether no other model could be asked.
    """
    if only_one:
        return """
<div class="dd-check dd-agreement">
  <h2>Agreement</h2>
  <p class="dd-quiet">Only one model is available here.</p>
</div>"""
    titles = list(dict.fromkeys(title for pair in found.pairs for title in (pair.first, pair.second)))
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    target = found.task.target_name.lower()
    withheld = f'<p class="dd-quiet">{escape(found.withheld_sentence)}</p>' if found.withheld else ""
    table = widest = ""
    if pairs:
        rows = [
            [escape(row), *(_pair_cell(row, column, pairs) for column in titles[1:])] for row in titles[:-1]
        ]
        caption = f"Same answer or not, and difference between the scores for “{target}”"
        table = table_html(caption, ["Model", *titles[1:]], rows)
        pair = found.widest
        widest = (
            f'<p class="dd-quiet">Largest difference: {escape(pair.first)} and {escape(pair.second)}. '
            f"Their scores for “{escape(target)}” differ by "
            f"{_points(pair.difference)}.{_mixed_scores(found)}</p>"
        )
    return f"""
<div class="dd-check dd-agreement">
  <h2>Agreement</h2>
  <p class="dd-consensus">{escape(found.sentence)}</p>
  {withheld}
  {table}{widest}
  <p class="dd-quiet">Models that agree can all be wrong: they were trained on the same photos.</p>
</div>"""


def _pair_cell(row: str, column: str, pairs: Mapping[tuple[str, str], PairAgreement]) -> str:
    pair = pairs.get((row, column))
    if pair is None:
        return ""
    word = "same" if pair.same_label else "<strong>differ</strong>"
    return f'{word} <span class="dd-interval">{_points(pair.difference)}</span>'


def _points(difference: float) -> str:
    return f"{abs(difference) * 100:.1f}\u00a0points"


def _mixed_scores(found: Agreement) -> str:
    if all(pair.comparable for pair in found.pairs):
        return ""
    return " Some scores are calibrated and some are not: compare them with care."


def _note_html(text: str) -> str:
    """What a card says instead of a reading, over all the rows of one."""
    return f'<div class="dd-model-note">{text}</div>'


def _missing_html(entry: ZooEntry, task: Task) -> str:
    place = f"assets/checkpoints/{task.key}/{entry.name}"
    return f"""
<p>There are no weights for this task here. This command trains the model:</p>
<pre class="dd-command" tabindex="0"><code>{escape(training_command(task.key, entry.name))}</code></pre>
<p class="dd-quiet">Then copy its output folder to <code>{escape(place)}</code> and start the app
again.</p>"""


def _reading_html(
    reading: ModelReading, task: Task, preview: LesionImage, shown_class: str, point: str
) -> str:
    answer = reading.prediction
    warned = notes_html("Warning", warning_sentences(answer.warning_codes))
    said = f"{_label_html(answer, task)}{warned}{_scores_html(answer, task)}{_decision_html(reading, task, point)}"
    return f"""
{_withheld_html(answer, said) if answer.verdict == ABSTAIN else said}
{_heatmap_html(reading, task, preview, shown_class)}
{_facts_html(reading)}"""


def _label_html(answer: Prediction, task: Task) -> str:
    condition = "" if task is BINARY else '<span class="dd-quiet">If malignant: </span>'
    return f'<p class="dd-model-label">{condition}{escape(task.display_names[answer.label])}</p>'


def _withheld_html(answer: Prediction, said: str) -> str:
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in answer.abstain_reasons)
    return f"""
<div class="dd-model-withheld" data-verdict="abstain">
  <p class="dd-model-label">{WITHHELD}</p>
  <ul>{reasons}</ul>
  <details><summary>Show the answer anyway</summary>{said}</details>
</div>"""


def _scores_html(answer: Prediction, task: Task) -> str:
    first = ' class="dd-first"'
    bars = "".join(
        f"<li{first if key == answer.label else ''}>"
        f'<span class="dd-name">{escape(task.display_names[key])}</span>'
        f'<span class="dd-value">{percent(share)}</span>'
        f'<span class="dd-bar" aria-hidden="true"><span style="width:{share * 100:.1f}%"></span></span></li>'
        for key, share in answer.probabilities.items()
    )
    return f'<div><p class="dd-bars-title">{score_name(answer)}</p><ul class="dd-bars">{bars}</ul></div>'


def _decision_html(reading: ModelReading, task: Task, point: str) -> str:
    decision = reading.decisions.get(point)
    if decision is None:
        text = "Not calibrated: it has no operating point, and no answer is withheld."
        return f'<p class="dd-quiet dd-model-decision">{text}</p>'
    target = task.target_name.lower()
    return f"""
<dl class="dd-model-facts dd-model-decision">
  <div><dt>Decision, {escape(POINT_TITLES[point].lower())}</dt>
  <dd>{escape(task.display_names[decision.decision])}</dd></div>
  <div><dt>Threshold for “{escape(target)}”</dt><dd>{percent(decision.threshold)}</dd></div>
</dl>"""


def _heatmap_html(reading: ModelReading, task: Task, preview: LesionImage, shown_class: str) -> str:
    answer = reading.prediction
    if shown_class == OWN_ANSWER and answer.verdict == ABSTAIN:
        # Its class would give away what is withheld.
        return (
            '<p class="dd-quiet">No heatmap, because the answer is withheld. Choose a class to see one.</p>'
        )
    class_key = answer.label if shown_class == OWN_ANSWER else shown_class
    found, check = reading.maps[class_key], reading.checks[class_key]
    name = task.display_names[class_key]
    overlay = found.overlay(preview, DEFAULT_OPACITY)
    picture = _picture(outline_removed_area(overlay, found, reading.model_side))
    alt = f"The photo under the {found.method} heatmap of {reading.title} for the class {name}, outlined"
    return f"""
<figure class="dd-model-map" data-check="{check_state(check)}">
  <img src="{picture}" alt="{escape(alt)}" width="{preview.width}" height="{preview.height}">
  <p class="dd-scale"><span>0</span><span class="dd-ramp" aria-hidden="true"></span><span>1</span></p>
  <figcaption>{badge_html(check)}{escape(f"{found.method} for {name}. {check_finding(check)}")}</figcaption>
</figure>"""


def _facts_html(reading: ModelReading) -> str:
    times = "".join(
        f"<div><dt>Time, {counted(views, 'view')}</dt><dd>{value:.1f}\u00a0ms</dd></div>"
        for views, value in reading.latency.milliseconds.items()
    )
    return f"""
<dl class="dd-model-facts dd-model-costs">
  {times}
  <div><dt>Parameters</dt><dd>{reading.parameters / 1e6:.1f}\u00a0million</dd></div>
  <div><dt>File</dt><dd>{reading.weights_bytes / 1e6:.1f}\u00a0MB</dd></div>
  <div><dt>Input</dt><dd>{reading.model_side} × {reading.model_side}\u00a0px</dd></div>
</dl>"""


def _picture(pixels: object) -> str:
    """Pixels as a data address: nothing of a photo is stored for a picture this small."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=_PICTURE_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
