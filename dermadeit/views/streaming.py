"""What a running event sends to the page, in a form that survives when several updates arrive at once."""

from __future__ import annotations

import gradio as gr
from gradio.blocks import BlockFunction


class StreamedBlocks(gr.Blocks):
    """An app whose events replace what they sent before as a whole.

    Gradio sends the differences to the last update, and its page works them into the objects of that update, which
    it may not have shown yet on a busy machine: these are then shown as what they have become, and a button that
    should have been enabled is forgotten. A difference that replaces the whole leaves them alone.
    """

    def handle_streaming_diffs(
        self,
        block_fn: BlockFunction,
        data: list,
        session_hash: str | None,
        run: str | None,
        final: bool,
        simple_format: bool = False,
    ) -> list:
        """Gradio's, with each new value as one difference at the root."""
        is_later = (
            session_hash is not None and run is not None and run in self.pending_diff_streams[session_hash]
        )
        sent = super().handle_streaming_diffs(block_fn, data, session_hash, run, final, simple_format)
        if final or simple_format or not is_later:
            return sent
        values = self.pending_diff_streams[session_hash][run]
        return [[["replace", [], value]] if edits else [] for edits, value in zip(sent, values, strict=True)]
