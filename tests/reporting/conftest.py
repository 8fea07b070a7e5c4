import json
import os
import shutil
from html.parser import HTMLParser

import pytest

from dti_geom.geometry import NormSummary
from dti_geom.probes import (
    EncoderNorms,
    Histogram,
    InspectedFile,
    InspectedVector,
    Near,
    Neighbors,
    Norms,
    PlacedToken,
    Similar,
    TokenNorm,
)
from dti_geom.reporting import Report, render_page

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
        return EncoderNorms(
            name="text_encoder",
            vocab_size=1003,
            dim=768,
            norms=NormSummary(1000, 3, MEAN, 0.02, 0.335, 0.45, (0.345, 0.355, 0.375, 0.391, 0.405, 0.42, 0.435)),
            longest=(TokenNorm("long…", 7, 0.45), TokenNorm("longish", 8, 0.44)),
            shortest=(TokenNorm("short", 1, 0.335), TokenNorm("shorter…", 2, 0.34)),
            special=special,
            learned=tuple(learned),
            histogram=Histogram(edges, counts, examples or tuple((f"word{place}", "café") for place in range(10))),
        )

    return make


@pytest.fixture(scope="session")
def make_neighbors():
    def make(query="cat", cosine=(3, 4, 5), euclidean=(9, 4, 3)):
        return Neighbors(
            query=query,
            encoder="text_encoder",
            id=1,
            norm=0.41,
            cosine=tuple(Similar(f"near{row}", row, 0.5 - 0.1 * place) for place, row in enumerate(cosine)),
            euclidean=tuple(Near(f"near{row}", row, 0.4 + 0.1 * place) for place, row in enumerate(euclidean)),
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
def run(make_file):
    """A training run whose token grows."""
    return tuple(make_file(f"run/step-{step}.bin", [0.4 + step / 1000], step=step) for step in (1000, 250, 500))


@pytest.fixture(scope="session")
def report(make_encoder, make_neighbors, make_file, placed, run):
    """Everything a report can hold, with text that would break a careless page."""
    strange = [placed(token, 0.5 + place, f"dir/{token}.bin") for place, token in enumerate(HOSTILE)]
    encoder = make_encoder(
        learned=[placed("<x>", 4.1), *strange],
        special=(TokenNorm("<|startoftext|>", 1001, 0.66), TokenNorm("<pad>", 1002, 0.0)),
        examples=tuple((f"word{place}", *HOSTILE[:3]) for place in range(10)),
    )
    files = [make_file(f"dir/{token}.bin", [1.0 + place, 2.0], token) for place, token in enumerate(HOSTILE)]
    return Report(
        model=HOSTILE[0],
        norms=Norms(HOSTILE[0], (encoder,)),
        neighbors=(make_neighbors(HOSTILE[0]), make_neighbors(HOSTILE[1])),
        inspected=(*files, *run, make_file("dir/wide.pt", [8.0], "wide", reference=None, dim=1024)),
        notes=(f"A note about {HOSTILE[1]}.",),
    )


class Parsed(HTMLParser):
    """Elements, and the text of every script, of a page."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script" and self.lasttag == "script" and data.strip():
            self.scripts.append((self.elements[-1][1], data))

    def data(self, section):
        return next(json.loads(text) for attributes, text in self.scripts if attributes.get("id") == f"{section}-data")


@pytest.fixture(scope="session")
def parse():
    return Parsed


@pytest.fixture(scope="session")
def html(report):
    return render_page(report)


@pytest.fixture(scope="session")
def parsed(html):
    return Parsed(html)


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium: the one on the path, or the one DTI_GEOM_CHROMIUM names."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("DTI_GEOM_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
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
    page.wait_for_selector("#norms .bars path", state="attached")
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
