"""Plan a blind study: which rater sees which pictures, and in which order.

Every choice comes from the seed that the key records, so a study can be planned again. Names of
pictures and trials come from it as well: raters must not know the seed before they have answered.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from math import factorial

import numpy as np

from dti_geom.errors import StudyError

SUBJECT, TEXT = "subject", "text"
QUESTIONS = {
    SUBJECT: "Which picture shows the thing in the reference pictures best?",
    TEXT: "Which picture follows the text best?",
}
NONE = "none"  # the answer that no picture is better
GUESSED = 0.05  # a rater who only guesses passes the catch trials less often than this
_ORDERS = 24  # orders that are tried for a screen


@dataclass(frozen=True)
class Case:
    """A subject in a prompt from one noise seed, painted by several methods."""

    subject: str
    prompt: str  # {} for the subject
    words: str  # the prompt with the class word, as raters read it
    group: str
    seed: int
    files: dict[str, str]  # by method
    text_scores: dict[str, float]  # by method; they choose catch trials and nothing else


@dataclass(frozen=True)
class Trial:
    """Pictures that are compared, and what each of them is. Raters never see this."""

    name: str
    subject: str
    prompt: str
    words: str
    group: str
    seed: int
    pictures: dict[str, str]  # served name → method; in catch trials "right" or "wrong"
    catches: str = ""  # the question with a known answer; "" for an ordinary trial


@dataclass(frozen=True)
class Screen:
    """A trial as one rater sees it."""

    trial: str
    pictures: tuple[str, ...]  # served names, from left to right


@dataclass(frozen=True)
class Study:
    """The key of a study: what every name means, and what each rater sees."""

    name: str
    seed: int
    model: str
    methods: tuple[str, ...]
    shown: int  # pictures of a screen
    ties: bool  # whether raters may say that no picture is better
    trials: tuple[Trial, ...]
    raters: tuple[tuple[Screen, ...], ...]
    references: dict[str, tuple[str, ...]]  # served names, by subject
    sources: dict[str, str]  # served name → picture file it was made from
    notes: tuple[str, ...] = ()


@dataclass
class Names:
    """Draws names that say nothing, and remembers the picture file behind each."""

    rng: np.random.Generator
    sources: dict[str, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def draw(self) -> str:
        """Return a new name of 12 hexadecimal digits."""
        while True:
            name = self.rng.bytes(6).hex()
            if name not in self._taken:
                self._taken.add(name)
                return name

    def picture(self, file: str) -> str:
        """Return a new name for a copy of a picture file."""
        name = self.draw()
        self.sources[name] = file
        return name


def plan_study(
    cases: Sequence[Case],
    references: Mapping[str, Sequence[str]],
    class_words: Mapping[str, str],
    *,
    model: str,
    seed: int,
    raters: int = 100,
    trials: int = 20,
    shown: int | None = None,
    catch: int | None = None,
    kept: int | None = None,
    most_references: int = 4,
    ties: bool = True,
) -> Study:
    """Return a study of these cases, balanced over methods, subjects, prompts and sides.

    cases: every one of the same methods. references, class_words: by subject. raters: numbers that
    can be given out. trials: of a rater, besides the catch trials. shown: pictures of a screen;
    default: one of each method, at most 4. catch: catch trials of a rater, half for each question;
    default: `catch_needed`. kept: cases to use; default: so many that 3 raters see each.

    Raises StudyError for numbers that make no study, and where no catch trial can be made.
    """
    methods = _methods(cases)
    shown = min(len(methods), 4) if shown is None else shown
    if not 2 <= shown <= len(methods):
        raise StudyError(
            f"{shown} pictures a screen; expected 2 to {len(methods)}, the number of methods."
        )
    if raters < 1 or trials < 1:
        raise StudyError(f"{raters} raters and {trials} trials; expected 1 or more of each.")
    rng = np.random.default_rng(seed)
    names = Names(rng)
    study = names.draw()
    kept = max(1, -(-raters * trials // 3)) if kept is None else kept
    chosen = _spread(cases, min(kept, len(cases)), rng)
    pool = {name: list(files) for name, files in references.items()}
    served = {
        subject: tuple(map(names.picture, pool[subject][:most_references]))
        for subject in dict.fromkeys(case.subject for case in cases)
    }
    catch = catch_needed(shown) if catch is None else catch
    caught = _catch_trials(cases, pool, class_words, shown, catch, most_references, names)
    plan = _Planner(chosen, methods, shown, names)
    screens = [plan.screens(trials) for _ in range(raters)]
    _add_catches(screens, caught, catch, rng)
    notes = []
    if trials > len(chosen):
        notes.append(f"a rater sees some of the {len(chosen)} cases more than once")
    return Study(
        name=study,
        seed=seed,
        model=model,
        methods=methods,
        shown=shown,
        ties=ties,
        trials=tuple(sorted((*plan.trials.values(), *caught), key=lambda trial: trial.name)),
        raters=tuple(map(tuple, screens)),
        references=served,
        sources=dict(sorted(names.sources.items())),
        notes=tuple(notes),
    )


def catch_needed(shown: int) -> int:
    """Return how many catch trials forgive one mistake, and a guesser passes less than 5 %.

    shown: pictures of a screen. An even number: half of them for each question.
    """
    return next(count for count in range(2, 100, 2) if _tail(count, count - 1, 1 / shown) < GUESSED)


def least_right(asked: int, shown: int) -> int:
    """Return how many of the catch trials a rater has to answer right to be kept.

    The smallest number that a rater who guesses reaches with probability below 5 %. It is
    `asked` + 1, which nobody reaches, where too few were asked to tell.
    """
    return next(right for right in range(asked + 2) if _tail(asked, right, 1 / shown) < GUESSED)


def _tail(count: int, least: int, chance: float) -> float:
    """The probability of `least` or more successes of `count`."""
    from scipy.stats import binom

    return float(binom.sf(least - 1, count, chance))


def _methods(cases: Sequence[Case]) -> tuple[str, ...]:
    if not cases:
        raise StudyError("no subject and prompt was painted by all methods, so there is no case.")
    methods = tuple(cases[0].files)
    if len(methods) < 2:
        raise StudyError(
            f"the only method is {', '.join(methods)}; a study compares two or more. Name another "
            "evaluation, or one with --baselines."
        )
    return methods


def _spread(cases: Sequence[Case], count: int, rng: np.random.Generator) -> list[Case]:
    """Choose cases so that every subject and every prompt comes about equally often."""
    subjects, prompts = _places(cases)
    of_subject, of_prompt = np.zeros(subjects.max() + 1), np.zeros(prompts.max() + 1)
    used = np.zeros(len(cases))
    for _ in range(count):
        costs = 1e6 * used + of_subject[subjects] + of_prompt[prompts] + rng.random(len(cases)) / 2
        place = int(costs.argmin())
        used[place] += 1
        of_subject[subjects[place]] += 1
        of_prompt[prompts[place]] += 1
    return [case for case, taken in zip(cases, used, strict=True) if taken]


def _places(cases: Sequence[Case]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of each case's subject and prompt."""
    subjects = {name: at for at, name in enumerate(dict.fromkeys(c.subject for c in cases))}
    prompts = {text: at for at, text in enumerate(dict.fromkeys(c.prompt for c in cases))}
    return (
        np.array([subjects[case.subject] for case in cases]),
        np.array([prompts[case.prompt] for case in cases]),
    )


