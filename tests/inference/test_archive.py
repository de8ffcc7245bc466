"""Archives: Ray gives the predictor's answers, whatever they lie in, and goes on where it was stopped."""

import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT
from typer.testing import CliRunner

from dermadeit.cli import app
from dermadeit.data.synthetic import write_dataset
from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.inference import archive
from dermadeit.inference.archive import ArchiveCounts, ArchiveRequest, predict_archive
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import load_checkpoint

PHOTOS = 200
BROKEN = "deep.er/broken.v2.jpg"


def test_without_ray_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, lesion_files: list[Path], tmp_path: Path
) -> None:
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    source = str(lesion_files[0].parent)
    result = CliRunner().invoke(
        app, ["predict-archive", source, "--task", "binary", "--output", str(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert "dermadeit[scale]" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def request_(checkpoint_root: Path) -> ArchiveRequest:
    return ArchiveRequest("binary", str(checkpoint_root / "binary" / "mobilenetv2"), views=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos in folders, one of them broken, and a file that is no photo."""
    folder = tmp_path_factory.mktemp("archive")
    write_dataset(folder, lesions=PHOTOS, seed=0, images_per_lesion=(1, 1), size=(80, 72))
    (folder / "manifest.csv").unlink()
    good = next((folder / "images").iterdir())
    (folder / BROKEN).parent.mkdir()
    (folder / BROKEN).write_bytes(good.read_bytes()[:400])
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def expected(photos: Path, request_: ArchiveRequest) -> dict[str, dict]:
    """What the predictor says of each photo."""
    paths = [path for path in sorted(photos.rglob("*")) if path.suffix in (".jpg", ".png")]
    records = Predictor(load_checkpoint(Path(request_.model), task="binary")).predict(paths, request_.views)
    names = [path.relative_to(photos).as_posix() for path in paths]
    return {name: record.to_dict() | {"file": name} for name, record in zip(names, records, strict=True)}


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """Ray on this machine, with two cores."""
    ray = pytest.importorskip("ray", reason="the extra “scale” is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        # Else whatever runs beside them keeps the workers from starting.
        patch.setenv("RAY_worker_niceness", "0")
        # Workers import this package too.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


ray_test = pytest.mark.nightly
quiet = pytest.mark.filterwarnings("ignore::Warning")
"""What Ray and Arrow warn of in themselves is nothing that we can mend."""


def read_answers(folder: Path) -> dict[str, dict]:
    import pyarrow.parquet as parquet

    rows = parquet.read_table(folder).to_pylist()
    found = {row["image_id"]: row for row in rows}
    assert len(found) == len(rows), "a photo has two rows"
    return found


def check_answers(folder: Path, expected: dict[str, dict], prefix: str = "") -> None:
    found = read_answers(folder)
    assert found.keys() == {prefix + name for name in expected}
    for name, record in expected.items():
        row = found[prefix + name]
        answer = json.loads(row["record"])
        assert answer.pop("file") == prefix + name
        for key in ("logits", "probabilities", "class_probabilities"):
            # Which photos share a pass decides the last digits.
            assert answer[key] == (record[key] and pytest.approx(record[key], rel=1e-4, abs=1e-4)), (
                name,
                key,
            )
        exact = ("status", "sha256", "label", "verdict", "error", "ledger")
        assert [answer[key] for key in exact] == [record[key] for key in exact], name
        assert row["status"] == record["status"]


@ray_test
@quiet
def test_a_folder_is_read_as_the_predictor_reads_it(
    photos: Path, expected: dict[str, dict], request_: ArchiveRequest, two_workers: None, tmp_path: Path
) -> None:
    counts = predict_archive(str(photos), str(tmp_path / "out"), request_, workers=2)
    assert counts == ArchiveCounts(PHOTOS, 1, 0)
    check_answers(tmp_path / "out", expected)
    [failed] = (tmp_path / "out" / "status=failed").iterdir()
    # Again: nothing is left to do. With a part lost: only its photos are read.
    assert predict_archive(str(photos), str(tmp_path / "out"), request_, workers=2).known == PHOTOS + 1
    failed.unlink()
    part = next((tmp_path / "out" / "status=ok").iterdir())
    part.write_bytes(part.read_bytes()[:-10])
    counts = predict_archive(str(photos), str(tmp_path / "out"), request_, workers=2)
    assert (counts.answered, counts.failed) == (PHOTOS, 1)
    assert 0 <= counts.known < PHOTOS
    check_answers(tmp_path / "out", expected)
    with pytest.raises(ConfigurationError, match="views") as refused:
        predict_archive(str(photos), str(tmp_path / "out"), archive.replace(request_, views=2))
    assert refused.value.code == ErrorCode.PREDICTIONS_DIFFER


@ray_test
@quiet
def test_tar_files_are_read(
    photos: Path, expected: dict[str, dict], request_: ArchiveRequest, two_workers: None, tmp_path: Path
) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "a.tar", "w") as tar:
        tar.add(photos, arcname=".")
    for known in (0, PHOTOS + 1):
        counts = predict_archive(str(tmp_path / "shards"), str(tmp_path / "out"), request_, workers=1)
        assert counts == ArchiveCounts(PHOTOS, 1, known)
        check_answers(tmp_path / "out", expected, prefix="a.tar/")


@ray_test
@quiet
def test_a_url_that_only_fsspec_knows_is_read(
    photos: Path, expected: dict[str, dict], request_: ArchiveRequest, two_workers: None, tmp_path: Path
) -> None:
    archived = shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    counts = predict_archive(f"zip://::{archived}", str(tmp_path / "out"), request_, workers=1)
    assert counts == ArchiveCounts(PHOTOS, 1, 0)
    check_answers(tmp_path / "out", expected)


@ray_test
@quiet
def test_parquet_files_with_encoded_photos_are_read(
    photos: Path, expected: dict[str, dict], request_: ArchiveRequest, two_workers: None, tmp_path: Path
) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = list(expected)
    contents = [(photos / name).read_bytes() for name in names]
    rows = [{"bytes": content, "path": name} for name, content in zip(names, contents, strict=True)]
    parquet.write_table(
        arrow.table({"image": rows, "image_id": names, "age": [50] * len(names)}), tmp_path / "a.parquet"
    )
    predict_archive(str(tmp_path / "a.parquet"), str(tmp_path / "out"), request_, workers=1)
    check_answers(tmp_path / "out", expected)
    parquet.write_table(arrow.table({"picture": contents[:3]}), tmp_path / "b.parquet")
    with pytest.raises(ConfigurationError, match="picture"):
        predict_archive(str(tmp_path / "b.parquet"), str(tmp_path / "unnamed"), request_)
    shutil.rmtree(tmp_path / "unnamed")
    predict_archive(
        str(tmp_path / "b.parquet"), str(tmp_path / "unnamed"), request_, workers=1, image_column="picture"
    )
    assert read_answers(tmp_path / "unnamed").keys() == {expected[name]["sha256"] for name in names[:3]}


@ray_test
@quiet
def test_a_worker_that_is_killed_loses_nothing_and_repeats_nothing(
    photos: Path,
    expected: dict[str, dict],
    request_: ArchiveRequest,
    two_workers: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dies_once = tmp_path / "died"

    class Mortal(archive.ArchiveReader):
        def __call__(self, batch):
            rows = super().__call__(batch)
            if not dies_once.exists():
                dies_once.touch()
                os._exit(1)
            return rows

    monkeypatch.setattr(archive, "ArchiveReader", Mortal)
    predict_archive(str(photos), str(tmp_path / "out"), request_, workers=2)
    assert dies_once.exists()
    check_answers(tmp_path / "out", expected)
