"""What the training programs share: how a user's mistake ends one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps

from dermadeit.errors import DermaDeiTError

EXIT_USAGE = 2

Main = Callable[[Sequence[str] | None], int]


def explaining_mistakes(main: Main) -> Main:
    """Makes a program end with a sentence and exit code 2 where its user has made a mistake.

    Args:
        main: Takes the arguments, None for those of the command line, and returns the exit code.
    """

    @wraps(main)
    def program(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except DermaDeiTError as error:
            logging.getLogger(main.__module__).error("%s", error.user_message)
            return EXIT_USAGE

    return program
