"""Write a study: a folder to serve, a list of links for crowd workers, and the key kept apart.

STUDY/key.json          what every name means; never serve it
STUDY/raters.csv        a link for each rater, for Mechanical Turk, Prolific or letters
STUDY/public/           what raters may see: index.html and pictures/
"""

import base64
import io
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dti_geom.errors import DtiGeomError, FileExists, StudyError, first_line
from dti_geom.evaluation.evaluation import PICTURES, Evaluation
from dti_geom.evaluation.prompts import OTHER, SUBJECT
from dti_geom.evaluation.scores import ImageScore
from dti_geom.files import load_result, save_result, write_text
from dti_geom.files.atomic import write_files
from dti_geom.images import BROKEN, SUFFIXES, open_rgb
from dti_geom.progress import Progress, silent
from dti_geom.study.design import QUESTIONS, Case, Study, plan_study
from dti_geom.training.data import image_files, located_concept
from dti_geom.training.story import read_run

KEY, PUBLIC, RATERS, PAGE = "key.json", "public", "raters.csv", "index.html"
SIDE = 512  # pixels, or the size of the smallest picture: a method may have painted larger ones
_QUALITY = 95
_LEAST_PADDING = 64  # of the largest picture
_DATE = 1_600_000_000  # of every file, so that none says when it was made
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Material:
    """What evaluations hold that a study can use."""

    model: str
    cases: tuple[Case, ...]
    references: dict[str, tuple[str, ...]]  # picture files, by subject
    class_words: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BuiltStudy:
    """What was written."""

    folder: str
    page: str
    name: str
    seed: int
    methods: tuple[str, ...]
    cases: int
    pictures: int
    raters: int
    screens: int  # of each rater, catch trials among them
    catch_trials: int  # of each rater
    shown: int
    bytes: int  # of pictures
    notes: tuple[str, ...]


def read_material(
    evaluations: Sequence[str | Path],
    *,
    methods: Sequence[str] = (),
    references: str | Path | None = None,
) -> Material:
    """Read the pictures of evaluations as cases that all methods painted.

    evaluations: folders of `dti-geom evaluate`. methods: those to compare; default: all.
    references: a folder with a folder of pictures for each subject; default: those of the runs.

    Prompts with two subjects are left out: raters would need the references of both. Of several
    runs of a method on a subject, the first is taken. Raises StudyError, ResultFileError.
    """
    read = [(Path(place), _evaluation(Path(place))) for place in evaluations]
    models = dict.fromkeys(evaluation.model for _, evaluation in read)
    if len(models) > 1:
        raise StudyError(
            f"the evaluations are of {len(models)} models ({', '.join(models)}); expected one."
        )
    pictures: dict[tuple[str, str, int], dict[str, tuple[ImageScore, Path]]] = defaultdict(dict)
    pairs, runs = 0, dict[str, str]()
    for folder, evaluation in read:
        for score in evaluation.images:
            if score.run:
                runs.setdefault(score.subject, score.run)
            if OTHER in score.prompt:
                pairs += 1
                continue
            place = score.subject, score.prompt, score.seed
            pictures[place].setdefault(score.method, (score, folder / PICTURES / score.file))
    painted = dict.fromkeys(method for found in pictures.values() for method in found)
    unknown = [method for method in methods if method not in painted]
    if unknown:
        raise StudyError(
            f"no method called '{unknown[0]}' was evaluated. There are: {', '.join(painted)}."
        )
    wanted = tuple(dict.fromkeys(methods)) or tuple(painted)
    subjects = dict.fromkeys(subject for subject, _, _ in pictures)
    files, words = {}, {}
    for subject in subjects:
        files[subject], words[subject] = _subject(subject, runs.get(subject), references)
    cases = [
        _case(place, {method: found[method] for method in wanted}, words[place[0]])
        for place, found in pictures.items()
        if set(wanted) <= set(found)
    ]
    notes = [f"{pairs} pictures of two subjects are left out"] if pairs else []
    if len(cases) < len(pictures):
        notes.append(
            f"{len(pictures) - len(cases)} of {len(pictures)} combinations of subject, prompt and "
            "seed lack a picture of a method and are left out"
        )
    return Material(next(iter(models)), tuple(cases), files, words, tuple(notes))


