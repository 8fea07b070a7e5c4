import dataclasses
import gzip
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from dti_geom.files import to_json
from dti_geom.probes.measuring import Measurement
from dti_geom.probes.norms import NormsResult
from dti_geom.probes.stagnation import StagnationResult
from dti_geom.reporting.blocks import Block, Finding, Limits, Note, Pictures, Section
from dti_geom.reporting.registry import SECTIONS, section_data, section_of
from dti_geom.reporting.renderers.page import blocks_html, page_html
from dti_geom.reporting.report import Report

PAPER = "https://arxiv.org/abs/2512.13672"
SHOWN = [name for name in SECTIONS if name != "painted"]  # which the report fixture has


def norms_of(encoder: NormsResult) -> Measurement[NormsResult]:
    return Measurement("norms", "mini", (encoder,), ())


def blocks_in(section: Section) -> Iterator[Block]:
    for block in section.blocks:
        yield block
        if isinstance(block, Section):
            yield from blocks_in(block)


def picture_uris(report: Report) -> Iterator[str]:
    for result in report.results.values():
        for block in blocks_in(section_of(result)):
            if isinstance(block, Pictures):
                for row in block.rows:
                    yield from (picture.uri for picture in row.pictures if picture is not None)


def test_the_same_report_gives_the_same_page(report: Report, html: str) -> None:
    assert page_html(report) == html


def test_the_page_carries_plotly_once_compressed_and_stays_small(parsed: Any, html: str) -> None:
    (packed,) = (text for attributes, text in parsed.scripts if attributes.get("id") == "plotly")
    assert gzip.decompress(b64decode(packed)).decode() == get_plotlyjs()
    assert len(html.encode()) < 3_200_000


def test_a_page_without_a_plot_carries_no_plotly() -> None:
    assert 'id="plotly"' not in page_html(Report("mini"))


def test_nothing_is_loaded_from_elsewhere(parsed: Any, html: str) -> None:
    links = []
    for _, attributes in parsed.elements:
        if attributes.get("href") == PAPER:  # followed by readers, and loaded by nobody
            continue
        links += [attributes[name] for name in ("src", "href", "srcset") if name in attributes]
    assert links
    assert all(
        link.startswith(("#", "data:image/png;base64,")) or link == "data:," for link in links
    )
    assert not re.search(r"https?:|url\(|@import", html.replace(PAPER, ""))


@pytest.mark.parametrize("name", SHOWN)
def test_each_section_has_a_finding_its_limits_and_its_data(
    name: str, parsed: Any, html: str, report: Report
) -> None:
    body = html.split(f'<section id="{name}"')[1].split("</section>")[0]
    assert 'class="finding"' in body
    assert 'class="plot"' in body or "<img" in body or "<table" in body
    assert 'class="measured"' in body
    assert "What this does not show:" in body
    assert f'data-download="{name}"' in body
    assert parsed.data(name) == to_json(section_data(report.results[name]))


@pytest.mark.parametrize("name", SHOWN)
def test_limits_are_said_once_and_last(name: str, report: Report) -> None:
    section = section_of(report.results[name])
    limits = [block for block in blocks_in(section) if isinstance(block, Limits)]
    assert len(limits) == len(set(limits)) >= 1
    assert any(isinstance(block, Finding) for block in blocks_in(section))


def test_the_limits_of_several_encoders_are_said_once(
    make_stagnation: Callable[..., StagnationResult],
) -> None:
    result = Measurement("stagnation", "sdxl", (make_stagnation(), make_stagnation()), ("Why.",))
    section = section_of(result)
    kinds = [type(block).__name__ for block in section.blocks]
    assert kinds == ["Section", "Section", "Note", "Limits"]
    assert section.blocks[2] == Note("Does not apply: Why.")


def test_text_from_outside_adds_no_element_and_no_handler(
    parsed: Any, parse: Callable[[str], Any], report: Report
) -> None:
    tame = dataclasses.replace(report, model="tame", notes=("tame",))
    tags = [tag for tag, _ in parsed.elements]
    assert tags == [tag for tag, _ in parse(page_html(tame)).elements]
    images = {attributes["src"] for tag, attributes in parsed.elements if tag == "img"}
    assert images == set(picture_uris(report))
    for _, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]


def test_scripts_hold_no_text_that_could_close_them(parsed: Any) -> None:
    assert len(parsed.scripts) > 6
    for attributes, text in parsed.scripts:
        if attributes.get("type") == "application/json":
            assert "<" not in text


def test_sections_without_a_result_are_absent(make_encoder: Callable[..., NormsResult]) -> None:
    html = page_html(Report("mini", {"norms": norms_of(make_encoder())}))
    assert re.findall(r'<section id="(\w+)"', html) == ["norms"]
    assert 'href="#neighbors"' not in html
    assert "Nothing was measured." in page_html(Report("mini"))


def test_a_section_that_does_not_apply_says_why_in_its_place(
    make_encoder: Callable[..., NormsResult], hostile: tuple[str, ...]
) -> None:
    report = Report(
        "mini", {"norms": norms_of(make_encoder())}, does_not_apply={"attenuation": hostile[1]}
    )
    html = page_html(report)
    assert re.findall(r'<section id="(\w+)"', html) == ["norms", "attenuation"]
    section = html.split('<section id="attenuation"')[1].split("</section>")[0]
    assert "Does not apply: &lt;/script&gt;" in section
    assert "<button" not in section


def test_notes_stand_at_the_top_of_the_page() -> None:
    html = page_html(Report("mini", notes=("3 of 4 files do not fit.",)))
    assert "<li><bdi>3 of 4 files do not fit.</bdi></li>" in html


def test_numbers_that_are_not_finite_are_refused(make_encoder: Callable[..., NormsResult]) -> None:
    encoder = make_encoder()
    broken = dataclasses.replace(
        encoder, norms=dataclasses.replace(encoder.norms, std=float("nan"))
    )
    with pytest.raises(ValueError, match="JSON compliant"):
        page_html(Report("mini", {"norms": norms_of(broken)}))


def test_every_sentence_is_escaped() -> None:
    html = blocks_html([Finding("<b>"), Note("<i>"), Limits("<u>"), Section("<h>", [])], "<t>")
    assert not re.search("<(b|i|u|h)>", html)


def test_a_paper_that_a_note_names_is_a_link_and_all_else_is_text() -> None:
    html = str(blocks_html([Note("See arXiv 2512.13672, <b>not</b> arXiv 12.")], ""))
    assert '<a href="https://arxiv.org/abs/2512.13672">arXiv 2512.13672</a>, &lt;b&gt;' in html
    assert html.count("<a ") == 1


def test_importing_reporting_loads_neither_plotly_nor_jinja2() -> None:
    code = (
        "import sys, dti_geom.reporting.build; "
        "sys.exit(bool({'plotly', 'jinja2', 'transformers', 'diffusers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_isolates_of_sentences_are_not_spelled_out_where_the_page_isolates(report: Report) -> None:
    body = page_html(report).split("<script>")[0]
    assert "\\u2068" not in re.sub(
        r'<script type="application/json".*?</script>', "", body, flags=re.DOTALL
    )
