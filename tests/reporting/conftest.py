import json
import math
import os
import shutil
from html.parser import HTMLParser

import pytest

from dti_geom.evaluation.reference import compare
from dti_geom.evaluation.scores import LeftOut
from dti_geom.geometry import NormSummary
from dti_geom.probes.angles import AnglesResult, LearnedAngle
from dti_geom.probes.attention import (
    AttentionCurves,
    AttentionResult,
    HeadAttention,
    HeatMap,
    Sensitivity,
)
from dti_geom.probes.attenuation import AttenuationResult, LearnedSignal, PositionalSignal
from dti_geom.probes.inspection import InspectedFile, InspectedVector, Inspection
from dti_geom.probes.measuring import Measurement
from dti_geom.probes.neighbors import Near, NeighborsResult, Similar, TokenNeighbors
from dti_geom.probes.norms import Histogram, NormsResult, PlacedToken, TokenNorm
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
from dti_geom.statistics import Share
from dti_geom.training import read_run
from dti_geom.training.story import TrainingRuns
from example_results import evaluation_result, interpolation_result, sweep_result
from runs import write_run

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
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def hostile():
    return HOSTILE


@pytest.fixture(scope="session")
def placed():
    def place(token, norm, path="runs/a.bin", index=0):
        return PlacedToken(token, index, path, norm, (norm - MEAN) / 0.02, 99.5, norm / MEAN)

    return place


@pytest.fixture(scope="session")
def make_encoder():
    def make(learned=(), special=(), examples=None):
        edges = tuple(0.34 + 0.01 * place for place in range(11))
        counts = (4, 20, 60, 150, 240, 250, 160, 70, 30, 16)
        return NormsResult(
            name="text_encoder",
            vocab_size=1003,
            dim=768,
            norms=NormSummary(
                1000, 3, MEAN, 0.02, 0.335, 0.45, (0.345, 0.355, 0.375, 0.391, 0.405, 0.42, 0.435)
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
def make_neighbors():
    def make(query="cat", cosine=(3, 4, 5), euclidean=(9, 4, 3)):
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
def make_file():
    def make(path, norms, token="<x>", step=None, reference=MEAN, dim=768):
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
def make_attenuation():
    """An encoder of five positions that follows theory from ×4 on; learned: token and inflation of each."""

    def signal(scale):
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

    def make(learned=(), fitted=(4.0, 64.0), scales=(0.25, 1.0, 4.0, 16.0, 64.0)):
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
def make_stagnation():
    """An encoder of one block whose whole turn is 1/m; learned: token and inflation of each."""

    def passage(scale, inflation=1.0):
        m = scale or inflation
        bounded = m > 10
        attention = BranchTurn(
            0, "attention", 0.5 / m, 0.5 / m, 0.5, 0.6, 0.5 / m, 0.6 / m, None, None
        )
        mlp = BranchTurn(
            0,
            "mlp",
            0.5 / m,
            0.5 / m,
            0.5,
            0.6,
            1 / m,
            1.2 / m,
            2 / m if bounded else None,
            0.6 if bounded else None,
        )
        return Passage(scale, m, 0.9 * m, (attention, mlp))

    def make(learned=(), scales=(1.0, 8.0, 32.0)):
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
        )

    return make


@pytest.fixture(scope="session")
def make_swap():
    """Ten pairs of words of which nine follow direction; learned: token and inflation of each."""

    def resemblances(direction):
        return tuple(
            Resemblance(output, direction, 0.1, 0.05) for output in ("token", "pooled", "end")
        )

    def curve(token=None, inflation=None, leaves=None):
        scales = tuple(sorted({0.25, 1.0, 32.0} | ({inflation} if inflation else set())))
        values = tuple(1 - abs(scale - 1) / 100 for scale in scales)
        outputs = (
            OutputCurve("token", values, values, values, leaves),
            OutputCurve("end", values, values, values, None),
        )
        return MagnitudeCurve(token, 1 if token else 16, inflation, scales, outputs)

    def make(learned=(), leaves=None, words=True):
        return SwapResult(
            name="text_encoder",
            mean_norm=MEAN,
            carriers=("{}", "a photo of {}"),
            alike=tuple(Alike(output, 0.93) for output in ("token", "pooled", "end")),
            left_out=("sea lion",),
            pairs=(
                *(
                    SwappedPair("cat", "dog", False, (0.3, 0.45), resemblances(0.9))
                    for _ in range(10 * words)
                ),
                *(
                    SwappedPair(token, "dog", True, (MEAN * times, 0.45), resemblances(0.6))
                    for token, times in learned
                ),
            ),
            sums=tuple(
                SwapSum(output, stretch, 1.5 * stretch, 0.9, 0.1, 0.05, Share.of(9, 10))
                for stretch in (1.0, 16.0)
                for output in ("token", "pooled", "end")
                if words
            ),
            curves=(curve(leaves=leaves), *(curve(token, times) for token, times in learned)),
        )

    return make


@pytest.fixture(scope="session")
def make_attention():
    """Four layers of two heads; what a token gets in layer l of head h at scale m is m·l·h/1000."""

    def curves(token=None, inflation=None):
        scales = tuple(sorted({0.25, 1.0, 32.0} | ({inflation} if inflation else set())))
        heads = tuple(
            HeadAttention(
                layer,
                head,
                received=tuple(scale * layer * head / 1000 for scale in scales),
                itself=tuple(0.5 for _ in scales),
                entropy=tuple(1.2 / (1 + scale) for scale in scales),
            )
            for layer in (1, 2, 3, 4)
            for head in (1, 2)
        )
        sensitivity = tuple(
            Sensitivity(layer, tuple(0.1 / (1 + scale) for scale in scales)) for layer in range(5)
        )
        return AttentionCurves(token, 1 if token else 16, inflation, scales, heads, sensitivity)

    def make(learned=(), tokens=("<start>", "cat", "<end>")):
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
                HeatMap(layer, scale, weights) for layer in (1, 3, 4) for scale in (1.0, 32.0)
            ),
        )

    return make


