import gzip
import json
import math
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from itertools import product, starmap
from pathlib import Path
from typing import Any

import numpy
import pytest

from dti_geom.evaluation.evaluation import Evaluation
from dti_geom.evaluation.interpolation import Interpolation
from dti_geom.evaluation.reference import compare
from dti_geom.evaluation.scores import LeftOut
from dti_geom.files.packed import pack
from dti_geom.geometry import NormSummary
from dti_geom.probes.angles import AnglesResult, LearnedAngle
from dti_geom.probes.ask import Answer, AskedToken, AskResult
from dti_geom.probes.attention import (
    AttentionCurves,
    AttentionResult,
    HeadAttention,
    HeatMap,
    Sensitivity,
)
from dti_geom.probes.attenuation import AttenuationResult, LearnedSignal, PositionalSignal
from dti_geom.probes.effects import CellShift, EffectSize, EffectsResult, TokenEffects
from dti_geom.probes.explain import (
    ExplainedSpace,
    ExplainedToken,
    ExplainingWord,
    ExplainResult,
    WordSum,
)
from dti_geom.probes.harden import HardenedToken, HardenResult, HardPrompt
from dti_geom.probes.inspection import InspectedFile, InspectedVector, Inspection
from dti_geom.probes.map import MapResult, PlacedVector
from dti_geom.probes.measuring import Measurement
from dti_geom.probes.neighbors import Near, NeighborsResult, Similar, TokenNeighbors
from dti_geom.probes.norms import Histogram, NormsResult, PlacedToken, TokenNorm
from dti_geom.probes.shape import CloudShape, Hub, ShapeResult
from dti_geom.probes.sinks import LayerSinks, Sinks
from dti_geom.probes.stagnation import (
    BranchBound,
    BranchTurn,
    LearnedPassage,
    Passage,
    StagnationResult,
)
from dti_geom.probes.swap import (
    Alike,
    MagnitudeCurve,
    OutputCurve,
    Resemblance,
    SwappedPair,
    SwapResult,
    SwapSum,
)
from dti_geom.reporting.report import Report
from dti_geom.statistics import Interval, Share
from dti_geom.sweeps.sweep import Sweep
from dti_geom.training import read_run
from dti_geom.training.inflation import PredictedInflation, TowerInflation
from dti_geom.training.story import TrainingRun, TrainingRuns
from example_results import (
    evaluation_result,
    gallery_result,
    interpolation_result,
    magnitudes_result,
    similarity_result,
    sweep_result,
    with_every_picture,
)
from runs import write_run
from studies import study_score

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "\"quoted' & <b>bold</b>",
    "\u202egnp.exe",
    "%{x} {{ 7*7 }} $a^2$",
    "x" * 300,
)
MEAN = 0.39
OUTPUTS = ("token", "pooled", "end")  # of a swap


@pytest.fixture(scope="session")
def hostile() -> tuple[str, ...]:
    return HOSTILE


@pytest.fixture(scope="session")
def placed() -> Callable[..., PlacedToken]:
    def place(token: str, norm: float, path: str = "runs/a.bin", index: int = 0) -> PlacedToken:
        return PlacedToken(
            token=token,
            index=index,
            path=path,
            norm=norm,
            z_score=(norm - MEAN) / 0.02,
            percentile=99.5,
            inflation=norm / MEAN,
        )

    return place


@pytest.fixture(scope="session")
def make_encoder() -> Callable[..., NormsResult]:
    def make(
        learned: Sequence[PlacedToken] = (),
        special: tuple[TokenNorm, ...] = (),
        examples: tuple[tuple[str, ...], ...] | None = None,
    ) -> NormsResult:
        edges = tuple(0.34 + 0.01 * place for place in range(11))
        counts = (4, 20, 60, 150, 240, 250, 160, 70, 30, 16)
        return NormsResult(
            name="text_encoder",
            vocab_size=1003,
            dim=768,
            norms=NormSummary(
                count=1000,
                zero_rows=3,
                mean=MEAN,
                std=0.02,
                min=0.335,
                max=0.45,
                percentiles=(0.345, 0.355, 0.375, 0.391, 0.405, 0.42, 0.435),
            ),
            longest=(TokenNorm("long…", 7, 0.45), TokenNorm("longish", 8, 0.44)),
            shortest=(TokenNorm("short", 1, 0.335), TokenNorm("shorter…", 2, 0.34)),
            special=special,
            learned=tuple(learned),
            histogram=Histogram(
                edges, counts, examples or tuple((f"word{place}", "café") for place in range(10))
            ),
        )

    return make


