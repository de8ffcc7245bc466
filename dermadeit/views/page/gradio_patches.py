"""What the app changes in Gradio, and the only file that uses names which Gradio may change without notice.

Inputs never make it fetch a web address, and updates of an event replace what was sent before as a whole.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import gradio.mcp
from gradio.blocks import BlockFunction
from gradio.component_meta import ComponentMeta
from gradio.data_classes import ImageData
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse
from pydantic import model_validator

from dermadeit.views.page.failures import presentable

WRITTEN_FOR = "6.31"
"""The version of Gradio whose names these are. With another one, read its source at these names again."""

_OVERRIDDEN: Mapping[str, tuple[type, tuple[str, ...]]] = {
    "async_move_resource_to_block_cache": (gr.Image, ("self", "url_or_file_path")),
    "validate_inputs": (gr.Blocks, ("self", "block_fn", "inputs")),
    "call_function": (
        gr.Blocks,
        (
            "self",
            "block_fn",
            "processed_input",
            "iterator",
            "requests",
            "event_id",
            "event_data",
            "in_event_listener",
            "state",
            "oauth_token",
        ),
    ),
    "handle_streaming_diffs": (
        gr.Blocks,
        ("self", "block_fn", "data", "session_hash", "run", "final", "simple_format"),
    ),
}
"""Methods of Gradio that are overridden here: their class and their parameters."""

NOT_AN_UPLOAD = (
    "Only uploaded images are read, not a web address, data URL or path on the server. Upload the image file."
)

UNLISTED_IMAGES = (".dcm", ".dicom", ".heic", ".heif", ".tif", ".tiff")
"""Suffixes of images that not every browser knows to be images."""


def check_gradio() -> None:
    """Stops before the app is built where Gradio no longer has what is overridden here: it would go unnoticed.

    Raises:
        AssertionError: A method is gone, or takes other parameters.
    """
    for name, (owner, parameters) in _OVERRIDDEN.items():
        found = tuple(inspect.signature(getattr(owner, name, lambda: None)).parameters)
        assert found == parameters, (
            f"{owner.__name__}.{name} of Gradio {gr.__version__} takes {found}, not {parameters} as that of "
            f"{WRITTEN_FOR} did. Adapt {__name__}."
        )


def keep_mcp_photos_in(folder: str) -> None:
    """Lets photos that MCP clients send as base64 lie in a folder of ours, from which they are deleted.

    Gradio decides on theirs when it is imported, and would keep them for good.
    """
    assert hasattr(gradio.mcp, "DEFAULT_TEMP_DIR"), f"Gradio {gr.__version__} names it otherwise."
    gradio.mcp.DEFAULT_TEMP_DIR = folder


class WithoutStub(ComponentMeta):
    """Makes a component class without the stub file that Gradio would write beside the source."""

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> type:
        """The class, made as one without a stub is."""
        return ABCMeta.__new__(cls, name, bases, attrs)


class _PhotoRecord(ImageData):
    @model_validator(mode="before")
    @classmethod
    def only_records(cls, value: Any) -> Any:
        """Answers a bare string with our sentence: that of pydantic names types."""
        if isinstance(value, Mapping):
            return value
        raise gr.Error(NOT_AN_UPLOAD, title="Not an upload", print_exception=False)


class PhotoInput(gr.Image, metaclass=WithoutStub):
    """An image input that never fetches a web address. Gradio's own would, before any handler runs."""

    is_template = True
    data_model = _PhotoRecord

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Refuses web addresses and leaves files to Gradio, which takes only those in its upload folder."""
        _refuse_web_address(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)


class FilesInput(gr.File, metaclass=WithoutStub):
    """An input of several files that never fetches a web address either."""

    is_template = True

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Refuses web addresses and leaves files to Gradio, which takes only those in its upload folder."""
        _refuse_web_address(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)


class JsonInput(gr.JSON, metaclass=WithoutStub):
    """An input for programs that says what it takes. Gradio's own says so in a way that MCP clients refuse.

    Args:
        schema: JSON Schema of what it takes.
        value: What stands for nothing given.
        label: For people.
    """

    is_template = True

    def __init__(self, schema: Mapping[str, Any], value: Any = None, *, label: str) -> None:
        self._schema = dict(schema)
        super().__init__(value, label=label)

    def api_info(self) -> dict[str, Any]:
        """The schema."""
        return dict(self._schema)


def _refuse_web_address(path: str | Path | None) -> None:
    if path is not None and is_http_url_like(str(path)):
        raise gr.Error(NOT_AN_UPLOAD, title="Not an upload", print_exception=False)


class ClosedBlocks(gr.Blocks):
    """An app that fetches no web address for anybody, and shows no text of an exception that is not ours.

    That holds for every event, and for whatever it is given.
    """

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """Refuses file records with a web address, which Gradio would fetch for texts and JSON too.

        Of an endpoint the last inputs may be left out; they then have their defaults. So whoever calls it by
        plain HTTP need not change when it takes more than before.
        """
        if block_fn.api_visibility == "public":
            inputs.extend(getattr(component, "value", None) for component in block_fn.inputs[len(inputs) :])
        super().validate_inputs(block_fn, inputs)
        traverse(inputs, _refuse_record, is_file_obj_with_meta)

    async def call_function(self, *arguments: Any, **named: Any) -> Any:
        """Lets nothing out of a handler but what may be shown.

        A program may call the handlers of the page with whatever it likes, and Gradio would show it the text of
        the exception that this leads to.
        """
        try:
            return await super().call_function(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            raise gr.Error(presentable(error).message, print_exception=False) from None


def _refuse_record(record: Mapping[str, Any]) -> Mapping[str, Any]:
    _refuse_web_address(record["path"])
    return record


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
