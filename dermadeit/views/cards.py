"""HTML of the result, the image check and the messages. Everything from outside is escaped here."""

from __future__ import annotations

from html import escape

from dermadeit.faithfulness import SaliencyCheck
from dermadeit.records import ABSTAIN, Prediction
from dermadeit.tasks import BINARY, Task, get_task
from dermadeit.views.failures import Failure
from dermadeit.views.reading import Reading, tasks_shown

EMPTY_RESULT = """
<div class="dd-card dd-empty">
  <h2>Result</h2>
  <p class="dd-empty-title">No photo yet</p>
  <p>Choose a photo or an example. The label appears here first, the heatmap below it a moment later.</p>
</div>"""

READING_RESULT = """
<div class="dd-card dd-empty">
  <h2>Result</h2>
  <p class="dd-empty-title">Reading the photo …</p>
  <p>The result of the previous photo has been cleared.</p>
</div>"""

FAILED_RESULT = """
<div class="dd-card dd-empty">
  <h2>Result</h2>
  <p class="dd-empty-title">No result</p>
  <p>The reason is given above. Any earlier result has been cleared.</p>
</div>"""

EMPTY_CHECK = """
<div class="dd-check">
  <h2>Image check</h2>
  <p class="dd-quiet">Format, size, fingerprint and what the decoder did to the pixels, once there is a photo.</p>
</div>"""


def percent(share: float) -> str:
    """A share of 1 with one decimal, such as “61.2 %”, kept on one line."""
    return f"{share * 100:.1f}\u00a0%"


def status_html(text: str) -> str:
    """A line that says what the app is doing."""
    return f'<p class="dd-status">{escape(text)}</p>'


def failure_html(failure: Failure) -> str:
    """A failure as a lasting sentence."""
    return (
        f'<div class="dd-failure" data-code="{escape(failure.code)}">'
        f"<strong>This did not work.</strong> {escape(failure.message)}</div>"
    )


def result_html(reading: Reading, task_key: str) -> str:
    """The answers that belong to a chosen task: the binary one, then the conditional one."""
    cards = "".join(_answer_html(reading.predictions[key], get_task(key)) for key in tasks_shown(task_key))
    answer = reading.predictions[task_key]
    return f"""
<div class="dd-card">
  <h2>Result</h2>
  {_warnings_html(reading.preview.warnings)}
  {cards}
  <p class="dd-quiet">{_meaning_of_scores(answer)}</p>
</div>"""


def legend_html(check: SaliencyCheck | None) -> str:
    """What the colours of a heatmap mean, and whether it can be believed."""
    if check is None:
        state, verdict = "unchecked", "Whether this heatmap can be believed has not been checked yet."
    else:
        state = "faithful" if check.faithful else "unfaithful"
        opening = "Checked" if check.faithful else "Not shown to be right, so it is greyed out"
        than = "filling" if check.faithful else "filling some of"
        verdict = (
            f"{opening}: filling the marked {percent(check.removed_share)} of the photo from its surroundings "
            f"lowers the score {'more' if check.faithful else 'no more'} than {than} {len(check.random_drops)} "
            "areas of the same shape elsewhere."
        )
    return f"""
<div class="dd-legend" data-check="{state}">
  <p class="dd-scale"><span>low</span><span class="dd-ramp" aria-hidden="true"></span><span>high</span></p>
  <p class="dd-check-verdict">{escape(verdict)}</p>
  <p class="dd-quiet">A heatmap shows where the score comes from, not whether it is right.</p>
</div>"""


def check_html(reading: Reading) -> str:
    """Format, size and fingerprint of the file, and what the decoder did to its pixels."""
    image = reading.preview
    width, height = reading.size
    steps = "".join(f"<li>{escape(step)}</li>" for step in image.ledger)
    ledger = f"<ul>{steps}</ul>" if steps else "<p>Nothing: the pixels are as stored.</p>"
    return f"""
<div class="dd-check">
  <h2>Image check</h2>
  <dl>
    <div><dt>File</dt><dd>{escape(image.name)}</dd></div>
    <div><dt>Format</dt><dd>{escape(image.format)}</dd></div>
    <div><dt>Size</dt><dd>{width:,} × {height:,} px</dd></div>
    <div><dt>SHA-256</dt><dd><code title="{escape(image.sha256)}">{escape(image.sha256[:16])}…</code></dd></div>
  </dl>
  <h3>What the decoder did to the pixels</h3>
  {ledger}
  <p class="dd-quiet">The model then sees the whole photo squashed to {reading.model_side} × {reading.model_side}
  pixels.</p>
</div>"""


