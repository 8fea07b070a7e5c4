"""Sets of prompts that subjects are painted in, from single attributes to two concepts."""

import re
from collections.abc import Callable, Iterator, Mapping
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
PROMPT_SETS = {
    "mini": "the embedded model's own words: places, colours, accessories, counts, left and right, "
    "above and below",
    "dreambooth": "the DreamBooth dataset's prompts for the kind of subject, from its "
    + DREAMBOOTH_FILE,
    "compositional": "ours, in growing complexity: " + ", ".join(COMPOSITIONAL),
    "styles": "ours: ten ways to draw",
    "paper": "the paper's protocol as far as its prompts are ours to give: dreambooth, "
    "compositional and styles",
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
        ours = (*_compositional(), *_styles()) if name == "paper" else ()
        return PromptSet(name, lambda word, _thing: kinds[word in LIVE_CLASSES] + ours)
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
