"""Methods against one another: the same subjects in the same prompts from the same noise, painted and scored."""

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

from torch import Tensor

from dti_geom import geometry
from dti_geom.errors import EvaluationError
from dti_geom.evaluation.pictures import SamplerSettings, paint_pictures
from dti_geom.evaluation.prompts import OTHER, PromptSet
from dti_geom.evaluation.scores import (
    ImageScore,
    LeftOut,
    References,
    ScorerAccuracy,
    Shot,
    TextScorer,
    open_image,
    read_references,
    score_shots,
    scorer_accuracy,
)
from dti_geom.models.image_encoders import ImageEncoder
from dti_geom.models.pipelines import TextToImage
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Interval, bootstrap_interval

PICTURES = "pictures"  # folder of an evaluation's images
ALL = "all"  # prompts of every group
CLASS_WORD = "class word"  # the method of not learning anything
_KEPT, _SIDE = 240, 96  # pictures kept small for a page, and the pixels of their sides
_SAME = 1e-3  # relative difference of norms that is none


@dataclass(frozen=True)
class Candidate:
    """One method's token for one subject."""

    method: str
    subject: str
    class_word: str
    references: tuple[str, ...]  # image files of the subject
    vectors: tuple[Tensor, ...] | None  # (n, d) for each text tower; None: the class word itself
    run: str = ""  # where it came from


@dataclass(frozen=True)
class Summary:
    """A method's scores over one group of prompts; a subject's seeds are means over its prompts."""

    method: str
    group: str
    images: int
    subject: Interval
    text: Interval


@dataclass(frozen=True)
class Difference:
    """First method less second, over the (subject, prompt, seed) that both have."""

    first: str
    second: str
    group: str
    cells: int
    subject: Interval
    text: Interval


@dataclass(frozen=True)
class PromptScore:
    """A method's mean scores on one prompt."""

    method: str
    prompt: str
    group: str
    images: int
    subject: float
    text: float


@dataclass(frozen=True)
class SmallPicture:
    """A picture as a page shows it."""

    method: str
    subject: str
    prompt: str
    png: str  # base64


@dataclass(frozen=True)
class Evaluation:
    """Scores of all pictures, and what they say of the methods."""

    model: str
    prompts: str  # name of the set
    seeds: tuple[int, ...]
    settings: SamplerSettings
    image_encoder: str
    text_encoder: str
    text_unit: str
    images: tuple[ImageScore, ...]
    left_out: tuple[LeftOut, ...]
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    by_prompt: tuple[PromptScore, ...]
    accuracy: tuple[ScorerAccuracy, ...]  # of the embedded model's scorer, where it scored
    pictures: tuple[SmallPicture, ...]  # the first seed of some prompts


