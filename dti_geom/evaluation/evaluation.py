"""Methods compared: every subject in the same prompts from the same noise, painted and scored."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from statistics import fmean

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.ceilings import ceilings_of
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
from dti_geom.mini.ceilings import ConceptCeiling
from dti_geom.models.image_encoders import ImageEncoder
from dti_geom.models.pipelines import TextToImage
from dti_geom.progress import Progress, silent
from dti_geom.result import Result
from dti_geom.statistics import DIGITS, Interval, bootstrap_interval, bootstrap_test, holm

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
    """A method's scores over one group of prompts, with intervals over subjects, runs and seeds."""

    method: str
    group: str
    images: int
    subject: Interval
    text: Interval
    # What true pictures of the same subjects score; None where it is not known for all of them.
    subject_ceiling: float | None = None
    text_ceiling: float | None = None


@dataclass(frozen=True)
class CheckSummary:
    """How often a check holds in a method's pictures: those that were asked and it can decide."""

    method: str
    check: str
    images: int
    share: Interval
    ceiling: float | None  # of true pictures, mean over these subjects


@dataclass(frozen=True)
class Difference:
    """Scores of the first method minus the second, over the pictures that both have.

    A pair of pictures has the same subject, prompt and seed, and training runs of the same rank.
    The p-values are of the intervals' bootstrap. Those over all prompts are one family, those of
    groups another: each is corrected by Holm's method for all methods and both scores.
    """

    first: str
    second: str
    group: str
    cells: int  # pairs of pictures
    subject: Interval
    text: Interval
    subject_p: float | None = None  # corrected; None in older results and where nothing varies
    text_p: float | None = None


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
class Evaluation(Result):
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
    checks: tuple[CheckSummary, ...] = ()
    ceilings: dict[str, ConceptCeiling] = field(default_factory=dict)  # by subject, where known
    references: dict[str, str] = field(default_factory=dict)  # by subject: a small PNG in base64


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
    masked: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Paint every candidate in every prompt from every seed into `out`/pictures, and score it.

    Pictures that are there already are not painted again. seeds: of the noise. encoder: compares a
    picture with the subject's reference images. text: says how well it follows its prompt. steps,
    guidance: the model's own by default. masked: compare with the references on white, cut out by
    their masks.

    A prompt with two subjects pairs a candidate with the next subject of its method. A method with
    one subject skips such prompts. The model keeps the placeholders <shown-…> afterwards.

    Raises EvaluationError without candidates, for a subject with two sets of reference images, and
    where no picture opens.
    """
    if not candidates:
        raise EvaluationError("nothing to evaluate: no run was given.")
    references, unread = _references(candidates, encoder, masked)
    files = {candidate.subject: candidate.references for candidate in candidates}
    ceilings = ceilings_of(files, encoder)
    names = _place(model, candidates)
    asked, prompts_asked = _shots(candidates, prompts, references, names, ceilings)
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
            f"none of the {len(shots)} pictures in {folder} has a score: {unscored[0].reason}."
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
        checks=tuple(check_summaries(scores, ceilings)),
        ceilings=ceilings,
        references=_small_references(files),
    )


def with_baselines(candidates: Sequence[Candidate], model: TextToImage) -> list[Candidate]:
    """Return the candidates and their baselines: rescaled to the mean norm, and the class words.

    A candidate whose norm is the vocabulary's mean already has no rescaled baseline. A token of
    Textual Inversion at the mean norm is the paper's TI-rescaled. Class words come last, one for
    each subject. A class word has to show the thing that it names: a penguin, where a duck was
    learned from the word "penguin". It is compared with the subject's references all the same.
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
                    subject_ceiling=_mean_ceiling(chosen, lambda score: score.subject_ceiling),
                    text_ceiling=_mean_ceiling(chosen, lambda score: score.text_ceiling),
                )
            )
    return summaries