@pytest.fixture(scope="session")
def make_neighbors() -> Callable[..., TokenNeighbors]:
    def make(
        query: str = "cat",
        cosine: Sequence[int] = (3, 4, 5),
        euclidean: Sequence[int] = (9, 4, 3),
    ) -> TokenNeighbors:
        return TokenNeighbors(
            query=query,
            encoder="text_encoder",
            id=1,
            norm=0.41,
            cosine=tuple(
                Similar(f"near{row}", row, 0.5 - 0.1 * place) for place, row in enumerate(cosine)
            ),
            euclidean=tuple(
                Near(f"near{row}", row, 0.4 + 0.1 * place) for place, row in enumerate(euclidean)
            ),
        )

    return make


@pytest.fixture(scope="session")
def make_file() -> Callable[..., InspectedFile]:
    def make(
        path: str,
        norms: Sequence[float],
        token: str = "<x>",
        step: int | None = None,
        reference: float | None = MEAN,
        dim: int = 768,
    ) -> InspectedFile:
        vectors = tuple(
            InspectedVector(
                token=token,
                tower="CLIP ViT-L/14",
                index=index,
                dim=dim,
                dtype="float32",
                norm=norm,
                inflation=norm / reference if reference else None,
                reference="text_encoder of mini" if reference else None,
            )
            for index, norm in enumerate(norms)
        )
        return InspectedFile(path, "diffusers", step, vectors)

    return make


@pytest.fixture(scope="session")
def make_attenuation() -> Callable[..., AttenuationResult]:
    """Make an encoder of five positions that follows theory from ×4 on.

    learned: pairs of token and inflation.
    """

    def signal(scale: float | None) -> PositionalSignal:
        m = scale or 1.0
        return PositionalSignal(
            scale=scale,
            position_share=1 / (1 + m**2),
            word_share=m**2 / (1 + m**2),
            cosine=0.5,
            logit_share=1 / (1 + m**4),
            accuracy=max(0.2, 1 - m / 100),
            accuracy_by_position=(1.0, 0.2, 0.2, 0.2, 0.2),
            distance=1 / m,
            largest_distance=2 / m,
            bound=5 / m,
        )

    def make(
        learned: Sequence[tuple[str, float]] = (),
        fitted: tuple[float, float] | None = (4.0, 64.0),
        scales: Sequence[float] = (0.25, 1.0, 4.0, 16.0, 64.0),
    ) -> AttenuationResult:
        return AttenuationResult(
            name="text_encoder",
            dtype="float32",
            words=40,
            positions=5,
            reference_norm=MEAN,
            position_norm=0.3,
            gain=1.25,
            chance=0.2,
            natural=signal(None),
            scales=tuple(map(signal, scales)),
            fitted=fitted,
            share_slope=-1.97 if fitted else None,
            distance_slope=-0.99 if fitted else None,
            learned=tuple(
                LearnedSignal(
                    token=token,
                    index=0,
                    path=f"dir/{token}.bin",
                    norm=inflation * MEAN,
                    inflation=inflation,
                    cosine=0.9,
                    accuracy=0.4,
                    distance=0.1,
                    largest_distance=0.2,
                    bound=0.5,
                )
                for token, inflation in learned
            ),
        )

    return make


