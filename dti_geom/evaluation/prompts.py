"""Sets of prompts that subjects are painted in, from single attributes to two concepts."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dti_geom.errors import EvaluationError, first_line
from dti_geom.models.profiles import load_by_name

SUBJECT, OTHER = "{}", "{other}"  # in a prompt: the subject, and another evaluated subject
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
# The paper's protocol counts 41 prompts for each kind of subject, 16 and 16 compositional ones and
# 40 of styles. Its wording is not published: the dataset's 25 are taken as they are, the rest is
# ours.
MORE_FOR_OBJECTS = (
    "a {} on a kitchen counter",
    "a {} on a park bench",
    "a {} on a bookshelf",
    "a {} in a shop window",
    "a {} on a wet street at night",
    "a {} on a rock by a waterfall",
    "a {} in a field of lavender",
    "a {} on a sandy dune at sunset",
    "a {} on a frozen lake",
    "a {} inside a cardboard box",
    "a {} under a street lamp",
    "a {} on a red velvet cushion",
    "a {} on the deck of a ship",
    "a {} in front of a castle",
    "a {} in heavy rain",
    "a {} floating in a swimming pool",
)
MORE_FOR_LIVE = (
    "a {} sleeping on a sofa",
    "a {} running across a meadow",
    "a {} jumping over a fence",
    "a {} looking out of a window",
    "a {} on a park bench",
    "a {} on a wet street at night",
    "a {} in a field of lavender",
    "a {} on a sandy dune at sunset",
    "a {} on a frozen lake",
    "a {} inside a cardboard box",
    "a {} on the deck of a ship",
    "a {} in front of a castle",
    "a {} in heavy rain",
    "a {} swimming in a pool",
    "a {} wearing a knitted scarf",
    "a {} wearing a bow tie",
)
WITH_A_THING = (
    "a photo of a {} next to a bicycle",
    "a photo of a {} to the left of a blue vase",
    "a photo of a blue vase to the left of a {}",
    "a photo of a {} behind a wine glass",
    "a photo of a {} in front of a piano",
    "a photo of a {} on top of a suitcase",
    "a photo of a {} under an umbrella",
    "a photo of a {} inside a wicker basket",
    "a photo of a {} beside a stack of pancakes",
    "a photo of a {} with a yellow balloon above it",
    "a photo of a {} and two oranges",
    "a photo of a {} and three books",
    "a photo of a {} between a lamp and a clock",
    "a photo of a {} facing a mirror",
    "a photo of a white cat looking at a {}",
    "a photo of a child holding a {}",
)
MORE_STYLES = (
    "a charcoal drawing of a {}",
    "an ink drawing of a {}",
    "a pastel drawing of a {}",
    "a gouache painting of a {}",
    "a fresco of a {}",
    "a {} in the style of impressionism",
    "a {} in the style of cubism",
    "a {} in the style of pop art",
    "a {} in the style of art nouveau",
    "a {} in the style of a comic book",
    "an anime drawing of a {}",
    "a {} as a tarot card",
    "a {} on a postage stamp",
    "a {} as a tattoo",
    "graffiti of a {} on a brick wall",
    "a {} as a marble statue",
    "a bronze sculpture of a {}",
    "a {} made of clay",
    "a {} made of folded paper",
    "a {} knitted from wool",
    "an embroidery of a {}",
    "a {} as a low-poly model",
    "a 3D rendering of a {}",
    "a blueprint of a {}",
    "a linocut of a {}",
    "an etching of a {}",
    "a {} as a neon sign",
    "a {} as a cave painting",
    "a chalk drawing of a {} on a blackboard",
    "an old sepia photograph of a {}",
)
PROMPT_SETS = {
    "mini": "the embedded model's own words: places, colours, accessories, counts, left and right, "
    "above and below",
    "dreambooth": "the DreamBooth dataset's prompts for the kind of subject, from its "
    + DREAMBOOTH_FILE,
    "compositional": "ours, in growing complexity: " + ", ".join(COMPOSITIONAL),
    "styles": "ours: ten ways to draw",
    "paper": "the paper's protocol: 41 prompts for the kind of subject, 16 that combine, 16 with "
    "another thing and 40 styles; the DreamBooth dataset's 25 among them, the others ours",
}
# The sets among them that come with a model: "module:function". The function takes what the scorer
# calls the subject, and its class word; it returns (text, group, expectation) for each prompt.
MODEL_SETS = {"mini": "dti_geom.mini.prompts:mini_prompts"}


class Expectation(Protocol):
    """What a picture has to show, for an image encoder that also reads pictures."""

    @property
    def pair(self) -> bool:
        """Whether the picture shows two things."""
        ...

    def check(self, answers: Mapping[str, str], subject: str, other: str | None) -> dict[str, bool]:
        """Return the checks that the picture was asked for, and whether each holds.

        answers: what was read in the picture. subject, other: what the reader calls them.
        """
        ...

    def counts(self, check: str) -> bool:
        """Return whether a check counts in the text score."""
        ...


@dataclass(frozen=True)
class Prompt:
    """A prompt with `{}` for the subject, and perhaps `{other}` for a second subject."""

    text: str
    group: str  # what it asks for
    expected: Expectation | None = None  # what its pictures have to show, where it can be read

    def filled(self, subject: str, other: str | None) -> str:
        """Return the text with these words or tokens in the places of the subjects."""
        return self.text.replace(SUBJECT, subject).replace(OTHER, other or "")


@dataclass(frozen=True)
class PromptSet:
    """Prompts that may depend on the subject."""

    name: str
    # Class word of a subject, and what a reader of pictures calls it → prompts.
    of: Callable[[str, str], tuple[Prompt, ...]]


def open_prompt_set(name: str, dreambooth: str | Path | None = None) -> PromptSet:
    """Return a set of `PROMPT_SETS`, or of a text file with one prompt a line.

    dreambooth: folder of the DreamBooth dataset, for the sets that take its prompts. Raises
    EvaluationError.
    """
    if name in MODEL_SETS:
        prompts_for = load_by_name(MODEL_SETS[name])
        return PromptSet(
            name, lambda word, thing: tuple(Prompt(*parts) for parts in prompts_for(thing, word))
        )
    if name in ("dreambooth", "paper"):
        kinds = dreambooth_prompts(dreambooth)
        if name == "paper":
            objects, live = kinds
            kinds = _papers(objects, MORE_FOR_OBJECTS), _papers(live, MORE_FOR_LIVE)
        return PromptSet(name, lambda word, _thing: kinds[word in LIVE_CLASSES])
    ours_alone = {"compositional": _compositional, "styles": _styles}.get(name)
    prompts = tuple(ours_alone() if ours_alone else _from_file(Path(name)))
    return PromptSet(name, lambda _word, _thing: prompts)


def dreambooth_prompts(folder: str | Path | None) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """Read the prompts for objects and for live subjects from the DreamBooth dataset's own file.

    Where the file has an identifier and a class word, `{}` stands for both. Raises EvaluationError.
    """
    path = Path(folder or ".") / DREAMBOOTH_FILE
    if not path.is_file():
        raise EvaluationError(
            f"{path} does not exist; these prompts are the DreamBooth dataset's own. Name its "
            "folder with --dreambooth."
        )
    text = path.read_text(encoding="utf-8", errors="replace")
    first, heading, second = text.partition("Live Subject Prompts")
    objects, live = _listed(first), _listed(second)
    if not (heading and objects and live):
        raise EvaluationError(
            f"{path} lists {len(objects)} prompts for objects and {len(live)} for live subjects; "
            "some of each were expected. Fetch the dataset's file again."
        )
    return objects, live


def _listed(text: str) -> tuple[Prompt, ...]:
    """The prompts in a part of the DreamBooth dataset's file, which is Python code."""
    templates = re.findall(r"^\s*'(.*\{0\} \{1\}.*)'\.format\(", text, re.MULTILINE)
    return tuple(
        Prompt(template.replace("{0} {1}", SUBJECT), "dreambooth") for template in templates
    )


