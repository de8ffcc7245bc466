"""Archives of millions of photos, read with Ray Data: on the cores or GPUs of one machine, or of a cluster.

Ray reads, hands out and writes. What it writes are Parquet parts: answers below `status=ok`, photos that can't be
read below `status=failed`; one reader takes both, with `status` as a column. Photos that have a row there are not
read again, so the same call goes on where it was cut off.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dermadeit.about import VERSION
from dermadeit.data.search import IMAGE_SUFFIXES, is_hidden
from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.inference.predictor import DEFAULT_VIEWS, Predictor, load_predictor
from dermadeit.inference.records import ItemFailure, Prediction
from dermadeit.models.hub import names_a_checkpoint

RUN_FILE = "_run.json"
"""What the answers in a folder are of. Readers of Parquet pass over names with an underscore."""

IMAGE_COLUMNS = ("image", "bytes")
"""Where the encoded photos of a Parquet file are looked for; `image` may be a struct of `bytes` and `path`."""

ID_COLUMNS = ("image_id", "isic_id", "id", "path", "file")
"""Where their names are looked for. Without one, a photo is named by the SHA-256 of its bytes."""

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_BATCH_PHOTOS = 64
_READING_THREADS = 16

# Of each core a worker takes most, so that something is left for the tasks that read and write.
_CORES_OF_A_WORKER = 0.8
_CORES_OF_A_TASK = 0.1

_MEMBER = "photo"
_DOT = "\N{ONE DOT LEADER}"


@dataclass(frozen=True)
class ArchiveRequest:
    """What is asked about every photo of an archive.

    Attributes:
        task: As for `load_predictor`, and so are model and runtime.
        model: A name, a folder that every machine of the cluster sees, or `hf-hub:ORG/NAME`.
        runtime: One of `RUNTIMES`.
        views: Dihedral views whose logits are averaged, 1 to 8.
        operating_point: One of `calibration.OPERATING_POINTS`; None for the balanced one.
    """

    task: str | None = None
    model: str = "dermadeit"
    runtime: str = "torch"
    views: int = DEFAULT_VIEWS
    operating_point: str | None = None

    def load(self, device: str) -> Predictor:
        """The predictor that answers; raises as `load_predictor`."""
        return load_predictor(self.task, self.model, device=device, runtime=self.runtime)


@dataclass(frozen=True)
class ArchiveCounts:
    """How many photos have a row in the folder when a run is over.

    Attributes:
        answered: Photos that were read, withheld answers among them.
        failed: Photos that could not be read.
        known: Those of both that had a row before.
    """

    answered: int
    failed: int
    known: int


@dataclass(frozen=True)
class _Place:
    """A file or folder, on disk or anywhere else; `filesystem` is one of Arrow's."""

    filesystem: Any
    path: str

    @classmethod
    def at(cls, address: str) -> _Place:
        """Where a path or a URL leads: one that Arrow knows (s3, gs, hdfs, …), else one that fsspec knows."""
        arrow = _need("pyarrow.fs")
        if "://" not in address:
            return cls(arrow.LocalFileSystem(), Path(address).resolve().as_posix())
        try:
            return cls(*arrow.FileSystem.from_uri(address))
        except ValueError:
            pass
        try:
            filesystem, path = _need("fsspec.core").url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(f"“{address}” can't be opened: {error}") from error
        return cls(arrow.PyFileSystem(arrow.FSSpecHandler(filesystem)), path)

    def is_missing(self) -> bool:
        """Whether nothing is there."""
        return self.filesystem.get_file_info(self.path).type == _need("pyarrow.fs").FileType.NotFound

    def files(self) -> list[str]:
        """Paths of the files in and below it, in order; itself where it is a file; none where nothing is there."""
        arrow = _need("pyarrow.fs")
        if self.filesystem.get_file_info(self.path).type == arrow.FileType.File:
            return [self.path]
        selector = arrow.FileSelector(self.path, allow_not_found=True, recursive=True)
        found = self.filesystem.get_file_info(selector)
        return sorted(each.path for each in found if each.type == arrow.FileType.File)

    def name_of(self, path: str) -> str:
        """A path in it as seen from it; that of itself is its name."""
        inside = path.removeprefix(self.path.rstrip("/") + "/")
        return PurePosixPath(path).name if inside == self.path else inside


