"""Answers in a SQLite database: one transaction for each, so that a crash loses none.

A later answer to the same question replaces an earlier one when it is read; both stay in the file.
No name, address or browser is kept, only the rater's number and the random token that stands for
it.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from dti_geom.errors import StudyError, first_line
from dti_geom.study.answers import KIND, Answer, RaterAnswers
from dti_geom.study.design import Study

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS raters (token TEXT PRIMARY KEY, rater INTEGER UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters (rater),
    screen INTEGER NOT NULL, trial TEXT NOT NULL, question TEXT NOT NULL, choice TEXT NOT NULL,
    seconds REAL NOT NULL
);
"""


class AnswerStore:
    """The database of a study that is being served; safe to use from several threads."""

    def __init__(self, path: Path, study: Study) -> None:
        """Open or make the database, with a token for each rater.

        Raises StudyError for a database of another study, or a file that is none.
        """
        self.study = study
        self._lock = threading.Lock()
        try:
            # Each statement commits by itself, and is on the disk when it returns.
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
            name = self._database.execute("SELECT name FROM study").fetchone()
        except sqlite3.DatabaseError as error:
            raise _unreadable(path, error) from error
        if name is None:
            self._fill()
        elif name[0] != study.name:
            raise _other(path, name[0], study)

    def tokens(self) -> dict[int, str]:
        """Return the token of each rater, by number."""
        with self._lock:
            rows = self._database.execute("SELECT rater, token FROM raters ORDER BY rater")
            return dict(rows.fetchall())

    def rater(self, token: str) -> int | None:
        """Return the number of the rater with a token, or None."""
        with self._lock:
            row = self._database.execute("SELECT rater FROM raters WHERE token = ?", [token])
            found = row.fetchone()
        return None if found is None else int(found[0])

    def add(self, rater: int, answer: Answer) -> None:
        """Keep an answer; it is on the disk when this returns."""
        values = (
            *(rater, answer.screen, answer.trial, answer.question, answer.choice),
            answer.seconds,
        )
        with self._lock:
            self._database.execute(
                "INSERT INTO answers (rater, screen, trial, question, choice, seconds) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )

    def answers(self, rater: int) -> tuple[Answer, ...]:
        """Return the last answer of a rater to each question."""
        with self._lock:
            return _answers(self._database, rater)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _fill(self) -> None:
        rows = [(secrets.token_urlsafe(12), at + 1) for at in range(len(self.study.raters))]
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("INSERT INTO study VALUES (?)", [self.study.name])
        self._database.executemany("INSERT INTO raters VALUES (?, ?)", rows)
        self._database.execute("COMMIT")


def stored_answers(path: Path, study: Study) -> Iterator[RaterAnswers]:
    """Yield the answers of each rater in a database. Raises StudyError."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            name = database.execute("SELECT name FROM study").fetchone()
            if name is None or name[0] != study.name:
                raise _other(path, name and name[0], study)
            raters = database.execute("SELECT DISTINCT rater FROM answers ORDER BY rater")
            for (rater,) in raters.fetchall():
                yield RaterAnswers(KIND, study.name, rater, "served", _answers(database, rater))
    except sqlite3.DatabaseError as error:
        raise _unreadable(path, error) from error


def _answers(database: sqlite3.Connection, rater: int) -> tuple[Answer, ...]:
    rows = database.execute(
        "SELECT screen, trial, question, choice, seconds FROM answers WHERE number IN "
        "(SELECT MAX(number) FROM answers WHERE rater = ? GROUP BY screen, question) "
        "ORDER BY screen, question",
        [rater],
    )
    return tuple(Answer(*row) for row in rows.fetchall())


def _other(path: Path, name: str | None, study: Study) -> StudyError:
    return StudyError(
        f"{path} holds answers of the study {name!r}; expected {study.name!r}. Keep it elsewhere, "
        "or name the study that it belongs to."
    )


def _unreadable(path: Path, error: Exception) -> StudyError:
    return StudyError(f"{path} is not a database of answers ({first_line(error)}).")
