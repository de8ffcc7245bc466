"""The program that fills teacher caches, as one process and as two."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dermadeit.data.manifest import read_source
from dermadeit.tasks import DIAGNOSIS
from train import extract_embeddings
from train.data.splitting import fold_of

pytestmark = pytest.mark.slow


@pytest.fixture
def arguments(synthetic_data: Path, checkpoint_root: Path, tmp_path: Path) -> list[str]:
    return [
        "--teacher", f"checkpoint:{checkpoint_root / 'binary' / 'mobilenetv2'}",
        "--data", str(synthetic_data),
        "--views", "2",
        "--output", str(tmp_path / "caches"),
        "--device", "cpu",
        "--shard-images", "8",
    ]  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only_cache(root: Path, name: str = "mobilenetv2") -> Path:
    """The cache of the one version of a teacher."""
    [folder] = root.glob(f"{name}-*")
    return folder


def cached_ids(folder: Path) -> list[str]:
    shards = [json.loads(path.read_text()) for path in folder.glob("shard-*.json")]
    return sorted(image_id for shard in shards for image_id in shard["image_ids"])


def test_the_train_split_of_all_diagnoses_is_embedded(
    arguments: list[str], synthetic_data: Path, tmp_path: Path
) -> None:
    assert extract_embeddings.main(arguments) == 0
    folder = only_cache(tmp_path / "caches")
    manifest = read_source(synthetic_data / "manifest.csv", DIAGNOSIS)
    assert cached_ids(folder) == sorted(row.image_id for row in manifest.select("train").rows)
    assert json.loads((folder / "header.json").read_text())["views"] == [0, 1]
    before = files(folder)
    assert extract_embeddings.main([*arguments, "--split", "validation"]) == 0
    assert before.items() < files(folder).items()
    both = [row.image_id for split in ("train", "validation") for row in manifest.select(split).rows]
    assert cached_ids(folder) == sorted(both)


def test_a_cross_fitted_teacher_is_only_asked_about_its_own_fold(
    arguments: list[str], synthetic_data: Path, checkpoint_root: Path, tmp_path: Path
) -> None:
    folders = []
    for fold in range(2):
        folder = Path(shutil.copytree(checkpoint_root / "binary" / "mobilenetv2", tmp_path / f"net{fold}"))
        (folder / "training.json").write_text(
            json.dumps({"configuration": {"folds": 2, "held_out_fold": fold}})
        )
        folders.append(str(folder))
    arguments[1] = "checkpoint:" + ",".join(folders)
    assert extract_embeddings.main(arguments) == 0
    rows = read_source(synthetic_data / "manifest.csv", DIAGNOSIS).select("train").rows
    for fold in range(2):
        expected = sorted(row.image_id for row in rows if fold_of(row.lesion_group, 2) == fold)
        assert cached_ids(only_cache(tmp_path / "caches", f"mobilenetv2-fold{fold}")) == expected


def test_two_processes_make_the_cache_of_one(arguments: list[str], tmp_path: Path) -> None:
    assert extract_embeddings.main(arguments) == 0
    shared = tmp_path / "shared"
    arguments[arguments.index("--output") + 1] = str(shared)
    launched = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
            "-m", extract_embeddings.__name__, *arguments,
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    whole = files(only_cache(tmp_path / "caches"))
    assert len(whole) > 5
    assert files(only_cache(shared)) == whole
    # The first process says how many images are its own: it has not done all of them.
    total = len(cached_ids(only_cache(shared)))
    assert f"Embedding {total} images" not in launched.stderr
    assert "Embedding " in launched.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data", "nowhere"], "no manifest.csv in the data folder “nowhere”"),
        (["--teacher", "none"], "“none” has no embeddings"),
        (["--teacher", "panderm"], "no teacher “panderm”"),
        (["--teacher", "checkpoint:nowhere"], "“nowhere” is not a checkpoint folder"),
    ],
)
def test_a_mistake_ends_with_a_sentence_and_exit_code_2(
    arguments: list[str], caplog: pytest.LogCaptureFixture, change: list[str], message: str
) -> None:
    assert extract_embeddings.main([*arguments, *change]) == 2
    assert message in caplog.text


def test_labels_of_another_task_are_explained(
    arguments: list[str], synthetic_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copytree(synthetic_data, tmp_path / "labelled"))
    rows = read_source(data / "manifest.csv", DIAGNOSIS).select("train").rows[:3]
    table = ["image_id,file,label,split", *(f"{row.image_id},{row.file},others,train" for row in rows)]
    (data / "manifest.csv").write_text("\n".join(table) + "\n")
    assert extract_embeddings.main([*arguments, "--data", str(data)]) == 2
    assert "--task" in caplog.text
    assert extract_embeddings.main([*arguments, "--data", str(data), "--task", "binary"]) == 0
    assert len(cached_ids(only_cache(tmp_path / "caches"))) == 3


@pytest.mark.parametrize(
    "change", [["--views", "9"], ["--views", "0"], ["--batch-size", "0"], ["--split", "all"]]
)
def test_impossible_settings_are_refused(arguments: list[str], change: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        extract_embeddings.main([*arguments, *change])
    assert caught.value.code == 2