class _Planner:
    """Deals cases, methods and sides to raters, always those that were dealt least."""

    def __init__(
        self, cases: Sequence[Case], methods: Sequence[str], shown: int, names: Names
    ) -> None:
        self.cases, self.methods, self.names, self.rng = cases, methods, names, names.rng
        self.subsets = list(combinations(methods, shown))
        self.subjects, self.prompts = _places(cases)
        self.trials: dict[tuple[int, tuple[str, ...]], Trial] = {}
        self._pictures: dict[str, str] = {}  # picture file → served name
        self._cases = np.zeros(len(cases))
        self._subjects = np.zeros(self.subjects.max() + 1)
        self._prompts = np.zeros(self.prompts.max() + 1)
        self._subsets: Counter[tuple[int, tuple[str, ...]]] = Counter()  # by subject
        self._sides: Counter[tuple[str, int]] = Counter()

    def screens(self, count: int) -> list[Screen]:
        """Deal a rater's screens, without catch trials."""
        own_cases = np.zeros(len(self.cases))
        own_subjects, own_prompts = np.zeros_like(self._subjects), np.zeros_like(self._prompts)
        own_sides: Counter[tuple[str, int]] = Counter()
        screens = []
        for _ in range(count):
            costs = 1e6 * own_cases + 1e3 * (
                own_subjects[self.subjects] + own_prompts[self.prompts]
            )
            costs += self._cases + self._subjects[self.subjects] / len(self._subjects)
            costs += self._prompts[self.prompts] / len(self._prompts)
            place = int((costs + self.rng.random(len(costs)) / 2).argmin())
            subject, prompt = self.subjects[place], self.prompts[place]
            for counts, at in (
                (own_cases, place),
                (own_subjects, subject),
                (own_prompts, prompt),
                (self._cases, place),
                (self._subjects, subject),
                (self._prompts, prompt),
            ):
                counts[at] += 1
            subset = self._subset(place)
            trial = self._trial(place, subset)
            order = self._order(subset, own_sides)
            named = {method: name for name, method in trial.pictures.items()}
            screens.append(Screen(trial.name, tuple(named[method] for method in order)))
        return screens

    def _subset(self, place: int) -> tuple[str, ...]:
        """The methods that were compared least, first on this case's subject."""
        ties = self.rng.permutation(len(self.subsets))
        subject = int(self.subjects[place])
        at = min(
            range(len(self.subsets)),
            key=lambda at: (
                self._subsets[-1, self.subsets[at]],
                self._subsets[subject, self.subsets[at]],
                ties[at],
            ),
        )
        self._subsets[subject, self.subsets[at]] += 1
        self._subsets[-1, self.subsets[at]] += 1
        return self.subsets[at]

    def _order(self, subset: Sequence[str], own: Counter[tuple[str, int]]) -> tuple[str, ...]:
        """The order whose methods stood least on their sides so far."""
        orders: list[tuple[str, ...]] = (
            list(permutations(subset))
            if factorial(len(subset)) <= _ORDERS
            else [tuple(self.rng.permutation(subset).tolist()) for _ in range(_ORDERS)]
        )
        self.rng.shuffle(orders)
        best = min(
            orders,
            key=lambda order: sum(
                self._sides[side] ** 2 - (self._sides[side] - 1) ** 2 + 2 * own[side]
                for side in _sides(order)
            ),
        )
        self._sides.update(_sides(best))
        own.update(_sides(best))
        return tuple(best)

    def _trial(self, place: int, subset: tuple[str, ...]) -> Trial:
        if (place, subset) not in self.trials:
            case = self.cases[place]
            pictures = {self._picture(case.files[method]): method for method in subset}
            self.trials[place, subset] = _trial(case, self.names.draw(), pictures)
        return self.trials[place, subset]

    def _picture(self, file: str) -> str:
        if file not in self._pictures:
            self._pictures[file] = self.names.picture(file)
        return self._pictures[file]


