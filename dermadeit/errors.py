"""Exceptions that a user can act on.

Everything a user can get wrong raises a `DermaDeiTError`. Its `code` is stable and made for programs, its
`user_message` is one or two sentences made for people: what is wrong, and what to do about it. Views, CLI and
API show `user_message`; any other exception is a defect and is logged instead of shown.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable machine-readable names of mistakes. docs/errors.md lists them, written from here.

    Attributes:
        meaning: What went wrong, as a sentence.
    """

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "ErrorCode":
        """A member from its value and its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    AMBIGUOUS_CLASS = (
        "ambiguous_class",
        "The name of a class stands for several diagnoses, and the task tells them apart.",
    )
    ARCHIVE_TOO_LARGE = "archive_too_large", "The archive would unpack to more bytes than are read here."
    CACHE_MISMATCH = "cache_mismatch", "The cached embeddings belong to another teacher or other images."
    CANCELLED = "cancelled", "A visitor cancelled before anything was read."
    CHECKPOINT_REFUSED = "checkpoint_refused", "The checkpoint can't be used."
    CONFIGURATION_REFUSED = "configuration_refused", "Settings can't work, or can't work together."
    CUT_OFF = "cut_off", "The work was cut off before it ended."
    DAMAGED_ARCHIVE = "damaged_archive", "The archive can't be opened, or contradicts itself."
    DAMAGED_CHECKPOINT = "damaged_checkpoint", "A file of the checkpoint is missing or damaged."
    DAMAGED_GROUND_TRUTH = "damaged_ground_truth", "The table of true diagnoses contradicts itself."
    DAMAGED_IMAGE = "damaged_image", "The kind of the file is known, but its content contradicts it."
    DAMAGED_IN_ARCHIVE = "damaged_in_archive", "An image within an archive is damaged."
    DAMAGED_MEMBER = "damaged_member", "A file of the archive can't be unpacked."
    DAMAGED_RESULT = "damaged_result", "A result file can't be read."
    DEFECT = "defect", "A fault of the program; its id is in the log."
    DISK_FULL = "disk_full", "The disk is full."
    DOWNLOAD_CUT_OFF = "download_cut_off", "The download was cut off."
    DOWNLOAD_FAILED = "download_failed", "A file can't be downloaded."
    DOWNLOAD_REFUSED = "download_refused", "The server refuses the download."
    DUPLICATE_COLUMN = "duplicate_column", "Two columns of the table have the same name."
    DUPLICATE_IMAGE = "duplicate_image", "The table names an image more than once."
    DUPLICATE_PREDICTIONS = (
        "duplicate_predictions",
        "There are two sets of predictions of one model with as many views.",
    )
    EMPTY_BENCHMARK = "empty_benchmark", "The benchmark holds no model for this task."
    EMPTY_FILE = "empty_file", "The file has no bytes."
    EMPTY_TABLE = "empty_table", "The table has no rows, or no predictions."
    ERROR = "error", "A mistake without a name of its own."
    EXPORT_DIFFERS = "export_differs", "An exported network does not answer as the library does."
    FLOAT_PIXELS = (
        "float_pixels",
        "The pixels are floating-point numbers, whose range the file does not declare.",
    )
    FOREIGN_MANIFEST = "foreign_manifest", "The folder holds a manifest that preparing did not write."
    HUB_REFUSED = "hub_refused", "The Hugging Face Hub does not take an upload."
    IMAGE_REFUSED = "image_refused", "The photo can't be read."
    INCOMPLETE_FOLDS = "incomplete_folds", "A fold of a cross-fitted teacher is missing."
    LESION_LEAK = "lesion_leak", "Images of one lesion are in two splits."
    MANIFEST_REFUSED = "manifest_refused", "A table or folder of images contradicts itself or the task."
    METHOD_DOES_NOT_FIT = "method_does_not_fit", "The heatmap's method does not fit this kind of network."
    MISSING_ARCHIVE = "missing_archive", "An archive of the data is missing."
    MISSING_CLASS = "missing_class", "A class has no image."
    MISSING_COLUMN = "missing_column", "The table lacks a column that is needed."
    MISSING_HEADER = "missing_header", "The first line of the table holds no column names."
    MISSING_PACKAGE = (
        "missing_package",
        "A package that reads this kind of file, or that this model needs, is not installed.",
    )
    NESTED_ARCHIVE = "nested_archive", "An archive lies within the archive."
    NO_CHECKPOINT = "no_checkpoint", "There is no checkpoint of this model."
    NO_DATA = "no_data", "There is no data to train on."
    NO_FILES = "no_files", "No file was uploaded."
    NO_FOLDER = "no_folder", "There is no such folder."
    NO_IMAGES = "no_images", "No image is left that can be used."
    NO_METADATA = "no_metadata", "The folder lacks the table with its metadata."
    NO_MODEL = "no_model", "No model was chosen."
    NO_PREDICTIONS = "no_predictions", "No table holds predictions for this task."
    NO_SUCH_FRAME = "no_such_frame", "The file has no picture of this number."
    NO_TEACHER = "no_teacher", "No teacher can be had."
    NON_FINITE_EMBEDDING = "non_finite_embedding", "The teacher gave numbers that are not finite."
    NON_FINITE_LOSS = "non_finite_loss", "The loss is not a finite number."
    NON_FINITE_OUTPUT = "non_finite_output", "The model gave numbers that are not finite."
    NOT_A_FILE = "not_a_file", "A web address, a folder, a pipe or a device was given in place of a file."
    NOT_A_NUMBER = "not_a_number", "A cell holds no usable number."
    NOT_A_PROBABILITY = "not_a_probability", "Cells that must be probabilities don't add up to 1."
    NOT_AN_IMAGE = "not_an_image", "The file is something else: a document, a video, an archive, text."
    NOT_AN_UPLOAD = "not_an_upload", "What was given is not a file that was uploaded to the app."
    NOT_ASKED = "not_asked", "This model was not asked."
    NOT_TEST = "not_test", "The predictions are not of the test split."
    NOT_WRITABLE = "not_writable", "A file or folder can't be written."
    NOTHING_READ = "nothing_read", "None of the images could be read."
    NUMBER_OF_TABLES = "number_of_tables", "Too many tables of predictions, or none."
    OTHER_TRAINING = "other_training", "The folder holds another training."
    PICKLE_REFUSED = "pickle_refused", "The checkpoint is a pickle, which can run code when it is opened."
    PREDICTION_FAILED = "prediction_failed", "The model gave no answer that may be shown."
    PREDICTIONS_DIFFER = (
        "predictions_differ",
        "Sets of predictions can't be compared: other images, labels or tasks.",
    )
    PREDICTIONS_WITH_IMAGES = (
        "predictions_with_images",
        "A table of predictions was given together with images.",
    )
    QUEUE_FULL = "queue_full", "Too many visitors are waiting."
    RAGGED_TABLE = "ragged_table", "Rows of the table have different numbers of cells."
    RESULT_REFUSED = "result_refused", "The result file can't be used."
    SEVERAL_TABLES = "several_tables", "More than one table of labels was given."
    SINGLE_CLASS = "single_class", "Only one class is left of the images, so that figures would mean nothing."
    SOURCE_MISSING = "source_missing", "There is no such file or folder."
    TABLE_TOO_LARGE = "table_too_large", "The table has more rows or bytes than are read here."
    TEACHER_OF_ANOTHER_TASK = "teacher_of_another_task", "The teacher answers another task."
    TEACHER_REFUSED = "teacher_refused", "The Hub refuses the teacher: its terms must be accepted first."
    TEACHER_UNREACHABLE = "teacher_unreachable", "The teacher can't be fetched."
    TEACHER_UNREADABLE = "teacher_unreadable", "The files of the teacher can't be read."
    TOO_ELONGATED = "too_elongated", "The photo is much longer than wide."
    TOO_FEW_IMAGES = "too_few_images", "There are too few images for this."
    TOO_FEW_LESIONS = "too_few_lesions", "There are too few lesions for this."
    TOO_MANY_BYTES = "too_many_bytes", "The file is larger than is read here."
    TOO_MANY_IMAGES = "too_many_images", "There are more images than are read at once."
    TOO_MANY_MEMBERS = "too_many_members", "The archive holds more files than are read here."
    TOO_MANY_PIXELS = "too_many_pixels", "The photo has more pixels than are read here."
    TOO_SMALL = "too_small", "The short side of the photo has too few pixels."
    TRAINING_STOPPED = "training_stopped", "The training can't go on."
    TRUNCATED_IMAGE = "truncated_image", "The file stops before its end."
    UNKNOWN_CLASS = "unknown_class", "The task has no such class."
    UNKNOWN_MODEL = "unknown_model", "There is no such model."
    UNKNOWN_TASK = "unknown_task", "There is no such task."
    UNKNOWN_VALUE = "unknown_value", "A cell holds something that is not known."
    UNREADABLE_FILE = "unreadable_file", "The file is missing, or the system does not let us read it."
    UNREADABLE_TABLE = "unreadable_table", "The system does not let us read the table."
    UNSUPPORTED_FORMAT = (
        "unsupported_format",
        "The file is a picture of a kind that is not read here, or the folder holds a layout that is not known.",
    )
    UNSUPPORTED_MEMBER = (
        "unsupported_member",
        "A file of the archive is packed or encrypted in a way that is not read.",
    )
    UPLOAD_EXPIRED = "upload_expired", "The uploaded file was deleted by the time that it was read."
    UPLOAD_REFUSED = "upload_refused", "The uploaded files can't be used."
    WEAK_TEACHER = "weak_teacher", "The teacher is no better than a plain training."
    WEIGHTS_DIFFER = "weights_differ", "The predictions of one model come from different weights."
    WEIGHTS_DO_NOT_FIT = "weights_do_not_fit", "The pretrained weights are of another network."
    WEIGHTS_NOT_FINITE = "weights_not_finite", "A weight is not a finite number."
    WEIGHTS_UNREACHABLE = "weights_unreachable", "The pretrained weights can't be fetched."
    WEIGHTS_UNREADABLE = "weights_unreadable", "The file of pretrained weights can't be read."
    WRONG_CHECKSUM = (
        "wrong_checksum",
        "A downloaded file is not the one that was published or that was here before.",
    )
    WRONG_HASH = "wrong_hash", "The weights or their calibration are not those that the checkpoint names."
    WRONG_TASK = "wrong_task", "The file belongs to another task."


class DermaDeiTError(Exception):
    """A mistake that its user can mend.

    Args:
        user_message: What is wrong and the remedy, in plain sentences, without file paths or tracebacks.
        code: Stable machine-readable name of the mistake; None for that of the class.
    """

    default_code: ErrorCode = ErrorCode.ERROR

    def __init__(self, user_message: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(user_message)
        self.user_message = user_message
        self.code = code or self.default_code


class ImageError(DermaDeiTError):
    """An image that can't be read, or that we refuse to read.

    Attributes:
        sha256: Hex digest of the file, set by the decoder where it could read the bytes.
    """

    default_code = ErrorCode.IMAGE_REFUSED
    sha256: str | None = None


class TaskError(DermaDeiTError):
    """An unknown task, class or diagnosis."""

    default_code = ErrorCode.UNKNOWN_TASK


class ModelError(DermaDeiTError):
    """An unknown model, or one whose weights can't be had."""

    default_code = ErrorCode.UNKNOWN_MODEL


class CheckpointError(DermaDeiTError):
    """A checkpoint that is missing, damaged, or made for something else."""

    default_code = ErrorCode.CHECKPOINT_REFUSED


class TableError(DermaDeiTError):
    """A table, folder or archive of labelled images that can't be read, or contradicts itself or the task."""

    default_code = ErrorCode.MANIFEST_REFUSED


class UploadError(DermaDeiTError):
    """Files of a visitor of the app that can't be taken."""

    default_code = ErrorCode.UPLOAD_REFUSED


class ResultFileError(DermaDeiTError):
    """A file of predictions or figures that can't be read, or does not fit the others."""

    default_code = ErrorCode.RESULT_REFUSED


class ConfigurationError(DermaDeiTError):
    """Settings that can't work, or that can't work together."""

    default_code = ErrorCode.CONFIGURATION_REFUSED


class TrainingError(DermaDeiTError):
    """A training that can't go on."""

    default_code = ErrorCode.TRAINING_STOPPED


class PredictionError(DermaDeiTError):
    """A model output that must not be shown as an answer."""

    default_code = ErrorCode.PREDICTION_FAILED
