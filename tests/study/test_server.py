import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dti_geom.errors import StudyError
from dti_geom.study import read_answers, read_study
from dti_geom.study.answers import DATABASE, Answer
from dti_geom.study.design import Study
from dti_geom.study.server import Allowance, serve_study
from dti_geom.study.storage import AnswerStore
from studies import planned

SERVE = """
import sys
from pathlib import Path
from dti_geom.study.server import serve_study
from dti_geom.study.storage import AnswerStore
from dti_geom.study import read_study
folder = Path(sys.argv[1])
store = AnswerStore(folder / "answers.sqlite", read_study(folder))
serve_study(folder, store, port=int(sys.argv[2]))
"""


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def post(url: str, content: Any) -> int:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def first_answer(study: Study, rater: int, screen: int = 0, choice: int = 0) -> dict[str, Any]:
    shown = study.raters[rater - 1][screen]
    return {
        "screen": screen,
        "trial": shown.trial,
        "question": "text",
        "choice": shown.pictures[choice],
        "seconds": 1.5,
    }


def tokens(folder: Path) -> dict[int, str]:
    store = AnswerStore(folder / DATABASE, read_study(folder))
    found = store.tokens()
    store.close()
    return found


def test_it_serves_the_page_and_its_pictures_and_nothing_else(url: str, folder: Path) -> None:
    assert get(url)[1] == (folder / "public" / "index.html").read_bytes()
    (picture, *_) = (folder / "public" / "pictures").iterdir()
    assert get(f"{url}pictures/{picture.name}") == (200, picture.read_bytes())
    for path in ("key.json", "../key.json", "%2e%2e/key.json", "answers.sqlite", "raters.csv"):
        assert get(url + path)[0] == 404, path


def test_an_answer_is_kept_and_comes_back_with_the_session(url: str, folder: Path) -> None:
    study = read_study(folder)
    token = tokens(folder)[3]
    for choice in (0, 1):  # the rater thinks again
        assert post(f"{url}answers", {"token": token, **first_answer(study, 3, 0, choice)}) == 200
    session = json.loads(get(f"{url}session?token={token}")[1])
    assert session == {"rater": 3, "answers": [first_answer(study, 3, 0, 1)]}
    (answers,), refused = read_answers(study, [folder / DATABASE])
    assert refused == []
    assert answers.rater == 3
    assert answers.answers == (Answer(**first_answer(study, 3, 0, 1)),)


def test_what_is_wrong_is_refused_and_not_kept(url: str, folder: Path) -> None:
    study = read_study(folder)
    token = tokens(folder)[1]
    good = first_answer(study, 1)
    assert post(f"{url}answers", {"token": "x", **good}) == 403
    assert post(f"{url}answers", b"[") == 403
    assert post(f"{url}answers", {"token": [token], **good}) == 403
    assert post(f"{url}answers", {"token": token, **good, "choice": "x"}) == 422
    assert post(f"{url}answers", {"token": token, **good, "screen": "0"}) == 422
    assert post(f"{url}answers", {"token": token, **good, "more": 1}) == 422
    assert post(f"{url}answers", b"x" * 5000) == 413
    assert get(f"{url}session?token=x")[0] == 403
    with pytest.raises(StudyError, match="no answers"):
        read_answers(study, [folder / DATABASE])


def test_a_rater_who_asks_too_often_waits_and_others_do_not() -> None:
    now = [0.0]
    allowance = Allowance(burst=3, per_second=1, clock=lambda: now[0])
    assert [allowance.take("a") for _ in range(4)] == [True, True, True, False]
    assert allowance.take("b")
    now[0] = 1.0
    assert [allowance.take("a") for _ in range(2)] == [True, False]


def test_many_raters_at_once_lose_no_answer(url: str, folder: Path) -> None:
    study = read_study(folder)
    known = tokens(folder)

    def rate(rater: int) -> list[int]:
        return [
            post(f"{url}answers", {"token": known[rater], **first_answer(study, rater, screen)})
            for screen in range(8)
        ]

    with ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(rate, range(1, 25)))
    assert {status for statuses in replies for status in statuses} == {200}
    answers, _ = read_answers(study, [folder / DATABASE])
    assert [len(given.answers) for given in answers] == [8] * 24


def test_the_database_says_nothing_about_a_person(folder: Path) -> None:
    tokens(folder)
    with sqlite3.connect(folder / DATABASE) as database:
        columns = {
            row[0]
            for row in database.execute(
                "SELECT p.name FROM sqlite_master m, pragma_table_info(m.name) p"
            )
        }
    database.close()
    assert columns == {
        *("name", "token", "rater", "number", "screen", "trial", "question", "choice", "seconds"),
    }


def test_a_database_of_another_study_is_refused(folder: Path, tmp_path: Path) -> None:
    known = tokens(folder)
    assert tokens(folder) == known  # they stay
    with pytest.raises(StudyError, match="expected"):
        AnswerStore(folder / DATABASE, planned(raters=2))
    (tmp_path / "x.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StudyError, match="not a database"):
        AnswerStore(tmp_path / "x.sqlite", read_study(folder))


def test_a_port_that_is_taken_is_an_error(url: str, folder: Path) -> None:
    port = int(url.rsplit(":", 1)[1].strip("/"))
    store = AnswerStore(folder / DATABASE, read_study(folder))
    # In a thread of its own: the browser tests leave an event loop running in this one.
    with ThreadPoolExecutor(1) as pool, pytest.raises(StudyError, match="Choose another --port"):
        pool.submit(serve_study, folder, store, port=port).result()
    store.close()


@pytest.mark.slow
def test_nothing_that_was_confirmed_is_lost_when_the_server_is_killed(folder: Path) -> None:
    pytest.importorskip("uvicorn")
    study, known = read_study(folder), tokens(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(folder), str(port)])
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            try:
                get(f"{url}session?token=x")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        confirmed: list[tuple[int, int]] = []

        def rate(rater: int) -> None:
            for screen in range(20):
                try:
                    content = {"token": known[rater], **first_answer(study, rater, screen)}
                    if post(f"{url}answers", content) == 200:
                        confirmed.append((rater, screen))
                except OSError:
                    return

        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(rate, rater) for rater in range(1, 9)]
            while len(confirmed) < 30:
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
            for each in waiting:
                each.result()
    finally:
        process.kill()
        process.wait()
    answers, _ = read_answers(study, [folder / DATABASE])
    kept = {(given.rater, answer.screen) for given in answers for answer in given.answers}
    assert set(confirmed) <= kept
    assert len(confirmed) >= 30
