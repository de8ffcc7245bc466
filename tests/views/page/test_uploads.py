"""What the app keeps of an upload, and for how long."""

import os
import time
from base64 import b64encode
from pathlib import Path

import pytest
from gradio.mcp import GradioMCPServer
from gradio.utils import get_upload_folder

from dermadeit.errors import ImageError
from dermadeit.views.page.job import FilesJob
from dermadeit.views.page.uploads import (
    CACHE_SECONDS,
    FOLDER_MARK,
    hold,
    private_cache,
    sweep,
    sweep_abandoned,
    take_uploads,
)


def test_the_private_cache_is_where_gradio_looks_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with private_cache() as folder:
        assert Path(get_upload_folder()) == folder
        assert folder.parent == tmp_path / "cache"
        (folder / "photo.png").write_bytes(b"pixels")
    assert list((tmp_path / "cache").iterdir()) == []
    assert get_upload_folder() == str(tmp_path / "cache")


def test_a_photo_that_an_mcp_client_sends_as_base64_lies_in_the_private_cache(
    encoded_photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr("gradio.mcp.DEFAULT_TEMP_DIR", str(tmp_path / "elsewhere"))
    sent = {"image": f"data:image/jpeg;base64,{b64encode(encoded_photo()).decode()}"}
    with private_cache() as folder:
        taken = GradioMCPServer.convert_strings_to_filedata(object(), sent, [["image"]])
        assert Path(taken["image"]["path"]).is_relative_to(folder)
        assert Path(taken["image"]["path"]).read_bytes() == encoded_photo()
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_old_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "a" / "old.png", tmp_path / "b" / "new.png"
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(b"pixels")
    before = time.time() - CACHE_SECONDS - 1
    os.utime(old, (before, before))
    sweep(tmp_path, CACHE_SECONDS)
    assert not old.exists()
    assert new.exists()


def test_what_a_killed_app_has_left_goes_while_the_next_one_runs(tmp_path: Path) -> None:
    ours, killed, running = (tmp_path / f"dermadeit-uploads-{name}" for name in ("ours", "killed", "running"))
    other = tmp_path / "somebody-elses"
    for folder in (ours, killed, running, other):
        folder.mkdir()
        (folder / "photo").write_bytes(b"pixels")
        os.utime(folder, (0, 0))
    link = tmp_path / "dermadeit-uploads-link"
    link.symlink_to(other)
    suspected = sweep_abandoned(ours)
    assert killed.exists()
    # The machine has slept; another app that runs has swept since.
    sweep_abandoned(running)
    sweep_abandoned(ours, suspected)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dermadeit-uploads-link", "dermadeit-uploads-ours", "dermadeit-uploads-running", "somebody-elses",
    ]  # fmt: skip
    assert (other / "photo").exists()


def test_what_is_held_outlives_the_sweep_and_goes_after_it(tmp_path):
    job = FilesJob(tmp_path / "run")
    (tmp_path / "run").mkdir()
    for path in (tmp_path / "run" / "photo", tmp_path / "other"):
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    hold(job, job.folder)
    sweep(tmp_path, CACHE_SECONDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert (tmp_path / "run" / "photo").is_file()
    job.finish()
    sweep(tmp_path, CACHE_SECONDS)
    assert (tmp_path / "run" / "photo").is_file()
    sweep(tmp_path, -1)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_waits_keeps_its_files_from_whoever_sends_the_same(cache, encoded_photo):
    shared = cache / "shared" / "a.jpg"
    shared.parent.mkdir()
    shared.write_bytes(encoded_photo())
    records = [{"path": str(shared), "orig_name": name} for name in ("a.jpg", "b.jpg")]
    job = FilesJob.begin([*records, {"path": "/etc/passwd"}, "nonsense"])
    assert not shared.exists()
    with take_uploads(job.payload[:2], job.folder) as files:
        assert [file.name for file in files] == ["a.jpg", "b.jpg"]
        assert files[0].path.read_bytes() == encoded_photo()
    with pytest.raises(ImageError), take_uploads(job.payload[2:3], job.folder):
        pass


def test_files_of_one_name_and_content_keep_their_places_in_a_folder(cache, tmp_path, encoded_photo):
    shared = cache / "digest" / "a.jpg"
    shared.parent.mkdir()
    shared.write_bytes(encoded_photo())
    names = ["set/nevus/a.jpg", "set/others/a.jpg", "set∕odd.jpg"]
    records = [{"path": str(shared), "orig_name": name.replace("/", FOLDER_MARK)} for name in names]
    with take_uploads([*records, {"path": str(shared)}], tmp_path) as files:
        # A name may hold the sign that stands for a slash by itself.
        assert [file.name for file in files] == [*names, "a.jpg"]
        assert {file.path.parent for file in files} == {tmp_path}


def test_a_run_that_gets_no_turn_leaves_its_files_to_be_handed_in_again(cache, encoded_photo):
    place = cache / "waiting" / "a.jpg"
    place.parent.mkdir()
    place.write_bytes(encoded_photo())
    records = [{"path": str(place), "orig_name": name} for name in ("a.jpg", "b.jpg")]
    records += [{"path": "/etc/passwd"}, "nonsense"]
    job = FilesJob.begin(records)
    assert not place.exists()
    place.parent.rmdir()
    job.supersede()
    assert place.read_bytes() == encoded_photo()
    assert job.is_over
    assert Path("/etc/passwd").exists()
    again = FilesJob.begin(records)
    with take_uploads(again.payload[:2], again.folder) as files:
        assert [file.name for file in files] == ["a.jpg", "b.jpg"]