@dataclass(frozen=True)
class _Columns:
    """Where a batch has its photos and their names.

    Attributes:
        place: Of the archive; paths are named as seen from it.
        photo: Column of the encoded photos, or of structs with `bytes`.
        name: Column of the names; empty where they are named by their content.
        tar: Column of the tar file that a photo lies in, which is part of its name; empty where it lies in none.
    """

    place: _Place
    photo: str
    name: str = ""
    tar: str = ""

    def read(self, batch: Any) -> tuple[list[str], list[bytes]]:
        """Names and encoded photos of a `pyarrow.Table`; no bytes where there are none."""
        photos = [_bytes_of(value) for value in batch[self.photo].to_pylist()]
        if not self.name:
            return [hashlib.sha256(photo).hexdigest() for photo in photos], photos
        names = [self.place.name_of(str(name)) for name in batch[self.name].to_pylist()]
        if self.tar:
            tars = [self.place.name_of(tar) for tar in batch[self.tar].to_pylist()]
            names = [f"{tar}/{_member_name(name)}" for tar, name in zip(tars, names, strict=True)]
        return names, photos


class ArchiveReader:
    """One worker: a copy of the network that turns a batch of photos into rows of answers.

    Args:
        request: What is asked.
        columns: Where a batch has its photos.
        known: uint64 [M], sorted: of the photos that have a row already, what `hash_names` gives.
        device: Where the network runs.
    """

    def __init__(self, request: ArchiveRequest, columns: _Columns, known: np.ndarray, device: str) -> None:
        self._request, self._columns, self._known = request, columns, known
        self._predictor = request.load(device)
        self._schema = _schema(self._predictor)

    def __call__(self, batch: Any) -> Any:
        """A `pyarrow.Table` of photos to one of answers."""
        names, photos = self._columns.read(batch)
        new = np.flatnonzero(_are_new(names, self._known))
        request = self._request
        records = self._predictor.predict(
            [photos[index] for index in new], request.views, operating_point=request.operating_point
        )
        rows = [_row(names[index], record) for index, record in zip(new, records, strict=True)]
        return _need("pyarrow").Table.from_pylist(rows, schema=self._schema)


def predict_archive(
    source: str,
    output: str,
    request: ArchiveRequest,
    *,
    workers: int | None = None,
    gpus: bool = False,
    image_column: str | None = None,
    id_column: str | None = None,
    shows_progress: bool = False,
) -> ArchiveCounts:
    """Reads every photo of an archive once, and files the answers.

    Ray is started on this machine unless it runs already, or `RAY_ADDRESS` names a cluster.

    Args:
        source: A folder of photos, of tar files or of Parquet files, one such file, or a URL of any of these.
        output: Folder or URL for the parts. What an earlier run left there is kept.
        request: What is asked.
        workers: Copies of the network; one for each core, or for each GPU, by default.
        gpus: Whether every copy gets a GPU.
        image_column: Column of a Parquet file with the encoded photos; the first of `IMAGE_COLUMNS` by default.
        id_column: Column with their names, each once; the first of `ID_COLUMNS` by default.
        shows_progress: Whether Ray's progress bars are shown.

    Returns:
        How many photos have a row now.

    Raises:
        ConfigurationError: Ray is not installed or stops, the source is missing, a column is missing, or the
            folder holds answers to something else.
        DermaDeiTError: As `load_predictor` and `Predictor.predict`.
    """
    _need("ray.data")
    device = "cuda" if gpus else "cpu"
    if names_a_checkpoint(request.model) and Path(request.model).is_dir():
        # Workers have a working directory of their own.
        request = replace(request, model=str(Path(request.model).resolve()))
    predictor = request.load(device)
    # A mistake in the request shows here, before anything is started.
    predictor.predict([], request.views, operating_point=request.operating_point)
    place, target = _Place.at(source), _Place.at(output)
    if place.is_missing():
        raise ConfigurationError(f"There is nothing at “{source}”.", code=ErrorCode.SOURCE_MISSING)
    _claim(target, _describe(source, request, predictor))
    known = _read_known(target)
    with _ray(shows_progress) as ray:
        photos, columns = _open_photos(place, known, image_column, id_column)
        if photos is not None:
            answers = photos.map_batches(
                ArchiveReader,
                batch_size=_BATCH_PHOTOS,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=_count_workers(ray, workers, gpus)),
                fn_constructor_args=(request, columns, known, device),
                num_cpus=_CORES_OF_A_WORKER,
                num_gpus=1 if gpus else 0,
            )
            answers.write_parquet(
                target.path,
                filesystem=target.filesystem,
                partition_cols=["status"],
                compression="zstd",
                ray_remote_args={"num_cpus": _CORES_OF_A_TASK},
            )
    return _count(target, len(known))