def check_summaries(
    scores: Sequence[ImageScore], ceilings: Mapping[str, ConceptCeiling]
) -> Iterator[CheckSummary]:
    """Yield how often each check holds in every method's pictures, where it can decide.

    ceilings: by subject. A picture counts where the check was asked: the order of a pair only where
    there is a side to see.
    """
    names = dict.fromkeys(name for score in scores for name in score.checks)
    for method in _methods(scores):
        of_method = _of_method(scores, method)
        for name in names:
            asked = [score for score in of_method if name in score.decided]
            if asked:
                yield CheckSummary(
                    method=method,
                    check=name,
                    images=len(asked),
                    share=_interval(_cells(asked, partial(_check, name))),
                    ceiling=_check_ceiling(name, asked, ceilings),
                )


def paired_differences(scores: Sequence[ImageScore]) -> list[Difference]:
    """Compare every two methods on the pictures that both have, over all prompts and each group.

    Training runs of a subject are paired in their order; a method's only run is paired with each
    run of the other. Where one has two runs and the other three, say, the runs of each are averaged
    first. Two methods that share no picture are left out. See `Difference` for the p-values.
    """
    overall: list[Difference] = []
    by_group: list[Difference] = []
    for group in _groups(scores):
        chosen = _in_group(scores, group)
        by_method = {method: _of_method(chosen, method) for method in _methods(scores)}
        for first, second in combinations(by_method, 2):
            found = _difference(first, second, group, by_method)
            if found is not None:
                (overall if group == ALL else by_group).append(found)
    return [*_corrected(overall), *_corrected(by_group)]


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
    candidates: Sequence[Candidate], encoder: ImageEncoder, masked: bool
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
            references[subject], unread = read_references(
                candidate.references, encoder, masked=masked
            )
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
    ceilings: Mapping[str, ConceptCeiling],
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
                    thing=_thing_of(candidate, references),
                    other_thing=_thing_of(second, references) if second else None,
                    run=candidate.run,
                    ceiling=ceilings.get(candidate.subject),
                    other_ceiling=ceilings.get(second.subject) if second else None,
                    baseline=candidate.learned is None,
                )
            )
    return shots, asked


def _thing_of(candidate: Candidate, references: dict[str, References]) -> str:
    """What a reader of pictures calls what a candidate should show; "" for other encoders.

    The class word shows the thing that it names, which may be another than the subject.
    """
    thing = references[candidate.subject].thing
    return candidate.class_word if thing and candidate.learned is None else thing


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


