"""What the tabs that read many images ask for: the files or a folder, the models, the views."""

from __future__ import annotations

from html import escape

import gradio as gr

from dermadeit.data.archives import MAX_INFLATED_BYTES
from dermadeit.data.collection import MAX_IMAGES
from dermadeit.inference.predictor import DEFAULT_VIEWS
from dermadeit.inference.zoo import ModelZoo
from dermadeit.views.inputs import FilesInput
from dermadeit.views.theme import FOLDER_SCRIPT
from dermadeit.views.uploads import FOLDER_MARK, MAX_UPLOAD_BYTES

_OTHER_KINDS = (".csv", ".tsv", ".dcm", ".heic", ".heif")
"""Suffixes that are taken besides those that browsers know to be images."""


def add_files_choice(elem_id: str, start: str, folder: str, height: int) -> FilesInput:
    """Adds the box and the button to the Blocks that is being built.

    Args:
        elem_id: Id of the box on the page.
        start: Id of the button that starts the reading.
        folder: Id of the part with the button that chooses a folder.
        height: Of the box, in pixels.
    """
    files = FilesInput(
        file_count="multiple",
        file_types=["image", ".zip", *_OTHER_KINDS],
        label="Images, a ZIP or a CSV, up to 100 MB each",
        height=height,
        elem_id=elem_id,
    )
    script = FOLDER_SCRIPT.read_text(encoding="utf-8")
    gr.HTML(_folder_html(elem_id, start), elem_id=folder, js_on_load=script)
    return files


def add_views_choice(elem_id: str) -> gr.Radio:
    """Adds the choice of how many views of each image are read."""
    return gr.Radio(
        [("8 views: turned and mirrored, averaged", DEFAULT_VIEWS), ("1 view: eight times as fast", 1)],
        value=DEFAULT_VIEWS,
        label="Views of each photo",
        elem_id=elem_id,
    )


def available_models(zoo: ModelZoo, task_key: str) -> list[tuple[str, str]]:
    """Titles and names of the models that can read images here, as choices."""
    return [(entry.title, entry.name) for entry in zoo.entries(task_key) if entry.available]


def _folder_html(box: str, start: str) -> str:
    """The button, and the line below it, which `assets/folder.js` fills when a folder was chosen."""
    data = {
        "box": box,
        "start": start,
        "mark": FOLDER_MARK,
        "most": MAX_IMAGES,
        "bytes": MAX_INFLATED_BYTES,
        "largest": MAX_UPLOAD_BYTES,
        "kinds": " ".join(_OTHER_KINDS),
    }
    given = " ".join(f'data-{name}="{escape(str(value))}"' for name, value in data.items())
    return f"""
<div class="dd-folder" {given}>
  <button type="button">Choose a folder</button>
  <input type="file" webkitdirectory multiple hidden aria-label="Folder">
  <p class="dd-quiet" role="status">Or drop it on the box above. Up to {MAX_IMAGES:,} images and
  {MAX_INFLATED_BYTES // 1_000_000_000} GB; hidden files stay where they are.</p>
</div>"""
