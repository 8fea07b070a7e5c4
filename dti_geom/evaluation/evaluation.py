"""Methods compared: every subject in the same prompts from the same noise, painted and scored."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.learned import Learned, mean_norms
from dti_geom.evaluation.pictures import Picture, SamplerSettings, paint_pictures
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
from dti_geom.images import png_base64, thumbnail
from dti_geom.models.image_encoders import ImageEncoder
from dti_geom.models.pipelines import TextToImage
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Interval, bootstrap_interval

PICTURES = "pictures"  # folder of an evaluation's images
ALL = "all"  # prompts of every group
CLASS_WORD = "class word"  # label of the baseline that learns nothing
_MOST_SMALL, _SIDE = 240, 96  # small pictures kept for a page, and the pixels of their sides


@dataclass(frozen=True)
class Candidate:
    """One method's result for one subject."""

    method: str
    subject: str
    class_word: str
    references: tuple[str, ...]  # image files of the subject
    learned: Learned | None  # None: the class word itself
    run: str = ""  # folder it came from


@dataclass(frozen=True)
class Summary:
    """A method's scores over one group of prompts, with intervals over subjects and seeds."""

    method: str
    group: str
    images: int
    subject: Interval
    text: Interval


@dataclass(frozen=True)
class Difference:
    """Scores of the first method minus the second, over the pictures that both have.

    A pair of pictures has the same subject, prompt and seed.
    """

    first: str
    second: str
    group: str
    cells: int  # pairs of pictures
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
    """A small copy of a picture, for a page."""

    method: str
    subject: str
    prompt: str
    png: str  # PNG in base64


@dataclass(frozen=True)
class Evaluation:
    """Scores of all pictures, and their summary by method."""

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
    """Paint every candidate in every prompt from every seed into `out`/pictures, and score it.

    Pictures that are there already are not painted again. seeds: of the noise. encoder: compares a
    picture with the subject's reference images. text: says how well it follows its prompt. steps,
    guidance: the model's own by default.

    A prompt with two subjects pairs a candidate with the next subject of its method. A method with
    one subject skips such prompts. The model keeps the placeholders <shown-…> afterwards.

    Raises EvaluationError without candidates, for a subject with two sets of reference images, and
    where no picture opens.
    """
    if not candidates:
        raise EvaluationError("nothing to evaluate: no run was given.")
    references, unread = _references(candidates, encoder)
    names = _place(model, candidates)
    asked, prompts_asked = _shots(candidates, prompts, references, names)
    folder = Path(out) / PICTURES
    painted = paint_pictures(
        model,
        prompts_asked,
        seeds,
        folder,
        steps=steps,
        guidance=guidance,
        progress=progress,
    )
    shots = _painted_shots(asked, painted.pictures, len(seeds), folder)
    scores, unscored = score_shots(shots, references, encoder=encoder, text=text, progress=progress)
    if not scores:
        raise EvaluationError(
            f"none of the {len(shots)} pictures in {folder} opens: {unscored[0].reason}."
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
        left_out=(*unread, *unscored),
        summaries=tuple(summarize(scores)),
        differences=tuple(paired_differences(scores)),
        by_prompt=tuple(prompt_scores(scores)),
        accuracy=scorer_accuracy(encoder),
        pictures=tuple(_small_pictures(shots)),
    )


def with_baselines(candidates: Sequence[Candidate], model: TextToImage) -> list[Candidate]:
    """Return the candidates and their baselines: rescaled to the mean norm, and the class words.

    A candidate whose norm is the vocabulary's mean already has no rescaled baseline. A token of
    Textual Inversion at the mean norm is the paper's TI-rescaled. Class words come last, one for
    each subject.
    """
    means = mean_norms(model)
    rescaled: list[Candidate] = []
    words: dict[str, Candidate] = {}
    for candidate in candidates:
        words[candidate.subject] = replace(candidate, method=CLASS_WORD, learned=None, run="")
        at_mean = candidate.learned and candidate.learned.at_mean_norm(means)
        if at_mean:
            method = f"{candidate.method}-rescaled"
            rescaled.append(replace(candidate, method=method, learned=at_mean))
    return [*candidates, *rescaled, *words.values()]