@pytest.fixture(scope="session")
def make_angles():
    """Learned vectors that have turned by so many degrees; None: of an unknown initialiser."""

    def make(*turned, token="<x>", init="dog"):
        def learned(place, degrees):
            known = degrees is not None
            return LearnedAngle(
                token=token,
                index=place,
                path=f"dir/{token}.bin",
                norm=0.5,
                init=init if known else None,
                angle=math.radians(degrees) if known else None,
                unknown=None if known else "the file names no initialiser; --init WORD does",
                nearest="dog",
                nearest_id=7,
                nearest_angle=math.radians(30),
            )

        between = tuple(math.radians(degrees) for degrees in (80, 90, 97))
        return AnglesResult(
            "text_encoder",
            128,
            between,
            math.radians(55),
            tuple(learned(*each) for each in enumerate(turned)),
        )

    return make


@pytest.fixture(scope="session")
def make_interpolation():
    return interpolation_result


@pytest.fixture(scope="session")
def run(make_file):
    """A training run whose token grows."""
    return tuple(
        make_file(f"run/step-{step}.bin", [0.4 + step / 1000], step=step)
        for step in (1000, 250, 500)
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Reads back a run with such a course; its folder is named after the method."""

    def make(method="dti", **course):
        folder = tmp_path_factory.mktemp("runs") / method
        write_run(folder, method=method, **course)
        return read_run(folder)

    return make


@pytest.fixture(scope="session")
def make_evaluation():
    return evaluation_result


@pytest.fixture(scope="session")
def make_sweep():
    return sweep_result


@pytest.fixture(scope="session")
def report(
    make_encoder,
    make_neighbors,
    make_file,
    make_attenuation,
    make_stagnation,
    make_swap,
    make_attention,
    make_angles,
    make_interpolation,
    make_evaluation,
    make_sweep,
    placed,
    run,
    trained,
):
    """Everything a report can hold, with text that would break a careless page."""
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
    measured = {
        "norms": (encoder, ()),
        "neighbors": (
            NeighborsResult("text_encoder", tuple(make_neighbors(token) for token in HOSTILE[:2])),
            (),
        ),
        "attenuation": (make_attenuation(inflated), (f"{HOSTILE[1]} has rotary positions.",)),
        "stagnation": (make_stagnation(inflated), (f"{HOSTILE[1]} is a post-norm encoder.",)),
        "swap": (make_swap(inflated), ()),
        "attention": (make_attention(inflated, HOSTILE[:3]), ()),
        "angles": (
            make_angles(30.0, None, token=HOSTILE[0], init=HOSTILE[1]),
            (f"{HOSTILE[2]} has another width.",),
        ),
    }
    results = {
        name: Measurement(name, model, (result,), reasons)
        for name, (result, reasons) in measured.items()
    }
    wide = make_file("dir/wide.pt", [8.0], "wide", reference=None, dim=1024)
    results["inspection"] = Inspection((*files, *run, wide))
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
    results["interpolation"] = make_interpolation(
        HOSTILE[:2], HOSTILE[:3], HOSTILE[1], ("text_encoder", HOSTILE[0])
    )
    results["evaluation"] = make_evaluation(
        HOSTILE[:3], HOSTILE[1], LeftOut(f"runs/{HOSTILE[0]}.png", HOSTILE[2])
    )
    results["comparison"] = compare([make_evaluation(("dti", HOSTILE[0]), "sdxl")])
    results["sweep"] = make_sweep(HOSTILE[:3])
    return Report(model, results, notes=(f"A note about {HOSTILE[1]}.",))


class Parsed(HTMLParser):
    """Elements, and the text of every script, of a page."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if (
            self.elements
            and self.elements[-1][0] == "script"
            and self.lasttag == "script"
            and data.strip()
        ):
            self.scripts.append((self.elements[-1][1], data))

    def data(self, section):
        return next(
            json.loads(text)
            for attributes, text in self.scripts
            if attributes.get("id") == f"{section}-data"
        )