@pytest.fixture(scope="session")
def make_stagnation() -> Callable[..., StagnationResult]:
    """Make an encoder of one block whose whole turn is 1/m.

    learned: pairs of token and inflation.
    """

    def passage(scale: float | None, inflation: float = 1.0) -> Passage:
        m = scale or inflation
        bounded = m > 10
        attention = BranchTurn(
            block=0,
            kind="attention",
            turn=0.5 / m,
            relative_update=0.5 / m,
            update=0.5,
            largest_update=0.6,
            angle=0.5 / m,
            largest_angle=0.6 / m,
            bound=None,
            tightness=None,
        )
        mlp = BranchTurn(
            block=0,
            kind="mlp",
            turn=0.5 / m,
            relative_update=0.5 / m,
            update=0.5,
            largest_update=0.6,
            angle=1 / m,
            largest_angle=1.2 / m,
            bound=2 / m if bounded else None,
            tightness=0.6 if bounded else None,
        )
        return Passage(
            scale=scale,
            start_norm=m,
            smallest_start_norm=0.9 * m,
            branches=(attention, mlp),
            added=200 / m,
            start_share=m / 200,
            along_start=0.05,
        )

    def make(
        learned: Sequence[tuple[str, float]] = (), scales: Sequence[float] = (1.0, 8.0, 32.0)
    ) -> StagnationResult:
        return StagnationResult(
            name="text_encoder",
            dtype="float32",
            words=8,
            prompts=("{}", "a photo of {}"),
            reference_norm=MEAN,
            bounds=(BranchBound(0, "attention", 4.0), BranchBound(0, "mlp", 5.0)),
            total_bound=9.0,
            natural=passage(None),
            scales=tuple(map(passage, scales)),
            learned=tuple(
                LearnedPassage(
                    token=token,
                    index=0,
                    path=f"dir/{token}.bin",
                    norm=inflation * MEAN,
                    inflation=inflation,
                    natural=passage(None, inflation),
                    angles=tuple(1 / scale for scale in scales),
                )
                for token, inflation in learned
            ),
            read="block 1 of 2, before the final norm",
        )

    return make


@pytest.fixture(scope="session")
def make_swap() -> Callable[..., SwapResult]:
    """Make ten pairs of words of which nine follow direction.

    learned: pairs of token and inflation.
    """

    def resemblances(direction: float) -> tuple[Resemblance, ...]:
        return tuple(
            Resemblance(output, direction, magnitude=0.1, donors=0.05) for output in OUTPUTS
        )

    def swapped(
        token: str, norm: float, resembled: tuple[Resemblance, ...], *, learned: bool
    ) -> SwappedPair:
        return SwappedPair(
            first=token,
            second="dog",
            learned=learned,
            norms=(norm, 0.45),
            resemblances=resembled,
        )

    def swap_sum(stretch: float, output: str) -> SwapSum:
        return SwapSum(
            output=output,
            stretch=stretch,
            ratio=1.5 * stretch,
            direction=0.9,
            magnitude=0.1,
            donors=0.05,
            wins=Share.of(9, 10),
        )

    def curve(
        token: str | None = None, inflation: float | None = None, leaves: float | None = None
    ) -> MagnitudeCurve:
        scales = tuple(sorted({0.25, 1.0, 32.0} | ({inflation} if inflation else set())))
        values = tuple(1 - abs(scale - 1) / 100 for scale in scales)
        outputs = (
            OutputCurve("token", similarity=values, low=values, high=values, leaves=leaves),
            OutputCurve("end", similarity=values, low=values, high=values, leaves=None),
        )
        return MagnitudeCurve(
            token=token,
            directions=1 if token else 16,
            inflation=inflation,
            scales=scales,
            outputs=outputs,
        )

    def make(
        learned: Sequence[tuple[str, float]] = (),
        leaves: float | None = None,
        words: bool = True,
    ) -> SwapResult:
        return SwapResult(
            name="text_encoder",
            mean_norm=MEAN,
            carriers=("{}", "a photo of {}"),
            alike=tuple(Alike(output, 0.93) for output in OUTPUTS),
            left_out=("sea lion",),
            pairs=(
                *(swapped("cat", 0.3, resemblances(0.9), learned=False) for _ in range(10 * words)),
                *(
                    swapped(token, MEAN * times, resemblances(0.6), learned=True)
                    for token, times in learned
                ),
            ),
            sums=tuple(starmap(swap_sum, product((1.0, 16.0), OUTPUTS))) if words else (),
            curves=(curve(leaves=leaves), *(curve(token, times) for token, times in learned)),
        )

    return make