def summarize(scores: Sequence[ImageScore]) -> list[Summary]:
    """Return every method's scores over all prompts, then over each group of prompts."""
    summaries = []
    for group, method, chosen in _by_group_and_method(scores):
        if chosen:
            summaries.append(
                Summary(
                    method=method,
                    group=group,
                    images=len(chosen),
                    subject=_interval(_cells(chosen, _subject_score)),
                    text=_interval(_cells(chosen, _text_score)),
                )
            )
    return summaries


def paired_differences(scores: Sequence[ImageScore]) -> list[Difference]:
    """Compare every two methods on the pictures that both have, over all prompts and each group.

    Two methods that share no picture are left out.
    """
    differences = []
    for group in _groups(scores):
        chosen = _in_group(scores, group)
        by_method = {method: _of_method(chosen, method) for method in _methods(scores)}
        for first, second in combinations(by_method, 2):
            subject = _shared(by_method[first], by_method[second], _subject_score)
            text = _shared(by_method[first], by_method[second], _text_score)
            if subject:
                differences.append(
                    Difference(
                        first=first,
                        second=second,
                        group=group,
                        cells=len(text),
                        subject=_interval(subject, _DIFFERENCE_LIMITS),
                        text=_interval(text, _DIFFERENCE_LIMITS),
                    )
                )
    return differences


def prompt_scores(scores: Sequence[ImageScore]) -> Iterator[PromptScore]:
    """Yield every method's mean scores on every prompt."""
    by_prompt: dict[tuple[str, str], list[ImageScore]] = defaultdict(list)
    for score in scores:
        by_prompt[score.prompt, score.method].append(score)
    for (prompt, method), images in by_prompt.items():
        yield PromptScore(
            method=method,
            prompt=prompt,
            group=images[0].group,
            images=len(images),
            subject=fmean(map(_subject_score, images)),
            text=fmean(map(_text_score, images)),
        )


# --- Painting ---


def _references(
    candidates: Sequence[Candidate], encoder: ImageEncoder
) -> tuple[dict[str, References], list[LeftOut]]:
    """The reference images of every subject, and the files that do not open."""
    references: dict[str, References] = {}
    left_out: list[LeftOut] = []
    files: dict[str, tuple[str, ...]] = {}
    for candidate in candidates:
        subject = candidate.subject
        if files.setdefault(subject, candidate.references) != candidate.references:
            raise EvaluationError(
                f"{subject} has other reference images in {candidate.run} than in a run before it. "
                "All runs of a subject need the same images; give the folders different names."
            )
        if subject not in references:
            references[subject], unread = read_references(candidate.references, encoder)
            left_out += unread
    return references, left_out


def _place(model: TextToImage, candidates: Sequence[Candidate]) -> list[str]:
    """Place what the candidates learned; returns the word that prompts call each of them by."""
    names = []
    for number, candidate in enumerate(candidates):
        if candidate.learned is None:
            names.append(candidate.class_word)
            continue
        # Two runs may have learned the same name.
        learned = candidate.learned.as_placeholder(f"shown-{number}")
        learned.place(model)
        names.append(learned.name)
    return names


def _shots(
    candidates: Sequence[Candidate],
    prompts: PromptSet,
    references: dict[str, References],
    names: Sequence[str],
) -> tuple[list[Shot], list[str]]:
    """What is to be painted, once for all seeds, and the prompts with the candidates' names."""
    shots, asked = [], []
    for place, candidate in enumerate(candidates):
        partner = _next_subject(candidates, place)
        thing = references[candidate.subject].thing
        for prompt in prompts.of(candidate.class_word, thing):
            if OTHER in prompt.text and partner is None:
                continue
            second = None if partner is None else candidates[partner]
            asked.append(prompt.filled(names[place], None if partner is None else names[partner]))
            shots.append(
                Shot(
                    path=Path(),
                    method=candidate.method,
                    subject=candidate.subject,
                    prompt=prompt,
                    seed=0,
                    class_word=candidate.class_word,
                    other_word=second.class_word if second else None,
                    thing=thing,
                    other_thing=references[second.subject].thing if second else None,
                    run=candidate.run,
                )
            )
    return shots, asked


