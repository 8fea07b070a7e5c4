"""Updates and seconds that methods need to be as good as a reference is at its end."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dti_geom.errors import SweepError
from dti_geom.statistics import DIGITS, Interval, bootstrap_interval
from dti_geom.sweeps.sweep import Course, MethodCost

Token = tuple[str, int]  # subject and training seed


@dataclass(frozen=True)
class TimeToQuality:
    """What a method needs to reach the reference's final scores, over subjects and seeds.

    A token that never reaches them counts with all its updates, so a mean is a lower bound where
    `reached` is less than `tokens`.
    """

    label: str
    tokens: int
    reached: int
    updates: Interval
    seconds: Interval | None  # of training for one concept; None without a cost


def time_to_quality(
    courses: Sequence[Course], costs: Iterable[MethodCost] = (), reference: str = "ti"
) -> list[TimeToQuality]:
    """Return what every method needs until it is as good as the reference is at its end.

    The first checkpoint counts whose subject score is at least the reference's last one, of the
    same subject and training seed, and whose text score is not lower than the reference's last one.
    Raises SweepError without the reference, or for a method that shares no token with it.
    """
    by_label: dict[str, dict[Token, list[Course]]] = defaultdict(lambda: defaultdict(list))
    for course in sorted(courses, key=lambda course: course.step):
        by_label[course.label][course.subject, course.seed].append(course)
    if reference not in by_label:
        raise SweepError(
            f"no course of '{reference}' to compare with. Known: {', '.join(by_label)}."
        )
    ends = {token: points[-1] for token, points in by_label[reference].items()}
    seconds = {cost.label: cost.training_seconds for cost in costs}
    return [
        _of_method(label, tokens, ends, seconds.get(label)) for label, tokens in by_label.items()
    ]


def _of_method(
    label: str,
    tokens: Mapping[Token, Sequence[Course]],
    ends: Mapping[Token, Course],
    seconds: float | None,
) -> TimeToQuality:
    shared = sorted(tokens.keys() & ends.keys())
    if not shared:
        raise SweepError(f"'{label}' shares no subject and training seed with the reference.")
    reached, last = 0, 0
    updates: dict[str, list[list[float]]] = defaultdict(list)
    for token in shared:
        step = _first_as_good(tokens[token], ends[token])
        reached += step is not None
        last = max(last, tokens[token][-1].step)
        updates[token[0]].append([float(tokens[token][-1].step if step is None else step)])
    interval = bootstrap_interval(list(updates.values()), (0.0, float(last)))
    return TimeToQuality(
        label=label,
        tokens=len(shared),
        reached=reached,
        updates=interval,
        seconds=None if seconds is None else _scaled(interval, seconds / last),
    )


def _first_as_good(points: Sequence[Course], end: Course) -> int | None:
    """The updates of the first point that is as good; None if none is. points: by updates."""
    for point in points:
        subject = round(point.subject_score - end.subject_score, DIGITS)
        text = round(point.text_score - end.text_score, DIGITS)
        if subject >= 0 and text >= 0:
            return point.step
    return None


def _scaled(interval: Interval, factor: float) -> Interval:
    low, high = (None if end is None else factor * end for end in (interval.low, interval.high))
    return replace(interval, mean=factor * interval.mean, low=low, high=high)
