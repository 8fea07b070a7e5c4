"""What this package raises.

Every message says what was found, what was expected and what to do next, in a line or two: the command line prints it
as it stands.
"""


class DtiGeomError(Exception):
    """Base of all errors a user can cause or mend."""


class GeometryError(DtiGeomError, ValueError):
    """A tensor that the asked geometry is not defined on: zero, NaN, not unit, or of another dimension."""


class UnknownModel(DtiGeomError):
    """A model name, hub id or folder that leads nowhere."""


class ModelFilesError(DtiGeomError):
    """A model folder that lacks a file, or holds one that cannot be understood."""


class UnknownToken(DtiGeomError):
    """A token that neither the tokenizer nor the given embeddings know."""


class EmbeddingFileError(DtiGeomError):
    """A file that is not a learned embedding, or a broken one."""


class ResultFileError(DtiGeomError):
    """A result file that cannot be read, or comes from a newer version."""


class DoesNotApply(DtiGeomError):
    """A measurement that has no meaning for this model; the message says why."""


class FileExists(DtiGeomError):
    """A file that would be overwritten without being asked."""


class FolderInUse(DtiGeomError):
    """A folder that another process is writing to."""


class EditingError(DtiGeomError):
    """A conversion, magnitude or blend that cannot be made."""


class TrainingError(DtiGeomError):
    """Settings or images that a token cannot be trained with."""


class TrainingDiverged(DtiGeomError):
    """A loss or a vector that is no longer a finite number; the last checkpoint is kept."""


class EvaluationError(DtiGeomError):
    """Pictures, paths or scores that cannot be made from what was given."""


class SweepError(DtiGeomError):
    """A sweep file with a mistake in it, or a sweep that cannot go on."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
