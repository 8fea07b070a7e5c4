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

    def local(self, file: str) -> Path:
        """Return a local path of the whole file, downloaded once if need be."""
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

    def local(self, file: str) -> Path:
        """Return the file's path. Raises ModelFilesError if it is missing."""
        if not self.has(file):
            raise ModelFilesError(
                f"{self.path} has no {file}. Is it a complete diffusers or transformers folder?"
            )
        return self.path / file

    def read(self, file: str, start: int, stop: int, progress: Progress = silent) -> bytearray:
        """Return the bytes start … stop of the file."""
        buffer = bytearray(stop - start)
        with open(self.local(file), "rb") as handle:
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

    def has(self, file: str) -> bool:
        """Whether the file exists, in the local cache or on the server."""
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        if self._cached(file):
            return True
        try:
            with self._reachable():
                self._metadata(file)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return False
        return True

    def local(self, file: str) -> Path:
        """Return the file in the Hub's cache, downloaded if it is not there yet."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            with self._reachable():
                return Path(hf_hub_download(self.name, file))
        except EntryNotFoundError as error:
            raise ModelFilesError(f"{self.name} on the Hub has no {file}.") from error

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
        buffer = bytearray()
        with (
            self._reachable(),
            get_session().stream("GET", hf_hub_url(self.name, file), headers=headers) as response,
        ):
            response.raise_for_status()
            if (
                response.status_code != 206
            ):  # the server ignores ranges and would send the whole file
                return Folder(self.local(file).parent).read(Path(file).name, start, stop)
            total = int(response.headers["Content-Length"])
            for chunk in response.iter_bytes(1 << 20):
                buffer += chunk
                progress(f"{self.name} {file}", len(buffer), total)
        return buffer

    def identity(self, file: str) -> str | None:
        """Return repository, commit and file; None if the whole file is cached."""
        if self._cached(file):
            return None
        with self._reachable():
            return f"{self.name}/{self._metadata(file).etag}/{file}"

    def _cached(self, file: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, file)
        return Path(cached) if isinstance(cached, str) else None

    def _metadata(self, file: str) -> Any:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        return get_hf_file_metadata(hf_hub_url(self.name, file))

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
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise UnknownModel(
                f"there is no model repository '{self.name}' on the Hub (or it is private: "
                "`hf auth login`), and no local folder of that name."
            ) from error
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            raise self._unreachable(error) from error
        except errors.EntryNotFoundError:
            raise
        # HfHubHTTPError, and the connection errors of the standard library.
        except OSError as error:
            raise self._unreachable(error) from error
        except Exception as error:
            if type(error).__module__.split(".")[0] not in (
                "httpx",
                "httpx2",
                "httpcore",
                "httpcore2",
            ):
                raise
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ModelFilesError:
        return ModelFilesError(
            f"{self.name} is not on this machine and the Hub did not give it "
            f"({first_line(error)}). "
            "Check the network, or pass a local folder: --model ./my-model"
        )


def read_json(source: Source, file: str) -> dict[str, Any]:
    """Return a JSON object of the model. Raises ModelFilesError for anything else."""
    path = source.local(file)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFilesError(
            f"{path} is not valid JSON ({error}). Fetch the file again."
        ) from error
    if not isinstance(value, dict):
        raise ModelFilesError(f"{path} holds a {type(value).__name__}; an object was expected.")
    return value


def first_existing(source: Source, files: Sequence[str]) -> str | None:
    """Return the first of these files that exists, or None."""
    return next((file for file in files if source.has(file)), None)
