"""The photo of a tab: dropped, pasted, taken or chosen, and then shown as it was decoded."""

from __future__ import annotations

import gradio as gr
from gradio.data_classes import FileData

from dermadeit.imaging.decode import MAX_BYTES
from dermadeit.reporting.templates import render
from dermadeit.views.page.gradio_patches import UNLISTED_IMAGES, WithoutStub
from dermadeit.views.page.theme import PHOTO_SCRIPT
from dermadeit.views.page.uploads import MAX_UPLOAD_BYTES

_LABEL = "Photo of one lesion, up to 20 MB"


class PhotoBox(gr.HTML, metaclass=WithoutStub):
    """A photo input of the page that keeps its photo until another one has been sent.

    Gradio's own image input drops its photo when one of its buttons is pressed, and refuses what the browser
    can't show. This one sends every file, and shows the picture that an event returns: the path of a PNG in the
    cache, or None for no photo. Its events are `upload` and `clear`; they take the file record as it is
    (`preprocess=False`), which `open_photo` checks.
    """

    def postprocess(self, value: str | None) -> FileData | None:
        """The record of a picture in the cache."""
        return None if value is None else FileData(path=value)


def add_photo_box(elem_id: str) -> PhotoBox:
    """Adds a photo box to the Blocks that is being built, under an id on the page."""
    # Not in a constructor: Gradio makes components anew, with the arguments of its own.
    return PhotoBox(
        label=_LABEL,
        html_template=_box_html(elem_id),
        js_on_load=PHOTO_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def _box_html(elem_id: str) -> str:
    return render(
        "views/page/photo_box.html",
        label=_LABEL,
        elem_id=elem_id,
        kinds=("image/*", *UNLISTED_IMAGES),
        largest=MAX_UPLOAD_BYTES,
        readable_megabytes=MAX_BYTES // 1_000_000,
    )
