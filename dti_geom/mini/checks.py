"""Checks of a picture: each compares one thing that a scene asks for with what the scorer reads.

A picture passes a check when the scorer reads in it what the scene says. What the prompt leaves
open is not checked.
"""

from collections.abc import Callable, Mapping

from dti_geom.mini.domain import COUNT_WORDS
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


def order_right(scene: Scene, answers: Answers) -> bool:
    """Return whether a pair lies along the right axis and is not swapped.

    A thing that cannot be made out does not count against the order, as long as the other thing
    is where it belongs.
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


def checks_of(scene: Scene) -> dict[str, Check]:
    """Return the checks of everything that a scene asks for beside the subject itself."""
    checks: dict[str, Check] = {"background": background_right}
    if scene.second is not None:
        checks |= {"order": order_right, "both": both_right}
    if scene.first.colour is not None:
        checks["colour"] = colour_right
    if scene.first.accessory is not None:
        checks["accessory"] = accessory_right
    if scene.count > 1:
        checks["count"] = count_right
    return checks