@pytest.fixture(scope="session")
def parse():
    return Parsed


@pytest.fixture(scope="session")
def html(report):
    from dti_geom.reporting.renderers.page import page_html

    return page_html(report)


@pytest.fixture(scope="session")
def parsed(html):
    return Parsed(html)


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium: the one on the path, or the one DTI_GEOM_CHROMIUM names."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("DTI_GEOM_CHROMIUM") or next(
        filter(None, map(shutil.which, names)), None
    )
    if found is None:
        pytest.skip("no Chromium found: install one, or name it in DTI_GEOM_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(CHROMIUM_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page_file(html, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(html, encoding="utf-8")
    return path


def open_in(browser, path, width, scheme):
    """The page in a window of its own; whatever it complains of, asks for or pops up lands in `page.events`."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(90_000)  # a busy machine is slow, not broken
    page.events = []
    page.on("console", lambda message: page.events.append(message.text))
    page.on("pageerror", lambda error: page.events.append(str(error)))
    page.on("request", lambda request: page.events.append(request.url))
    page.on("dialog", lambda dialog: (page.events.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]")
    return page


@pytest.fixture(scope="session")
def page(chromium, page_file):
    """The report on a light desktop, for tests that leave it as it is."""
    return open_in(chromium, page_file, 1280, "light")


@pytest.fixture
def open_page(chromium, page_file):
    """Opens the report for one test."""
    pages = []

    def open_(width=1280, scheme="light"):
        pages.append(open_in(chromium, page_file, width, scheme))
        return pages[-1]

    yield open_
    for each in pages:
        each.close()