def hash_names(names: Iterable[str]) -> np.ndarray:
    """Names to numbers that take less memory, uint64 [N]: no two of ten million are alike by chance."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


@contextmanager
def _ray(shows_progress: bool) -> Iterator[Any]:
    """Ray, started here unless it runs already; what it stops with becomes a sentence."""
    ray = _need("ray")
    starts = not ray.is_initialized()
    # Ray would report its use to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if starts:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
        logging.getLogger("ray.data").setLevel(logging.WARNING if shows_progress else logging.ERROR)
        _need("ray.data").DataContext.get_current().enable_progress_bars = shows_progress
        yield ray
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise ConfigurationError(
            f"Ray stopped: {_last_line(error)} What is written stays. The same command goes on.",
            code=ErrorCode.CUT_OFF,
        ) from error
    finally:
        if starts:
            ray.shutdown()


def _open_photos(
    place: _Place, known: np.ndarray, image_column: str | None, id_column: str | None
) -> tuple[Any, _Columns]:
    """Ray's dataset of the photos, None where all are known, and where they stand in a batch."""
    data, files = _need("ray.data"), place.files()
    options = {"filesystem": place.filesystem, "num_cpus": _CORES_OF_A_TASK}
    if photos := [path for path in files if _is_photo(place.name_of(path))]:
        # Those that are known are not even opened.
        new = np.flatnonzero(_are_new([place.name_of(path) for path in photos], known))
        left = [photos[index] for index in new]
        dataset = data.read_binary_files(left, include_paths=True, **options) if left else None
        return dataset, _Columns(place, "bytes", "path")
    if tars := [path for path in files if path.lower().endswith(_TAR_SUFFIXES)]:
        # Each member is a sample of its own: names with several dots, and photos without a partner, are read too.
        options |= {"filerename": _as_sample, "fileselect": _is_sample_photo, "decoder": None}
        return data.read_webdataset(tars, **options), _Columns(place, _MEMBER, "__key__", "__url__")
    if tables := [path for path in files if path.lower().endswith(".parquet")]:
        wanted = _find_columns(place.filesystem, tables, image_column, id_column)
        dataset = data.read_parquet(tables, columns=[*filter(None, wanted)], **options)
        return dataset, _Columns(place, *wanted)
    raise ConfigurationError(
        "The source holds no photos, tar files or Parquet files.", code=ErrorCode.NO_IMAGES
    )


def _count_workers(ray: Any, workers: int | None, gpus: bool) -> int:
    count = workers or int(ray.cluster_resources().get("GPU" if gpus else "CPU", 0))
    if not count:
        raise ConfigurationError("Ray sees no GPU. Read on the CPU instead.")
    return count


def _claim(target: _Place, run: dict[str, Any]) -> None:
    """Notes what the answers in the folder are of; raises where it holds answers to something else."""
    path = f"{target.path}/{RUN_FILE}"
    filesystem = target.filesystem
    filesystem.create_dir(target.path, recursive=True)
    if _Place(filesystem, path).is_missing():
        with filesystem.open_output_stream(path) as stream:
            stream.write(json.dumps(run, indent=2, ensure_ascii=False).encode())
        return
    with filesystem.open_input_stream(path) as stream:
        before = json.loads(stream.read())
    if other := [
        key for key, value in run.items() if before.get(key) != value and key != "dermadeit_version"
    ]:
        raise ConfigurationError(
            f"The folder holds answers of another run: {', '.join(other)} differ. Choose a new folder.",
            code=ErrorCode.PREDICTIONS_DIFFER,
        )


def _describe(source: str, request: ArchiveRequest, predictor: Predictor) -> dict[str, Any]:
    checkpoint = predictor.checkpoint
    return {
        **asdict(request),
        "source": source,
        "task": checkpoint.task.key,
        "weights_sha256": checkpoint.weights_sha256,
        "dermadeit_version": VERSION,
    }


def _parts(target: _Place) -> list[str]:
    """What earlier runs wrote. Whatever else lies in the folder is none of ours."""
    ours = ("status=ok/", "status=failed/")
    return [
        path for path in target.files() if path.endswith(".parquet") and target.name_of(path).startswith(ours)
    ]


