"""Read what raters answered, and check it against the key."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dti_geom.errors import DecodingError, StudyError, first_line
from dti_geom.files.decoding import decode
from dti_geom.study.design import NONE, QUESTIONS, Study

KIND = "study answers"
DATABASE = "answers.sqlite"


@dataclass(frozen=True)
class Answer:
    """One answer to one question of a screen."""

    screen: int  # from 0
    trial: str
    question: str
    choice: str  # served name of a picture, or NONE
    seconds: float  # since the screen appeared


@dataclass(frozen=True)
class RaterAnswers:
    """All answers of one rater."""

    kind: str
    study: str
    rater: int  # from 1
    session: str  # two people with one number have two
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Refused:
    """A file of answers that was left out."""

    file: str
    reason: str


def read_answers(
    study: Study, places: Sequence[str | Path]
) -> tuple[list[RaterAnswers], list[Refused]]:
    """Read answers of a study, and the files that hold none.

    places: JSON files that raters saved, folders of them, and databases of `dti-geom study serve`.
    If a rater sent answers twice, the later file of these counts. Raises StudyError without any
    usable answer.
    """
    found: dict[tuple[int, str], RaterAnswers] = {}
    refused = []
    for path in _files(places):
        try:
            for answers in _read(path, study):
                check_answers(study, answers)
                found[answers.rater, answers.session] = answers
        except (StudyError, DecodingError) as error:
            refused.append(Refused(str(path), str(error)))
    if not found:
        because = f" The first is refused: {refused[0].reason}" if refused else ""
        raise StudyError(f"no answers of the study {study.name} were found.{because}")
    return list(found.values()), refused


def check_answers(study: Study, answers: RaterAnswers) -> None:
    """Raise StudyError for answers that this study cannot have led to."""
    if answers.kind != KIND or answers.study != study.name:
        raise StudyError(
            f"answers of the study {answers.study!r}; expected {study.name!r}. Name the folder of "
            "the study that they belong to."
        )
    if not 1 <= answers.rater <= len(study.raters):
        raise StudyError(f"rater {answers.rater}; expected 1 to {len(study.raters)}.")
    given = set()
    for answer in answers.answers:
        check_answer(study, answers.rater, answer)
        if (answer.screen, answer.question) in given:
            raise StudyError(f"screen {answer.screen} has two answers to {answer.question}.")
        given.add((answer.screen, answer.question))


def check_answer(study: Study, rater: int, answer: Answer) -> None:
    """Raise StudyError for an answer that no rater of this number can give."""
    screens = study.raters[rater - 1]
    if not 0 <= answer.screen < len(screens):
        raise StudyError(f"screen {answer.screen}; expected 0 to {len(screens) - 1}.")
    screen = screens[answer.screen]
    choices = (*screen.pictures, *([NONE] if study.ties else []))
    if answer.trial != screen.trial or answer.choice not in choices:
        raise StudyError(f"screen {answer.screen} does not show what was chosen there.")
    if answer.question not in QUESTIONS:
        raise StudyError(
            f"a question {answer.question!r}; expected {' or '.join(map(repr, QUESTIONS))}."
        )


def _files(places: Sequence[str | Path]) -> Iterator[Path]:
    for place in map(Path, places):
        if place.is_dir():
            yield from sorted(place.glob("*.json"))
            yield from sorted(place.glob("*.sqlite"))
        elif place.is_file():
            yield place
        else:
            raise StudyError(f"{place} does not exist; expected a file or a folder of answers.")


def _read(path: Path, study: Study) -> Iterator[RaterAnswers]:
    if path.suffix == ".sqlite":
        from dti_geom.study.storage import stored_answers

        yield from stored_answers(path, study)
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"not a file of answers ({first_line(error)}).") from error
    yield decode(RaterAnswers, content)
