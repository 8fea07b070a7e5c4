"""The errors that this package raises.

Every message says what was found, what was expected and what to do next, in one or two lines.
The command line prints it unchanged.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name if the message is empty.

    Of a system error, what happened, without number and path: messages name the path themselves.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0].rstrip() or type(error).__name__


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'NAME'?" for the known name most like `name`, or an empty string.

    Capitals make no difference.
    """
    by_lower = {other.lower(): other for other in known}
    matches = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean '{by_lower[matches[0]]}'?" if matches else ""


class DtiGeomError(Exception):
    """Base of all errors that a user can cause or correct."""


class OutOfMemory(DtiGeomError):
    """A computation that needed more memory than there is."""


class WrongArgument(DtiGeomError, TypeError):
    """An argument of another type or name than a function takes."""


class GeometryError(DtiGeomError, ValueError):
    """A tensor that a function is not defined on: zero, NaN, not unit, or of another dimension."""


class UnknownModel(DtiGeomError):
    """A model name, hub id or folder that does not exist."""


class ModelFilesError(DtiGeomError):
    """A model folder that lacks a file or has one that cannot be read."""


class UnknownToken(DtiGeomError):
    """A token that is neither in the vocabulary nor in the given embeddings."""


class EmbeddingFileError(DtiGeomError):
    """A file that is damaged or is not a learned embedding."""


class ResultFileError(DtiGeomError):
    """A result file that cannot be read, or has another format than this version reads."""


class DecodingError(DtiGeomError, ValueError):
    """A key or value of a JSON or YAML file that does not fit what the file should hold."""


class DoesNotApply(DtiGeomError):
    """A measurement that has no meaning for this model. The message says why."""


class FileExists(DtiGeomError):
    """A file that exists already and may not be overwritten."""


class FolderInUse(DtiGeomError):
    """A folder that another process is writing to."""


class MagnitudeError(DtiGeomError):
    """A norm of a token that is not written as one, or that this vocabulary does not have."""


class EditingError(DtiGeomError):
    """A conversion, magnitude or blend that cannot be computed."""


class TrainingError(DtiGeomError):
    """Settings or images that a token cannot be trained with."""


class TrainingDiverged(DtiGeomError):
    """A loss or a vector that is not finite any more. The last checkpoint is kept."""


class TrainingStopped(KeyboardInterrupt):
    """A run that Ctrl-C or SIGTERM stopped between two updates. The message says how to resume.

    It is no DtiGeomError: a sweep must stop too, and not count its cell as failed.
    """

    def __init__(self, message: str, signal: int) -> None:
        """signal: the number of the signal that stopped the run."""
        super().__init__(message)
        self.signal = signal


class EvaluationError(DtiGeomError):
    """Prompts, pictures or scores that cannot be used or computed."""


class StudyError(DtiGeomError):
    """Pictures, answers or numbers that no preference study can be made from."""


class SweepError(DtiGeomError):
    """A sweep file with a mistake, or a sweep that cannot continue."""


def missing_memory(error: BaseException) -> str | None:
    """Return what could not be allocated, for an error of missing memory; None for others."""
    text = str(error)
    # PyTorch's class for GPUs, by its name: this module does not import torch.
    on_gpu = type(error).__name__ == "OutOfMemoryError"
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in text
    if not (on_gpu or on_cpu or isinstance(error, MemoryError)):
        return None
    asked = re.search(r"(?:allocate|array of size|[Uu]nable to allocate) ([\d.]+ \w+)", text)
    card = re.search(r"total capacity of ([\d.]+ \w+)(?: of which ([\d.]+ \w+) is free)?", text)
    parts = [f"{_readable(asked[1])} more were asked for" if asked else ""]
    if card:
        parts.append(f"the card has {card[1]}" + (f", {card[2]} of it free" if card[2] else ""))
    return "; ".join(part for part in parts if part) or "the machine has no more"


def _readable(amount: str) -> str:
    """Return an amount of memory with a fitting unit: PyTorch counts bytes on a CPU."""
    number, unit = amount.split()
    return f"{int(number) / 2**30:.2f} GiB" if unit == "bytes" else amount