def _read_known(target: _Place) -> np.ndarray:
    """What `hash_names` gives for the photos that have a row, sorted. Half a part, of a killed run, is deleted."""
    arrow, parquet = _need("pyarrow"), _need("pyarrow.parquet")

    def read(path: str) -> np.ndarray:
        try:
            table = parquet.ParquetFile(path, filesystem=target.filesystem).read(columns=["image_id"])
        except arrow.ArrowInvalid:
            target.filesystem.delete_file(path)
            return hash_names([])
        return hash_names(table["image_id"].to_pylist())

    with ThreadPoolExecutor(_READING_THREADS) as pool:
        return np.sort(np.concatenate([hash_names([]), *pool.map(read, _parts(target))]))


def _count(target: _Place, known: int) -> ArchiveCounts:
    parquet = _need("pyarrow.parquet")

    def rows(path: str) -> int:
        return parquet.read_metadata(path, filesystem=target.filesystem).num_rows

    parts = _parts(target)
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        counts = dict(zip(parts, pool.map(rows, parts), strict=True))
    failed = sum(count for path, count in counts.items() if "/status=failed/" in path)
    return ArchiveCounts(sum(counts.values()) - failed, failed, known)


def _are_new(names: Sequence[str], known: np.ndarray) -> np.ndarray:
    """Bool [N]: which of the names are not among the sorted hashes."""
    hashes = hash_names(names)
    if not len(known):
        return np.ones(len(hashes), dtype=bool)
    return known[np.searchsorted(known, hashes).clip(max=len(known) - 1)] != hashes


def _find_columns(
    filesystem: Any, tables: Sequence[str], image_column: str | None, id_column: str | None
) -> tuple[str, str]:
    """Columns of the photos and of their names in Parquet files; the second is empty where there are no names."""
    columns = _need("pyarrow.dataset").dataset(tables, filesystem=filesystem, format="parquet").schema.names
    for asked in filter(None, (image_column, id_column)):
        if asked not in columns:
            raise ConfigurationError(
                f"The Parquet files have no column “{asked}”, but {', '.join(columns)}.",
                code=ErrorCode.MISSING_COLUMN,
            )
    photo = image_column or next((name for name in IMAGE_COLUMNS if name in columns), None)
    if photo is None:
        raise ConfigurationError(
            f"No column of the Parquet files is called {' or '.join(IMAGE_COLUMNS)}. Name the one with the "
            f"encoded photos; there are {', '.join(columns)}.",
            code=ErrorCode.MISSING_COLUMN,
        )
    return photo, id_column or next((name for name in ID_COLUMNS if name in columns), "")


def _bytes_of(value: Any) -> bytes:
    return (value.get("bytes") if isinstance(value, dict) else value) or b""


def _as_sample(member: str) -> str:
    """The name of a member of a tar as one of WebDataset, where the first dot ends the name of a sample."""
    folder, slash, name = member.rpartition("/")
    return f"{folder}{slash}{name.replace('.', _DOT)}.{_MEMBER}"


def _member_name(sample: str) -> str:
    """What `_as_sample` made a sample's name of, with the ending of one or without."""
    return sample.removesuffix(f".{_MEMBER}").replace(_DOT, ".").removeprefix("./")


def _is_sample_photo(sample: str) -> bool:
    return _is_photo(_member_name(sample))


def _is_photo(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name.split("/"))


def _schema(predictor: Predictor) -> Any:
    arrow = _need("pyarrow")
    texts = ("image_id", "status", "sha256", "verdict", "answer_status", "label", "decision")
    numbers = [f"p_{name}" for name in predictor.checkpoint.task.classes]
    return arrow.schema(
        [(name, arrow.string()) for name in texts]
        + [(name, arrow.float64()) for name in numbers]
        + [(name, arrow.string()) for name in ("error_code", "error_message", "record")]
    )


def _row(image_id: str, record: Prediction | ItemFailure) -> dict[str, Any]:
    line: dict[str, Any] = {**record.to_dict(), "file": image_id}
    error, point = line["error"] or {}, line["operating_point"] or {}
    return {
        "image_id": image_id,
        **{key: line[key] for key in ("status", "sha256", "verdict", "answer_status", "label")},
        "decision": point.get("decision"),
        **{f"p_{name}": share for name, share in (line["probabilities"] or {}).items()},
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        "record": json.dumps(line, ensure_ascii=False),
    }


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _need(module: str) -> Any:
    """A module of the extra `scale`; raises `ConfigurationError` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            "Reading an archive needs Ray. Install it with “pip install 'dermadeit[scale]'”.",
            code=ErrorCode.MISSING_PACKAGE,
        ) from error
