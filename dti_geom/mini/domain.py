"""The world of the embedded model: its things and their names, and what training never shows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """An object with a name in captions.

    emoji: the code point that names its artwork file.
    """

    name: str
    emoji: str
    plural: str


def _thing(name: str, emoji: str, plural: str | None = None) -> Thing:
    return Thing(name, emoji, plural or name + "s")


THINGS: tuple[Thing, ...] = (
    _thing("fox", "1f98a", "foxes"),
    _thing("panda", "1f43c"),
    _thing("frog", "1f438"),
    _thing("penguin", "1f427"),
    _thing("owl", "1f989"),
    _thing("octopus", "1f419", "octopuses"),
    _thing("butterfly", "1f98b", "butterflies"),
    _thing("whale", "1f40b"),
    _thing("ladybug", "1f41e"),
    _thing("strawberry", "1f353", "strawberries"),
    _thing("apple", "1f34e"),
    _thing("pineapple", "1f34d"),
    _thing("mushroom", "1f344"),
    _thing("pizza", "1f355"),
    _thing("donut", "1f369"),
    _thing("cactus", "1f335", "cactuses"),
    _thing("sunflower", "1f33b"),
    _thing("rocket", "1f680"),
    _thing("car", "1f697"),
    _thing("sailboat", "26f5"),
    _thing("teapot", "1fad6"),
    _thing("crown", "1f451"),
    _thing("ball", "26bd"),
    _thing("umbrella", "2602-fe0f"),
)

# Never in the generator's training. They exist as personal concepts, and the scorer can name them.
STRANGERS: tuple[Thing, ...] = (
    _thing("robot", "1f916"),
    _thing("duck", "1f986"),
    _thing("teddy", "1f9f8", "teddies"),
    _thing("helicopter", "1f681"),
)

THING_NAMES: tuple[str, ...] = tuple(thing.name for thing in THINGS)
PLURALS: dict[str, str] = {thing.name: thing.plural for thing in THINGS + STRANGERS}

# Noto, Twemoji and Fluent. The generator trains on the first only.
STYLES: tuple[str, ...] = ("drawn", "flat", "round")

# Styles of some personal concepts. A patterned thing has no single colour.
PATTERNS: tuple[str, ...] = ("spotted", "striped")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 35),
    "yellow": (250, 215, 20),
    "green": (45, 170, 50),
    "blue": (35, 90, 235),
    "purple": (135, 45, 190),
    "pink": (255, 110, 185),
}

# (colour, thing) that nobody would call repainted: a red apple is an apple. No picture can show
# whether a prompt for one of them was followed, so no caption and no prompt asks for them.
NATURAL_COLOURS: frozenset[tuple[str, str]] = frozenset(
    {
        ("green", "frog"),
        ("green", "cactus"),
        ("red", "octopus"),
        ("pink", "octopus"),
        ("red", "ladybug"),
        ("red", "strawberry"),
        ("red", "apple"),
        ("red", "mushroom"),
        ("red", "car"),
        ("red", "teapot"),
        ("red", "sailboat"),
        ("yellow", "pineapple"),
        ("yellow", "pizza"),
        ("yellow", "sunflower"),
        ("yellow", "crown"),
        ("blue", "whale"),
        ("blue", "umbrella"),
        ("purple", "umbrella"),
    }
)

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "snow": ("in the snow", "on snow"),
    "beach": ("on the beach", "at the beach"),
    "meadow": ("on the grass", "in a meadow"),
    "night": ("in the night sky", "under the stars"),
    "brick": ("in front of a brick wall", "with a brick wall behind"),
    "wood": ("on a wooden floor", "on a wooden table"),
    "ocean": ("in the ocean", "floating in the sea"),
    "desert": ("in the desert", "on a sand dune"),
    "forest": ("in the forest", "in the woods"),
    "city": ("in the city", "with a city behind"),
    "mountains": ("in the mountains", "with mountains behind"),
    "white": ("on a white background", "on plain white"),
}
BACKGROUND_NAMES: tuple[str, ...] = tuple(BACKGROUNDS)

# Name in captions → code point that names the artwork file.
ACCESSORIES: dict[str, str] = {"hat": "1f3a9", "bow": "1f380"}

SIZES: dict[str, tuple[str, ...]] = {"small": ("small", "tiny"), "large": ("large", "big")}

COUNT_WORDS: tuple[str, ...] = ("one", "two", "three")


def colours_of(thing: str) -> list[str]:
    """Return the colours that a thing may be painted in, the held-out one included."""
    return [colour for colour in COLOURS if (colour, thing) not in NATURAL_COLOURS]


def _held_out_places() -> frozenset[tuple[str, str]]:
    # 5 and the 12 backgrounds have no common factor, so each background is held out equally often.
    count = len(BACKGROUND_NAMES)
    return frozenset(
        (thing, BACKGROUND_NAMES[(5 * i + 3) % count]) for i, thing in enumerate(THING_NAMES)
    )


def _held_out_colours() -> frozenset[tuple[str, str]]:
    pairs = set()
    for i, thing in enumerate(THING_NAMES):
        free = colours_of(thing)
        # 7 has no common factor with the 4, 5 or 6 free colours, so all of them are chosen in turn.
        pairs.add((free[(7 * i + 2) % len(free)], thing))
    return frozenset(pairs)


HELD_OUT_PLACES: frozenset[tuple[str, str]] = _held_out_places()
"""(thing, background): for each thing, the background that no training scene shows it on."""

HELD_OUT_COLOURS: frozenset[tuple[str, str]] = _held_out_colours()
"""(colour, thing): for each thing, the colour that no training scene paints it in."""
