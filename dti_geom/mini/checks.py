"""Checks of a picture: each compares one thing that a scene asks for with what the scorer reads.

A picture passes a check when the scorer reads in it what the scene says. What the prompt leaves
open is not checked, and neither is what a picture cannot answer: a side of a thing that is absent.
"""

from collections.abc import Callable, Mapping

from dti_geom.mini.domain import COUNT_WORDS, PLURALS
from dti_geom.mini.scenes import Scene

Answers = Mapping[str, str]
"""The scorer's answer to each of its questions."""

Check = Callable[[Scene, Answers], bool]


def object_right(scene: Scene, answers: Answers) -> bool:
    """Return whether the (first) thing is the right one."""
    return answers["first"] == scene.first.thing


def background_right(scene: Scene, answers: Answers) -> bool:
    """Return whether the background is the right one."""
    return answers["background"] == scene.background


def colour_right(scene: Scene, answers: Answers) -> bool:
    """Return whether the first thing has the right colour."""
    return answers["first_colour"] == scene.first.colour


def accessory_right(scene: Scene, answers: Answers) -> bool:
    """Return whether the thing wears the right accessory."""
    return answers["accessory"] == scene.first.accessory


def size_right(scene: Scene, answers: Answers) -> bool:
    """Return whether the thing is as small or as large as the scene says."""
    return answers["size"] == scene.size


def count_right(scene: Scene, answers: Answers) -> bool:
    """Return whether the number is right, and the things are not a pair of different ones."""
    return answers["count"] == COUNT_WORDS[scene.count - 1] and answers["axis"] == "none"


def both_right(scene: Scene, answers: Answers) -> bool:
    """Return whether both things of a pair are there, in either order."""
    assert scene.second is not None
    return {answers["first"], answers["second"]} == {scene.first.thing, scene.second.thing}


def presence_right(scene: Scene, answers: Answers, subject: str) -> bool:
    """Return whether the subject of a pair is there, in either place."""
    assert scene.second is not None
    return subject in (answers["first"], answers["second"])


def order_given_presence(scene: Scene, answers: Answers, subject: str) -> bool | None:
    """Return whether the subject of a pair is on the asked side of the other thing.

    Sides count along the asked axis alone. None where there is no side to see: the picture lacks
    the subject, shows it alone, or shows it in both places. The other thing may be any thing;
    `both_right` says whether it is the right one.
    """
    assert scene.second is not None
    places = answers["first"] == subject, answers["second"] == subject
    if sum(places) != 1 or "none" in (answers["first"], answers["second"]):
        return None
    asked_first = scene.first.thing == subject
    return answers["axis"] == scene.axis and places[0] == asked_first


def order_right(scene: Scene, answers: Answers) -> bool:
    """Return whether a pair lies along the right axis and is not swapped.

    A thing that cannot be made out does not count against the order, as long as the other thing
    is where it belongs. This is for exams of the generator, whose scenes have no subject. For a
    subject see `order_given_presence`: here a picture without it may be right.
    """
    assert scene.second is not None
    in_place = (
        answers["first"] == scene.first.thing,
        answers["second"] == scene.second.thing,
    )
    swapped = (
        answers["first"] == scene.second.thing,
        answers["second"] == scene.first.thing,
    )
    return answers["axis"] == scene.axis and any(in_place) and sum(in_place) > sum(swapped)


CHECKS = ("object", "presence", "both", "order", "background", "colour", "accessory", "count")
"""The names in `check_scene`, in the order of tables."""

NOT_IN_TEXT_SCORE = frozenset({"presence"})
"""Read and shown, not counted: `both` is missed wherever it is, and would punish it twice."""


def check_scene(scene: Scene, answers: Answers, subject: str) -> dict[str, bool]:
    """Return the checks that a picture of a scene is asked for, and whether each holds.

    subject: the scorer's name of the thing that is judged; it is one of the scene's things. A thing
    that the scorer has no name for is not asked for.

    Alone, the subject is asked for as "object"; in a pair by "presence" (it is there, in either
    place), "both" (both things are) and "order" (see `order_given_presence`). So a picture without
    the subject misses "both" and has no order; one with exchanged places has both things and misses
    "order"; one with a wrong companion misses "both".
    """
    known = subject in PLURALS
    asked: dict[str, bool | None] = {"background": background_right(scene, answers)}
    if scene.second is None:
        asked["object"] = object_right(scene, answers) if known else None
    elif known:
        asked["presence"] = presence_right(scene, answers, subject)
        if all(item.thing in PLURALS for item in scene.items):
            asked["both"] = both_right(scene, answers)
        if scene.first.thing != scene.second.thing:
            asked["order"] = order_given_presence(scene, answers, subject)
    if scene.first.colour is not None:
        asked["colour"] = colour_right(scene, answers)
    if scene.first.accessory is not None:
        asked["accessory"] = accessory_right(scene, answers)
    if scene.count > 1:
        asked["count"] = count_right(scene, answers)
    return {name: result for name, result in asked.items() if result is not None}