@pytest.fixture(scope="session")
def make_attention() -> Callable[..., AttentionResult]:
    """Make four layers of two heads.

    A token receives m·l·h/1000 in head h of layer l at scale m. learned: pairs of token and
    inflation.
    """

    def curves(token: str | None = None, inflation: float | None = None) -> AttentionCurves:
        scales = tuple(sorted({0.25, 1.0, 32.0} | ({inflation} if inflation else set())))
        heads = tuple(
            HeadAttention(
                layer,
                head,
                received=tuple(scale * layer * head / 1000 for scale in scales),
                itself=tuple(0.5 for _ in scales),
                entropy=tuple(1.2 / (1 + scale) for scale in scales),
            )
            for layer, head in product((1, 2, 3, 4), (1, 2))
        )
        sensitivity = tuple(
            Sensitivity(layer, tuple(0.1 / (1 + scale) for scale in scales)) for layer in range(5)
        )
        return AttentionCurves(
            token=token,
            directions=1 if token else 16,
            inflation=inflation,
            scales=scales,
            heads=heads,
            sensitivity=sensitivity,
        )

    def make(
        learned: Sequence[tuple[str, float]] = (),
        tokens: tuple[str, ...] = ("<start>", "cat", "<end>"),
    ) -> AttentionResult:
        weights = tuple(
            tuple(1 / (row + 1) if column <= row else 0.0 for column in range(3))
            for row in range(3)
        )
        return AttentionResult(
            name="text_encoder",
            mean_norm=MEAN,
            contexts=("a photo of {}", "a picture of {}"),
            causal=True,
            uniform=0.25,
            most_entropy=1.1,
            curves=(curves(), *(curves(token, times) for token, times in learned)),
            mapped=tokens,
            place=1,
            maps=tuple(
                HeatMap(layer, scale, weights) for layer, scale in product((1, 3, 4), (1.0, 32.0))
            ),
            sinks=Sinks(
                begin=tokens[0],
                even_first=0.2,
                even_padding=0.8,
                positions=77,
                layers=tuple(
                    LayerSinks(
                        layer=layer,
                        first=(0.1 * layer, 0.2 * layer),
                        padding=(0.05, 0.15),
                        largest=600.0 * layer,
                        median=0.5,
                        token=tokens[-1],
                        dimension=7,
                    )
                    for layer in (1, 2)
                ),
            ),
        )

    return make


@pytest.fixture(scope="session")
def make_angles() -> Callable[..., AnglesResult]:
    """Make learned vectors that have turned by these degrees; None: the initialiser is unknown."""

    def make(*turned: float | None, token: str = "<x>", init: str = "dog") -> AnglesResult:
        def learned(place: int, degrees: float | None) -> LearnedAngle:
            known = degrees is not None
            return LearnedAngle(
                token=token,
                index=place,
                path=f"dir/{token}.bin",
                norm=0.5,
                init=init if known else None,
                angle=math.radians(degrees) if degrees is not None else None,
                unknown=None if known else "the file names no initialiser; --init WORD does",
                nearest="dog",
                nearest_id=7,
                nearest_angle=math.radians(30),
            )

        between = tuple(math.radians(degrees) for degrees in (80, 90, 97))
        return AnglesResult(
            name="text_encoder",
            words=128,
            between_words=between,
            to_nearest=math.radians(55),
            learned=tuple(learned(place, degrees) for place, degrees in enumerate(turned)),
        )

    return make


