import dataclasses
import json
from pathlib import Path

import pytest

from dti_geom.errors import FileExists, ResultFileError
from dti_geom.files import save_result
from dti_geom.probes import Norms
from dti_geom.reporting import Report, ReportFolder, read_report, read_section, render_page
from dti_geom.reporting.results import key_of, merged
from dti_geom.reporting.sections.interpolation import nearest_along
from dti_geom.reporting.text import degrees, number, percent

MINI = Path(__file__).parents[2] / "reports" / "mini"


def parts_of(report):
    """A report of each section alone."""
    fields = [
        one.name
        for one in dataclasses.fields(Report)
        if one.name not in ("model", "notes", "does_not_apply")
    ]
    alone = {name: Report(report.model, **{name: getattr(report, name)}) for name in fields}
    return alone | {"norms": dataclasses.replace(alone["norms"], notes=report.notes)}


def test_sections_kept_apart_are_the_report_they_came_from(report, tmp_path):
    assert merged(report.model, parts_of(report).values()) == report
    folder = ReportFolder(tmp_path, report.model)
    for name, part in parts_of(report).items():
        folder.keep(name, "key", part)
    assert folder.write(parts_of(report)) == report
    assert read_report(tmp_path) == report
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == render_page(report)


def test_a_section_is_kept_under_its_key_alone(make_encoder, tmp_path):
    norms = Report("mini", norms=Norms("mini", (make_encoder(),)))
    ReportFolder(tmp_path, "mini").keep("norms", "key", norms)
    again = ReportFolder(tmp_path, "mini")
    assert again.kept("norms", "key") == norms
    assert again.kept("norms", "other") is None
    assert again.kept("swap", "key") is None


def test_a_key_is_other_for_other_inputs_and_other_releases(monkeypatch):
    key = key_of("mini", ["a"])
    assert key == key_of("mini", ("a",))
    assert key != key_of("mini", ["b"])
    monkeypatch.setattr("dti_geom.reporting.results.__version__", "9")
    assert key != key_of("mini", ["a"])


def test_a_folder_of_another_model_is_emptied_only_when_asked(make_encoder, tmp_path):
    norms = Report("mini", norms=Norms("mini", (make_encoder(),)))
    folder = ReportFolder(tmp_path, "mini")
    folder.keep("norms", "key", norms)
    with pytest.raises(FileExists, match="holds a report of mini, not one of sdxl"):
        ReportFolder(tmp_path, "sdxl")
    assert ReportFolder(tmp_path, "sdxl", overwrite=True).kept("norms", "key") is None
    assert not (tmp_path / "results" / "norms.json").exists()


def test_a_report_of_a_newer_version_is_refused(make_encoder, tmp_path):
    norms = Report("mini", norms=Norms("mini", (make_encoder(),)))
    folder = ReportFolder(tmp_path, "mini")
    folder.keep("norms", "key", norms)
    folder.write({"norms": norms})
    for name in ("norms", "contents"):
        file = tmp_path / "results" / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
        with pytest.raises(ResultFileError, match=f"{name}.json was written by .* in format 99"):
            read_report(tmp_path)
    with pytest.raises(ResultFileError, match="Upgrade dti-geom"):
        ReportFolder(tmp_path, "mini")


def test_a_section_is_read_from_its_file_or_from_the_folder_of_it(report, tmp_path):
    save_result(tmp_path / "evaluation.json", Report("mini", evaluation=report.evaluation))
    assert read_section(tmp_path, "evaluation") == report.evaluation
    assert read_section(tmp_path / "evaluation.json", "evaluation") == report.evaluation
    with pytest.raises(ResultFileError, match=r"evaluation.json holds no interpolation"):
        read_section(tmp_path / "evaluation.json", "interpolation")
    with pytest.raises(ResultFileError, match=r"interpolation.json is not a result file"):
        read_section(tmp_path, "interpolation")


def test_the_published_report_says_what_its_readme_says():
    report, note = read_report(MINI), (MINI / "README.md").read_text(encoding="utf-8")
    ti, dti = (run.result.vectors[0] for run in report.training)
    assert f"ends at {ti.inflation:.2f} times the mean norm" in note
    assert f"({degrees(ti.angle_to_start)} and {degrees(dti.angle_to_start)})" in note
    difference = next(one for one in report.evaluation.differences if one.group == "all")
    for one in (difference.subject, difference.text):
        told = ", ".join(f"{value:+.3f}" for value in (one.mean, one.low, one.high)).replace(
            "-", "−"
        )
        first, low, high = told.split(", ")
        assert first in note
        assert f"{low.lstrip('+')} to {high.lstrip('+')}" in note
    (encoder,) = report.attenuation.encoders
    longest = max(encoder.learned, key=lambda one: one.inflation)
    assert f"in {percent(100 * longest.accuracy)} of cases" in note
    assert f"chance is {number(100 / encoder.positions)} %" in note
    turns = {
        path.method: nearest_along(report.interpolation, path.vectors[0])[-1]
        for path in report.interpolation.paths
    }
    assert (
        f"is `fox` from t = {turns['lerp'].first:g} on, with slerp from {turns['slerp'].first:g}"
        in note
    )


def test_the_published_report_can_be_drawn_and_tells_nothing_of_a_machine():
    page = render_page(read_report(MINI))
    assert len(page.encode()) < 12_000_000
    for place in ("/home/", "/root/", "/tmp/", "/work/"):
        assert place not in page