def build_study(
    material: Material,
    out: str | Path,
    *,
    seed: int,
    raters: int = 100,
    trials: int = 20,
    shown: int | None = None,
    catch: int | None = None,
    kept: int | None = None,
    ties: bool = True,
    one_file: bool = False,
    post: str | None = None,
    address: str = PAGE,
    overwrite: bool = False,
    progress: Progress = silent,
) -> BuiltStudy:
    """Plan a study of the material and write it. See `plan_study` for the numbers.

    one_file: put the pictures into the page. post: address that the page sends answers to.
    address: of the page, in the raters' links. Raises StudyError, FileExists.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise FileExists(
            f"{folder} is not empty. Choose another --out, or pass --overwrite to replace a study "
            "that is there."
        )
    study = plan_study(
        material.cases,
        material.references,
        material.class_words,
        model=material.model,
        seed=seed,
        raters=raters,
        trials=trials,
        shown=shown,
        catch=catch,
        kept=kept,
        ties=ties,
    )
    study = replace(study, notes=(*material.notes, *study.notes))
    compared = {name for trial in study.trials if not trial.catches for name in trial.pictures}
    side = min(SIDE, *(max(_open(study.sources[name]).size) for name in compared))
    encoded = encode_alike(study.sources, side, seed, progress=progress)
    public = folder / PUBLIC
    if overwrite and (public / PICTURES).is_dir():
        for path in (public / PICTURES).glob("*.jpg"):
            path.unlink()
    addresses = {name: f"{PICTURES}/{name}.jpg" for name in encoded}
    if one_file:
        addresses = {
            name: f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
            for name, data in encoded.items()
        }
    else:
        files = {public / PICTURES / f"{name}.jpg": data for name, data in encoded.items()}
        write_files(files, overwrite=overwrite)
    save_result(folder / KEY, study, overwrite=overwrite)
    write_text(folder / RATERS, _links(raters, address), overwrite=overwrite)
    write_text(public / PAGE, page_html(study, addresses, post=post), overwrite=overwrite)
    for path in (*public.rglob("*"), public):
        os.utime(path, (_DATE, _DATE))
    catching = {trial.name for trial in study.trials if trial.catches}
    return BuiltStudy(
        folder=str(folder),
        page=str(public / PAGE),
        name=study.name,
        seed=seed,
        methods=study.methods,
        cases=len({(t.subject, t.prompt, t.seed) for t in study.trials if not t.catches}),
        pictures=len(encoded),
        raters=raters,
        screens=len(study.raters[0]),
        catch_trials=sum(screen.trial in catching for screen in study.raters[0]),
        shown=study.shown,
        bytes=sum(map(len, encoded.values())),
        notes=study.notes,
    )


def read_study(folder: str | Path) -> Study:
    """Read the key of a study. Raises ResultFileError."""
    return load_result(Path(folder) / KEY, Study)


def page_html(study: Study, addresses: Mapping[str, str], *, post: str | None = None) -> str:
    """Return the page that raters see.

    addresses: of each picture, relative or as data URIs. It holds no method, no picture's origin
    and no mark of catch trials.
    """
    from jinja2 import Environment, FileSystemLoader

    numbers = {subject: number for number, subject in enumerate(sorted(study.references))}
    content = {
        "study": study.name,
        "questions": QUESTIONS,
        "ties": study.ties,
        "post": post,
        "references": [list(study.references[subject]) for subject in numbers],
        "trials": {trial.name: [numbers[trial.subject], trial.words] for trial in study.trials},
        "raters": [[[screen.trial, *screen.pictures] for screen in own] for own in study.raters],
        "pictures": {name: addresses[name] for name in sorted(addresses)},
    }
    templates = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True)
    parts = {name: _markup((_TEMPLATES / name).read_text()) for name in ("study.css", "study.js")}
    return templates.get_template("study.html").render(
        content=_markup(_script_json(content)), style=parts["study.css"], script=parts["study.js"]
    )


def encode_alike(
    sources: Mapping[str, str], side: int, seed: int, *, progress: Progress = silent
) -> dict[str, bytes]:
    """Return each picture as a JPEG file of the same format, shape and number of bytes.

    sources: served name → picture file. side: pixels of the square that each is fitted into, on
    grey. Nothing else of a file is kept. Random bytes at the end bring every file to the same
    length, because smooth pictures make smaller files. Raises StudyError for a file that does not
    open.
    """
    from PIL import Image, ImageOps

    files = sorted(set(sources.values()))

    @cache
    def encoded(file: str) -> bytes:
        picture = ImageOps.contain(_open(file), (side, side), Image.Resampling.LANCZOS)
        square = Image.new("RGB", (side, side), (128, 128, 128))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        data = io.BytesIO()
        square.save(data, "JPEG", quality=_QUALITY, subsampling=0)
        return data.getvalue()

    for done, file in enumerate(files):
        progress("pictures", done, len(files))
        encoded(file)
    progress("pictures", len(files), len(files))
    length = max(len(encoded(file)) for file in files) + _LEAST_PADDING
    rng = np.random.default_rng([seed, 1])
    padded = {}
    # In the order of the random names: the place of a file in the stream says nothing.
    for name in sorted(sources):
        data = encoded(sources[name])
        # Behind the end marker, where decoders stop: the length of a comment before the picture
        # would tell how smooth it is.
        padded[name] = data + rng.bytes(length - len(data))
    return padded


def _open(file: str) -> Any:
    try:
        return open_rgb(file)
    except BROKEN as error:
        raise StudyError(
            f"{file} does not open ({first_line(error)}). Evaluate again, or name the folder that "
            "holds its pictures/."
        ) from error


def _evaluation(place: Path) -> Evaluation:
    path = place / "evaluation.json"
    if not path.is_file():
        raise StudyError(
            f"{place} holds no evaluation.json; expected a folder that `dti-geom evaluate` wrote."
        )
    return load_result(path, Evaluation)


def _case(
    place: tuple[str, str, int], found: Mapping[str, tuple[ImageScore, Path]], word: str
) -> Case:
    subject, prompt, seed = place
    return Case(
        subject=subject,
        prompt=prompt,
        words=prompt.replace(SUBJECT, word),
        group=next(iter(found.values()))[0].group,
        seed=seed,
        files={method: str(path) for method, (_, path) in found.items()},
        text_scores={method: score.text_score for method, (score, _) in found.items()},
    )


def _subject(
    subject: str, run: str | None, references: str | Path | None
) -> tuple[tuple[str, ...], str]:
    """Reference pictures and class word of a subject. Raises StudyError without pictures."""
    word, files = subject, list[Path]()
    try:
        for concept in read_run(run).result.config.concepts if run else ():
            if (concept.subject or Path(concept.images).name) == subject:
                word = concept.init
                files = image_files(located_concept(concept)) if references is None else files
    except DtiGeomError as error:
        if references is None:
            raise StudyError(
                f"the reference pictures of {subject} are not to be found: {error} Name a folder "
                "with a folder of pictures for each subject: --references DIR."
            ) from error
    if references is not None:
        files = _pictures_in(Path(references) / subject)
    if not files:
        raise StudyError(
            f"{subject} has no reference pictures. Name a folder with a folder of pictures for "
            "each subject: --references DIR."
        )
    return tuple(map(str, files)), word


def _pictures_in(folder: Path) -> list[Path]:
    found: Iterable[Path] = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def _links(raters: int, address: str) -> str:
    joint = "&" if "?" in address else "?"
    rows = [f"{rater},{address}{joint}rater={rater}\n" for rater in range(1, raters + 1)]
    return "rater,link\n" + "".join(rows)


def _script_json(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)