def evaluate(
    model: TextToImage,
    candidates: Sequence[Candidate],
    prompts: PromptSet,
    seeds: Sequence[int],
    encoder: ImageEncoder,
    text: TextScorer,
    out: str | Path,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Paint every candidate in every prompt from every seed into `out`/pictures, and score what lies there.

    Pictures that lie there already are not painted again. steps, guidance: the model's own unless given. Prompts with
    two subjects pair a candidate with the next subject of its method; a method with one subject goes without them.
    The model keeps the placeholders <shown-…> afterwards. Raises EvaluationError.
    """
    if not candidates:
        raise EvaluationError("nothing to evaluate: no run was given.")
    references, left_out = _references(candidates, encoder)
    names = _place(model, candidates)
    shots, asked = _shots(candidates, prompts, references, names)
    folder = Path(out) / PICTURES
    painted = paint_pictures(
        model, asked, seeds, folder, steps=steps, guidance=guidance, progress=progress
    )
    each = iter(painted.pictures)
    shots = [
        replace(shot, path=folder / picture.file, seed=picture.seed)
        for shot in shots
        for _, picture in zip(seeds, each, strict=False)
    ]
    scores, lost = score_shots(shots, references, encoder, text, progress)
    if not scores:
        raise EvaluationError(
            f"none of the {len(shots)} pictures in {folder} opens: {lost[0].reason}."
        )
    return Evaluation(
        model=model.name,
        prompts=prompts.name,
        seeds=tuple(seeds),
        settings=painted.settings,
        image_encoder=encoder.name,
        text_encoder=text.name,
        text_unit=text.unit,
        images=tuple(scores),
        left_out=(*left_out, *lost),
        summaries=tuple(summarize(scores)),
        differences=tuple(paired_differences(scores)),
        by_prompt=tuple(prompt_scores(scores)),
        accuracy=scorer_accuracy(encoder),
        pictures=tuple(_small_pictures(shots)),
    )


def with_baselines(candidates: Sequence[Candidate], model: TextToImage) -> list[Candidate]:
    """The candidates, each token that is not of the vocabulary's mean norm also at it, and each subject's class word.

    A token of TI at the mean norm is the paper's TI-rescaled.
    """
    means = [geometry.summarize_norms(tower.token_table).mean for tower in model.towers]
    found = list(candidates)
    for one in candidates:
        if one.vectors is None:
            continue
        scaled = tuple(
            mean * geometry.normalize(rows.float())
            for mean, rows in zip(means, one.vectors, strict=True)
        )
        pairs = zip(scaled, one.vectors, strict=True)
        if any((now - before).norm() > _SAME * before.norm() for now, before in pairs):
            found.append(replace(one, method=f"{one.method}-rescaled", vectors=scaled))
    words = {
        one.subject: replace(one, method=CLASS_WORD, vectors=None, run="") for one in candidates
    }
    return found + list(words.values())


def summarize(scores: Sequence[ImageScore]) -> list[Summary]:
    """Every method over all prompts, then over each group of them."""
    return [
        Summary(method, group, len(held), *(_interval(_cells(held, score)) for score in _SCORES))
        for group in _groups(scores)
        for method in dict.fromkeys(one.method for one in scores)
        if (held := [one for one in scores if one.method == method and group in (ALL, one.group)])
    ]


def paired_differences(scores: Sequence[ImageScore]) -> list[Difference]:
    """Every two methods on what both have, over all prompts, then over each group of them."""
    found = []
    for group in _groups(scores):
        held = [one for one in scores if group in (ALL, one.group)]
        by_method = {
            method: [one for one in held if one.method == method] for method in _methods(scores)
        }
        for first, second in combinations(by_method, 2):
            intervals, shared = [], 0
            for score in _SCORES:
                ours, theirs = (_cells(by_method[method], score) for method in (first, second))
                cells = {cell: ours[cell] - theirs[cell] for cell in ours.keys() & theirs.keys()}
                shared = len(cells)
                if cells:
                    intervals.append(_interval(dict(sorted(cells.items())), (-2.0, 2.0)))
            if shared:
                found.append(Difference(first, second, group, shared, *intervals))
    return found


def prompt_scores(scores: Sequence[ImageScore]) -> Iterator[PromptScore]:
    """Every method's means on every prompt."""
    held: dict[tuple[str, str], list[ImageScore]] = defaultdict(list)
    for one in scores:
        held[one.prompt, one.method].append(one)
    for (prompt, method), each in held.items():
        subject, text = fmean(map(_subject_score, each)), fmean(map(_text_score, each))
        yield PromptScore(method, prompt, each[0].group, len(each), subject, text)


# --- What is painted ---


def _references(
    candidates: Sequence[Candidate], encoder: ImageEncoder
) -> tuple[dict[str, References], list[LeftOut]]:
    references: dict[str, References] = {}
    left_out: list[LeftOut] = []
    files: dict[str, tuple[str, ...]] = {}
    for one in candidates:
        if files.setdefault(one.subject, one.references) != one.references:
            raise EvaluationError(
                f"{one.subject} has other reference images in {one.run} than in a run before it. A subject is compared "
                "with the same images throughout; give the folders different names."
            )
        if one.subject not in references:
            references[one.subject], lost = read_references(one.references, encoder)
            left_out += lost
    return references, left_out


def _place(model: TextToImage, candidates: Sequence[Candidate]) -> list[str]:
    """The word that each candidate is asked by."""
    names = []
    for number, one in enumerate(candidates):
        if one.vectors is None:
            names.append(one.class_word)
            continue
        # A placeholder keeps its number of vectors: another evaluation by this model may need another number.
        names.append(f"<shown-{number}-{'-'.join(str(len(rows)) for rows in one.vectors)}>")
        model.place(names[-1], [rows.to(model.device) for rows in one.vectors])
    return names


def _shots(
    candidates: Sequence[Candidate],
    prompts: PromptSet,
    references: dict[str, References],
    names: Sequence[str],
) -> tuple[list[Shot], list[str]]:
    """What is to be shown, one for all seeds, and beside it the prompts as the model is asked them."""
    shots, asked = [], []
    for place, one in enumerate(candidates):
        other = _next_subject(candidates, place)
        thing = references[one.subject].thing
        for prompt in prompts.of(one.class_word, thing):
            if OTHER in prompt.text and other is None:
                continue
            second = None if other is None else candidates[other]
            asked.append(prompt.filled(names[place], None if other is None else names[other]))
            shots.append(
                Shot(
                    path=Path(),
                    method=one.method,
                    subject=one.subject,
                    prompt=prompt,
                    seed=0,
                    class_word=one.class_word,
                    other_word=None if second is None else second.class_word,
                    thing=thing,
                    other_thing=None if second is None else references[second.subject].thing,
                    run=one.run,
                )
            )
    return shots, asked


def _next_subject(candidates: Sequence[Candidate], place: int) -> int | None:
    """The first candidate of the same method with the subject that follows in order of names, round and round."""
    one = candidates[place]
    subjects = sorted({each.subject for each in candidates if each.method == one.method})
    if len(subjects) == 1:
        return None
    wanted = subjects[(subjects.index(one.subject) + 1) % len(subjects)]
    return next(
        at
        for at, each in enumerate(candidates)
        if (each.method, each.subject) == (one.method, wanted)
    )


def _small_pictures(shots: Sequence[Shot]) -> Iterator[SmallPicture]:
    """The first seed of every prompt, or of evenly spread ones where those are too many."""
    firsts = list(
        {(shot.method, shot.subject, shot.prompt.text): shot for shot in reversed(shots)}.values()
    )[::-1]
    for shot in firsts[:: -(-len(firsts) // _KEPT)]:
        image = open_image(shot.path)
        if isinstance(image, LeftOut):
            continue
        image.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        image.save(file, "PNG")
        png = base64.b64encode(file.getvalue()).decode()
        yield SmallPicture(shot.method, shot.subject, shot.prompt.text, png)


# --- What scores say ---

Score = Callable[[ImageScore], float]
Cell = tuple[str, str, int]  # subject, prompt, seed


def _subject_score(one: ImageScore) -> float:
    return one.subject_score


def _text_score(one: ImageScore) -> float:
    return one.text_score


_SCORES: tuple[Score, ...] = (_subject_score, _text_score)


def _methods(scores: Sequence[ImageScore]) -> list[str]:
    return list(dict.fromkeys(one.method for one in scores))


def _groups(scores: Sequence[ImageScore]) -> list[str]:
    groups = list(dict.fromkeys(one.group for one in scores))
    return [ALL, *groups] if len(groups) > 1 else [ALL]


def _cells(scores: Sequence[ImageScore], score: Score) -> dict[Cell, float]:
    """One value for each (subject, prompt, seed): the mean over training runs, where there are several."""
    values: dict[Cell, list[float]] = defaultdict(list)
    for one in scores:
        values[one.subject, one.prompt, one.seed].append(score(one))
    return {cell: fmean(each) for cell, each in values.items()}


def _interval(cells: dict[Cell, float], limits: tuple[float, float] | None = None) -> Interval:
    """Over subjects and their seeds, a seed's value being the mean over its prompts.

    limits: of the value; by default those of a score that is nowhere negative, or of a cosine.
    """
    seeds: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (subject, _, seed), value in cells.items():
        seeds[subject][seed].append(value)
    groups = [[fmean(values) for values in by_seed.values()] for by_seed in seeds.values()]
    return bootstrap_interval(groups, limits or (0.0 if min(cells.values()) >= 0 else -1.0, 1.0))
