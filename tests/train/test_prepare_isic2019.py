"""From archives, folders and tables to a data folder that a training takes, as a user runs it."""

import csv
import hashlib
import io
import json
import shutil
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from loopback import serving
from PIL import Image

from dermadeit.data.manifest import SPLITS, check_leaks, read_source
from dermadeit.data.tabular import read_csv
from dermadeit.errors import ConfigurationError, DermaDeiTError, TableError
from dermadeit.tasks import DIAGNOSES, get_task
from train import prepare_isic2019
from train.data import images
from train.data.downloads import DownloadError
from train.data.isic2019 import GROUND_TRUTH, IMAGES_ARCHIVE, METADATA
from train.prepare_isic2019 import PreparationSettings, main

BINARY = get_task("binary")
SETTINGS = PreparationSettings(workers=1)


def _rows(data: Path) -> dict[str, dict[str, str]]:
    return {row["image_id"]: row for row in read_csv(data / "manifest.csv").rows}


def _exclusions(data: Path) -> dict[str, str]:
    return {row["image_id"]: row["reason"] for row in read_csv(data / "exclusions.csv").rows}


def _encoded(picture: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archives(synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three ISIC 2019 files with synthetic lesions: every fourth one from MSK, without a lesion number."""
    folder = tmp_path_factory.mktemp("archives")
    source = read_csv(synthetic_data / "manifest.csv").rows
    truth, metadata = [], []
    with zipfile.ZipFile(folder / IMAGES_ARCHIVE, "w") as archive:
        archive.writestr("ISIC_2019_Training_Input/LICENSE.txt", "CC BY-NC")
        for row in source:
            number = int(row["lesion_id"][-5:])
            lesion = {0: f"HAM_{number}", 1: f"BCN_{number}", 2: f"MSK4_{number}", 3: ""}[number // 8 % 4]
            name = row["image_id"] + ("" if lesion else "_downsampled")
            picture = Image.open(synthetic_data / row["file"]).convert("RGB")
            archive.writestr(f"ISIC_2019_Training_Input/{name}.jpg", _encoded(picture, quality=90))
            truth.append(
                {"image": name, **{key: float(key == row["diagnosis"]) for key in (*DIAGNOSES, "UNK")}}
            )
            metadata.append(
                {"image": name, "age_approx": row["age"], "anatom_site_general": row["anatomic_site"]}
                | {"lesion_id": lesion, "sex": row["sex"]}
            )
    for file, table in ((GROUND_TRUTH, truth), (METADATA, metadata)):
        with (folder / file).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, table[0])
            writer.writeheader()
            writer.writerows(table)
    return folder


@pytest.fixture
def copied(archives: Path, tmp_path: Path) -> Path:
    """The archives in a folder that the test may damage."""
    ignored = shutil.ignore_patterns("checksums.json")
    return Path(shutil.copytree(archives, tmp_path / "archives", ignore=ignored))


def _add(folder: Path, name: str, content: bytes, diagnosis: str | None = None) -> None:
    with zipfile.ZipFile(folder / IMAGES_ARCHIVE, "a") as archive:
        archive.writestr(name, content)
    if diagnosis:
        marks = ",".join(str(float(key == diagnosis)) for key in (*DIAGNOSES, "UNK"))
        with (folder / GROUND_TRUTH).open("a") as stream:
            stream.write(f"{Path(name).stem},{marks}\n")


def test_the_archives_become_a_data_folder_that_leaks_nothing(archives: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    manifest_file = prepare_isic2019.prepare_isic2019(data, archives=archives, settings=SETTINGS)
    manifest = read_source(manifest_file, BINARY)
    check_leaks(manifest)
    assert manifest.exclusions == ()
    assert {row.split for row in manifest.rows} == set(SPLITS)
    rows = _rows(data)
    assert Counter(row["dataset"] for row in rows.values()).keys() == {"ham10000", "bcn20000", "msk"}
    assert not any("downsampled" in image_id for image_id in rows)
    for row in rows.values():
        content = (data / row["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        assert Image.open(io.BytesIO(content)).size == (int(row["width"]), int(row["height"])) == (96, 80)
        expected = {"HAM": "ham10000", "BCN": "bcn20000"}.get(row["lesion_id"][:3], "msk")
        assert row["dataset"] == expected
    groups = defaultdict(set)
    for row in rows.values():
        groups[row["lesion_id"] or row["image_id"]].add(row["lesion_group"])
    assert all(len(names) == 1 for names in groups.values())


def test_a_training_starts_on_what_was_prepared(archives: Path, tmp_path: Path) -> None:
    from train.configuration import DataSettings
    from train.loaders import load_manifest

    settings = PreparationSettings(workers=1, shares=(0.5, 0.2, 0.1, 0.2))
    prepare_isic2019.prepare_isic2019(tmp_path, archives=archives, settings=settings)
    manifest = load_manifest(DataSettings(task="binary", data=str(tmp_path)))
    assert len(manifest.rows) == len(_rows(tmp_path))


def test_download_is_resumed_prepared_and_not_repeated(archives: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in archives.iterdir() if path.name != "checksums.json"}
    with serving(files) as server:
        server.cut_after = [len(files[GROUND_TRUTH]), len(files[METADATA]), 10_000]
        settings = {"download": True, "base_url": server.url, "backoff_seconds": 0, "settings": SETTINGS}
        prepare_isic2019.prepare_isic2019(tmp_path / "data", **settings)
        assert server.requests[-1][1]["Range"] == "bytes=10000-"
        server.requests.clear()
        prepare_isic2019.prepare_isic2019(tmp_path / "data", **settings)
        assert server.requests == []
    sums = json.loads((tmp_path / "data" / "archives" / "checksums.json").read_text())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    prepare_isic2019.prepare_isic2019(tmp_path / "local", archives=archives, settings=SETTINGS)
    assert (tmp_path / "local/manifest.csv").read_bytes() == (tmp_path / "data/manifest.csv").read_bytes()


def test_missing_damaged_and_exchanged_archives_are_named_with_the_remedy(
    copied: Path, tmp_path: Path
) -> None:
    def refusal(**options: str) -> DermaDeiTError:
        with pytest.raises(DermaDeiTError) as caught:
            prepare_isic2019.prepare_isic2019(
                tmp_path / "data", archives=copied, settings=SETTINGS, **options
            )
        return caught.value

    assert refusal(sha256="0" * 64).code == "wrong_checksum"
    archive = copied / IMAGES_ARCHIVE
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert refusal().code == "damaged_archive"
    # What was truncated is not remembered as the right one.
    archive.write_bytes(whole)
    prepare_isic2019.prepare_isic2019(tmp_path / "data", archives=copied, settings=SETTINGS)
    _add(copied, "ISIC_2019_Training_Input/new.txt", b"")
    exchanged = refusal()
    assert isinstance(exchanged, DownloadError)
    assert "not the file that was here before" in exchanged.user_message
    archive.unlink()
    missing = refusal()
    assert isinstance(missing, ConfigurationError)
    assert f"prepare_isic2019 --download --archives {copied}" in missing.user_message


def test_bad_members_are_rows_of_a_report_and_never_files(copied: Path, tmp_path: Path) -> None:
    photo = _encoded(Image.effect_noise((300, 200), 80).convert("RGB"))
    _add(copied, "ISIC_2019_Training_Input/ISIC_BROKEN.jpg", photo[: len(photo) // 2], "MEL")
    _add(copied, "ISIC_2019_Training_Input/ISIC_TEXT.jpg", b"no photo at all", "MEL")
    _add(copied, "ISIC_2019_Training_Input/ISIC_TINY.jpg", _encoded(Image.new("RGB", (20, 20))), "MEL")
    _add(copied, "ISIC_2019_Training_Input/ISIC_BOMB.jpg", b"\xff\xd8" + bytes(21_000_000), "MEL")
    _add(copied, "ISIC_2019_Training_Input/ISIC_UNK.jpg", photo, "UNK")
    _add(copied, "ISIC_2019_Training_Input/ISIC_NOROW.jpg", photo)
    _add(copied, "../../ISIC_EVIL.jpg", photo, "MEL")
    _add(copied, "ISIC_2019_Training_Input/ISIC_CRC.jpg", photo, "MEL")
    archive = copied / IMAGES_ARCHIVE
    content = archive.read_bytes()
    position = content.rindex(photo)
    archive.write_bytes(content[: position + 500] + b"\0\1\2\3" + content[position + 504 :])
    data = tmp_path / "deep" / "data"
    prepare_isic2019.prepare_isic2019(data, archives=copied, settings=SETTINGS)
    rows = read_csv(data / "exclusions.csv").rows
    # The member is skipped, so the row of the table that asks for it has no image.
    assert [row["reason"] for row in rows if row["image_id"] == "ISIC_EVIL"] == ["no_image", "unsafe_name"]
    assert {row["image_id"]: row["reason"] for row in rows if row["image_id"] != "ISIC_EVIL"} == {
        "ISIC_BROKEN": "truncated_image",
        "ISIC_TEXT": "not_an_image",
        "ISIC_TINY": "too_small",
        "ISIC_BOMB": "too_many_bytes",
        "ISIC_UNK": "unknown_diagnosis",
        "ISIC_NOROW": "no_label",
        "ISIC_CRC": "damaged_in_archive",
    }
    assert not list(tmp_path.rglob("*EVIL*"))
    assert {path.stem for path in (data / "images").iterdir()} == set(_rows(data))


def test_a_ground_truth_that_contradicts_itself_is_refused(copied: Path, tmp_path: Path) -> None:
    with (copied / GROUND_TRUTH).open("a") as stream:
        stream.write("ISIC_X,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n")
    with pytest.raises(TableError, match=r"Line \d+ of .*GroundTruth\.csv has 2 diagnoses"):
        prepare_isic2019.prepare_isic2019(tmp_path, archives=copied, settings=SETTINGS)


def test_a_killed_run_goes_on_without_doing_images_again(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, decoded = images.decode_image, []

    def counting(data: bytes, *, name: str):
        if len(decoded) == 20:
            raise KeyboardInterrupt
        decoded.append(name)
        return decode(data, name=name)

    monkeypatch.setattr(images, "decode_image", counting)
    with pytest.raises(KeyboardInterrupt):
        prepare_isic2019.prepare_isic2019(tmp_path, archives=archives, settings=SETTINGS)
    assert not (tmp_path / "manifest.csv").exists()
    journal = (tmp_path / "prepared.jsonl").read_text()
    # The last line was being written when the power failed.
    (tmp_path / "prepared.jsonl").write_text(journal[:-5])
    finished = {json.loads(line)["image_id"] for line in journal.splitlines()[:-1] if line}
    assert finished
    decoded.clear()
    monkeypatch.setattr(
        images,
        "decode_image",
        lambda data, *, name: decoded.append(name) or decode(data, name=name),
    )
    prepare_isic2019.prepare_isic2019(tmp_path, archives=archives, settings=SETTINGS)
    assert set(decoded) == set(_rows(tmp_path)) - finished
    decoded.clear()
    prepare_isic2019.prepare_isic2019(tmp_path, archives=archives, settings=SETTINGS)
    assert decoded == []
    other = PreparationSettings(workers=1, max_side=256)
    prepare_isic2019.prepare_isic2019(tmp_path, archives=archives, settings=other)
    assert len(decoded) == len(_rows(tmp_path))


def _class_folders(folder: Path, names: tuple[str, ...], size: tuple[int, int] = (120, 90)) -> Path:
    """Photos that share nothing but their kind; each of a class has its own noise."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 30).convert("RGB").save(folder / name)
    return folder


def test_class_folders_are_prepared_with_their_splits(tmp_path: Path) -> None:
    source = _class_folders(
        tmp_path / "source",
        tuple(f"train/{name}/{name}{index}.png" for name in ("nevus", "others") for index in range(60))
        + tuple(f"val/{name}/v{name}{index}.png" for name in ("nevus", "others") for index in range(10)),
    )
    data = tmp_path / "data"
    assert main(["--class-folders", str(source), "--output", str(data), "--workers", "1"]) == 0
    manifest = read_source(data / "manifest.csv", BINARY)
    assert manifest.class_counts == {"nevus": 70, "others": 70}
    assert Counter(row.split for row in manifest.rows)["validation"] == 20
    assert {row.image_id[0] for row in manifest.select("validation").rows} == {"v"}
    for split in ("calibration", "test"):
        assert min(manifest.select(split).class_counts.values()) > 0


def test_a_copy_in_train_of_what_is_evaluated_is_left_out(tmp_path: Path) -> None:
    names = ("train/mel/a.png", "train/mel/b.png", "train/nv/c.png", "val/nv/d.png", "val/mel/e.png")
    source = _class_folders(tmp_path / "source", names)
    Image.open(source / "train/mel/a.png").resize((240, 180)).save(source / "val/mel/copy.png")
    data = tmp_path / "data"
    assert main(["--class-folders", str(source), "--output", str(data)]) == 0
    assert _exclusions(data) == {"a": "lesion_in_other_split"}
    assert _rows(data)["copy"]["split"] == "validation"


def test_copies_with_two_diagnoses_are_both_left_out(tmp_path: Path) -> None:
    source = _class_folders(tmp_path / "source", ("mel/a.png", "nv/b.png", "nv/c.png", "bcc/d.png"))
    Image.open(source / "mel/a.png").save(source / "nv/a_again.jpg", quality=60)
    assert main(["--class-folders", str(source), "--output", str(tmp_path / "data")]) == 0
    assert _exclusions(tmp_path / "data") == dict.fromkeys(("a", "a_again"), "contradicting_duplicate")
    assert set(_rows(tmp_path / "data")) == {"b", "c", "d"}


def _table(folder: Path, count: int = 60) -> Path:
    _class_folders(folder / "photos", tuple(f"{index}.png" for index in range(count)))
    lines = [f"{index},{'mel' if index % 3 else 'nv'},L{index // 2}" for index in range(count)]
    (folder / "labels.csv").write_text("image,dx,lesion_id\n" + "\n".join(lines) + "\n")
    return folder / "labels.csv"


def test_a_table_gives_the_same_split_in_any_order(tmp_path: Path) -> None:
    table = _table(tmp_path)
    run = ["--csv", str(table), "--images", str(tmp_path / "photos"), "--seed", "5"]
    assert main([*run, "--output", str(tmp_path / "one")]) == 0
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(lines)]) + "\n")
    assert main([*run, "--output", str(tmp_path / "two"), "--workers", "3"]) == 0
    assert (tmp_path / "one/manifest.csv").read_bytes() == (tmp_path / "two/manifest.csv").read_bytes()
    check_leaks(read_source(tmp_path / "one/manifest.csv", BINARY))


