"""Measure which effect of a token's magnitude moves its contextual state. (Effects I and II)

A longer token hides its position from the first normalisation (Effect I), and is long beside all
that the blocks add to it (Effect II; arXiv 2512.13672, section 3). `geometry.effects` sets the two
apart on the encoder's input: neither, I alone, II alone, both. Each cell's state is compared with
that of `neither`, in the state that the denoiser reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dti_geom import geometry
from dti_geom.errors import DoesNotApply, DtiGeomError
from dti_geom.geometry.effects import CELLS, cell_rows
from dti_geom.models import TextEncoder
from dti_geom.probes.applicability import check
from dti_geom.probes.learned import LearnedVector, of_width
from dti_geom.probes.material import (
    CARRIERS,
    Prompts,
    carrier_prompts,
    place_prompts,
    run_prompts,
    whole_words,
)
from dti_geom.probes.registry import Needs
from dti_geom.probes.result import Result
from dti_geom.progress import Progress, silent
from dti_geom.statistics import Interval, Share, bootstrap_interval

SCALE = 10.0  # k: about what textual inversion does to a token in 400 steps
FEWEST_WORDS = 4  # two to train the reader of positions on, and two to test it on
PLACES = 16  # positions that are told apart
FITTED_TO = 3  # prompts of each place that the reader is trained on, with other words in each


@dataclass(frozen=True)
class CellShift:
    """What the input of one cell does to a token's state, beside that of `neither`.

    Intervals are over tokens and prompts; of a single token, over prompts.
    """

    cell: str  # one of `geometry.effects.CELLS`
    turned: Interval  # 1 − cosine to `neither`, without the mean state of words there; 0 … 2
    moved: Interval  # distance to `neither`, in mean distances between two words there
    # Of the state at the prompt's end. None: no prompt has one that depends on the word before it.
    moved_end: Interval | None
    readable: Share  # states whose position a linear reader names, held-out words


@dataclass(frozen=True)
class EffectSize:
    """How far an effect moves the state, as `CellShift.moved`.

    I, II: the mean of what the effect adds without and with the other one. interaction: what both
    do beyond the sum of each alone. Without positions there is II alone.
    """

    effect: str  # "I", "II" or "interaction"
    moved: Interval
    moved_end: Interval | None


@dataclass(frozen=True)
class TokenEffects:
    """The cells of some tokens, all at the mean norm in `neither`."""

    token: str | None  # a learned vector; None: sampled words
    tokens: int
    inflation: float | None  # of a learned vector, its own norm / mean norm
    cells: tuple[CellShift, ...]
    effects: tuple[EffectSize, ...]


@dataclass(frozen=True)
class EffectsResult(Result):
    """Effects I and II in one encoder."""

    name: str
    mean_norm: float  # of the non-zero rows, embedding units
    scale: float  # k
    read: str  # the state that is compared, as `HiddenStates.read_name` names it
    prompts: tuple[str, ...]  # {} where the token stands
    places: int  # that the reader tells apart; a guess is right in 1 of so many
    without_positions: str | None  # why Effect I is not measured; None: it is
    groups: tuple[TokenEffects, ...]  # sampled words, then each learned vector


@torch.no_grad()
def measure_effects(
    encoder: TextEncoder,
    learned: Sequence[LearnedVector] = (),
    *,
    scale: float = SCALE,
    words: int = 32,
    seed: int = 0,
    progress: Progress = silent,
) -> EffectsResult:
    """Return how far Effects I and II move a token's state, each alone and both together.

    scale: k, how much longer the token becomes. words: how many whole words are sampled. All tokens
    have the vocabulary's mean norm in `neither`, learned vectors too.

    The reader of positions is a linear classifier. It is trained on the `neither` states of half of
    the words, at every place of prompts of other words, and tested on the other half in every cell.

    Where an encoder adds no positions, Effect I cannot act: II alone is measured.

    Raises DoesNotApply for a post-norm encoder and with fewer than FEWEST_WORDS words, DtiGeomError
    for a scale that is not above 0.
    """
    if not scale > 0:
        raise DtiGeomError(f"scale is {scale:g}; expected a number above 0, such as 10.")
    check(Needs.PRE_NORM_BLOCKS, encoder, learned)
    reason = _without_positions(encoder, learned)
    table = encoder.token_table
    mean = geometry.summarize_norms(table).mean
    rows = whole_words(encoder, words, seed)
    if len(rows) < FEWEST_WORDS:
        raise DoesNotApply(
            f"{encoder.name} has {len(rows)} whole words; {FEWEST_WORDS} are needed to read "
            "positions: two to train on and two to test."
        )
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    sampled = mean * geometry.normalize(table[rows.to(table.device)].float())
    fitting = [token for token in of_width(learned, table.shape[1]) if token.vector.any()]
    cells = CELLS if reason is None else ("neither", "II")
    what, steps = f"effects in {encoder.name}", 3 + len(fitting)
    progress(what, 0, steps)
    bench = _Bench(encoder, cells, scale)
    reader = _Reader(bench, sampled[: len(rows) // 2], seed)
    progress(what, 1, steps)
    at_words = bench.states(bench.carriers, sampled)
    shifts = _Shifts(at_words["neither"], bench.carriers)
    progress(what, 2, steps)
    groups = [shifts.group(at_words, reader.read(sampled[len(rows) // 2 :]))]
    for done, token in enumerate(fitting, start=3):
        progress(what, done, steps)
        vector = token.vector.to(table.device, torch.float32)[None]
        at_mean = mean * geometry.normalize(vector)
        states = bench.states(bench.carriers, at_mean)
        inflation = float(geometry.norms(vector)) / mean
        groups.append(shifts.group(states, reader.read(at_mean), token.label, inflation))
    progress(what, steps, steps)
    return EffectsResult(
        name=encoder.name,
        mean_norm=mean,
        scale=scale,
        read=bench.read,
        prompts=bench.carriers.texts,
        places=reader.places,
        without_positions=reason,
        groups=tuple(groups),
    )


def _without_positions(encoder: TextEncoder, learned: Sequence[LearnedVector]) -> str | None:
    """Return why Effect I does not apply; None if it does."""
    try:
        check(Needs.ABSOLUTE_POSITIONS, encoder, learned)
    except DoesNotApply as reason:
        return str(reason)
    return None


States = dict[str, Tensor]
"""By cell: (n, P, 2, d), the states that are read at the token and at the end of each prompt."""


class _Bench:
    """Runs an encoder on the inputs of the cells."""

    def __init__(self, encoder: TextEncoder, cells: Sequence[str], scale: float) -> None:
        self.encoder, self.cells, self.scale = encoder, cells, scale
        self.carriers = carrier_prompts(encoder, CARRIERS)
        self.read = ""  # known after the first run

    def states(self, prompts: Prompts, vectors: Tensor, cells: Sequence[str] = ()) -> States:
        """Return the states of vectors (n, d) in every cell; cells: only these."""
        table, every = self.encoder.position_table, torch.arange(len(prompts.places))
        positions = torch.zeros(len(every), vectors.shape[1], device=vectors.device)
        if table is not None:
            positions = table[prompts.places.to(table.device)].to(vectors)
        by_cell = cell_rows(vectors[:, None], positions, self.scale)
        found = {}
        for cell in cells or self.cells:
            chunks = []
            for states in run_prompts(self.encoder, prompts, by_cell[cell], ""):
                read = torch.unflatten(states.read, 0, (-1, len(every))).float().cpu()
                places = torch.stack([prompts.places, prompts.ends], dim=1)
                chunks.append(read[:, every[:, None], places])
                self.read = states.read_name
            found[cell] = torch.cat(chunks)
        return found


class _Reader:
    """Reads the position of a token out of its state, by a linear classifier."""

    def __init__(self, bench: _Bench, words: Tensor, seed: int) -> None:
        """Train on the `neither` states of words (n, d)."""
        from sklearn.linear_model import RidgeClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._bench = bench
        *trained, self._tested = (
            place_prompts(bench.encoder, PLACES, seed + number) for number in range(FITTED_TO + 1)
        )
        self.places = len(self._tested.places)
        parts = [bench.states(prompts, words, ["neither"])["neither"] for prompts in trained]
        states = torch.cat([part[:, :, 0].flatten(0, 1) for part in parts])
        labels = torch.arange(self.places).repeat(len(states) // self.places)
        self._classifier: Any = make_pipeline(StandardScaler(), RidgeClassifier())
        self._classifier.fit(states.numpy(), labels.numpy())

    def read(self, vectors: Tensor) -> dict[str, Share]:
        """Return, by cell, how often the position of vectors (n, d) is read right."""
        labels = torch.arange(self.places).repeat(len(vectors)).numpy()
        found = {}
        for cell, states in self._bench.states(self._tested, vectors).items():
            predicted = self._classifier.predict(states[:, :, 0].flatten(0, 1).numpy())
            found[cell] = Share.count((predicted == labels).tolist())
        return found


class _Shifts:
    """Compares states with those of `neither`, in units of how far words are apart there."""

    def __init__(self, words: Tensor, prompts: Prompts) -> None:
        """words: (n, P, 2, d), the states of sampled words in `neither`."""
        self._centre = words.mean(dim=0)
        by_prompt = words.permute(1, 2, 0, 3)
        count = len(words)
        self._apart = torch.cdist(by_prompt, by_prompt).sum(dim=(2, 3)) / (count * (count - 1))
        # Where the end is not the token, and hears of it.
        self._elsewhere = (prompts.ends != prompts.places) & (self._apart[:, 1] > 0)

    def group(
        self,
        states: States,
        readable: dict[str, Share],
        token: str | None = None,
        inflation: float | None = None,
    ) -> TokenEffects:
        """Return the cells and effects of tokens."""
        neither = states["neither"]
        ordinary = normalize((neither - self._centre)[..., 0, :], dim=-1)
        turned = {
            # 1 − cosine as half a squared chord: equal states give exactly 0.
            cell: (normalize((at - self._centre)[..., 0, :], dim=-1) - ordinary)
            .square()
            .sum(dim=-1)
            / 2
            for cell, at in states.items()
        }
        moved = {cell: (at - neither).norm(dim=-1) / self._apart for cell, at in states.items()}
        cells = tuple(
            CellShift(
                cell=cell,
                turned=_interval(turned[cell]),
                moved=_interval(moved[cell][..., 0]),
                moved_end=self._at_end(moved[cell]),
                readable=readable[cell],
            )
            for cell in states
        )
        effects = tuple(
            EffectSize(name, _interval(size[..., 0]), self._at_end(size))
            for name, size in _effects(moved).items()
        )
        return TokenEffects(token, len(neither), inflation, cells, effects)

    def _at_end(self, values: Tensor) -> Interval | None:
        """(n, P, 2) to an interval over the prompts whose end depends on a word before it."""
        at_end = values[:, self._elsewhere, 1]
        return _interval(at_end) if at_end.numel() else None


def _effects(moved: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return main effects and interaction of a 2 × 2 design; of two cells, the one effect."""
    if "I" not in moved:
        return {"II": moved["II"] - moved["neither"]}
    neither, one, two, both = (moved[cell] for cell in CELLS)
    return {
        "I": ((one - neither) + (both - two)) / 2,
        "II": ((two - neither) + (both - one)) / 2,
        "interaction": both - one - two + neither,
    }


def _interval(values: Tensor) -> Interval:
    """Return the mean of (n, P) with its interval over tokens and prompts."""
    return bootstrap_interval(values.double()[:, None].tolist())  # one run of each token
