"""What every screen and every export says about the program itself."""

from collections.abc import Mapping

VERSION = "0.2.0"

APP: Mapping[str, str] = {"name": "DermaDeiT", "version": VERSION}
"""What wrote an export."""

DISCLAIMER = (
    "Research and teaching demo. Not a medical device. Do not use it to make decisions about patients."
)