@pytest.fixture(scope="session")
def make_ask() -> Callable[..., AskResult]:
    """Make what a language model says of a learned token, a word and a random direction."""

    def make(token: str = "<x>", text: str = "a small red fox", gain: float = 2.0) -> AskResult:
        def asked(query: str, path: str | None, gain: float) -> AskedToken:
            answer = Answer("{} is a kind of", text, (5, 7), -0.5, gain)
            return AskedToken(query, None, path, None, 0.9, (answer,))

        return AskResult(
            name="text_encoder",
            length=16,
            frames=("{} is a kind of",),
            tokens=(asked(token, f"dir/{token}.bin", gain),),
            known=(asked("dog", None, 3.0),),
            random=(asked("random 1", None, 0.4), asked("random 2", None, 0.6)),
        )

    return make


@pytest.fixture(scope="session")
def make_harden() -> Callable[..., HardenResult]:
    """Make a learned token and the prompt of real words found for it."""

    def make(token: str = "<x>", text: str = "red fox") -> HardenResult:
        prompt = HardPrompt(text, (3, 7), 0.6, 0.8)
        found = HardenedToken(
            query=token,
            id=None,
            path=f"dir/{token}.bin",
            step=500,
            norm=4.0,
            prompt=prompt,
            word=HardPrompt("fox", (7,), 0.4, 0.7),
            nearest=HardPrompt("fox cat", (7, 4), -0.2, 0.3),
            random=0.25,
        )
        return HardenResult(
            name="text_encoder",
            read="block 5 of 5, after the final norm",
            words=2,
            candidates=207,
            starts=8,
            updates=60,
            tokens=(found,),
        )

    return make


@pytest.fixture(scope="session")
def make_explain() -> Callable[..., ExplainResult]:
    """Make a learned token and a word as sums of up to two words; p: the learned token's."""

    def make(
        token: str = "<x>", first: str = "fox", second: str = "red", p: float = 0.02
    ) -> ExplainResult:
        both = (ExplainingWord(first, 7, 0.6), ExplainingWord(second, 9, 0.3))
        mixed = (
            WordSum((ExplainingWord(first, 7, 0.7),), 0.4),
            WordSum(both, 0.5),
        )
        itself = (WordSum((ExplainingWord("cat", 3, 1.0),), 1.0),)
        space = ExplainedSpace(
            space="table",
            rows=386,
            dim=256,
            random=(0.05, 0.08),
            ordinary=(0.3, 0.4),
            tokens=(
                ExplainedToken(
                    query=token,
                    id=None,
                    path=f"dir/{token}.bin",
                    step=500,
                    norm=4.0,
                    sums=mixed,
                    kept=1,
                    share=0.5,
                    p=p,
                    above_ordinary=0.75,
                ),
                ExplainedToken(
                    query="cat",
                    id=3,
                    path=None,
                    step=None,
                    norm=0.4,
                    sums=itself,
                    kept=1,
                    share=1.0,
                    p=0.02,
                    above_ordinary=1.0,
                ),
            ),
        )
        return ExplainResult("text_encoder", 2, (space,))

    return make


@pytest.fixture(scope="session")
def make_shape() -> Callable[..., ShapeResult]:
    """Make the shape of a table whose strongest hub has this name."""

    def make(hub: str = "the", norm_by_row: float | None = 0.25) -> ShapeResult:
        scores = {"rows": 0.2, "directions": 0.3, "centred": 0.35, "random": 0.9}
        hubs = (Hub(hub, 1, 44), Hub("cat", 3, 30))
        return ShapeResult(
            name="text_encoder",
            rows=386,
            equal_rows=2,
            dim=256,
            sampled=386,
            searched=386,
            k=10,
            norm_by_row=norm_by_row,
            clouds=tuple(
                CloudShape(
                    cloud=name,
                    isotropy=score,
                    mean_cosine=0.1,
                    hubness=1.5,
                    never=0.1,
                    two_nearest=14.0,
                    dimension=15.0,
                    hubs=() if name == "random" else hubs,
                )
                for name, score in scores.items()
            ),
        )

    return make


