"""Files of ours that were damaged, swapped or forged: predictions, checkpoints and settings."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import FolderCase, PredictionsCase

from dermadeit.errors import ErrorCode

# ------------------------------------------------------------------------------------------- predictions

_PREDICTIONS = "predictions of another program"
PREDICTIONS: list[PredictionsCase] = []


def predictions_table(
    header: str = "image_id,label,p_nevus,p_others", row: str = "i{n},nevus,0.75,0.25", count: int = 3
) -> bytes:
    """A table of predictions; `row` is filled with `n`."""
    return "\n".join([header, *(row.format(n=number) for number in range(count)), ""]).encode()


def _add_predictions(
    name: str, make: Callable[[], bytes], code: ErrorCode | None = None, **more: Any
) -> None:
    images = 0 if code else 3
    PREDICTIONS.append(PredictionsCase(_PREDICTIONS, name, make, code=code, **({"images": images} | more)))


_add_predictions("an identifier, a label and probabilities", predictions_table)
_add_predictions(
    "logits in place of probabilities",
    lambda: predictions_table("image_id,label,logit_nevus,logit_others", "i{n},nevus,2.5,-1"),
)
_add_predictions(
    "a row without a true class",
    lambda: predictions_table() + b"x,,0.5,0.5\n",
)
for _name, _cell, _code in (
    ("percent in place of shares", "75", ErrorCode.NOT_A_PROBABILITY),
    ("a negative probability", "-0.25", ErrorCode.NOT_A_PROBABILITY),
    ("NaN", "nan", ErrorCode.NOT_A_NUMBER),
    ("infinity", "inf", ErrorCode.NOT_A_NUMBER),
    ("1e999", "1e999", ErrorCode.NOT_A_NUMBER),
    ("an empty cell", "", ErrorCode.NOT_A_NUMBER),
    ("a word", "high", ErrorCode.NOT_A_NUMBER),
):
    _add_predictions(
        f"{_name} as a probability",
        functools.partial(lambda cell: predictions_table().replace(b"0.75", cell.encode(), 1), _cell),
        _code,
    )
_add_predictions(
    "no probabilities", lambda: predictions_table("image_id,label", "i{n},nevus"), ErrorCode.MISSING_COLUMN
)
_add_predictions(
    "one probability of two",
    lambda: predictions_table("image_id,label,p_nevus,p_other", "i{n},nevus,0.75,0.25"),
    ErrorCode.MISSING_COLUMN,
)
_add_predictions("a first line alone", lambda: predictions_table(count=0), ErrorCode.EMPTY_TABLE)
_add_predictions(
    "no true class at all", lambda: predictions_table(row="i{n},,0.75,0.25"), ErrorCode.MISSING_COLUMN
)
_add_predictions(
    "an image twice", lambda: predictions_table(row="same,nevus,0.75,0.25"), ErrorCode.DUPLICATE_IMAGE
)
_add_predictions(
    "a label outside the task", lambda: predictions_table(row="i{n},wart,0.75,0.25"), ErrorCode.MISSING_COLUMN
)
_add_predictions(
    "a task that nobody knows",
    lambda: predictions_table("image_id,task,label,p_nevus,p_others", "i{n},weather,nevus,0.75,0.25"),
    ErrorCode.UNKNOWN_TASK,
)
_add_predictions(
    "a number of views of 5,000 digits",
    lambda: predictions_table(
        "image_id,views,label,p_nevus,p_others", "i{n}," + "9" * 5000 + ",nevus,0.75,0.25"
    ),
    ErrorCode.NOT_A_NUMBER,
)
_add_predictions("a photo", lambda: b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4, ErrorCode.MANIFEST_REFUSED)
_add_predictions("300,000 lines", lambda: predictions_table() + b"\n" * 300_000, ErrorCode.TABLE_TOO_LARGE)

# ------------------------------------------------------------------------------------------- checkpoints

_CHECKPOINT = "checkpoint: truncated, wrong task, wrong hash, pickle"
CHECKPOINTS: list[FolderCase] = []
"""Each is done to the folder of a calibrated checkpoint."""


def _add_checkpoint(name: str, damage: Callable[[Path], Any], code: ErrorCode | None) -> None:
    CHECKPOINTS.append(FolderCase(_CHECKPOINT, name, damage, code))


def change_json(name: str, *keys: str, to: Any) -> Callable[[Path], None]:
    """Sets a value of a JSON file; `keys` lead to it, and Ellipsis as the value deletes it."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        place = content
        for key in keys[:-1]:
            place = place[key]
        if to is ...:
            del place[keys[-1]]
        else:
            place[keys[-1]] = to
        (folder / name).write_text(json.dumps(content))

    return change


