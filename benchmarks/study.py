"""Check the scoring of preference studies on simulated raters, whose preferences are known.

coverage   how often 95 % intervals of shares and of differences hold the truth; beside it, that of
           a bootstrap that takes raters for nested in subjects
found      how often a planted difference is found, and how often one is found among equal methods
spammers   how many raters who choose at random are left out, and how many careful ones
places     what raters who favour the first place do to methods that are equal

load       raters who answer at once on a local server: answers lost, and how long each waits
simulate   files of answers to a study that was built, by raters who prefer no method

python benchmarks/study.py      # 300 studies for each coverage, 50 for the rest: 4 CPU-minutes
python benchmarks/study.py --load 200
python benchmarks/study.py --simulate study      # writes study/answers
"""

import argparse
import json
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import uvicorn

from dti_geom.files import to_json, write_text
from dti_geom.statistics import Interval, bootstrap_interval
from dti_geom.study import read_study
from dti_geom.study.answers import DATABASE
from dti_geom.study.design import QUESTIONS, Case, Study, least_right, plan_study
from dti_geom.study.scoring import (
    Judgements,
    StudyScore,
    differences,
    judgements,
    score_study,
    shares,
)
from dti_geom.study.server import study_app
from dti_geom.study.simulation import Crowd, simulate, true_shares
from dti_geom.study.storage import AnswerStore, stored_answers

ALIKE, BY_SUBJECT, BY_RATER = Crowd((), 0.5, 0.5), Crowd((), 0.9, 0.2), Crowd((), 0.2, 0.9)
DESIGNS = (  # methods, subjects, raters, and what methods' worth differs between
    (4, 15, 40, "raters and subjects alike", ALIKE),
    (4, 15, 40, "subjects more", BY_SUBJECT),
    (4, 15, 40, "raters more", BY_RATER),
    (2, 30, 30, "raters and subjects alike", ALIKE),
    (4, 8, 40, "raters and subjects alike", ALIKE),
)
NESTED = 10  # studies of a design that the slow nested bootstrap is tried on
WORTHS = (0.0, 0.3, 0.6, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--load", type=int, default=0, help="raters at once; nothing else is run")
    parser.add_argument("--simulate", type=Path, metavar="STUDY", help="nothing else is run")
    arguments = parser.parse_args()
    if arguments.simulate:
        answer(arguments.simulate)
        return
    if arguments.load:
        for line in load(arguments.load):
            print(line)
        return
    some = arguments.studies // 6
    for line in chain(coverage(arguments.studies), found(some), spammers(some), places(some)):
        print(line, flush=True)


def answer(folder: Path) -> None:
    """Write the answers of one simulated rater for each number of a study."""
    study = read_study(folder)
    crowd = Crowd((0.0,) * len(study.methods), spammers=0.1)
    for answers in simulate(study, crowd, np.random.default_rng(0)):
        path = folder / "answers" / f"answers-{answers.rater}-{answers.session}.json"
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(to_json(answers)))


def study_of(methods: int, subjects: int, raters: int, prompts: int = 20, seed: int = 0) -> Study:
    """Plan a study of pictures that do not exist."""
    names = [f"method {at}" for at in range(methods)]
    cases = [
        Case(
            subject=f"subject {subject}",
            prompt=f"{{}} {prompt}",
            words=f"thing {prompt}",
            group="all",
            seed=0,
            files={name: f"{name}/{subject}/{prompt}" for name in names},
            text_scores=dict.fromkeys(names, prompt / prompts),
        )
        for subject in range(subjects)
        for prompt in range(prompts)
    ]
    references = {f"subject {at}": [f"{at}/{n}" for n in range(5)] for at in range(subjects)}
    words = {name: name for name in references}
    return plan_study(cases, references, words, model="none", seed=seed, raters=raters)


def coverage(studies: int) -> Iterator[str]:
    yield "| methods | subjects | raters | worth differs between | shares | differences | nested |"
    yield "|---|---|---|---|---|---|---|"
    for methods, subjects, raters, spread, crowd in DESIGNS:
        study = study_of(methods, subjects, raters)
        rates = covered(study, replace(crowd, methods=WORTHS[:methods]), studies)
        shown = " | ".join(f"{rate:.3f}" for rate in rates)
        yield f"| {methods} | {subjects} | {raters} | {spread} | {shown} |"


def covered(study: Study, crowd: Crowd, studies: int) -> list[float]:
    """How often intervals hold the truth: of shares, of differences, of nested shares."""
    truth = dict(zip(study.methods, true_shares(study, crowd), strict=True))
    hits: tuple[list[bool], list[bool], list[bool]] = ([], [], [])
    for seed in range(studies):
        answers = simulate(study, crowd, np.random.default_rng([seed, 1]))
        judged = {question: judgements(study, answers, question) for question in QUESTIONS}
        for question, given in judged.items():
            for share in shares(question, given, study.methods):
                hits[0].append(holds(share.share, truth[share.method]))
        for pair in differences(judged, study.methods):
            hits[1].append(holds(pair.difference, truth[pair.first] - truth[pair.second]))
        for method, name in enumerate(study.methods) if seed < NESTED else ():
            nested = bootstrap_interval(in_subjects(judged["subject"], method))
            hits[2].append(holds(nested, truth[name]))
    return [float(np.mean(hit)) for hit in hits]


def holds(interval: Interval, truth: float) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= truth <= interval.high


