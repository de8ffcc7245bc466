"""The confusion matrix as buttons, and the pictures behind its cells. Everything from outside is escaped here."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from uuid import uuid4

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from dermadeit.evaluation.batch import BatchItem
from dermadeit.evaluation.slices import diagnosis_name
from dermadeit.inference.records import Prediction
from dermadeit.reporting.drawing import readable_on
from dermadeit.reporting.format import counted, percent
from dermadeit.tasks import Task, get_task
from dermadeit.trust.gating import gate_status
from dermadeit.views.batch.tables import figure_name, plain_figure
from dermadeit.views.page.html import score_name

Picture = tuple[BatchItem, Prediction, str]
"""Image, what the model said, and the key of what is answered at the chosen threshold."""

PAGE_SIZE = 24
"""Pictures that are shown at once."""

PICKING = """
let picked = null;
element.addEventListener('click', event => {
  const button = event.target.closest('[data-pick]');
  if (!button) return;
  picked = button.dataset.pick;
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


def matrix_html(task: Task, counts: np.ndarray, picked: tuple[int, int] | None) -> str:
    """A confusion matrix of counts and shares of the true class; each cell with images is a button.

    Args:
        task: Names the classes.
        counts: int [K, K], a row for each true class.
        picked: The cell whose images are shown.
    """
    names = [task.display_names[key] for key in task.classes]
    totals = counts.sum(axis=1)
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = ""
    for row, name in enumerate(names):
        cells = "".join(
            _cell_html(
                (row, column), names, int(counts[row, column]), int(totals[row]), picked == (row, column)
            )
            for column in range(len(names))
        )
        rows += f'<tr><th scope="row">{escape(name)}<span>n = {totals[row]:,}</span></th>{cells}</tr>'
    return f"""
<div class="dd-scroll dd-matrix-frame" role="region" tabindex="0" aria-label="Confusion matrix">
<table class="dd-matrix">
  <caption>Rows: truth. Columns: answer. Click a cell to see its images.</caption>
  <thead><tr><th scope="col"><span>Truth ↓ Answer →</span></th>{columns}</tr></thead>
  <tbody>{rows}</tbody>
</table>
</div>"""


def point_figures_html(task: Task, target: int, figures: Mapping[str, float | None]) -> str:
    """Point figures at the chosen threshold."""
    name = task.display_names[task.classes[target]]
    rows = "".join(
        f"<div><dt>{escape(figure_name(key))}</dt><dd>{plain_figure(figures[key])}</dd></div>"
        for key in _SHOWN_FIGURES
    )
    return f"""
<dl class="dd-point-figures">{rows}</dl>
<p class="dd-quiet">The first four figures are about the class “{escape(name)}”. The table above has intervals, for
the most probable class.</p>"""


def gallery_html(title: str, pictures: Sequence[Picture], page: int, *, is_of_cell: bool = False) -> str:
    """One page of images with truth, answer and score.

    Args:
        title: What they have in common.
        pictures: All of them.
        page: Which page, from 0.
        is_of_cell: Whether they are those of one cell, so that there is a way back to all mistakes.
    """
    back = '<button type="button" data-pick="mistakes">Show the worst mistakes</button>' if is_of_cell else ""
    heading = f'<div class="dd-gallery-head"><h3>{escape(title)}</h3>{back}</div>'
    if not pictures:
        return f'{heading}<p class="dd-quiet">No images at this threshold.</p>'
    last = (len(pictures) - 1) // PAGE_SIZE
    page = min(max(page, 0), last)
    shown = pictures[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
    items = "".join(
        _picture_html(picture, place) for place, picture in enumerate(shown, start=page * PAGE_SIZE)
    )
    if not last:
        return f'{heading}<ul class="dd-gallery">{items}</ul>'
    first = page * PAGE_SIZE + 1
    turning = (
        f'<div class="dd-pages">{_turn_html("Previous", page - 1, page > 0)}'
        f"<span>{first:,} to {first + len(shown) - 1:,} of {len(pictures):,}</span>"
        f"{_turn_html('Next', page + 1, page < last)}</div>"
    )
    return f'{heading}<ul class="dd-gallery">{items}</ul>{turning}'


def _cell_html(cell: tuple[int, int], names: Sequence[str], count: int, total: int, is_picked: bool) -> str:
    share = count / total if total else 0.0
    colour = colormaps["cividis"](share)
    style = f"background:{to_hex(colour)};color:{readable_on(colour)}"
    row, column = cell
    shown = f"<b>{count:,}</b><span>{percent(share) if total else '–'}</span>"
    said = f"truth {names[row]}, answer {names[column]}: {counted(count, 'image')}, {share:.1%} of the true class"
    if not count:
        return f'<td><div class="dd-cell" style="{style}">{shown}</div></td>'
    return (
        f'<td><button type="button" class="dd-cell" style="{style}" data-pick="{row},{column}" '
        f'aria-pressed="{"true" if is_picked else "false"}" aria-label="{escape(said)}">{shown}</button></td>'
    )


def viewer_html(pictures: Sequence[Picture], place: int) -> str:
    """One image large, for `assets/viewer.js`, with all that its small picture says and buttons for the others.

    Args:
        pictures: All that it can be left for.
        place: Which one, from 0.
    """
    item, record, decided = pictures[place]
    lines, said = _words(item, record, decided)
    # Never the same text twice, so that the page notices when the same picture is opened again.
    return f"""
<div class="dd-viewed" data-key="{uuid4().hex}" hidden>
  <figure>
    {_thumbnail_html(item.picture or item.thumbnail, said)}
    <figcaption class="dd-words">{lines}<span>{escape(item.image.file)}</span></figcaption>
  </figure>
  <div class="dd-pages">
    {_step_html("Previous", place - 1, place > 0)}
    <span>{place + 1:,} of {len(pictures):,}</span>
    {_step_html("Next", place + 1, place + 1 < len(pictures))}
    <button type="button" data-close>Close</button>
  </div>
</div>"""


def _picture_html(picture: Picture, place: int) -> str:
    item, record, decided = picture
    lines, said = _words(item, record, decided)
    image, file = _thumbnail_html(item.thumbnail, said), escape(item.image.file)
    if item.thumbnail:
        label = escape(f"Open large: {said}")
        image = f'<button type="button" data-pick="open {place}" aria-label="{label}">{image}</button>'
    return f"""<li class="dd-picture">
  {image}
  <div class="dd-words">{lines}<span class="dd-file" title="{file}">{file.rsplit("/", 1)[-1]}</span></div>
</li>"""


def _words(item: BatchItem, record: Prediction, decided: str) -> tuple[str, str]:
    """Lines of HTML about an image, and the same without the probability for those who can't see it."""
    image, names = item.image, _names(record)
    words = f"answer {names[decided]}"
    if image.label:
        words += f", truth {names[image.label]}{_finer(item, names[image.label])}"
    lines, said = f"<b>{escape(words)}</b>", f"{image.file}: {words}"
    if status := gate_status(record):
        lines += f'<span class="dd-held">{escape(status)}</span>'
        said += f", {status}"
    score = f"{score_name(record)} {percent(record.probabilities[decided])}"
    return f"{lines}<span>{escape(score)}</span>", said


def _finer(item: BatchItem, label: str) -> str:
    """The diagnosis in brackets, where it says more than the true class."""
    name = diagnosis_name(item.image.metadata.get("diagnosis", ""))
    return f" ({name})" if name and name.casefold() != label.casefold() else ""


def _thumbnail_html(path: Path | None, said: str) -> str:
    try:
        data = path.read_bytes() if path else b""
    except FileNotFoundError:
        data = b""
    if not data:
        return (
            f'<div class="dd-no-picture" role="img" aria-label="{escape(said)}, no picture">no picture</div>'
        )
    # Inside the page, so that no address of it exists that could be asked for.
    encoded = b64encode(data).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{encoded}" alt="{escape(said)}">'


def _names(record: Prediction) -> Mapping[str, str]:
    return get_task(record.task).display_names


def _turn_html(name: str, page: int, possible: bool) -> str:
    disabled = "" if possible else " disabled"
    return f'<button type="button" data-pick="page {page}"{disabled}>{name}</button>'


def _step_html(name: str, place: int, possible: bool) -> str:
    disabled = "" if possible else " disabled"
    return (
        f'<button type="button" data-step="{name.lower()}" data-pick="open {place}"{disabled}>{name}</button>'
    )
