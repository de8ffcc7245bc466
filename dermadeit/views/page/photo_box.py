"""The photo of a tab: dropped, pasted, taken or chosen, and then shown as it was decoded."""

from __future__ import annotations

from html import escape

import gradio as gr
from gradio.data_classes import FileData

from dermadeit.imaging.decode import MAX_BYTES
from dermadeit.views.page.gradio_patches import UNLISTED_IMAGES, WithoutStub
from dermadeit.views.page.theme import PHOTO_SCRIPT
from dermadeit.views.page.uploads import MAX_UPLOAD_BYTES


class PhotoBox(gr.HTML, metaclass=WithoutStub):
    """A photo input of the page that keeps its photo until another one has been sent.

    Gradio's own image input drops its photo when one of its buttons is pressed, and refuses what the browser
    can't show. This one sends every file, and shows the picture that an event returns: the path of a PNG in the
    cache, or None for no photo. Its events are `upload` and `clear`; they take the file record as it is
    (`preprocess=False`), which `opened_photo` checks.
    """

    def postprocess(self, value: str | None) -> FileData | None:
        """The record of a picture in the cache."""
        return None if value is None else FileData(path=value)


def add_photo_box(label: str, elem_id: str) -> PhotoBox:
    """Adds a photo box to the Blocks that is being built.

    Args:
        label: What is asked for.
        elem_id: Id on the page.
    """
    # Not in a constructor: Gradio makes components anew, with the arguments of its own.
    return PhotoBox(
        label=label,
        html_template=_box_html(label, elem_id),
        js_on_load=PHOTO_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def _box_html(label: str, elem_id: str) -> str:
    """All states of the box; `assets/photo.js` shows the one that it is in."""
    kinds = ",".join(("image/*", *UNLISTED_IMAGES))
    return f"""
<div class="dd-photo" data-takes-files="{elem_id}" data-state="empty" data-largest="{MAX_UPLOAD_BYTES}"
  data-readable="{MAX_BYTES // 1_000_000}">
  <p class="dd-photo-label">{escape(label)}</p>
  <div class="dd-photo-frame">
    <label class="dd-photo-empty">
      <span>Drop a photo here, paste it, or press to choose one.</span>
      <span class="dd-quiet">JPEG, PNG, WebP, TIFF, HEIC or DICOM</span>
      <input type="file" accept="{kinds}" hidden>
    </label>
    <p class="dd-photo-waiting dd-quiet"></p>
    <img alt="The chosen photo">
    <video playsinline muted aria-label="Picture of the camera"></video>
    <button type="button" class="dd-photo-remove" data-do="remove" aria-label="Remove photo">×</button>
  </div>
  <div class="dd-photo-buttons">
    <button type="button" data-do="choose">Choose photo</button>
    <button type="button" data-do="camera">Camera</button>
    <button type="button" data-do="paste">Paste</button>
    <button type="button" data-do="take">Take photo</button>
    <button type="button" data-do="cancel">Cancel</button>
  </div>
  <div id="{elem_id}-note" class="dd-photo-note" role="status" aria-live="polite"></div>
</div>"""
