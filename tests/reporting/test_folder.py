import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dti_geom.errors import FileExists, ResultFileError
from dti_geom.files import save_result
from dti_geom.probes.measuring import Measurement
from dti_geom.probes.norms import NormsResult
from dti_geom.reporting.folder import (
    Made,
    ReportFolder,
    key_of,
    read_report,
    read_result,
    write_result_page,
)
from dti_geom.reporting.renderers.page import page_html
from dti_geom.reporting.report import Report
from dti_geom.reporting.sections.interpolation import nearest_along
from dti_geom.reporting.text import degrees, number, percent
from packed_pages import unpacked

MINI = Path(__file__).parents[2] / "reports" / "mini"


@pytest.fixture
def norms(make_encoder: Callable[..., NormsResult]) -> Made:
    return Made(Measurement("norms", "mini", (make_encoder(),), ()), notes=("A note.",))


def test_sections_kept_apart_are_the_report_they_came_from(report: Report, tmp_path: Path) -> None:
    made = {name: Made(result) for name, result in report.results.items()}
    made["norms"] = Made(report.results["norms"], notes=report.notes)
    folder = ReportFolder(tmp_path, report.model)
    for name, part in made.items():
        folder.keep(name, "key", part)
    assert folder.write(made) == report
    assert read_report(tmp_path) == report
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == page_html(report)


def test_a_section_is_kept_under_its_key_alone(norms: Made, tmp_path: Path) -> None:
    ReportFolder(tmp_path, "mini").keep("norms", "key", norms)
    again = ReportFolder(tmp_path, "mini")
    assert again.kept("norms", "key") == norms
    assert again.kept("norms", "other") is None
    assert again.kept("swap", "key") is None


def test_the_reason_why_a_section_has_no_result_is_kept_too(norms: Made, tmp_path: Path) -> None:
    folder = ReportFolder(tmp_path, "mini")
    folder.keep("norms", "key", norms)
    reason = Made(None, "It has rotary positions.")
    folder.keep("attenuation", "key", reason)
    again = ReportFolder(tmp_path, "mini")
    assert again.kept("attenuation", "key") == reason
    report = again.write({"norms": norms, "attenuation": reason})
    assert report.does_not_apply == {"attenuation": "It has rotary positions."}
    assert read_report(tmp_path) == report
    assert report.notes == ("A note.",)


def test_a_key_differs_for_other_inputs_and_other_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of("mini", ["a"])
    assert key == key_of("mini", ("a",))
    assert key != key_of("mini", ["b"])
    monkeypatch.setattr("dti_geom.reporting.folder.__version__", "9")
    assert key != key_of("mini", ["a"])


def test_a_folder_of_another_model_is_emptied_only_when_asked(norms: Made, tmp_path: Path) -> None:
    folder = ReportFolder(tmp_path, "mini")
    folder.keep("norms", "key", norms)
    with pytest.raises(FileExists, match="holds a report of mini, not a report of sdxl"):
        ReportFolder(tmp_path, "sdxl")
    assert ReportFolder(tmp_path, "sdxl", overwrite=True).kept("norms", "key") is None
    assert not (tmp_path / "results" / "norms.json").exists()


def test_runs_and_results_leave_the_page_only_when_asked_and_files_with_a_notice(
    norms: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ReportFolder(tmp_path, "mini")
    folder.take(["the run a", "the run b"], ["x.pt"])
    folder.keep("norms", "key", norms)
    with pytest.raises(FileExists, match="also shows the run a"):
        ReportFolder(tmp_path, "mini").take(["the run b", "the sweep"], ["x.pt"])
    ReportFolder(tmp_path, "mini").take(["the run a", "the run b", "the sweep"], ["x.pt"])
    assert caplog.text == ""
    ReportFolder(tmp_path, "mini", overwrite=True).take(["the run b"], [])
    assert "no longer on the page: x.pt" in caplog.text


def test_a_report_of_a_newer_version_is_refused(norms: Made, tmp_path: Path) -> None:
    folder = ReportFolder(tmp_path, "mini")
    folder.keep("norms", "key", norms)
    folder.write({"norms": norms})
    for name in ("norms", "contents"):
        file = tmp_path / "results" / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
        with pytest.raises(ResultFileError, match=rf"{name}\.json was written by .* in format 99"):
            read_report(tmp_path)
    with pytest.raises(ResultFileError, match="Upgrade dti-geom"):
        ReportFolder(tmp_path, "mini")


def test_a_result_is_read_from_its_file_or_from_its_folder(report: Report, tmp_path: Path) -> None:
    evaluation = report.results["evaluation"]
    save_result(tmp_path / "evaluation.json", evaluation)
    assert read_result(tmp_path, "evaluation") == evaluation
    assert read_result(tmp_path / "evaluation.json", "evaluation") == evaluation
    with pytest.raises(ResultFileError, match="kind Evaluation"):
        read_result(tmp_path / "evaluation.json", "interpolation")
    with pytest.raises(ResultFileError, match=r"interpolation\.json is not a result file"):
        read_result(tmp_path, "interpolation")


def test_a_page_and_its_result_are_replaced_only_when_asked(norms: Made, tmp_path: Path) -> None:
    out = tmp_path / "new"
    page = write_result_page(out, "norms", "first", norms.result, overwrite=False)
    with pytest.raises(FileExists):
        write_result_page(out, "norms", "second", norms.result, overwrite=False)
    assert "first" in page.read_text(encoding="utf-8")
    write_result_page(out, "norms", "second", norms.result, overwrite=True)
    assert "second" in page.read_text(encoding="utf-8")
    assert read_result(out, "norms") == norms.result


def test_the_published_report_says_what_its_readme_says() -> None:
    report, note = read_report(MINI), (MINI / "README.md").read_text(encoding="utf-8")
    results: dict[str, Any] = report.results
    ti, dti = (run.result.vectors[0] for run in results["training"].runs)
    assert f"ends at {ti.inflation:.2f} times the mean norm" in note
    assert f"({degrees(ti.angle_to_start)} and {degrees(dti.angle_to_start)})" in note
    differences = results["evaluation"].differences
    overall = next(difference for difference in differences if difference.group == "all")
    for score in (overall.subject, overall.text):
        mean, low, high = (
            f"{value:+.3f}".replace("-", "−") for value in (score.mean, score.low, score.high)
        )
        assert mean in note
        assert f"{low.lstrip('+')} to {high.lstrip('+')}" in note
    (encoder,) = results["attenuation"].encoders
    longest = max(encoder.learned, key=lambda signal: signal.inflation)
    assert f"in {percent(100 * longest.accuracy)} of cases" in note
    assert f"chance is {number(100 / encoder.positions)} %" in note
    turns = {
        path.method: nearest_along(results["interpolation"], path.vectors[0])[-1]
        for path in results["interpolation"].paths
    }
    lerp, slerp = turns["lerp"].first, turns["slerp"].first
    assert f"is `fox` from t = {lerp:g} on, with slerp from {slerp:g}" in note


def test_the_published_report_can_be_drawn_and_tells_nothing_of_a_machine() -> None:
    page = unpacked(page_html(read_report(MINI)))
    assert len(page.encode()) < 12_000_000
    for place in ("/home/", "/root/", "/tmp/", "/work/"):
        assert place not in page
