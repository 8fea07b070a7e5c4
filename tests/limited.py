"""Read embedding files, each with little memory and processor time.

    python tests/limited.py FILE …

Prints one JSON object: for each file the error message, "read", or how its process ended.
"""

import json
import os
import resource
import sys
from pathlib import Path

from dti_geom.errors import EmbeddingFileError
from dti_geom.files import read_embeddings

MEMORY = 64 * 2**20  # bytes that a file may add to the address space
SECONDS = 30  # of processor time; no file below a megabyte needs one


def outcome(path: str) -> str:
    """Return what came of reading a file in a process of its own."""
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        os.write(theirs, _read(path).encode())
        os._exit(0)
    os.close(theirs)
    _, status = os.waitpid(process, 0)
    with os.fdopen(ours) as pipe:
        return pipe.read() or f"ended with {os.waitstatus_to_exitcode(status)}"


def _read(path: str) -> str:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        read_embeddings(path)
    except EmbeddingFileError as error:
        return str(error)
    except Exception as error:
        return f"crashed: {error!r}"
    return "read"


if __name__ == "__main__":
    print(json.dumps({path: outcome(path) for path in sys.argv[1:]}))
