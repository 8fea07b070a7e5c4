import dataclasses
import re
import subprocess
import sys

import pytest
from plotly.offline import get_plotlyjs

from dti_geom.errors import FileExists
from dti_geom.files import load_result, save_result, to_json
from dti_geom.probes import Norms
from dti_geom.reporting import SECTIONS, Report, render_page, write_page


def test_a_report_round_trips_through_its_file(report, tmp_path):
    save_result(tmp_path / "report.json", report)
    assert load_result(tmp_path / "report.json", Report) == report


def test_the_same_report_gives_the_same_page(report, html):
    assert render_page(report) == html


def test_the_page_carries_plotly_once_and_stays_small(html):
    assert html.count(get_plotlyjs()) == 1
    assert len(html.encode()) < 6_000_000


def test_nothing_is_loaded_from_elsewhere(parsed, html):
    links = [
        value
        for _, attributes in parsed.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset")
    ]
    assert links
    assert all(
        link.startswith(("#", "data:image/png;base64,")) or link == "data:," for link in links
    )
    own = html.replace(get_plotlyjs(), "")
    assert not re.search(r"https?:|url\(|@import", own)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_each_section_has_a_finding_how_it_was_measured_and_its_data(section, parsed, html, report):
    body = html.split(f'<section id="{section.name}"')[1].split("</section>")[0]
    assert 'class="finding"' in body
    assert 'class="plot"' in body or "<img" in body
    assert 'class="measured"' in body
    assert "What this does not show:" in body
    assert f'data-download="{section.name}"' in body
    assert parsed.data(section.name) == to_json(section.result(report))


def test_text_from_outside_adds_no_element_and_no_handler(parsed, parse, report):
    tame = dataclasses.replace(report, model="tame", notes=("tame",))
    assert [tag for tag, _ in parsed.elements] == [
        tag for tag, _ in parse(render_page(tame)).elements
    ]
    images = {attributes["src"] for tag, attributes in parsed.elements if tag == "img"}
    known = {one.uri for training in report.training for one in training.pictures}
    known |= {f"data:image/png;base64,{one.png}" for one in report.evaluation.pictures}
    assert images == known | set(report.interpolation.thumbnails.values())
    assert not [
        name for _, attributes in parsed.elements for name in attributes if name.startswith("on")
    ]


def test_scripts_hold_no_text_that_could_close_them(parsed):
    assert len(parsed.scripts) > 6
    for attributes, text in parsed.scripts:
        if attributes.get("type") == "application/json":
            assert "<" not in text


def test_sections_without_a_result_are_absent(make_encoder):
    html = render_page(Report("mini", norms=Norms("mini", (make_encoder(),))))
    assert re.findall(r'<section id="(\w+)"', html) == ["norms"]
    assert 'href="#neighbors"' not in html
    assert "Nothing was measured." in render_page(Report("mini"))


def test_a_section_that_does_not_apply_says_why_in_its_place(make_encoder, hostile):
    report = Report(
        "mini", norms=Norms("mini", (make_encoder(),)), does_not_apply={"attenuation": hostile[1]}
    )
    html = render_page(report)
    assert re.findall(r'<section id="(\w+)"', html) == ["norms", "attenuation"]
    section = html.split('<section id="attenuation"')[1].split("</section>")[0]
    assert "Does not apply: <bdi>&lt;/script&gt;" in section
    assert "<button" not in section


def test_the_story_is_told_in_order():
    told = "norms swap attenuation stagnation attention inspection neighbors angles training images interpolation"
    assert [section.name for section in SECTIONS] == [
        *told.split(),
        "evaluation",
        "comparison",
        "sweep",
    ]


def test_a_single_query_needs_no_overview(make_neighbors):
    html = render_page(Report("mini", neighbors=(make_neighbors(),)))
    assert "2 of 3 neighbours" in html
    assert 'class="plot"' not in html


def test_notes_stand_on_the_page():
    assert "<li><bdi>3 of 4 files do not fit.</bdi></li>" in render_page(
        Report("mini", notes=("3 of 4 files do not fit.",))
    )


def test_numbers_that_are_not_finite_are_refused(make_encoder, placed):
    encoder = make_encoder()
    broken = dataclasses.replace(
        encoder, norms=dataclasses.replace(encoder.norms, std=float("nan"))
    )
    with pytest.raises(ValueError, match="JSON compliant"):
        render_page(Report("mini", norms=Norms("mini", (broken,))))


def test_names_that_are_no_text_can_be_written(make_file, make_encoder, parse, tmp_path):
    norms = Norms("\udcff", (dataclasses.replace(make_encoder(), name="\udcff"),))
    report = Report(
        "\udcff",
        norms,
        inspected=(make_file("dir/\udcff.bin", [1.0], token="\udcff"),),
        notes=("\udcff",),
    )
    path = write_page(tmp_path / "index.html", report)
    html = path.read_text(encoding="utf-8")
    assert ">dir/\\udcff.bin</td>" in html
    assert parse(html).data("inspection")[0]["path"] == "dir/\udcff.bin"


def test_a_page_is_only_overwritten_when_asked(tmp_path):
    path = write_page(tmp_path / "new" / "index.html", Report("first"))
    with pytest.raises(FileExists):
        write_page(path, Report("second"))
    assert "first" in path.read_text(encoding="utf-8")
    assert write_page(path, Report("second"), overwrite=True) == path
    assert "second" in path.read_text(encoding="utf-8")


def test_importing_loads_neither_plotly_nor_jinja2():
    code = "import sys, dti_geom.reporting; sys.exit(bool({'plotly', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
