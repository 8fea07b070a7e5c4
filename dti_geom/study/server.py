"""A small server for several raters: the study's page, and a place for its answers."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dti_geom.errors import DecodingError, StudyError
from dti_geom.files import to_json
from dti_geom.files.decoding import decode
from dti_geom.study.answers import Answer, check_answer
from dti_geom.study.build import PUBLIC
from dti_geom.study.storage import AnswerStore

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_BURST, _PER_SECOND = 20.0, 5.0  # requests of a rater
_MOST_BYTES = 2000  # of an answer
_STRANGER = ""  # all unknown tokens share one allowance


class Allowance:
    """Requests that each rater may make now; what is not used adds up to `burst`."""

    def __init__(
        self,
        burst: float = _BURST,
        per_second: float = _PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: seconds, for tests."""
        self.burst, self.per_second, self.clock = burst, per_second, clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, who: str) -> bool:
        """Take one request; returns whether it was left."""
        now = self.clock()
        left, since = self._left.get(who, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.per_second)
        self._left[who] = (max(left - 1, 0) if left >= 1 else left, now)
        return left >= 1


def study_app(
    folder: str | Path, store: AnswerStore, allowance: Allowance | None = None
) -> "Starlette":
    """Return the application that serves the public folder of a study and keeps its answers.

    GET session?token=… returns the rater's number and answers; POST answers keeps one answer.
    Raises StudyError where Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, PlainTextResponse
        from starlette.routing import Mount, Route
        from starlette.staticfiles import StaticFiles
    except ImportError as error:
        raise StudyError(
            "the server needs Starlette and uvicorn. Run: pip install 'dti-geom[study]'"
        ) from error
    allowed = allowance or Allowance()

    def refused(token: Any) -> "int | Response":
        """The rater with a token, or the reply that there is none."""
        rater = store.rater(token) if isinstance(token, str) else None
        if not allowed.take(_STRANGER if rater is None else str(rater)):
            return PlainTextResponse(
                "Too many requests.", status_code=429, headers={"Retry-After": "1"}
            )
        return PlainTextResponse("Unknown link.", status_code=403) if rater is None else rater

    # Not `async`: Starlette runs these in threads, so that a slow disk stops nobody else.
    def session(request: "Request") -> "Response":
        rater = refused(request.query_params.get("token"))
        if not isinstance(rater, int):
            return rater
        content = {"rater": rater, "answers": to_json(store.answers(rater))}
        return JSONResponse(content, headers={"Cache-Control": "no-store"})

    async def answers(request: "Request") -> "Response":
        from starlette.concurrency import run_in_threadpool

        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BYTES:
                return PlainTextResponse("Too long.", status_code=413)
        return await run_in_threadpool(keep, body)

    def keep(body: bytes) -> "Response":
        token, content = _parsed(body)
        rater = refused(token)
        if not isinstance(rater, int):
            return rater
        try:
            answer = decode(Answer, content)
            check_answer(store.study, rater, answer)
        except (StudyError, DecodingError) as error:
            return PlainTextResponse(str(error), status_code=422)
        store.add(rater, answer)
        return PlainTextResponse("Kept.")

    return Starlette(
        routes=[
            Route("/session", session),
            Route("/answers", answers, methods=["POST"]),
            Mount("/", StaticFiles(directory=Path(folder) / PUBLIC, html=True)),
        ]
    )


def serve_study(
    folder: str | Path, store: AnswerStore, *, host: str = "127.0.0.1", port: int = 8000
) -> None:
    """Serve a study until Ctrl-C. Raises StudyError where the port is taken."""
    app = study_app(folder, store)
    import uvicorn

    # No access log: it would keep addresses and tokens.
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run()
    except SystemExit as error:
        raise StudyError(
            f"{host}:{port} cannot be listened on. Choose another --port or --host."
        ) from error


def _parsed(body: bytes) -> tuple[Any, Any]:
    """Token and answer of a request's body; (None, None) for what is no JSON object."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(content, dict):
        return None, None
    return content.pop("token", None), content
