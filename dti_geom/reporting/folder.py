"""A report on disk: its page, and one result file for each section."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dti_geom import __version__
from dti_geom.errors import FileExists, ResultFileError
from dti_geom.evaluation.gallery import gallery_of
from dti_geom.evaluation.pictures import Pictures
from dti_geom.files import dumps, load_result, save_result, write_text
from dti_geom.files.results import FORMAT
from dti_geom.progress import notice
from dti_geom.reporting.registry import SECTIONS, result_type
from dti_geom.reporting.renderers.page import page_html
from dti_geom.reporting.report import Report

PAGE = "index.html"
GALLERY = "pictures.html"  # another name, for pictures may lie in a folder that has a page
RESULTS = "results"  # folder beside the page: a file for each section
CONTENTS = "contents.json"


@dataclass(frozen=True)
class Made:
    """What a section came to: a result, or the reason why there is none."""

    result: object | None
    reason: str = ""
    notes: tuple[str, ...] = ()  # for the top of the page


@dataclass(frozen=True)
class Contents:
    """What a report's folder holds beside its page."""

    model: str
    shown: tuple[str, ...] = ()  # sections of the page
    keys: dict[str, str] = field(default_factory=dict)  # by section: equal keys, equal results
    reasons: dict[str, str] = field(default_factory=dict)  # of sections without a result
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by section
    # What the page was made from, as it calls them; losing one of `given` is never silent.
    given: tuple[str, ...] = ()  # runs, and results of other commands
    files: tuple[str, ...] = ()  # of learned embeddings


class ReportFolder:
    """A report on disk that measures nothing twice."""

    def __init__(self, path: Path, model: str, *, overwrite: bool = False) -> None:
        """Open a folder for a report of this model.

        Raises FileExists if it holds something else, unless `overwrite`; ResultFileError for a
        report of a newer version.
        """
        self.path = Path(path)
        self._overwrite = overwrite
        stored = _stored_contents(self.path)
        is_other = stored is not None and stored.model != model
        if not overwrite and (is_other or (stored is None and (self.path / PAGE).exists())):
            content = f"a report of {stored.model}" if stored else "a page of another command"
            raise FileExists(
                f"{self.path} holds {content}, not a report of {model}. Choose another --out or "
                "--model, or pass --overwrite to replace it."
            )
        if stored is not None and is_other:
            for name in stored.keys:
                self._file(name).unlink(missing_ok=True)
            stored = None
        self._contents = stored or Contents(model)

    def take(self, given: Sequence[str], files: Sequence[str]) -> None:
        """Note what the page will be made from.

        Raises FileExists if the page shows runs or results that are not among them, unless
        `overwrite`. Embedding files that go are named in a notice.
        """
        lost = [name for name in self._contents.given if name not in given]
        if lost and not self._overwrite:
            raise FileExists(
                f"the page in {self.path} also shows {', '.join(lost)}. Name them again to keep "
                "them, choose another --out, or pass --overwrite to leave them out."
            )
        gone = [name for name in self._contents.files if name not in files]
        if gone:
            notice(f"no longer on the page: {', '.join(gone)}")
        self._contents = replace(self._contents, given=tuple(given), files=tuple(files))

    def kept(self, section: str, key: str) -> Made | None:
        """Return what is kept of a section under this key, or None."""
        if self._contents.keys.get(section) != key:
            return None
        if section not in self._contents.reasons and not self._file(section).exists():
            return None
        return self._read(section)

    def kept_sections(self) -> dict[str, Made]:
        """Return what the page shows now, by section."""
        return {section: self._read(section) for section in self._contents.shown}

    def keep(self, section: str, key: str, made: Made) -> None:
        """Write what a section came to. Raises FileExists for a file that is not from here."""
        contents, file = self._contents, self._file(section)
        if made.result is None:
            file.unlink(missing_ok=True)
        else:
            ours = section in contents.keys
            save_result(file, made.result, overwrite=self._overwrite or ours)
        reasons = {name: text for name, text in contents.reasons.items() if name != section}
        if made.result is None:
            reasons[section] = made.reason
        self._write(
            replace(
                contents,
                keys=contents.keys | {section: key},
                reasons=reasons,
                notes=contents.notes | {section: made.notes},
            )
        )

    def write(self, sections: Mapping[str, Made]) -> Report:
        """Put these sections on the page and return the whole report."""
        report = _report(self._contents.model, sections)
        write_text(self.path / PAGE, page_html(report), overwrite=True)
        self._write(replace(self._contents, shown=tuple(sections)))
        return report

    def redraw(self) -> Report:
        """Draw the page again from what is kept and return the whole report."""
        return self.write(self.kept_sections())

    def _read(self, section: str) -> Made:
        notes = self._contents.notes.get(section, ())
        if section in self._contents.reasons:
            return Made(None, self._contents.reasons[section], notes)
        return Made(load_result(self._file(section), result_type(section)), notes=notes)

    def _write(self, contents: Contents) -> None:
        self._contents = contents
        save_result(self.path / RESULTS / CONTENTS, contents, overwrite=True)

    def _file(self, section: str) -> Path:
        return self.path / RESULTS / f"{section}.json"


