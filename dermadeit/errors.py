"""Exceptions that a user can act on.

Everything a user can get wrong raises a `DermaDeiTError`. Its `code` is stable and made for programs, its
`user_message` is one or two sentences made for people: what is wrong, and what to do about it. Views, CLI and
API show `user_message`; any other exception is a defect and is logged instead of shown.
"""


class DermaDeiTError(Exception):
    """A mistake that its user can mend.

    Args:
        user_message: What is wrong and the remedy, in plain sentences, without file paths or tracebacks.
        code: Stable machine-readable name of the mistake, in snake_case.
    """

    default_code = "error"

    def __init__(self, user_message: str, *, code: str | None = None) -> None:
        super().__init__(user_message)
        self.user_message = user_message
        self.code = code or self.default_code


class ImageError(DermaDeiTError):
    """An image that can't be read, or that we refuse to read.

    Attributes:
        sha256: Hex digest of the file, set by the decoder where it could read the bytes.
    """

    default_code = "image_refused"
    sha256: str | None = None


class TaskError(DermaDeiTError):
    """An unknown task, class or diagnosis."""

    default_code = "unknown_task"


class ModelError(DermaDeiTError):
    """An unknown model, or one whose weights can't be had."""

    default_code = "unknown_model"


class CheckpointError(DermaDeiTError):
    """A checkpoint that is missing, damaged, or made for something else."""

    default_code = "checkpoint_refused"


class ManifestError(DermaDeiTError):
    """A table or folder of images that contradicts itself or the task."""

    default_code = "manifest_refused"


class ConfigurationError(DermaDeiTError):
    """Settings that can't work, or that can't work together."""

    default_code = "configuration_refused"


class TrainingError(DermaDeiTError):
    """A training that can't go on."""

    default_code = "training_stopped"


class PredictionError(DermaDeiTError):
    """A model output that must not be shown as an answer."""

    default_code = "prediction_failed"
