"""The app does not start on a Gradio that lacks what it overrides."""

import gradio as gr
import pytest

from dermadeit.views.application import build_app


@pytest.mark.slow
def test_a_gradio_without_what_is_overridden_is_named_before_the_app_is_built(
    monkeypatch, predictors, zoo
) -> None:
    monkeypatch.setattr(gr.Blocks, "handle_streaming_diffs", lambda self, data: data)
    with pytest.raises(AssertionError, match="handle_streaming_diffs"):
        build_app(predictors, zoo)
