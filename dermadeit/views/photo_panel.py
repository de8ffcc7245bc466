"""Where a visitor chooses the task and the photo."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gradio as gr

from dermadeit.tasks import BINARY, TASKS
from dermadeit.views.events import INSTANT_EVENT
from dermadeit.views.examples import read_examples
from dermadeit.views.inputs import PhotoInput
from dermadeit.views.page_scripts import ANNOUNCE, refuse_oversized

_INTRODUCTION = """
<h2 class="dd-small">Examples</h2>
<p class="dd-quiet">Real photos with a known diagnosis. The models were not trained on them. ISIC 2016 challenge,
CC0; Gutman et al. 2016, arXiv:1605.01397.</p>"""


class PhotoPanel:
    """Layout of task, photo and examples.

    Attributes:
        task: The task selector; its value is a task key.
        photo: The photo input.
        examples: Path of each shipped example and the button that chooses it.
    """

    def render(self) -> None:
        """Adds the panel to the Blocks that is being built."""
        self.task = gr.Radio(
            [(task.title, task.key) for task in TASKS.values()],
            value=BINARY.key,
            label="Task",
            info="The second task only means something for a lesion that is malignant.",
            elem_id="task",
        )
        self.photo, self.examples = add_photo_choice("photo")


def add_photo_choice(elem_id: str) -> tuple[PhotoInput, list[tuple[Path, gr.Button]]]:
    """Adds a photo input and the examples to the Blocks that is being built.

    Args:
        elem_id: Id of the photo input on the page.

    Returns:
        The input; and path of each shipped example and the button that chooses it.
    """
    photo = PhotoInput(
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        label="Photo of one lesion, up to 20 MB",
        height=340,
        buttons=[],
        # Gradio gives the button this name; the text that is seen has to be the text that is heard.
        placeholder="Drop an image file here to upload",
        alt_text="The chosen photo",
        elem_id=elem_id,
    )
    gr.HTML("", elem_id=f"{elem_id}-note", js_on_load=refuse_oversized(elem_id))
    return photo, _add_examples(elem_id, photo)


def _add_examples(elem_id: str, photo: PhotoInput) -> list[tuple[Path, gr.Button]]:
    """Adds the examples, and below the photo what is known of the one that was chosen last."""
    examples = read_examples()
    if not examples:
        return []
    caption = gr.HTML("", elem_id=f"{elem_id}-known", js_on_load=ANNOUNCE)
    gr.HTML(_INTRODUCTION)
    with gr.Row(elem_classes="dd-examples", elem_id=f"{elem_id}-examples"):
        buttons = [
            gr.Button(example.title, icon=example.path, size="sm", min_width=72) for example in examples
        ]
    for example, button in zip(examples, buttons, strict=True):
        button.click(partial(_say, example.caption_html()), None, [caption], **INSTANT_EVENT)
    for gone in (photo.upload, photo.clear):
        gone(partial(_say, ""), None, [caption], **INSTANT_EVENT)
    return [(example.path, button) for example, button in zip(examples, buttons, strict=True)]


def _say(words: str) -> str:
    return words
