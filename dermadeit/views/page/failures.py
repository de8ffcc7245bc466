"""What went wrong, in words that may be shown; defects are logged under an id that is shown instead."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import gradio as gr

from dermadeit.errors import DermaDeiTError, ErrorCode

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A failure made presentable.

    Attributes:
        code: Stable machine-readable reason.
        message: The reason and its remedy, for people; not escaped for HTML.
    """

    code: str
    message: str


def presentable(error: Exception) -> Failure:
    """The failure to show for an exception; a defect is logged here under the id that its message names."""
    if isinstance(error, DermaDeiTError):
        return Failure(error.code, error.user_message)
    incident = uuid4().hex[:8]
    # The text of a system error may quote the name of somebody's file, so only type and place are logged.
    place = "".join(traceback.format_tb(error.__traceback__))
    logger.error("incident %s: %s\n%s", incident, type(error).__name__, place)
    return Failure(ErrorCode.DEFECT, f"An internal error occurred (id {incident}). Please try again.")


@contextmanager
def refuse_failures() -> Iterator[None]:
    """Makes any failure in its block an error of Gradio, whose message a program is given.

    Raises:
        gr.Error: Something failed in the block.
    """
    try:
        yield
    except Exception as error:
        # Of Gradio's own errors a traceback would be printed otherwise.
        raise gr.Error(presentable(error).message, print_exception=False) from None
