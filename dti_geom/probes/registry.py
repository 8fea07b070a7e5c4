"""Register every measurement: one entry gives a probe its command, page section and report part.

A probe called NAME is the function `measure_NAME` in `probes/NAME.py`; `reporting/sections/NAME.py`
shows its result with `NAME_section`. Nothing heavy is imported here, because the command line reads
this file to print its help.
"""

import importlib
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dti_geom.errors import DtiGeomError
from dti_geom.probes.inputs import read_pairs, read_words

if TYPE_CHECKING:
    from dti_geom.models import TextEncoder
    from dti_geom.probes.learned import LearnedVector


class Needs(Enum):
    """What a probe asks of an encoder; where that is missing, it says why."""

    TOKEN_TABLE = "a token table"
    LEARNED = "learned vectors of the table's width"
    STATES = "hidden states"
    PRE_NORM_BLOCKS = "pre-norm blocks"
    ABSOLUTE_POSITIONS = "absolute positions and pre-norm blocks"

    @property
    def runs_encoder(self) -> bool:
        """Whether the weights of the whole encoder are loaded."""
        return self not in (Needs.TOKEN_TABLE, Needs.LEARNED)

    def check(self, encoder: "TextEncoder", learned: "Sequence[LearnedVector]") -> None:
        """Raise DoesNotApply, saying why, if the encoder or the vectors lack what is needed."""
        from dti_geom.probes.applicability import check

        check(self, encoder, learned)


@dataclass(frozen=True)
class Option:
    """One option of a probe's own, as its command offers it."""

    name: str  # keyword of the measure function
    help: str
    type: type = str  # int, float, str, or Path where `read` opens a file
    default: Any = None
    several: bool = False  # may be given several times; the value is a tuple
    minimum: int | None = None
    short: str | None = None  # e.g. -k
    argument: bool = False  # stands without --name
    metavar: str | None = None  # stands for the value in the help
    read: Callable[[Path], Any] | None = None  # what the function gets instead of a path
    companion: str | None = None  # a count for `measure_X` in `probes/X.py`, measured beside it


@dataclass(frozen=True)
class Probe:
    """A measurement of one text encoder."""

    name: str
    question: str  # the first line of its help
    details: str  # the second paragraph: what is measured and shown
    needs: Needs
    example: str  # arguments of an example command
    options: tuple[Option, ...] = ()
    samples: bool = True  # draws words at random, by a seed
    slow: bool = False  # left out of a report that is not full, as probes that run the encoder are
    alone: bool = False  # takes minutes: in no report, not even a full one
    arrays: bool = False  # `NAME_arrays(encoder)` gives arrays that --out keeps

    @property
    def measure(self) -> Callable[..., Any]:
        """The function (encoder, learned, *, own options) → result.

        It also takes seed and progress where it uses them.
        """
        module = importlib.import_module(f"dti_geom.probes.{self.name}")
        function: Callable[..., Any] = getattr(module, f"measure_{self.name}")
        return function

    @property
    def takes_tokens(self) -> bool:
        """Whether it looks at tokens that the user names."""
        return any(option.name == "tokens" for option in self.options)

    @property
    def result_type(self) -> type:
        """The frozen dataclass that `measure` returns."""
        hints = typing.get_type_hints(self.measure)
        result: type = hints["return"]
        return result


