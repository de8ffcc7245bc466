"""What every screen and every export says about the program itself."""

VERSION = "0.2.0"

DISCLAIMER = (
    "Research and teaching demo. Not a medical device. Do not use it to make decisions about patients."
)
