"""Sources of a model's files: a local folder, or a repository on the Hugging Face Hub.

Neither reads more than was asked for.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dti_geom.errors import ModelFilesError, UnknownModel, first_line
from dti_geom.progress import Progress, silent


class Source(Protocol):
    """A model's files, by names relative to its root such as `text_encoder/config.json`."""

    @property
    def name(self) -> str:
        """What the user called it, for messages."""
        ...

    def has(self, file: str) -> bool:
        """Whether the file exists."""
        ...

    def sizes(self) -> dict[str, int]:
        """Return every file and its size in bytes."""
        ...

    def here(self, file: str) -> bool:
        """Whether the whole file is on this machine."""
        ...

    def local(self, file: str, progress: Progress = silent) -> Path:
        """Return a local path of the whole file, downloaded once if need be.

        progress: called with the bytes of this file.
        """
        ...

    def read(self, file: str, start: int, stop: int, progress: Progress = silent) -> bytearray:
        """Return the bytes start … stop of a file, fewer at its end."""
        ...

    def identity(self, file: str) -> str | None:
        """Return a name for exactly these bytes, to cache by.

        None where reading again costs no more than a cache.
        """
        ...


@dataclass(frozen=True)
class Folder:
    """A folder on this machine."""

    path: Path

    @property
    def name(self) -> str:
        """The path as given."""
        return str(self.path)

    def has(self, file: str) -> bool:
        """Whether the file exists."""
        return (self.path / file).is_file()

    def sizes(self) -> dict[str, int]:
        """Return every file below the folder and its size in bytes."""
        files = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in files}

    def here(self, file: str) -> bool:
        """Whether the file exists."""
        return self.has(file)

    def local(self, file: str, progress: Progress = silent) -> Path:
        """Return the file's path. Raises ModelFilesError if it is missing."""
        if not self.has(file):
            raise ModelFilesError(
                f"{self.path} has no {file}. Is it a complete diffusers or transformers folder?"
            )
        return self.path / file

    def read(self, file: str, start: int, stop: int, progress: Progress = silent) -> bytearray:
        """Return the bytes start … stop of the file."""
        path = self.local(file)
        # A header that lies about its length must not cost memory.
        buffer = bytearray(max(min(stop, path.stat().st_size) - start, 0))
        with open(path, "rb") as handle:
            handle.seek(start)
            count = handle.readinto(buffer)
        del buffer[count:]
        return buffer

    def identity(self, file: str) -> None:
        """Return None: the disk is its own cache."""
        return None