def _papers(simple: tuple[Prompt, ...], more: Sequence[str]) -> tuple[Prompt, ...]:
    """Return the prompts of the paper's protocol for a kind of subject."""
    return (
        *(Prompt(text, "simple") for text in (*(prompt.text for prompt in simple), *more)),
        *(prompt for prompt in _compositional() if OTHER not in prompt.text),
        *(Prompt(text, "with a thing") for text in WITH_A_THING),
        *_styles(),
        *(Prompt(text, "style") for text in MORE_STYLES),
    )


def _compositional() -> Iterator[Prompt]:
    for group, texts in COMPOSITIONAL.items():
        for text in texts:
            yield Prompt(text, group)


def _styles() -> Iterator[Prompt]:
    return (Prompt(text, "style") for text in STYLES)


def _from_file(path: Path) -> list[Prompt]:
    if not path.is_file():
        raise EvaluationError(
            f"no prompt set called '{path}'. Known: {', '.join(PROMPT_SETS)}; or a text file with "
            "a prompt a line, {} for the subject."
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"{path} is not a readable text file ({first_line(error)}). Write one prompt a line, "
            "in UTF-8."
        ) from error
    prompts = [line for line in lines if line]
    bad = [line for line in prompts if SUBJECT not in line]
    if bad or not prompts:
        problem = f"'{bad[0]}' has no {{}}" if bad else "it is empty"
        raise EvaluationError(
            f"{path}: {problem}; expected one prompt a line with {{}} for the subject."
        )
    return [Prompt(line, path.stem) for line in prompts]
