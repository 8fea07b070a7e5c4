"""What a subject is painted in: sets of prompts, from single attributes to two concepts at once."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dti_geom.errors import EvaluationError
from dti_geom.mini.domain import ACCESSORIES, BACKGROUNDS, COUNT_WORDS, colours_of
from dti_geom.mini.exams import (
    Check,
    accessory_right,
    background_right,
    both_right,
    colour_right,
    count_right,
    order_right,
    prompt_for,
)
from dti_geom.mini.scenes import Axis, Item, Scene

SUBJECT, OTHER = (
    "{}",
    "{other}",
)  # in a prompt: the subject, and another one of those evaluated together
DREAMBOOTH_FILE = "prompts_and_classes.txt"
LIVE_CLASSES = ("cat", "dog")  # of the DreamBooth dataset; everything else there is an object

COMPOSITIONAL: dict[str, tuple[str, ...]] = {
    "attributes": (
        "a photo of a bright orange {}",
        "a photo of a {} made of glass",
        "a photo of a {} carved from dark wood",
        "a photo of a {} covered in frost",
        "a photo of a tiny {} on the palm of a hand",
    ),
    "accessories": (
        "a photo of a {} wearing a straw hat",
        "a photo of a {} with a green ribbon tied around it",
        "a photo of a {} wearing headphones",
        "a photo of a {} wearing a straw hat and a green ribbon",
    ),
    "counts": (
        "a photo of two {} side by side",
        "a photo of three {} in a row",
    ),
    "relations": (
        "a photo of a {} to the left of a red apple",
        "a photo of a red apple to the left of a {}",
        "a photo of a {} on top of a stack of books",
        "a photo of a {} under a wooden chair",
        "a photo of a {} between two candles",
    ),
    "two concepts": (
        "a photo of a {} next to a {other}",
        "a photo of a {} to the left of a {other}",
        "a photo of a {other} to the left of a {}",
        "a photo of a {} on top of a {other}",
    ),
}
STYLES = (
    "a watercolour painting of a {}",
    "an oil painting of a {}",
    "a pencil sketch of a {}",
    "a {} as a stained glass window",
    "a woodcut print of a {}",
    "a {} as a paper cutout",
    "a {} in the style of a children's book",
    "a {} as pixel art",
    "a mosaic of a {}",
    "a black and white photograph of a {}",
)
PROMPT_SETS = {
    "mini": "the embedded model's own words: places, colours, accessories, counts, left and right, above and below",
    "dreambooth": f"the DreamBooth dataset's prompts for the kind of subject, from its {DREAMBOOTH_FILE}",
    "compositional": "ours, in growing complexity: " + ", ".join(COMPOSITIONAL),
    "styles": "ours: ten ways to draw",
    "paper": "the paper's protocol as far as its prompts are ours to give: dreambooth, compositional and styles",
}


@dataclass(frozen=True)
class Prompt:
    """A prompt with `{}` for the subject, and perhaps `{other}` for a second one."""

    text: str
    group: str  # what it asks for
    scene: Scene | None = (
        None  # what a picture of the embedded model has to show; things may be SUBJECT and OTHER
    )

    def filled(self, subject: str, other: str | None) -> str:
        """With these words or tokens in the places."""
        return self.text.replace(SUBJECT, subject).replace(OTHER, other or "")

    def shown(self, subject: str, other: str | None) -> Scene | None:
        """The scene with these things in the places."""
        if self.scene is None:
            return None
        things = {SUBJECT: subject, OTHER: other or ""}
        first, *second = (
            replace(item, thing=things.get(item.thing, item.thing)) for item in self.scene.items
        )
        return replace(self.scene, first=first, second=second[0] if second else None)


@dataclass(frozen=True)
class PromptSet:
    """Prompts that may depend on the subject."""

    name: str
    of: Callable[
        [str, str], tuple[Prompt, ...]
    ]  # class word, and what the scorer of the embedded model calls it


def open_prompt_set(name: str, dreambooth: str | Path | None = None) -> PromptSet:
    """A set of `PROMPT_SETS`, or a text file with one prompt a line.

    dreambooth: folder of the DreamBooth dataset, for the sets that take its prompts. Raises EvaluationError.
    """
    if name == "mini":
        return PromptSet(name, lambda _word, thing: mini_prompts(thing))
    if name in ("dreambooth", "paper"):
        kinds = dreambooth_prompts(dreambooth)
        ours = (*_compositional(), *_styles()) if name == "paper" else ()
        return PromptSet(name, lambda word, _thing: kinds[word in LIVE_CLASSES] + ours)
    ours_alone = {"compositional": _compositional, "styles": _styles}.get(name)
    prompts = tuple(ours_alone() if ours_alone else _from_file(Path(name)))
    return PromptSet(name, lambda _word, _thing: prompts)


def mini_prompts(thing: str) -> tuple[Prompt, ...]:
    """Prompts in the embedded model's vocabulary, each with the scene to check.

    thing: what the subject is to the scorer; it is asked for neither beside itself nor in a colour it has anyway. A
    learned token has no plural, so counts are asked of its singular.
    """
    subject = Item(SUBJECT)
    others = [other for other in ("car", "mushroom", "owl", "pizza", "fox") if other != thing][:4]
    places = ("snow", "night", "brick", "ocean", "forest", "city", "desert", "mountains")
    scenes = [("background", Scene(place, subject)) for place in places]
    scenes += [
        ("colour", Scene(place, replace(subject, colour=colour)))
        for place, colour in zip(("beach", "snow", "white"), colours_of(thing), strict=False)
    ]
    scenes += [
        ("accessory", Scene(place, replace(subject, accessory=accessory)))
        for accessory in ACCESSORIES
        for place in ("beach", "city")
    ]
    scenes += [("count", Scene("meadow", subject, count=count)) for count in (2, 3)]
    scenes += [("left and right", scene) for scene in _pairs("row", "beach", others)]
    scenes += [("above and below", scene) for scene in _pairs("column", "snow", others)]
    scenes += [("two concepts", scene) for scene in _pairs("row", "wood", [OTHER, OTHER])]
    return tuple(
        Prompt(_told(scene, number), group, scene) for number, (group, scene) in enumerate(scenes)
    )


def checks_of(scene: Scene) -> dict[str, Check]:
    """What a picture of a scene has to show beside the subject itself."""
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


def dreambooth_prompts(folder: str | Path | None) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """The prompts for objects and for live subjects, as the DreamBooth dataset's own file lists them.

    Where the file has an identifier and a class word, `{}` stands for both. Raises EvaluationError.
    """
    path = Path(folder or ".") / DREAMBOOTH_FILE
    if not path.is_file():
        raise EvaluationError(
            f"{path} does not exist; these prompts are the DreamBooth dataset's own. Name its folder with --dreambooth."
        )
    objects, heading, live = path.read_text(encoding="utf-8", errors="replace").partition(
        "Live Subject Prompts"
    )
    found = tuple(
        tuple(
            Prompt(prompt.replace("{0} {1}", SUBJECT), "dreambooth")
            for prompt in re.findall(r"^\s*'(.*\{0\} \{1\}.*)'\.format\(", part, re.MULTILINE)
        )
        for part in (objects, live)
    )
    if not heading or not all(found):
        raise EvaluationError(
            f"{path} lists {len(found[0])} prompts for objects and {len(found[1])} for live subjects; some of each "
            "were expected. Fetch the dataset's file again."
        )
    return found[0], found[1]


def _compositional() -> Iterable[Prompt]:
    return (Prompt(text, group) for group, texts in COMPOSITIONAL.items() for text in texts)


def _styles() -> Iterable[Prompt]:
    return (Prompt(text, "style") for text in STYLES)


def _from_file(path: Path) -> list[Prompt]:
    if not path.is_file():
        raise EvaluationError(
            f"no prompt set called '{path}'. Known: {', '.join(PROMPT_SETS)}; or a text file with a prompt a line, "
            "{} for the subject."
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"{path} is no readable text file ({error}). Write one prompt a line, in UTF-8."
        ) from error
    prompts = [line for line in lines if line]
    bad = [line for line in prompts if SUBJECT not in line]
    if bad or not prompts:
        found = f"'{bad[0]}' has no {{}}" if bad else "it is empty"
        raise EvaluationError(
            f"{path}: {found}; expected one prompt a line with {{}} for the subject."
        )
    return [Prompt(line, path.stem) for line in prompts]


def _pairs(axis: Axis, background: str, others: Iterable[str]) -> Iterable[Scene]:
    """The subject with each of these things, in turn before and behind it."""
    for number, other in enumerate(others):
        first, second = Item(SUBJECT), Item(other)
        yield Scene(background, *((first, second) if number % 2 == 0 else (second, first)), axis)


def _told(scene: Scene, number: int) -> str:
    if scene.count > 1:
        return f"a photo of {COUNT_WORDS[scene.count - 1]} {SUBJECT} {BACKGROUNDS[scene.background][0]}"
    return prompt_for(scene, number)
