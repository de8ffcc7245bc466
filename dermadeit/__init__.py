"""DermaDeiT: read a skin lesion photo with a small distilled vision transformer.

>>> from dermadeit import load_predictor
>>> predictor = load_predictor("binary", model="dermadeit")
>>> [result] = predictor.predict(["lesion.jpg"])

Research and teaching demo. Not a medical device.
"""

from typing import TYPE_CHECKING, Any

from dermadeit.about import VERSION

if TYPE_CHECKING:
    from dermadeit.inference.predictor import load_predictor

__version__ = VERSION
__all__ = ["__version__", "load_predictor"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `dermadeit.tasks` or `dermadeit.imaging.decode` don't need it.
    if name == "load_predictor":
        from dermadeit.inference.predictor import load_predictor

        return load_predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
