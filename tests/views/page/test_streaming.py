"""What an event sends to the page while it runs. Without a browser."""

import copy

import gradio as gr
import pytest

from dermadeit.views.page.gradio_patches import StreamedBlocks

UPDATES = (
    ["Reading", {"__type__": "update"}],
    ["Done", {"__type__": "update", "interactive": True}],
    ["Done", {"__type__": "update"}],
)


@pytest.fixture
def event():
    """An app and its only event, which has two outputs."""
    with StreamedBlocks(analytics_enabled=False) as app:
        button, text = gr.Button(), gr.HTML()
        button.click(lambda: None, None, [text, button])
    [function] = app.fns.values()
    return app, function


def test_what_was_sent_is_replaced_and_never_worked_on(event):
    app, function = event
    first, *later = (
        app.handle_streaming_diffs(function, copy.deepcopy(update), "session", "run", final=False)
        for update in UPDATES
    )
    assert first == UPDATES[0]
    assert later == [
        [[["replace", [], "Done"]], [["replace", [], UPDATES[1][1]]]],
        [[], [["replace", [], UPDATES[2][1]]]],
    ]
    last = app.handle_streaming_diffs(function, [None, None], "session", "run", final=True)
    assert last == UPDATES[-1]


def test_clients_that_ask_for_whole_values_get_them(event):
    app, function = event
    for update in UPDATES:
        sent = app.handle_streaming_diffs(
            function, copy.deepcopy(update), "session", "run", final=False, simple_format=True
        )
        assert sent == update
