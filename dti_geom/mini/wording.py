"""How scenes are put into words, in captions and in prompts."""

from dti_geom.mini.domain import BACKGROUNDS, COUNT_WORDS, PLURALS, SIZES
from dti_geom.mini.scenes import Item, Scene

# (first thing named first, second thing named first)
RELATIONS: dict[str, tuple[str, str]] = {
    "row": ("to the left of", "to the right of"),
    "column": ("above", "below"),
}


# Prompts that a token is trained with; {} stands for it.
TRAINING_TEMPLATES = (
    "a photo of a {}",
    "a photo of one {}",
    "a photo of the {}",
    "a photo of my {}",
    "a picture of a {}",
    "an image of a {}",
    "a close-up photo of a {}",
    "a cropped photo of a {}",
    "a good photo of a {}",
    "a bright photo of a {}",
    "a dark photo of a {}",
    "a rendering of a {}",
)


def with_article(words: str) -> str:
    """Put 'a' or 'an' in front. Names with a 'u' take 'an' as well: the only one is umbrella."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def noun(item: Item, size_word: str | None = None) -> str:
    """Return size, colour and name, without article: "small red fox"."""
    return " ".join(word for word in (size_word, item.colour, item.thing) if word)


def counted_noun(scene: Scene) -> str:
    """Return number, colour and plural of the first thing: "two red foxes"."""
    words = (COUNT_WORDS[scene.count - 1], scene.first.colour, PLURALS[scene.first.thing])
    return " ".join(word for word in words if word)


def relation(scene: Scene, *, second_first: bool) -> str:
    """Return a pair in words: "a fox to the left of a car".

    second_first: name the right or the lower thing first, "a car to the right of a fox".
    """
    assert scene.second is not None
    first, second = with_article(noun(scene.first)), with_article(noun(scene.second))
    words, reverse = RELATIONS[scene.axis]
    return f"{second} {reverse} {first}" if second_first else f"{first} {words} {second}"


def training_templates() -> tuple[str, ...]:
    """Return the prompts that a token is trained with, {} for the token."""
    return TRAINING_TEMPLATES


def prompt_for(scene: Scene, number: int) -> str:
    """Return a plain prompt for a scene.

    number: chooses between equivalent phrasings of a pair.
    """
    if scene.second:
        # Two neighbouring numbers are twins, and twins get the same phrasing: hence the halving.
        body = relation(scene, second_first=number // 2 % 2 == 1)
    elif scene.count > 1:
        body = counted_noun(scene)
    else:
        size = SIZES[scene.size][0] if scene.size else None
        body = with_article(noun(scene.first, size))
        if scene.first.accessory:
            body += f" wearing a {scene.first.accessory}"
    return f"a photo of {body} {BACKGROUNDS[scene.background][0]}"