def read_report(folder: str | Path) -> Report:
    """Read the report in a folder that `dti-geom report` wrote. Raises ResultFileError."""
    contents = _stored_contents(Path(folder))
    if contents is None:
        raise ResultFileError(
            f"{folder} holds no report: it has no {RESULTS}/{CONTENTS}. Name the folder that --out "
            "named."
        )
    return _report(contents.model, ReportFolder(Path(folder), contents.model).kept_sections())


def result_file(path: str | Path, name: str) -> Path:
    """Return the file of a result that a command left with --out; path: the file or its folder."""
    path = Path(path)
    return path / f"{name}.json" if path.is_dir() else path


def read_result(path: str | Path, name: str) -> Any:
    """Read the result that a command wrote to --out. name: a section. Raises ResultFileError."""
    return load_result(result_file(path, name), result_type(name))


def write_result_page(
    folder: Path,
    name: str,
    model: str,
    result: object,
    *,
    overwrite: bool,
    notes: tuple[str, ...] = (),
) -> Path:
    """Write one result as NAME.json and as a page; return the page's path. Raises FileExists."""
    return write_results_page(folder, model, {name: result}, overwrite=overwrite, notes=notes)


def write_results_page(
    folder: Path,
    model: str,
    results: dict[str, object],
    *,
    overwrite: bool,
    notes: tuple[str, ...] = (),
) -> Path:
    """Write results by section name, each as NAME.json, and one page. Returns the page's path."""
    for name, result in results.items():
        save_result(folder / f"{name}.json", result, overwrite=overwrite)
    page = folder / PAGE
    write_text(page, page_html(Report(model, results, notes=notes)), overwrite=overwrite)
    return page


def save_gallery(pictures: Pictures, folder: Path) -> Path:
    """Write the page of painted pictures beside them, anew each time; return its path."""
    page = folder / GALLERY
    gallery = gallery_of(pictures, folder)
    write_text(page, page_html(Report(pictures.model, {"gallery": gallery})), overwrite=True)
    return page


def key_of(*inputs: Any) -> str:
    """Return a key of JSON values; it differs for every release and format of results."""
    return hashlib.sha256(dumps([FORMAT, __version__, *inputs]).encode()).hexdigest()


def _stored_contents(folder: Path) -> Contents | None:
    file = folder / RESULTS / CONTENTS
    return load_result(file, Contents) if file.exists() else None


def _report(model: str, sections: Mapping[str, Made]) -> Report:
    ordered = sorted(sections, key=SECTIONS.index)
    notes: list[str] = []
    for name in ordered:
        notes += sections[name].notes
    return Report(
        model,
        results={
            name: made.result for name in ordered if (made := sections[name]).result is not None
        },
        does_not_apply={
            name: made.reason for name in ordered if (made := sections[name]).result is None
        },
        notes=tuple(notes),
    )