def _sides(order: Sequence[str]) -> list[tuple[str, int]]:
    return [(method, side) for side, method in enumerate(order)]


def _trial(case: Case, name: str, pictures: dict[str, str], catches: str = "") -> Trial:
    return Trial(
        name=name,
        subject=case.subject,
        prompt=case.prompt,
        words=case.words,
        group=case.group,
        seed=case.seed,
        # Sorted by name, so that their order says nothing either.
        pictures=dict(sorted(pictures.items())),
        catches=catches,
    )


# --- Catch trials ---


def _catch_trials(
    cases: Sequence[Case],
    references: Mapping[str, Sequence[str]],
    class_words: Mapping[str, str],
    shown: int,
    catch: int,
    most_references: int,
    names: Names,
) -> list[Trial]:
    """Trials whose answer is known: enough for every rater to see none twice where that can be."""
    if not catch:
        return []
    subject = list(_subject_catches(cases, references, class_words, shown, most_references, names))
    text = list(_text_catches(cases, shown, names))
    if not subject and not text:
        raise StudyError(
            "no catch trial can be made: it takes a second subject with reference pictures, or "
            "a second prompt of a subject. Evaluate more of either, or pass --catch 0, which "
            "leaves careless raters in."
        )
    return subject + text


def _subject_catches(
    cases: Sequence[Case],
    references: Mapping[str, Sequence[str]],
    class_words: Mapping[str, str],
    shown: int,
    most_references: int,
    names: Names,
) -> Iterator[Trial]:
    """Yield, for each subject, a reference of it among references of other subjects."""
    by_subject = _by_subject(cases)
    for subject, own in by_subject.items():
        files = references.get(subject, ())
        word = class_words.get(subject)
        others = [name for name in by_subject if name != subject and references.get(name)]
        # Two dogs may be hard to tell apart, which is no carelessness.
        others = [name for name in others if class_words.get(name) != word] or others
        if not files or not others:
            continue
        names.rng.shuffle(others)
        depth = max(len(references[name]) for name in others)
        wrong = [
            references[name][at]
            for at in range(depth)
            for name in others
            if at < len(references[name])
        ]
        if len(wrong) < shown - 1:
            continue
        # Not one that the screen shows as a reference, where there is another.
        right = (files[most_references:] or files)[0]
        case = own[int(names.rng.integers(len(own)))]
        yield _catch(case, right, wrong[: shown - 1], SUBJECT, names)