@dataclass(frozen=True)
class HubRepository:
    """A model repository on the Hub (or on the server that HF_ENDPOINT names)."""

    name: str
    revision: str | None = None  # branch, tag or commit; None: the main branch

    def has(self, file: str) -> bool:
        """Whether the file exists, in the local cache or on the server.

        Where the Hub does not answer, the local cache decides. Raises ModelFilesError if it has
        nothing of this repository.
        """
        from huggingface_hub.errors import EntryNotFoundError

        if self._cached(file):
            return True
        try:
            with self._reachable():
                self._metadata(file)
        except EntryNotFoundError:
            return False
        except ModelFilesError:
            if self._snapshot() is None:
                raise
            return False
        return True

    def sizes(self) -> dict[str, int]:
        """Return every file and its size in bytes.

        Where the Hub does not answer, the files in the local cache. Raises ModelFilesError if there
        are none.
        """
        try:
            siblings = self._info().siblings or []
            return {file.rfilename: file.size or 0 for file in siblings}
        except ModelFilesError:
            snapshot = self._snapshot()
            if snapshot is None:
                raise
            return Folder(snapshot).sizes()

    def here(self, file: str) -> bool:
        """Whether the whole file is in the local cache."""
        return self._cached(file) is not None

    def local(self, file: str, progress: Progress = silent) -> Path:
        """Return the file in the Hub's cache, downloaded if it is not there yet."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            with self._reachable():
                path = hf_hub_download(
                    self.name, file, revision=self.revision, tqdm_class=_listening(file, progress)
                )
        except EntryNotFoundError as error:
            raise ModelFilesError(f"{self.name} on the Hub has no {file}.") from error
        return Path(path)

    def read(self, file: str, start: int, stop: int, progress: Progress = silent) -> bytearray:
        """Return the bytes start … stop.

        By a range request, unless the whole file is in the cache already.
        """
        cached = self._cached(file)
        if cached:
            return Folder(cached.parent).read(cached.name, start, stop)
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        headers = build_hf_headers() | {
            "Range": f"bytes={start}-{stop - 1}",
            "Accept-Encoding": "identity",
        }
        url = hf_hub_url(self.name, file, revision=self.revision)
        buffer = bytearray()
        with self._reachable(), get_session().stream("GET", url, headers=headers) as response:
            response.raise_for_status()
            if (
                response.status_code != 206
            ):  # the server ignores ranges and would send the whole file
                return Folder(self.local(file).parent).read(Path(file).name, start, stop)
            if not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise ModelFilesError(
                    f"{self.name}: the server sent another part of {file} than was asked for. "
                    "Check HF_ENDPOINT and the proxy."
                )
            # Raw: a packed answer, which was not asked for, could unpack to gigabytes.
            for chunk in response.iter_raw(1 << 20):
                buffer += chunk
                progress(f"{self.name} {file}", len(buffer), stop - start)
                if len(buffer) > stop - start:
                    raise ModelFilesError(
                        f"{self.name}: the server sent more of {file} than was asked for. "
                        "Check HF_ENDPOINT and the proxy."
                    )
        return buffer

    def commit(self) -> str:
        """Return the commit whose files are read: the one that the revision names now."""
        return self.local("model_index.json").parent.name

    def identity(self, file: str) -> str | None:
        """Return repository, commit and file; None if the whole file is cached."""
        if self._cached(file):
            return None
        with self._reachable():
            return f"{self.name}/{self._metadata(file).etag}/{file}"

    def _cached(self, file: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, file, revision=self.revision)
        return Path(cached) if isinstance(cached, str) else None

    def _metadata(self, file: str) -> Any:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        return get_hf_file_metadata(hf_hub_url(self.name, file, revision=self.revision))

    def _info(self) -> Any:
        from huggingface_hub import model_info

        with self._reachable():
            try:
                return model_info(self.name, revision=self.revision, files_metadata=True)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise OSError(f"the answer is no list of files: {first_line(error)}") from error

    def _snapshot(self) -> Path | None:
        """Return the folder of the cached files of this revision, or None."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.name, revision=self.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            return None

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        """Turn the Hub's errors into ModelFilesError or UnknownModel, with what to do next."""
        from huggingface_hub import errors

        try:
            yield
        except errors.GatedRepoError as error:
            raise ModelFilesError(
                f"{self.name} is gated: accept its licence on its Hub page, then log in with "
                "`hf auth login`."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise UnknownModel(
                f"{self.name} on the Hub has no revision '{self.revision}'. Expected a branch, a "
                "tag or a commit: --model org/name@main"
            ) from error
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise UnknownModel(
                f"there is no model repository '{self.name}' on the Hub (or it is private: "
                "`hf auth login`), and no local folder of that name."
            ) from error
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            # Its cause says why the Hub's library gave up.
            raise self._unreachable(error.__cause__ or error) from error
        except errors.EntryNotFoundError:
            raise
        except ModelFilesError:
            raise
        except Exception as error:
            if not _is_of_the_network(error):
                raise
            raise self._unreachable(error) from error

    def _unreachable(self, error: BaseException) -> ModelFilesError:
        status = getattr(getattr(error, "response", None), "status_code", None)
        busy = status is not None and (status == 429 or status >= 500)
        advice = (
            "The server is busy: try again in a few minutes"
            if busy
            else "Check the network (and HTTPS_PROXY and HF_ENDPOINT, if set)"
        )
        return ModelFilesError(
            f"{self.name} is not on this machine and the Hub did not give it "
            f"({first_line(error)}). {advice}, or pass a local folder: --model ./my-model"
        )


_LARGEST_JSON = 2**26  # bytes of a configuration or an index; the longest index has a few million

# Packages whose errors say that a connection failed, beside the standard library's OSError.
_NETWORK_PACKAGES = (
    *("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "huggingface_hub"),
    *("http", "ssl", "socket"),
)


def _is_of_the_network(error: Exception) -> bool:
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or package in _NETWORK_PACKAGES


def _listening(file: str, progress: Progress) -> type:
    """Return a progress bar class for the Hub's library that draws nothing and tells `progress`."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Listening(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            progress(file, int(self.n), int(self.total or 0))

        def update_transfer(self, n: float) -> None:
            """Ignore the network's own count: parts that are here already do not travel."""

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            """Ignore the speed: progress has its own."""

    return Listening


def read_json(source: Source, file: str) -> dict[str, Any]:
    """Return a JSON object of the model. Raises ModelFilesError for anything else."""
    path = source.local(file)
    if path.stat().st_size > _LARGEST_JSON:
        raise ModelFilesError(
            f"{path} has {path.stat().st_size} bytes; expected a JSON file of at most "
            f"{_LARGEST_JSON}. Fetch the file again."
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(
            f"{path} is not valid JSON ({error}). Fetch the file again."
        ) from error
    if not isinstance(value, dict):
        raise ModelFilesError(f"{path} holds a {type(value).__name__}; an object was expected.")
    return value


def read_weight_map(source: Source, entry: str) -> dict[str, str]:
    """Return the file of each tensor, from the index of a model's shards.

    Raises ModelFilesError for an index without one, or one that leads out of its folder.
    """
    shards = read_json(source, entry).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelFilesError(
            f"{entry} has no weight_map, so it does not say where the tensors lie."
        )
    strange = [file for file in shards.values() if Path(str(file)).name != file]
    if strange:
        raise ModelFilesError(
            f"{entry} names a shard {strange[0]!r}. Expected the name of a file beside it: fetch "
            "the index again."
        )
    folder = entry.rpartition("/")[0]
    return {name: f"{folder}/{file}".lstrip("/") for name, file in shards.items()}


def first_existing(source: Source, files: Sequence[str]) -> str | None:
    """Return the first of these files that exists, or None."""
    return next((file for file in files if source.has(file)), None)
