"""What every screen and every export says about the program itself."""

VERSION = "0.1.0"

DISCLAIMER = (
    "Research and teaching demo. Not a medical device. Do not use it to make decisions about patients."
)