@pytest.fixture(scope="session")
def make_map() -> Callable[..., MapResult]:
    """Make a map of 25 tokens on a grid of 5 × 5, one apart; row 10·i is the i-th, of norm 1 + i.

    The neighbours of a token are those that follow it. A learned vector has two checkpoints.
    """

    def make(tokens: Sequence[str] = (), learned: Sequence[str] = ("<x>",)) -> MapResult:
        names = (*tokens, *(f"word{place}" for place in range(25)))[:25]
        places = numpy.arange(25)
        near = (places[:, None] + numpy.arange(1, 4)) % 25
        return MapResult(
            name="text_encoder",
            dim=16,
            rows=40,
            equal_rows=2,
            mean_norm=13.0,
            perplexity=8.0,
            k=3,
            kept=0.5,
            kept_by_chance=0.125,
            tokens=names,
            ids=pack(10 * places, "uint32"),
            norms=pack(1.0 + places, "float32"),
            positions=pack(numpy.stack([places % 5, places // 5], axis=1), "float32"),
            neighbors=pack(near, "uint16"),
            cosines=pack(9000 - 1000 * numpy.tile(numpy.arange(3), (25, 1)), "int16"),
            learned=tuple(
                PlacedVector(
                    token=token,
                    index=0,
                    path=f"runs/a/checkpoints/step-{step:06d}/learned_embeds.safetensors",
                    step=step,
                    norm=26.0,
                    x=1.5 + step / 100,
                    y=2.5,
                    neighbors=(Similar(names[2], 20, 0.25), Similar(names[3], 30, 0.125)),
                )
                for token in learned
                for step in (100, 200)
            ),
        )

    return make


@pytest.fixture(scope="session")
def make_interpolation() -> Callable[..., Interpolation]:
    return interpolation_result


@pytest.fixture(scope="session")
def run(make_file: Callable[..., InspectedFile]) -> tuple[InspectedFile, ...]:
    """A training run whose token grows."""
    return tuple(
        make_file(f"run/step-{step}.bin", [0.4 + step / 1000], step=step)
        for step in (1000, 250, 500)
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainingRun]:
    """Write a run and read it back; `write_run` takes the keywords.

    Its folder is named after the method.
    """

    def make(method: str = "dti", **course: Any) -> TrainingRun:
        folder = tmp_path_factory.mktemp("runs") / method
        write_run(folder, method=method, **course)
        return read_run(folder)

    return make


@pytest.fixture(scope="session")
def make_evaluation() -> Callable[..., Evaluation]:
    return evaluation_result


@pytest.fixture(scope="session")
def make_sweep() -> Callable[..., Sweep]:
    return sweep_result


@pytest.fixture(scope="session")
def make_predicted() -> Callable[..., PredictedInflation]:
    """Four updates from 0.4, the mean norm, to twice that, in encoders of these names."""

    def make(*towers: str) -> PredictedInflation:
        return PredictedInflation(
            "mini",
            learning_rate=0.002,
            weight_decay=0.01,
            steps=4,
            towers=tuple(
                TowerInflation(
                    tower=tower,
                    width=8,
                    start_norm=0.4,
                    mean_norm=0.4,
                    limit=0.5,
                    updates=(0, 1, 2, 3, 4),
                    norms=(0.4, 0.5, 0.6, 0.7, 0.8),
                    slowed_norms=(0.4, 0.5, 0.55, 0.6, 0.7),
                    leaves=2,
                    slowed_leaves=2,
                    plateau=9.0,
                    rate_within=0.001,
                )
                for tower in towers or ("text_encoder",)
            ),
        )

    return make


@pytest.fixture(scope="session")
def make_effects() -> Callable[..., EffectsResult]:
    """Make an encoder where Effect I moves a state by 0.4 and II by 0.1, without interaction.

    learned: pairs of token and inflation. positions: whether the encoder has any.
    """
    moves = {"neither": 0.0, "I": 0.4, "II": 0.1, "both": 0.5}

    def about(mean: float) -> Interval:
        return Interval(mean, mean - 0.02, mean + 0.02, subjects=8, values=16)

    def make(learned: Sequence[tuple[str, float]] = (), *, positions: bool = True) -> EffectsResult:
        cells = tuple(
            CellShift(
                cell=cell,
                turned=about(moved / 2),
                moved=about(moved),
                moved_end=None if cell == "II" else about(moved / 4),
                readable=Share.of(10 if "I" in cell or cell == "both" else 40, 100),
            )
            for cell, moved in moves.items()
            if positions or cell in ("neither", "II")
        )
        sizes = {"I": 0.4, "II": 0.1, "interaction": 0.0} if positions else {"II": 0.1}
        effects = tuple(EffectSize(name, about(size), None) for name, size in sizes.items())
        groups: list[tuple[str | None, float | None]] = [(None, None), *learned]
        return EffectsResult(
            name="text_encoder",
            mean_norm=MEAN,
            scale=10.0,
            read="block 1 of 2, before the final norm",
            prompts=("{}", "a photo of {}"),
            places=16,
            without_positions=None if positions else "text_encoder has rotary positions.",
            groups=tuple(
                TokenEffects(
                    token=token,
                    tokens=1 if token else 8,
                    inflation=inflation,
                    cells=cells,
                    effects=effects,
                )
                for token, inflation in groups
            ),
        )

    return make


@pytest.fixture(scope="session")
def report(
    make_encoder: Callable[..., NormsResult],
    make_neighbors: Callable[..., TokenNeighbors],
    make_file: Callable[..., InspectedFile],
    make_attenuation: Callable[..., AttenuationResult],
    make_stagnation: Callable[..., StagnationResult],
    make_effects: Callable[..., EffectsResult],
    make_swap: Callable[..., SwapResult],
    make_attention: Callable[..., AttentionResult],
    make_angles: Callable[..., AnglesResult],
    make_explain: Callable[..., ExplainResult],
    make_harden: Callable[..., HardenResult],
    make_ask: Callable[..., AskResult],
    make_shape: Callable[..., ShapeResult],
    make_map: Callable[..., MapResult],
    make_interpolation: Callable[..., Interpolation],
    make_evaluation: Callable[..., Evaluation],
    make_sweep: Callable[..., Sweep],
    make_predicted: Callable[..., PredictedInflation],
    placed: Callable[..., PlacedToken],
    run: tuple[InspectedFile, ...],
    trained: Callable[..., TrainingRun],
) -> Report:
    """Fill every section of a report with text that would break a careless page."""
    strange = [
        placed(token, 0.5 + place, f"dir/{token}.bin") for place, token in enumerate(HOSTILE)
    ]
    encoder = make_encoder(
        learned=[placed("<x>", 4.1), *strange],
        special=(TokenNorm("<|startoftext|>", 1001, 0.66), TokenNorm("<pad>", 1002, 0.0)),
        examples=tuple((f"word{place}", *HOSTILE[:3]) for place in range(10)),
    )
    files = [
        make_file(f"dir/{token}.bin", [1.0 + place, 2.0], token)
        for place, token in enumerate(HOSTILE)
    ]
    inflated = [(token, 2.0 + place) for place, token in enumerate(HOSTILE)]
    model = HOSTILE[0]
    measured: dict[str, tuple[object, tuple[str, ...]]] = {
        "norms": (encoder, ()),
        "neighbors": (
            NeighborsResult("text_encoder", tuple(make_neighbors(token) for token in HOSTILE[:2])),
            (),
        ),
        "attenuation": (make_attenuation(inflated), (f"{HOSTILE[1]} has rotary positions.",)),
        "stagnation": (make_stagnation(inflated), (f"{HOSTILE[1]} is a post-norm encoder.",)),
        "effects": (make_effects(inflated), (f"{HOSTILE[1]} is a post-norm encoder.",)),
        "swap": (make_swap(inflated), ()),
        "attention": (make_attention(inflated, HOSTILE[:3]), ()),
        "angles": (
            make_angles(30.0, None, token=HOSTILE[0], init=HOSTILE[1]),
            (f"{HOSTILE[2]} has another width.",),
        ),
        "explain": (make_explain(*HOSTILE[:3]), ()),
        "ask": (make_ask(*HOSTILE[:2]), ()),
        "harden": (make_harden(*HOSTILE[:2]), ()),
        "shape": (make_shape(HOSTILE[0]), ()),
        "map": (make_map(HOSTILE, HOSTILE[:2]), ()),
    }
    results: dict[str, object] = {
        name: Measurement(name, model, (result,), reasons)
        for name, (result, reasons) in measured.items()
    }
    wide = make_file("dir/wide.pt", [8.0], "wide", reference=None, dim=1024)
    results["inspection"] = Inspection((*files, *run, wide))
    results["similarity"] = similarity_result(HOSTILE[:3])
    results["inflation"] = make_predicted("text_encoder", HOSTILE[1])
    results["training"] = TrainingRuns(
        model,
        (
            trained(
                tokens=("<x>", HOSTILE[0]),
                towers=("text_encoder", HOSTILE[1]),
                prompts=[f"{{}} {HOSTILE[place]}" for place in (1, 3, 6)],
            ),
            trained("ti", norm=lambda step: 0.4 + 0.1 * step, words=lambda step: HOSTILE),
        ),
    )
    results["magnitudes"] = magnitudes_result(HOSTILE[:2])
    results["gallery"] = gallery_result(HOSTILE[0], HOSTILE[1])
    results["interpolation"] = make_interpolation(
        HOSTILE[:2], HOSTILE[:3], HOSTILE[1], ("text_encoder", HOSTILE[0])
    )
    evaluation = make_evaluation(
        HOSTILE[:3], HOSTILE[1], LeftOut(f"runs/{HOSTILE[0]}.png", HOSTILE[2])
    )
    results["evaluation"] = with_every_picture(evaluation)
    results["comparison"] = compare([make_evaluation(("dti", HOSTILE[0]), "sdxl")])
    results["sweep"] = make_sweep(HOSTILE[:3])
    results["study"] = study_score(HOSTILE[:3], spammers=0.2)
    return Report(model, results, notes=(f"A note about {HOSTILE[1]}.",))


class Parsed(HTMLParser):
    """The elements of a page, and the text of every script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []  # attributes and text
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if (
            self.elements
            and self.elements[-1][0] == "script"
            and self.lasttag == "script"
            and data.strip()
        ):
            self.scripts.append((self.elements[-1][1], data))

    def data(self, section: str) -> Any:
        return next(
            json.loads(gzip.decompress(b64decode(text)))
            for attributes, text in self.scripts
            if attributes.get("id") == f"{section}-data"
        )


@pytest.fixture(scope="session")
def parse() -> type[Parsed]:
    return Parsed


@pytest.fixture(scope="session")
def html(report: Report) -> str:
    from dti_geom.reporting.renderers.page import page_html

    return page_html(report)


@pytest.fixture(scope="session")
def parsed(html: str) -> Parsed:
    return Parsed(html)


@pytest.fixture(scope="session")
def page_file(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(html, encoding="utf-8")
    return path


def open_in(browser: Any, path: Path, width: int, scheme: str) -> Any:
    """Open the page in its own window; `page.events` lists its messages, requests and dialogs."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(90_000)  # a busy machine is slow, not broken
    page.events = []
    # Software rendering of WebGL remarks on its own speed.
    page.on(
        "console",
        lambda message: "GL Driver Message" in message.text or page.events.append(message.text),
    )
    page.on("pageerror", lambda error: page.events.append(str(error)))
    page.on("request", lambda request: page.events.append(request.url))
    page.on("dialog", lambda dialog: (page.events.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]")
    return page


@pytest.fixture(scope="session")
def page(chromium: Any, page_file: Path) -> Any:
    """Open the report on a light desktop, for tests that do not change it."""
    return open_in(chromium, page_file, 1280, "light")


@pytest.fixture
def open_page(chromium: Any, page_file: Path) -> Iterator[Callable[..., Any]]:
    """Open the report for one test."""
    pages: list[Any] = []

    def open_(width: int = 1280, scheme: str = "light") -> Any:
        pages.append(open_in(chromium, page_file, width, scheme))
        return pages[-1]

    yield open_
    for page in pages:
        page.close()