def test_the_image_level_split_leaks_and_says_how_to_use_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    table = _table(tmp_path)
    data = tmp_path / "leaky"
    options = ["--csv", str(table), "--images", str(tmp_path / "photos"), "--output", str(data)]
    assert main([*options, "--image-level-split"]) == 0
    with pytest.raises(TableError, match="two splits"):
        check_leaks(read_source(data / "manifest.csv", BINARY))
    assert (
        caplog.messages[-1] == f"Next: python train/distill.py --data {data} --task malignancy --allow-leaks"
    )


def test_large_photos_are_scaled_down_and_small_ones_copied(tmp_path: Path) -> None:
    source = _class_folders(tmp_path / "source", ("mel/small.png", "nv/grey.png", "nv/other.png"))
    Image.effect_noise((120, 90), 50).save(source / "nv/grey.png")
    _class_folders(source, ("mel/large.jpg",), size=(1000, 500))
    options = ["--class-folders", str(source), "--output", str(tmp_path / "data")]
    assert main(options) == 0
    rows = _rows(tmp_path / "data")
    assert (rows["large"]["width"], rows["large"]["height"]) == ("600", "300")
    assert rows["grey"]["file"] == "images/grey.jpg"
    small = (tmp_path / "data" / rows["small"]["file"]).read_bytes()
    assert small == (source / "mel/small.png").read_bytes()
    assert main([*options, "--max-side", "0"]) == 0
    assert _rows(tmp_path / "data")["large"]["width"] == "1000"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-side", "100"], "--max-side must be 0 or at least 256"),
        (["--shares", "0.5,0.5"], "train, validation, calibration, test"),
        (["--workers", "-1"], "--workers"),
        (["--class-folders", "nowhere"], "nowhere"),
        ([], "--download"),
    ],
)
def test_mistakes_end_with_code_2_and_a_remedy(
    options: list[str], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["--output", str(tmp_path / "data"), *options]) == 2
    assert message in caplog.text


def test_a_manifest_of_other_origin_is_never_overwritten(synthetic_data: Path, tmp_path: Path) -> None:
    shutil.copy(synthetic_data / "manifest.csv", tmp_path)
    source = _class_folders(tmp_path / "source", ("mel/a.png", "nv/b.png"))
    before = (tmp_path / "manifest.csv").read_bytes()
    assert main(["--class-folders", str(source), "--output", str(tmp_path)]) == 2
    assert (tmp_path / "manifest.csv").read_bytes() == before


def test_a_full_disk_ends_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = _class_folders(tmp_path / "source", ("mel/a.png", "nv/b.png"))

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images, "write_atomically", full)
    assert main(["--class-folders", str(source), "--output", str(tmp_path / "data")]) == 2
    assert "Make room and run the same command again" in caplog.text