def _next_subject(candidates: Sequence[Candidate], place: int) -> int | None:
    """The first candidate of the same method whose subject is next by name; the last wraps round.

    None if the method has one subject.
    """
    method, subject = candidates[place].method, candidates[place].subject
    subjects = sorted({other.subject for other in candidates if other.method == method})
    if len(subjects) == 1:
        return None
    wanted = method, subjects[(subjects.index(subject) + 1) % len(subjects)]
    return [(other.method, other.subject) for other in candidates].index(wanted)


def _painted_shots(
    asked: Sequence[Shot], pictures: Sequence[Picture], seeds: int, folder: Path
) -> list[Shot]:
    """Every shot once for each seed, with its picture. pictures: by prompt, then by seed."""
    shots = []
    for number, picture in enumerate(pictures):
        shot = asked[number // seeds]
        shots.append(replace(shot, path=folder / picture.file, seed=picture.seed))
    return shots


def _small_pictures(shots: Sequence[Shot]) -> Iterator[SmallPicture]:
    """The first seed of every prompt; of too many prompts, evenly spread ones."""
    first_of = {(shot.method, shot.subject, shot.prompt.text): shot for shot in reversed(shots)}
    firsts = list(first_of.values())[::-1]
    stride = -(-len(firsts) // _MOST_SMALL)  # rounded up
    for shot in firsts[::stride]:
        image = open_image(shot.path)
        if isinstance(image, LeftOut):
            continue
        yield SmallPicture(
            method=shot.method,
            subject=shot.subject,
            prompt=shot.prompt.text,
            png=png_base64(thumbnail(image, _SIDE)),
        )


# --- Summaries ---

Score = Callable[[ImageScore], float]
CellKey = tuple[str, str, int]  # subject, prompt, seed
_DIFFERENCE_LIMITS = -2.0, 2.0  # of two scores in −1 … 1


def _subject_score(score: ImageScore) -> float:
    return score.subject_score


def _text_score(score: ImageScore) -> float:
    return score.text_score


def _methods(scores: Sequence[ImageScore]) -> list[str]:
    return list(dict.fromkeys(score.method for score in scores))


def _groups(scores: Sequence[ImageScore]) -> list[str]:
    groups = list(dict.fromkeys(score.group for score in scores))
    return [ALL, *groups] if len(groups) > 1 else [ALL]


def _in_group(scores: Sequence[ImageScore], group: str) -> list[ImageScore]:
    return [score for score in scores if group in (ALL, score.group)]


def _of_method(scores: Sequence[ImageScore], method: str) -> list[ImageScore]:
    return [score for score in scores if score.method == method]


def _by_group_and_method(
    scores: Sequence[ImageScore],
) -> Iterator[tuple[str, str, list[ImageScore]]]:
    for group in _groups(scores):
        for method in _methods(scores):
            yield group, method, _of_method(_in_group(scores, group), method)


def _cells(scores: Sequence[ImageScore], score_of: Score) -> dict[CellKey, float]:
    """A value for each subject, prompt and seed; the mean if there are several training runs."""
    values: dict[CellKey, list[float]] = defaultdict(list)
    for score in scores:
        values[score.subject, score.prompt, score.seed].append(score_of(score))
    return {cell: fmean(runs) for cell, runs in values.items()}


def _shared(
    first: Sequence[ImageScore], second: Sequence[ImageScore], score_of: Score
) -> dict[CellKey, float]:
    """First minus second for each cell that both have, in sorted order."""
    ours, theirs = _cells(first, score_of), _cells(second, score_of)
    # The order decides how sums are rounded, so it must not be a set's.
    return {cell: ours[cell] - theirs[cell] for cell in sorted(ours.keys() & theirs.keys())}


def _interval(cells: dict[CellKey, float], limits: tuple[float, float] | None = None) -> Interval:
    """The mean over subjects with its interval; a seed's value is the mean over its prompts.

    limits: of the value. By default 0 … 1 where no value is negative, and −1 … 1 of a cosine.
    """
    by_subject: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (subject, _, seed), value in cells.items():
        by_subject[subject][seed].append(value)
    seed_means = [list(map(fmean, by_seed.values())) for by_seed in by_subject.values()]
    if limits is None:
        limits = 0.0 if min(cells.values()) >= 0 else -1.0, 1.0
    return bootstrap_interval(seed_means, limits)
