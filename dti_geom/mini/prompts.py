"""The prompts that a token of the embedded model is evaluated on, each with the scene to check."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from dti_geom.mini.checks import NOT_IN_TEXT_SCORE, Answers, check_scene
from dti_geom.mini.domain import ACCESSORIES, BACKGROUNDS, COUNT_WORDS, colours_of
from dti_geom.mini.scenes import Axis, Item, Scene
from dti_geom.mini.wording import prompt_for

# Places in a prompt and in its scene: the subject, and another subject evaluated with it.
SUBJECT, OTHER = "{}", "{other}"

PLACES = ("snow", "night", "brick", "ocean", "forest", "city", "desert", "mountains")
COLOUR_PLACES = ("beach", "snow", "white")
ACCESSORY_PLACES = ("beach", "city")
# The first four that are neither the subject nor its class word.
COMPANIONS = ("car", "mushroom", "owl", "pizza", "fox", "panda")


@dataclass(frozen=True)
class SceneTemplate:
    """A scene whose things may be the places SUBJECT and OTHER."""

    scene: Scene

    def filled(self, subject: str, other: str | None) -> Scene:
        """Return the scene with these things in the places."""
        things = {SUBJECT: subject, OTHER: other or ""}
        first, *second = (
            replace(item, thing=things.get(item.thing, item.thing)) for item in self.scene.items
        )
        return replace(self.scene, first=first, second=second[0] if second else None)

    @property
    def pair(self) -> bool:
        """Whether the scene has two things."""
        return self.scene.second is not None

    def check(self, answers: Answers, subject: str, other: str | None) -> dict[str, bool]:
        """Compare the scorer's answers with the scene; return the checks that were asked.

        subject, other: what the scorer calls the things in the places.
        """
        return check_scene(self.filled(subject, other), answers, subject)

    def counts(self, check: str) -> bool:
        """Return whether a check counts in the text score."""
        return check not in NOT_IN_TEXT_SCORE


class ScenePrompt(NamedTuple):
    """A prompt with `{}` for the subject, and the scene that its pictures have to show."""

    text: str
    group: str  # what the prompt asks for
    expected: SceneTemplate


def mini_prompts(thing: str, class_word: str = "") -> tuple[ScenePrompt, ...]:
    """Return the prompts in the embedded model's vocabulary.

    thing: what the scorer calls the subject. class_word: the word that stands for it where nothing
    is learned; it may name another thing, as "car" does for a robot. No prompt puts either beside
    itself, and none asks for a colour that either has anyway. A learned token has no plural, so
    counts use its singular.
    """
    return tuple(
        ScenePrompt(_prompt_text(scene, number), group, SceneTemplate(scene))
        for number, (group, scene) in enumerate(_scenes((thing, class_word)))
    )


def _scenes(things: tuple[str, str]) -> Iterator[tuple[str, Scene]]:
    """The (group, scene) of each prompt. Their order decides the phrasing of pairs.

    things: what may stand in the subject's place.
    """
    subject = Item(SUBJECT)
    companions = [companion for companion in COMPANIONS if companion not in things][:4]
    free = [colour for colour in colours_of(things[0]) if colour in colours_of(things[1])]
    for place in PLACES:
        yield "background", Scene(place, subject)
    for place, colour in zip(COLOUR_PLACES, free, strict=False):
        yield "colour", Scene(place, replace(subject, colour=colour))
    for accessory in ACCESSORIES:
        for place in ACCESSORY_PLACES:
            yield "accessory", Scene(place, replace(subject, accessory=accessory))
    for count in (2, 3):
        yield "count", Scene("meadow", subject, count=count)
    for scene in _pairs("row", "beach", companions):
        yield "left and right", scene
    for scene in _pairs("column", "snow", companions):
        yield "above and below", scene
    for scene in _pairs("row", "wood", [OTHER, OTHER]):
        yield "two concepts", scene


def _pairs(axis: Axis, background: str, companions: list[str]) -> Iterator[Scene]:
    """The subject with each of these things, in turn before and behind it."""
    for number, companion in enumerate(companions):
        first, second = Item(SUBJECT), Item(companion)
        if number % 2 == 1:
            first, second = second, first
        yield Scene(background, first, second, axis)


def _prompt_text(scene: Scene, number: int) -> str:
    if scene.count > 1:  # a learned token has no plural
        count = COUNT_WORDS[scene.count - 1]
        return f"a photo of {count} {SUBJECT} {BACKGROUNDS[scene.background][0]}"
    return prompt_for(scene, number)
