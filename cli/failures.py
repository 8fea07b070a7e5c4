"""Say in one line what stopped a command, for what is no bug of this program."""

import errno

from dti_geom.errors import missing_memory

# What the system reports, what it means, and what to do.
_BY_NUMBER = {
    errno.ENOENT: "does not exist. Check the path.",
    errno.EACCES: "may not be read or written by you. Change its permissions, or choose another "
    "path.",
    errno.EPERM: "may not be changed by you. Choose another path.",
    errno.EROFS: "lies on a read-only disk. Choose another path.",
    errno.ENOTDIR: "has a file where a folder is needed. Choose another path.",
    errno.EEXIST: "is a file, and a folder is needed there. Choose another path.",
    errno.EISDIR: "is a folder, and a file is needed there. Choose another path.",
    errno.ENAMETOOLONG: "is longer than file names may be here. Choose a shorter name.",
    errno.ELOOP: "is a link that leads to itself. Remove it.",
    errno.EMFILE: "could not be opened: too many files are open. Raise `ulimit -n`.",
    errno.ENOSPC: "did not fit on the disk. Make room and run the command again.",
    errno.EDQUOT: "did not fit in your quota. Make room and run the command again.",
    errno.EFBIG: "is larger than files may be here. Choose another disk.",
    errno.EIO: "could not be read or written: the disk reports an error. Check the disk.",
}


def explain(error: Exception) -> str | None:
    """Return one line about an error that the user's machine or files cause.

    None for anything else, which is a bug.
    """
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        place = error.filename2 or error.filename or "a file"
        return f"{place} {_BY_NUMBER[error.errno]}"
    if (missing := missing_memory(error)) is not None:
        return (
            f"out of memory: {missing}. What helps: fewer or smaller pictures at once, --dtype "
            "bfloat16 where the command has it, or a machine with more memory."
        )
    return None