def _small_references(files: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the first reference image that opens of every subject, small."""
    small: dict[str, str] = {}
    for subject, paths in files.items():
        for path in paths:
            image = open_image(Path(path))
            if not isinstance(image, LeftOut):
                small[subject] = png_base64(thumbnail(image, _SIDE))
                break
    return small


# --- Summaries ---

Score = Callable[[ImageScore], float]
CellKey = tuple[str, int, str, int]  # subject, rank of the training run, prompt, picture seed
Runs = list[list[ImageScore]]  # the pictures of each training run
_DIFFERENCE_LIMITS = -2.0, 2.0  # of two scores in −1 … 1


def _subject_score(score: ImageScore) -> float:
    return score.subject_score


def _text_score(score: ImageScore) -> float:
    return score.text_score


def _check(name: str, score: ImageScore) -> float:
    return float(score.checks[name])


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


def _runs(scores: Sequence[ImageScore]) -> dict[str, Runs]:
    """A method's pictures by subject, and by training run in the order of its appearance."""
    runs: dict[str, dict[str, list[ImageScore]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        runs[score.subject][score.run].append(score)
    return {subject: list(by_run.values()) for subject, by_run in runs.items()}


def _cells(scores: Sequence[ImageScore], score_of: Score) -> dict[CellKey, float]:
    """A value for each subject, training run, prompt and picture seed."""
    cells: dict[CellKey, float] = {}
    for subject, runs in _runs(scores).items():
        for rank, run in enumerate(runs):
            for (prompt, seed), value in _of_run(run, score_of).items():
                cells[subject, rank, prompt, seed] = value
    return cells


def _of_run(run: Sequence[ImageScore], score_of: Score) -> dict[tuple[str, int], float]:
    """A value for each prompt and picture seed; the mean where several runs were merged."""
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for score in run:
        values[score.prompt, score.seed].append(score_of(score))
    return {place: fmean(of_place) for place, of_place in values.items()}


def _shared(
    first: dict[str, Runs], second: dict[str, Runs], score_of: Score
) -> dict[CellKey, float]:
    """First minus second for each cell that both have, in sorted order."""
    cells: dict[CellKey, float] = {}
    # The order decides how sums are rounded, so it must not be a set's.
    for subject in sorted(first.keys() & second.keys()):
        pairs = _paired_runs(first[subject], second[subject])
        for rank, (our_run, their_run) in enumerate(pairs):
            ours, theirs = _of_run(our_run, score_of), _of_run(their_run, score_of)
            for prompt, seed in sorted(ours.keys() & theirs.keys()):
                difference = ours[prompt, seed] - theirs[prompt, seed]
                cells[subject, rank, prompt, seed] = round(difference, DIGITS)
    return cells


def _paired_runs(first: Runs, second: Runs) -> list[tuple[list[ImageScore], list[ImageScore]]]:
    """Runs in their order; an only run with each of the others; all in one where neither fits."""
    if len(first) == len(second):
        return list(zip(first, second, strict=True))
    if len(first) == 1:
        return [(first[0], run) for run in second]
    if len(second) == 1:
        return [(run, second[0]) for run in first]
    return [(list(chain.from_iterable(first)), list(chain.from_iterable(second)))]


def _difference(
    first: str, second: str, group: str, by_method: Mapping[str, Sequence[ImageScore]]
) -> Difference | None:
    """The difference of two methods, its p-values not corrected; None without a shared picture."""
    ours, theirs = _runs(by_method[first]), _runs(by_method[second])
    subject, text = (_shared(ours, theirs, score) for score in (_subject_score, _text_score))
    if not text:
        return None
    (subject_interval, subject_p), (text_interval, text_p) = (
        bootstrap_test(_levels(cells), _DIFFERENCE_LIMITS) for cells in (subject, text)
    )
    return Difference(
        first=first,
        second=second,
        group=group,
        cells=len(text),
        subject=subject_interval,
        text=text_interval,
        subject_p=subject_p,
        text_p=text_p,
    )


def _corrected(family: Sequence[Difference]) -> Iterator[Difference]:
    """The rows of a table, their p-values corrected together; those without one stay without."""
    tested = [row for row in family if row.subject_p is not None and row.text_p is not None]
    found = [p for row in tested for p in (row.subject_p, row.text_p)]
    corrected = iter(holm([p for p in found if p is not None]))
    for row in family:
        if row.subject_p is not None and row.text_p is not None:
            row = replace(row, subject_p=next(corrected), text_p=next(corrected))
        yield row


def _interval(cells: dict[CellKey, float]) -> Interval:
    """The mean over subjects with its interval.

    Limits are 0 … 1 where no value is negative, and −1 … 1 of a cosine.
    """
    return bootstrap_interval(_levels(cells), (0.0 if min(cells.values()) >= 0 else -1.0, 1.0))


def _levels(cells: dict[CellKey, float]) -> list[list[list[float]]]:
    """For each subject its runs, and for each run its picture seeds: means over prompts."""
    levels: dict[str, dict[int, dict[int, list[float]]]] = {}
    for (subject, rank, _, seed), value in cells.items():
        of_run = levels.setdefault(subject, {}).setdefault(rank, {})
        of_run.setdefault(seed, []).append(value)
    return [
        [list(map(fmean, seeds.values())) for seeds in runs.values()] for runs in levels.values()
    ]


def _mean_ceiling(
    scores: Sequence[ImageScore], ceiling_of: Callable[[ImageScore], float | None]
) -> float | None:
    """The mean over subjects; None unless it is known for every picture."""
    by_subject: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        ceiling = ceiling_of(score)
        if ceiling is None:
            return None
        by_subject[score.subject].append(ceiling)
    return fmean(map(fmean, by_subject.values()))


def _check_ceiling(
    name: str, scores: Sequence[ImageScore], ceilings: Mapping[str, ConceptCeiling]
) -> float | None:
    """The mean over the subjects of these pictures; None unless it is known for all of them."""
    if scores[0].method == CLASS_WORD:
        return None  # it shows another thing
    known = []
    for subject in dict.fromkeys(score.subject for score in scores):
        if subject not in ceilings or name not in ceilings[subject].checks:
            return None
        known.append(ceilings[subject].checks[name].reconstructions.share)
    return fmean(known)
