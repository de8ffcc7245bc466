"""Where a visitor chooses the task and the photo."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from dermadeit.display_names import capitalised
from dermadeit.tasks import BINARY, DIAGNOSES, TASKS
from dermadeit.views.inputs import PhotoInput
from dermadeit.views.page_scripts import refuse_oversized
from dermadeit.views.uploads import list_examples


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
        self.photo, self.examples = add_photo_choice(
            "photo",
            "The models were trained on real photos, so what they say of a drawing means nothing.",
        )


def add_photo_choice(elem_id: str, about_drawings: str) -> tuple[PhotoInput, list[tuple[Path, gr.Button]]]:
    """Adds a photo input and the examples to the Blocks that is being built.

    Args:
        elem_id: Id of the photo input on the page.
        about_drawings: A sentence on what the models say of the examples.

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
    paths = list_examples()
    if not paths:
        return photo, []
    about = f"Synthetic, drawn by a program. {about_drawings}"
    gr.HTML(f'<h2 class="dd-small">Examples</h2><p class="dd-quiet">{about}</p>')
    with gr.Row(elem_classes="dd-examples", elem_id=f"{elem_id}-examples"):
        return photo, [
            (path, gr.Button(example_title(path, number), icon=path, size="sm", min_width=72))
            for number, path in enumerate(paths, start=1)
        ]


def example_title(path: Path, number: int) -> str:
    """What an example is called, from its file name; its number where the name says nothing."""
    words = path.stem.removeprefix("synthetic_").split("_")
    # Abbreviations of diagnoses stay in capitals.
    spoken = " ".join(
        word.upper() if word.upper() in DIAGNOSES and len(word) == 3 else word for word in words
    )
    return capitalised(spoken) if any(map(str.isalpha, words)) else f"Lesion {number}"
