"""Every bad or odd input gets what docs/inputs.md says, from the decoder, in a batch, and on the command line.

What takes a running app or a process is in test_inputs_at_the_border.py.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from calibrated_checkpoint import calibrated_predictor
from cases import Case, FolderCase, PhotoCase, PredictionsCase, SetCase
from inputs_page import PAGE, inputs_page
from odd_files import CHECKPOINTS, CLASSES, PREDICTIONS, RECIPES
from odd_photos import GPS_MARK, PHOTOS, quietly
from odd_sets import SETS
from raw_calls import NOT_UPLOADS

from dermadeit.data.collection import UploadedFile, opened_collection
from dermadeit.data.manifest import read_source
from dermadeit.data.own_classes import read_classes
from dermadeit.errors import DermaDeiTError, ErrorCode, ImageError
from dermadeit.evaluation.batch import read_uploaded_predictions
from dermadeit.imaging.decode import MAX_NAME_LENGTH, decode_image
from dermadeit.models.checkpoints import load_checkpoint
from dermadeit.tasks import BINARY
from dermadeit.views.page.uploads import open_photo
from train.command_line import parse_arguments


def _each(cases: Sequence[Case]):
    return pytest.mark.parametrize("case", cases, ids=[f"{case.row[:30]}: {case.name}" for case in cases])


@_each(PHOTOS)
def test_a_photo_gets_what_the_page_says(case: PhotoCase) -> None:
    data = quietly(case.make)
    if case.code:
        with pytest.raises(ImageError) as refused:
            decode_image(data, name=case.file)
        assert refused.value.code == case.code, refused.value.user_message
        assert case.says in refused.value.user_message
        return
    image = decode_image(data, name=case.file)
    assert case.says in " ".join((*image.ledger, *image.warnings))
    assert image.pixels.shape == (image.height, image.width, 3)
    assert GPS_MARK not in repr(image).encode() + image.pixels.tobytes()
    assert len(image.name) <= MAX_NAME_LENGTH
    assert not [mark for mark in image.name if unicodedata.category(mark) == "Cc" or mark in "/\u202e\u2066"]


@_each(SETS)
def test_a_set_gets_what_the_page_says_in_the_app(case: SetCase, tmp_path: Path) -> None:
    files = []
    for number, (name, data) in enumerate(case.make().items()):
        (tmp_path / str(number)).write_bytes(data)
        files.append(UploadedFile(tmp_path / str(number), name))
    if case.code:
        with pytest.raises(DermaDeiTError) as refused, opened_collection(files, BINARY):
            pass
        assert refused.value.code == case.code, refused.value.user_message
        return
    with opened_collection(files, BINARY) as collection:
        assert (len(collection.images), collection.labelled) == (case.images, case.is_labelled)
        assert Counter(item.code for item in collection.left_out) == case.left_out
        assert all(item.reason for item in collection.left_out)
        failures = 0
        for image in collection.images:
            try:
                image.decode()
            except ImageError:
                failures += 1
        assert failures < len(collection.images)


@_each([case for case in SETS if not any(".." in name or name.startswith("/") for name in case.make())])
def test_a_set_gets_what_the_page_says_on_the_command_line(case: SetCase, tmp_path: Path) -> None:
    given = case.make()
    for name, data in given.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    tables = [name for name in given if name.endswith((".csv", ".xlsx"))]
    only = tables if len(tables) == 1 else [name for name in given if name.endswith(".zip")]
    source = tmp_path / only[0] if only else tmp_path
    with ExitStack() as opened:
        if case.source_code:
            with pytest.raises(DermaDeiTError) as refused:
                read_source(source, BINARY, opened=opened)
            assert refused.value.code == case.source_code, refused.value.user_message
            return
        manifest = read_source(source, BINARY, opened=opened)
        if case.code is None:
            missing = case.left_out.get("no_image", 0)
            assert len(manifest.rows) == case.images + missing


@_each(PREDICTIONS)
def test_a_table_of_predictions_gets_what_the_page_says(case: PredictionsCase, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(case.make())
    if case.code:
        with pytest.raises(DermaDeiTError) as refused:
            read_uploaded_predictions(path, case.file, BINARY)
        assert refused.value.code == case.code, refused.value.user_message
        assert str(tmp_path) not in refused.value.user_message
    else:
        assert sum(map(len, read_uploaded_predictions(path, case.file, BINARY))) == case.images


@_each(CHECKPOINTS)
def test_a_checkpoint_gets_what_the_page_says(
    case: FolderCase, checkpoint_root: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    whole = calibrated_predictor(checkpoint_root, synthetic_data).checkpoint.folder
    for name in ("config.json", "model.safetensors", "calibration.json", "trust.safetensors"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    case.damage(tmp_path)
    if case.code:
        with pytest.raises(DermaDeiTError) as refused:
            load_checkpoint(tmp_path)
        assert refused.value.code == case.code, refused.value.user_message
    else:
        assert load_checkpoint(tmp_path).task == BINARY


@_each(CLASSES)
def test_classes_of_ones_own_get_what_the_page_says(case: FolderCase, tmp_path: Path) -> None:
    case.damage(tmp_path)
    if case.code:
        with pytest.raises(DermaDeiTError) as refused:
            read_classes(tmp_path / "classes.yaml")
        assert refused.value.code == case.code, refused.value.user_message
        assert len(refused.value.user_message) < 1000
    else:
        assert len(read_classes(tmp_path / "classes.yaml").classes) == 2


@_each(RECIPES)
def test_settings_get_what_the_page_says(
    case: FolderCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.damage(tmp_path)
    monkeypatch.chdir(tmp_path)
    if case.code:
        with pytest.raises(DermaDeiTError) as refused:
            parse_arguments(["--recipe", "recipe.yaml"])
        assert refused.value.code == case.code, refused.value.user_message
        assert len(refused.value.user_message) < 1000
    else:
        assert parse_arguments(["--recipe", "recipe.yaml"]).configuration


@pytest.mark.parametrize("name", NOT_UPLOADS)
def test_what_is_no_upload_is_not_opened(name: str) -> None:
    with pytest.raises(ImageError) as refused, open_photo(NOT_UPLOADS[name]):
        pass
    assert refused.value.code == ErrorCode.NOT_AN_UPLOAD


def test_the_page_says_what_the_cases_declare() -> None:
    cases = [*PHOTOS, *SETS, *PREDICTIONS, *CHECKPOINTS, *CLASSES, *RECIPES]
    assert len({(type(case), case.row, case.name) for case in cases}) == len(cases) >= 200
    assert PAGE.read_text(encoding="utf-8") == inputs_page(), "run “make inputs-page”"