def change_bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Does something to the bytes of a file."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def sign_weights(folder: Path) -> None:
    """Lets the configuration name the weights as they are now, as a forger would."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    change_json("config.json", "dermadeit", "weights_sha256", to=digest)(folder)


def _forge(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Changes the weights and names the new ones in the configuration; without a calibration."""

    def damage(folder: Path) -> None:
        change_bytes("model.safetensors", change)(folder)
        (folder / "calibration.json").unlink()
        sign_weights(folder)

    return damage


def _of_another_type(weights: bytes) -> bytes:
    """Weights that claim to be of a type that NumPy lacks."""
    return weights.replace(b'"F16"', b'"BF16"', 1).replace(b'"BF16",', b'"BF16",', 1)


def _with_header(header: bytes) -> Callable[[bytes], bytes]:
    return lambda weights: struct.pack("<Q", len(header)) + header + weights[8:]


_DAMAGED, _REFUSED = ErrorCode.DAMAGED_CHECKPOINT, ErrorCode.CHECKPOINT_REFUSED
_add_checkpoint("untouched", lambda folder: None, None)
_add_checkpoint("no weights", lambda folder: (folder / "model.safetensors").unlink(), _DAMAGED)
_add_checkpoint("no configuration", lambda folder: (folder / "config.json").unlink(), ErrorCode.NO_CHECKPOINT)
_add_checkpoint(
    "no files", lambda folder: [path.unlink() for path in folder.iterdir()], ErrorCode.NO_CHECKPOINT
)
for _file, _code in (
    ("config.json", _DAMAGED),
    ("model.safetensors", ErrorCode.WRONG_HASH),
    ("calibration.json", _DAMAGED),
    ("trust.safetensors", _DAMAGED),
):
    _add_checkpoint(f"half of {_file}", change_bytes(_file, lambda data: data[: len(data) // 2]), _code)
    _add_checkpoint(f"an empty {_file}", change_bytes(_file, lambda data: b""), _code)
for _file in ("config.json", "calibration.json"):
    _add_checkpoint(
        f"{_file} of brackets without end", change_bytes(_file, lambda data: b"[" * 100_000), _DAMAGED
    )
    _add_checkpoint(f"{_file} in Latin-1", change_bytes(_file, lambda data: b'{"a": "\xe9"}'), _DAMAGED)
_add_checkpoint("config.json that is a list", change_bytes("config.json", lambda data: b"[1]"), _REFUSED)
_add_checkpoint(
    "calibration.json that is a list", change_bytes("calibration.json", lambda data: b"[1]"), _DAMAGED
)
_add_checkpoint(
    "a bit of the weights flipped",
    change_bytes("model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    ErrorCode.WRONG_HASH,
)
_add_checkpoint("a newer format", change_json("config.json", "dermadeit", "format", to=99), _REFUSED)
_add_checkpoint(
    "a model that nobody knows", change_json("config.json", "dermadeit", "model", to="resnet"), _REFUSED
)
_add_checkpoint(
    "a task that nobody knows", change_json("config.json", "dermadeit", "tasks", to=["weather"]), _REFUSED
)
_add_checkpoint("no tasks", change_json("config.json", "dermadeit", "tasks", to=[]), _REFUSED)
_add_checkpoint(
    "classes in another order",
    change_json("config.json", "dermadeit", "classes", to=["others", "nevus"]),
    _REFUSED,
)
_add_checkpoint("another architecture", change_json("config.json", "architecture", to="resnet50"), _REFUSED)
for _size in ([3, 100_000, 100_000], [3, 64, 32], [3, "64", "64"], [3], 64, [3, -1, -1]):
    _add_checkpoint(
        f"an input of {_size}", change_json("config.json", "pretrained_cfg", "input_size", to=_size), _REFUSED
    )
_add_checkpoint(
    "a deviation of zero", change_json("config.json", "pretrained_cfg", "std", to=[0, 1, 1]), _REFUSED
)
_add_checkpoint(
    "a mean of two channels", change_json("config.json", "pretrained_cfg", "mean", to=[0, 1]), _REFUSED
)
_add_checkpoint(
    "a mean that is no number", change_json("config.json", "pretrained_cfg", "mean", to=["a", 1, 1]), _REFUSED
)
_add_checkpoint("forged weights: no safetensors", _forge(lambda data: b"\x80\x04pickle" * 99), _DAMAGED)
_add_checkpoint("forged weights: a header without end", _forge(_with_header(b"{" * 500)), _DAMAGED)
_add_checkpoint(
    "forged weights: a header of 2^60 bytes",
    _forge(lambda data: struct.pack("<Q", 2**60) + data[8:]),
    _DAMAGED,
)
_add_checkpoint("forged weights: a type that NumPy lacks", _forge(_of_another_type), _DAMAGED)
_add_checkpoint(
    "the calibration of other weights",
    change_json("calibration.json", "weights_sha256", to="0" * 64),
    ErrorCode.WRONG_HASH,
)
_add_checkpoint("a calibration without its gates", change_json("calibration.json", "gates", to=...), _DAMAGED)
_add_checkpoint("a calibration of a newer format", change_json("calibration.json", "format", to=99), _REFUSED)
_add_checkpoint("no calibration", lambda folder: (folder / "calibration.json").unlink(), None)


def _pickled(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "model.pt").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")


_add_checkpoint("a pickle", _pickled, ErrorCode.PICKLE_REFUSED)

# ---------------------------------------------------------------------------------------------- settings

_CLASSES = "classes of one's own"
CLASSES: list[FolderCase] = []
"""Each writes `classes.yaml`."""
RECIPES: list[FolderCase] = []
"""Each writes `recipe.yaml`."""


def _add_yaml(
    cases: list[FolderCase], row: str, file: str, name: str, text: str | bytes, code: ErrorCode | None
) -> None:
    data = text.encode() if isinstance(text, str) else text
    cases.append(FolderCase(row, name, lambda folder: (folder / file).write_bytes(data), code))


_LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
_add_classes = functools.partial(_add_yaml, CLASSES, _CLASSES, "classes.yaml")
_UNREADABLE = ErrorCode.UNREADABLE_TABLE
_add_classes("two classes", "wart: Viral wart\ncorn: Corn\ntarget: wart\n", None)
_add_classes("HTML in a title", "wart: <script>alert(1)</script>\ncorn: Corn\n", None)
_add_classes("an empty file", "", _UNREADABLE)
_add_classes("a list", "- wart\n- corn\n", _UNREADABLE)
_add_classes("one class", "wart: Viral wart\n", ErrorCode.UNKNOWN_CLASS)
_add_classes("a target that is no class", "wart: Wart\ncorn: Corn\ntarget: mole\n", ErrorCode.UNKNOWN_CLASS)
_add_classes("a key that is a path", "../wart: Wart\ncorn: Corn\n", ErrorCode.UNKNOWN_CLASS)
_add_classes("a key of 300 letters", f"{'w' * 300}: Wart\ncorn: Corn\n", ErrorCode.UNKNOWN_CLASS)
_add_classes(
    "an object of Python", "wart: !!python/object/apply:os.system ['true']\ncorn: Corn\n", _UNREADABLE
)
_add_classes("an unclosed bracket", "wart: [\n", _UNREADABLE)
_add_classes("brackets without end", "wart: " + "[" * 2_000, _UNREADABLE)
_add_classes("a date that does not exist", "wart: 2001-99-99\ncorn: Corn\n", _UNREADABLE)
_add_classes("a number without a digit", "wart: !!int\ncorn: Corn\n", _UNREADABLE)
_add_classes("a truth that is none", "wart: !!bool perhaps\ncorn: Corn\n", _UNREADABLE)
_add_classes("a billion laughs", _LAUGHS, _UNREADABLE)
_add_classes("Latin-1 text", b"wart: W\xe4rzchen\ncorn: Corn\n", _UNREADABLE)
_add_classes("a NUL byte", "wart: W\0art\ncorn: Corn\n", _UNREADABLE)

_SETTINGS = "settings of a training"
_add_recipe = functools.partial(_add_yaml, RECIPES, _SETTINGS, "recipe.yaml")
_CONFIGURATION = ErrorCode.CONFIGURATION_REFUSED
_add_recipe("a setting", "epochs: 3\n", None)
_add_recipe("an empty file", "", None)
_add_recipe("a setting that does not exist", "epoch: 3\n", _CONFIGURATION)
_add_recipe("a word for a number", "epochs: three\n", _CONFIGURATION)
_add_recipe("a number below the least", "epochs: 0\n", _CONFIGURATION)
_add_recipe("NaN for a learning rate", "learning_rate: .nan\n", _CONFIGURATION)
_add_recipe("a list", "- epochs\n", _CONFIGURATION)
_add_recipe("an object of Python", "epochs: !!python/object/apply:os.system ['true']\n", _CONFIGURATION)
_add_recipe("a base that is itself", "base: recipe.yaml\n", _CONFIGURATION)
_add_recipe("a base that does not exist", "base: nowhere\n", _CONFIGURATION)
_add_recipe("a base with a name of 3,000 letters", f"base: {'x' * 3000}\n", _CONFIGURATION)
_add_recipe("a number without a digit", "epochs: !!int\n", _CONFIGURATION)
_add_recipe("a base that is a list", "base: [a]\n", _CONFIGURATION)
_add_recipe("settings of a task that are no settings", "binary: 3\n", _CONFIGURATION)
_add_recipe("brackets without end", "epochs: " + "[" * 2_000, _CONFIGURATION)
_add_recipe("Latin-1 text", b"epochs: \xe9\n", _CONFIGURATION)