_TOKENS = Option(
    "tokens",
    "A word, a token of --embedding, or a row as #id.",
    several=True,
    argument=True,
    metavar="TOKEN",
)
PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe(
            name="norms",
            question="How long are tokens, which are unusual, and where do learned ones fall?",
            details=(
                "Shows the mean, the spread and the percentiles of row norms, special tokens, the "
                "longest and the shortest tokens, and each learned vector's place among them."
            ),
            needs=Needs.TOKEN_TABLE,
            example="--model sd15 --embedding my-token.safetensors",
            samples=False,
            arrays=True,
        ),
        Probe(
            name="swap",
            question="Does the output follow a token's direction or its magnitude?",
            details=(
                "Two tokens exchange their norms. Shows, for each output of the encoder, how "
                "similar it is to that of the token whose direction was taken and of the token "
                "whose norm was taken. Without --pairs, short words are paired with long ones."
            ),
            needs=Needs.STATES,
            example="--model sd15 --pairs pairs.txt",
            options=(
                Option(
                    "pairs",
                    "A file of pairs to swap: two tokens a line, words or #id.",
                    Path,
                    read=read_pairs,
                ),
                Option(
                    "category",
                    "A file of words, one a line, to draw the pairs from.",
                    Path,
                    read=read_words,
                ),
                Option("count", "How many pairs to draw.", int, 32, minimum=1),
                Option(
                    "images",
                    "Also paint this many pairs and compare the pictures; 0: none.",
                    int,
                    0,
                    minimum=0,
                    companion="painted",
                ),
            ),
        ),
        Probe(
            name="attenuation",
            question="How much of a token's position is left after the first normalisation?",
            details=(
                "A longer token hides its position (the paper's Effect I). Shows the share of "
                "variance that position explains, a classifier that reads position on held-out "
                "words, fitted slopes and the bound, at norms from 1/16 to 256 times the mean."
            ),
            needs=Needs.ABSOLUTE_POSITIONS,
            example="--model sd15 --embedding my-token.safetensors",
        ),
        Probe(
            name="stagnation",
            question="How far does the encoder turn a token's state, at each magnitude?",
            details=(
                "A long token passes the residual blocks nearly unturned (the paper's Effect II). "
                "Shows the turn of words in prompts beside the bound on it, at norms from 1/4 to "
                "8192 times the mean, and what each branch adds."
            ),
            needs=Needs.PRE_NORM_BLOCKS,
            example="--model mini --embedding ~/embeddings --out stagnation",
        ),
        Probe(
            name="effects",
            question="Which effect of magnitude moves a token's state, Effect I or II?",
            details=(
                "Sets both effects apart on the encoder's input: e + p/k hides the position alone, "
                "k·e + k·p makes the state long alone, k·e + p does both. Shows how far each moves "
                "the state that the denoiser reads, whether the position can still be read there, "
                "and both effects with their interaction."
            ),
            needs=Needs.PRE_NORM_BLOCKS,
            example="--model sd15 --embedding my-token.safetensors",
            options=(Option("scale", "How much longer the token becomes.", float, 10.0),),
        ),
        Probe(
            name="attention",
            question="What attention does a token get and give, and does it use its context?",
            details=(
                "Shows attention to and from a token, the entropy of its own row and its context "
                "sensitivity, by layer and head, at norms from 1/4 to 32 times the mean; and by "
                "layer the attention to the begin token and to padding, and the largest activation."
            ),
            needs=Needs.STATES,
            example="--model sd15 --embedding my-token.safetensors --out attention",
        ),
        Probe(
            name="neighbors",
            question="Which tokens are nearest, by direction and by distance?",
            details=(
                "Shows cosine and true Euclidean distance side by side. A word is shown token by "
                "token."
            ),
            needs=Needs.TOKEN_TABLE,
            example="phone dog --model sdxl",
            samples=False,
            options=(
                _TOKENS,
                Option("k", "How many neighbours of each.", int, 10, minimum=1, short="-k"),
            ),
        ),
        Probe(
            name="explain",
            question="Which sum of words is a token?",
            details=(
                "Writes its direction as a sparse, non-negative sum of other tokens' directions. "
                "Shows the share that 1, 2, … words explain, beside random directions and ordinary "
                "words without their own row. A sum no better than chance is called so."
            ),
            needs=Needs.TOKEN_TABLE,
            example="'<my-dog>' --embedding my-dog.safetensors --model sd15",
            slow=True,
            options=(
                _TOKENS,
                Option("words", "How many words a sum may have.", int, 8, minimum=1),
                Option(
                    "contextual",
                    "Also explain the encoder's output at the token by its outputs at words.",
                    bool,
                    False,
                ),
                Option("others", "Leave a word's own row out of its sum.", bool, False),
            ),
        ),
        Probe(
            name="ask",
            question="What does a language model say that a token is?",
            details=(
                "Puts the vector where a word would stand and lets the encoder continue a few "
                "sentences. Shows the answers beside those for known words, and how much likelier "
                "the vector makes them than random directions do. For encoders that are language "
                "models: Gemma, Qwen, Llama, Mistral, SmolLM."
            ),
            needs=Needs.STATES,
            example="'<my-dog>' --embedding my-dog.safetensors --model Qwen/Qwen3-4B",
            slow=True,
            alone=True,
            options=(
                _TOKENS,
                Option("length", "The most tokens of an answer.", int, 16, minimum=1),
            ),
        ),
        Probe(
            name="harden",
            question="Which words come nearest to a token?",
            details=(
                "Searches a prompt of real words whose states, as the denoiser reads them, are "
                "those of the token: for services that take no embeddings. Shows the share that "
                "it reaches, beside the best single word and random prompts."
            ),
            needs=Needs.STATES,
            example="'<my-dog>' --embedding my-dog.safetensors --model sd15",
            slow=True,
            alone=True,
            options=(
                _TOKENS,
                Option("words", "How many words the prompt has.", int, 3, minimum=1),
                Option("starts", "How many first prompts are tried.", int, 8, minimum=1),
                Option("updates", "Gradient steps from each of them.", int, 60, minimum=0),
            ),
        ),
        Probe(
            name="shape",
            question="Which shape has the vocabulary?",
            details=(
                "Shows isotropy, hubs of the neighbour graph and intrinsic dimension of the token "
                "table, of its directions and of those less their mean, beside random directions; "
                "and whether norms follow the row number."
            ),
            needs=Needs.TOKEN_TABLE,
            example="--model sd15",
            slow=True,
        ),
        Probe(
            name="map",
            question="Where does a token lie among all others?",
            details=(
                "Lays the directions of the token table out in two dimensions by t-SNE, and places "
                "learned vectors on the map by their true neighbours; name RUN/checkpoints to draw "
                "a training path. The page has search, selection, the norm histogram and an "
                "address for each view. Needs pip install 'dti-geom[map]'."
            ),
            needs=Needs.TOKEN_TABLE,
            example="--model mini --embedding run/checkpoints --out map",
            slow=True,
            options=(
                Option("rows", "Show at most so many rows, sampled.", int, 50_000, minimum=64),
            ),
        ),
        Probe(
            name="angles",
            question="How far have learned tokens turned from the words they started from?",
            details=(
                "Shows each vector's angle to its start word and to the nearest token, beside the "
                "angles of words among each other. Vectors without a known start word are listed "
                "without that angle."
            ),
            needs=Needs.LEARNED,
            example="~/embeddings --model sd15 --init dog",
            options=(
                Option("init", "The start word of vectors whose file names none.", metavar="WORD"),
            ),
        ),
    )
}


def probe_named(name: str) -> Probe:
    """Return the probe of that name. Raises DtiGeomError, naming those there are."""
    if name not in PROBES:
        raise DtiGeomError(f"no probe called '{name}'. Known: {', '.join(PROBES)}.")
    return PROBES[name]