def _text_catches(cases: Sequence[Case], shown: int, names: Names) -> Iterator[Trial]:
    """Yield, for each subject, its best picture of a prompt among pictures of other prompts."""
    for own in _by_subject(cases).values():
        scored = [
            (case.text_scores[method], place, method)
            for place, case in enumerate(own)
            for method in case.files
        ]
        _, place, method = max(scored)
        case = own[place]
        others = sorted(
            (other for other in own if other.prompt != case.prompt),
            key=lambda other: (_likeness(case.words, other.words), other.text_scores[method]),
        )
        far: dict[str, Case] = {}  # the first of each prompt
        for other in others:
            far.setdefault(other.prompt, other)
        if len(far) >= shown - 1:
            wrong = [other.files[method] for other in [*far.values()][: shown - 1]]
            yield _catch(case, case.files[method], wrong, TEXT, names)


def _catch(case: Case, right: str, wrong: Sequence[str], question: str, names: Names) -> Trial:
    # New names: a picture that is known from another screen would give the trial away.
    pictures = {names.picture(right): "right"}
    pictures |= {names.picture(file): "wrong" for file in wrong}
    return _trial(case, names.draw(), pictures, question)


def _by_subject(cases: Sequence[Case]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.subject].append(case)
    return groups


def _likeness(first: str, second: str) -> float:
    """The share of words that two texts have in common."""
    ours, theirs = set(first.lower().split()), set(second.lower().split())
    return len(ours & theirs) / len(ours | theirs)


def _add_catches(
    screens: Sequence[list[Screen]], trials: Sequence[Trial], count: int, rng: np.random.Generator
) -> None:
    """Put catch trials at random places of each rater's screens; the right side is balanced."""
    if not count:
        return
    kinds = [[trial for trial in trials if trial.catches == question] for question in QUESTIONS]
    kinds = [kind for kind in kinds if kind]
    dealt: Counter[str] = Counter()
    sides: Counter[int] = Counter()
    for own in screens:
        seen: Counter[str] = Counter()
        for number in range(count):
            kind = kinds[number % len(kinds)]
            order = rng.permutation(len(kind)).tolist()
            trial = kind[min(order, key=lambda at: (seen[kind[at].name], dealt[kind[at].name]))]
            seen[trial.name] += 1
            dealt[trial.name] += 1
            (right,) = [name for name, what in trial.pictures.items() if what == "right"]
            wrong = [name for name in trial.pictures if name != right]
            rng.shuffle(wrong)
            free = rng.permutation(len(trial.pictures)).tolist()
            side = min(free, key=lambda side: sides[side])
            sides[side] += 1
            wrong.insert(side, right)
            place = int(rng.integers(len(own) + 1))
            own.insert(place, Screen(trial.name, tuple(wrong)))