def announcement(reading: Reading, task_key: str) -> str:
    """The result in one sentence, for the status line."""
    parts = []
    for key in tasks_shown(task_key):
        answer, task = reading.predictions[key], get_task(key)
        condition = "" if task is BINARY else "if malignant: "
        if answer.verdict == ABSTAIN:
            parts.append(f"{condition}no answer. {' '.join(answer.abstain_reasons).rstrip('.')}")
            continue
        score = f"{score_name(answer).lower()} {percent(answer.probabilities[answer.label])}"
        parts.append(f"{condition}{task.display_names[answer.label]}, {score}")
    return "; ".join(parts) + "."


def _answer_html(answer: Prediction, task: Task) -> str:
    conditional = task is not BINARY
    title = f"If malignant: {task.title}" if conditional else task.title
    caveat = f'<p class="dd-caveat">{escape(task.caveat)}</p>' if task.caveat else ""
    bars = "".join(
        _bar_html(task.display_names[key], share, key == answer.label)
        for key, share in answer.probabilities.items()
    )
    label = f'<p class="dd-label">{escape(task.display_names[answer.label])}</p>'
    details = f"""{_trust_html(answer, task)}
  <p class="dd-bars-title">{score_name(answer)}</p>
  <ul class="dd-bars">{bars}</ul>"""
    if answer.verdict == ABSTAIN:
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in answer.abstain_reasons)
        label = f"""<p class="dd-label">No answer</p>
  <div class="dd-warnings dd-withheld"><strong>Withheld, because</strong><ul>{reasons}</ul></div>"""
        withheld = f'<p class="dd-label">{escape(task.display_names[answer.label])}</p>{details}'
        details = f"<details><summary>Show what the model says all the same</summary>{withheld}</details>"
    return f"""
<section class="dd-answer{" dd-conditional" if conditional else ""}" data-task="{task.key}"
  data-verdict="{answer.verdict}">
  <h3>{escape(title)}</h3>
  {label}
  {caveat}
  {details}
</section>"""


def score_name(answer: Prediction) -> str:
    """What the numbers of an answer may be called."""
    return "Probability" if answer.calibrated else "Model score"


def _meaning_of_scores(answer: Prediction) -> str:
    if answer.calibrated:
        return (
            "The probabilities were calibrated on lesions that the model was not trained on. They hold for "
            f"photos like those, and are of {answer.views} views of the photo."
        )
    return (
        f"The model score is an uncalibrated softmax score averaged over {answer.views} views of the photo, so "
        "90\u00a0% does not mean right nine times in ten."
    )


def _trust_html(answer: Prediction, task: Task) -> str:
    lines = []
    if answer.conformal_set is not None:
        names = ", ".join(task.display_names[key] for key in answer.conformal_set) or "none of them fits"
        lines.append(f"<div><dt>Not ruled out (nine times in ten)</dt><dd>{escape(names)}</dd></div>")
    if answer.stability is not None:
        agreeing = round(answer.stability.agreeing_share * answer.views)
        lines.append(f"<div><dt>Views that agree</dt><dd>{agreeing} of {answer.views}</dd></div>")
    return f'<dl class="dd-trust">{"".join(lines)}</dl>' if lines else ""


def _bar_html(name: str, share: float, is_answer: bool) -> str:
    mark = ' class="dd-first"' if is_answer else ""
    return (
        f'<li{mark}><span class="dd-name">{escape(name)}</span>'
        f'<span class="dd-value">{percent(share)}</span>'
        f'<span class="dd-bar" aria-hidden="true"><span style="width:{share * 100:.1f}%"></span></span></li>'
    )


def _warnings_html(warnings: tuple[str, ...]) -> str:
    lines = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="dd-warnings"><strong>Please note</strong><ul>{lines}</ul></div>' if lines else ""
