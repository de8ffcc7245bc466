"""Downloads that are cut off, resumed, refused and checked, from a server on loopback."""

import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from loopback import FileServer, serving

from train.data.checksums import verify_checksums
from train.data.downloads import DownloadError, download

CONTENT = bytes(range(256)) * 40
NAME = "archive.zip"


@pytest.fixture
def server():
    with serving({NAME: CONTENT}) as running:
        yield running


def _fetch(server: FileServer, folder: Path, **options) -> Path:
    destination = folder / NAME
    download(f"{server.url}/{NAME}", destination, **{"backoff_seconds": 0, "timeout_seconds": 5} | options)
    return destination


def _ranges(server: FileServer) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


def test_a_file_arrives_whole_and_alone(server: FileServer, tmp_path: Path) -> None:
    assert _fetch(server, tmp_path / "new").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == [NAME]


def test_a_cut_off_download_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [4000, 3000]
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert _ranges(server) == [None, "bytes=4000-", "bytes=7000-"]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [4000]
    with pytest.raises(DownloadError, match=r"cut off after 4,000 of 10,240 bytes.*same command") as caught:
        _fetch(server, tmp_path, attempts=1)
    assert caught.value.code == "download_cut_off"
    assert not (tmp_path / NAME).exists()
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert _ranges(server) == [None, "bytes=4000-"]


def test_a_file_that_changed_meanwhile_starts_over(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [4000]
    with pytest.raises(DownloadError):
        _fetch(server, tmp_path, attempts=1)
    server.files[NAME] = other = CONTENT[::-1]
    assert _fetch(server, tmp_path).read_bytes() == other


def test_a_server_that_ignores_if_range_does_not_mix_two_files(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [4000]
    with pytest.raises(DownloadError):
        _fetch(server, tmp_path, attempts=1)
    server.files[NAME] = other = CONTENT[::-1]
    server.ignores_if_range = True
    assert _fetch(server, tmp_path).read_bytes() == other
    assert _ranges(server) == [None, "bytes=4000-", None]


def test_a_file_that_became_shorter_starts_over(server: FileServer, tmp_path: Path) -> None:
    server.etags[NAME] = '"same"'
    server.cut_after = [4000]
    with pytest.raises(DownloadError):
        _fetch(server, tmp_path, attempts=1)
    server.files[NAME] = CONTENT[:3000]
    assert _fetch(server, tmp_path).read_bytes() == CONTENT[:3000]


@pytest.mark.parametrize("changes", [{"ranges": False}, {"validators": False}])
def test_without_ranges_or_validators_it_starts_over(
    server: FileServer, tmp_path: Path, changes: dict
) -> None:
    for name, value in changes.items():
        setattr(server, name, value)
    server.cut_after = [4000]
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_weak_etag_is_never_used_to_go_on(server: FileServer, tmp_path: Path) -> None:
    server.etags[NAME] = 'W/"weak"'
    server.cut_after = [4000]
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert _ranges(server) == [None, None]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    server.requests.clear()
    with pytest.raises(DownloadError, match=r"404.*--archives") as caught:
        download(f"{server.url}/missing.zip", tmp_path / "missing.zip", backoff_seconds=0)
    assert caught.value.code == "download_refused"
    assert len(server.requests) == 1


def test_a_server_that_never_answers_is_given_up(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [500] * 3
    with pytest.raises(DownloadError, match="stopped 3 times: the server answered 500"):
        _fetch(server, tmp_path, attempts=3)
    assert len(server.requests) == 3


def test_a_full_disk_is_noticed_before_it_is_filled(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 100, 100))
    with pytest.raises(DownloadError, match="Make room") as caught:
        _fetch(server, tmp_path)
    assert caught.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == []


def test_only_web_addresses_are_opened(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="https://"):
        download((tmp_path / "x").as_uri(), tmp_path / "y")


def test_checksums_are_compared_with_given_and_with_noted_ones(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    verify_checksums(tmp_path, [NAME], {NAME: digest.upper()})
    assert json.loads((tmp_path / "checksums.json").read_text()) == {NAME: digest}
    with pytest.raises(DownloadError, match="--sha256") as caught:
        verify_checksums(tmp_path, [NAME], {NAME: "0" * 64})
    assert caught.value.code == "wrong_checksum"
    (tmp_path / NAME).write_bytes(CONTENT[1:])
    with pytest.raises(DownloadError, match=r"not the file that was here before.*checksums\.json"):
        verify_checksums(tmp_path, [NAME])