def in_subjects(judged: Judgements, method: int) -> list[list[list[float]]]:
    """A method's points by subject and, within it, by rater."""
    points = np.where(judged.shown == method, judged.points(), 0).sum(axis=1)
    groups: dict[int, dict[int, list[float]]] = {}
    for subject, rater, point in zip(judged.subjects, judged.raters, points, strict=True):
        groups.setdefault(int(subject), {}).setdefault(int(rater), []).append(float(point))
    return [list(raters.values()) for raters in groups.values()]


def found(studies: int) -> Iterator[str]:
    yield ""
    yield "| worth of one method of 4 | difference of shares | found | any found |"
    yield "|---|---|---|---|"
    study = study_of(methods=4, subjects=15, raters=40)
    for worth in (0.0, 0.3, 0.6, 0.9):
        crowd = Crowd((worth, 0.0, 0.0, 0.0))
        truth = true_shares(study, crowd)
        planted, anything = [], []
        for seed in range(studies):
            score = score_study(study, simulate(study, crowd, np.random.default_rng([seed, 2])))
            significant = [pair for pair in score.differences if (pair.p or 0) < 0.05]
            anything.append(bool(significant))
            planted += [
                (pair.p or 0) < 0.05 and pair.difference.mean > 0
                for pair in score.differences
                if pair.first == study.methods[0]
            ]
        shown = "–" if not worth else f"{np.mean(planted):.3f}"
        yield f"| {worth:.1f} | {truth[0] - truth[1]:.3f} | {shown} | {np.mean(anything):.3f} |"


def spammers(studies: int) -> Iterator[str]:
    yield ""
    yield "| pictures | catch trials | needed | spammers left out | careful raters kept |"
    yield "|---|---|---|---|---|"
    for methods in (2, 3, 4):
        study = study_of(methods=methods, subjects=15, raters=40)
        crowd = Crowd(WORTHS[:methods], spammers=0.25)
        caught, kept = [], []
        for seed in range(studies):
            score = score_study(study, simulate(study, crowd, np.random.default_rng([seed, 3])))
            out = {rater.rater for rater in score.left_out}
            caught += [number in out for number in range(1, 11)]
            kept += [number not in out for number in range(11, 41)]
        trials = {trial.name for trial in study.trials if trial.catches}
        asked = sum(screen.trial in trials for screen in study.raters[0])
        yield (
            f"| {methods} | {asked} | {least_right(asked, methods)} | {np.mean(caught):.3f} "
            f"| {np.mean(kept):.3f} |"
        )


def places(studies: int) -> Iterator[str]:
    yield ""
    yield "| worth of the first place | first place chosen | largest error of a share | any found |"
    yield "|---|---|---|---|"
    study = study_of(methods=4, subjects=15, raters=40)
    for worth in (0.0, 0.5, 1.5):
        crowd = Crowd((0.0,) * 4, places=(worth, 0.0, 0.0, 0.0))
        scores: list[StudyScore] = []
        for seed in range(studies):
            answers = simulate(study, crowd, np.random.default_rng([seed, 4]))
            scores.append(score_study(study, answers))
        first = np.mean([score.sides[0].share.mean for score in scores])
        means = np.mean([[share.share.mean for share in score.shares] for score in scores], axis=0)
        anything = np.mean(
            [any((pair.p or 0) < 0.05 for pair in score.differences) for score in scores]
        )
        error = np.abs(means - 0.25).max()
        yield f"| {worth:.1f} | {first:.3f} | {error:.3f} | {anything:.3f} |"


def load(raters: int, screens: int = 10) -> Iterator[str]:
    """Let raters answer at once, each answer over a connection of its own."""
    study = study_of(methods=4, subjects=15, raters=raters)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "public").mkdir()
        store = AnswerStore(folder / DATABASE, study)
        tokens = store.tokens()
        app = study_app(folder, store)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", backlog=2048))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/answers"
        start = threading.Barrier(raters + 1)
        waits: list[float] = []

        def rate(rater: int) -> int:
            start.wait()
            kept = 0
            for at, screen in enumerate(study.raters[rater - 1][:screens]):
                content = {
                    "token": tokens[rater],
                    "screen": at,
                    "trial": screen.trial,
                    "question": "text",
                    "choice": screen.pictures[0],
                    "seconds": 1.0,
                }
                request = urllib.request.Request(url, json.dumps(content).encode())
                began = time.monotonic()
                with urllib.request.urlopen(request, timeout=300) as reply:
                    kept += reply.status == 200
                waits.append(time.monotonic() - began)
            return kept

        with ThreadPoolExecutor(raters) as pool:
            sent = [pool.submit(rate, rater) for rater in range(1, raters + 1)]
            start.wait()
            began = time.monotonic()
            confirmed = sum(each.result() for each in sent)
            seconds = time.monotonic() - began
        server.should_exit = True
        thread.join()
        store.close()
        stored = sum(len(given.answers) for given in stored_answers(folder / DATABASE, study))
    yield "| raters at once | answers | stored | seconds | median wait, s | 99 % wait, s |"
    yield "|---|---|---|---|---|---|"
    median, most = np.quantile(waits, [0.5, 0.99])
    yield f"| {raters} | {confirmed} | {stored} | {seconds:.1f} | {median:.2f} | {most:.2f} |"


if __name__ == "__main__":
    main()
