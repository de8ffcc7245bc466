"""What the app keeps of an upload, and for how long."""

import os
import time
from pathlib import Path

import pytest
from gradio.utils import get_upload_folder

from dermadeit.errors import ImageError
from dermadeit.views.batch_session import Session
from dermadeit.views.uploads import CACHE_SECONDS, hold, private_cache, sweep, uploaded_files


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


def test_what_is_held_outlives_the_sweep_and_goes_after_it(tmp_path):
    session = Session(tmp_path / "run")
    (tmp_path / "run").mkdir()
    for path in (tmp_path / "run" / "photo", tmp_path / "other"):
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    hold(session, session.folder)
    sweep(tmp_path, CACHE_SECONDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert (tmp_path / "run" / "photo").is_file()
    session.settle()
    sweep(tmp_path, CACHE_SECONDS)
    assert (tmp_path / "run" / "photo").is_file()
    sweep(tmp_path, -1)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_waits_keeps_its_files_from_whoever_sends_the_same(cache, encoded_photo):
    shared = cache / "shared" / "a.jpg"
    shared.parent.mkdir()
    shared.write_bytes(encoded_photo())
    records = [{"path": str(shared), "orig_name": name} for name in ("a.jpg", "b.jpg")]
    session = Session.begin([*records, {"path": "/etc/passwd"}, "nonsense"])
    assert not shared.exists()
    with uploaded_files(session.payload[:2], session.folder) as files:
        assert [file.name for file in files] == ["a.jpg", "b.jpg"]
        assert files[0].path.read_bytes() == encoded_photo()
    with pytest.raises(ImageError), uploaded_files(session.payload[2:3], session.folder):
        pass
