"""Results as files: what other commands left, and what a report's folder keeps from one call to the next."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dti_geom import __version__
from dti_geom.errors import FileExists, ResultFileError
from dti_geom.files import dumps, load_result, save_result
from dti_geom.files.results import FORMAT
from dti_geom.reporting.page import Report, write_page

PAGE = "index.html"
RESULTS = "results"  # folder beside the page: a file for each section, of the kind that commands leave with --out
CONTENTS = "contents.json"


@dataclass(frozen=True)
class Contents:
    """What a report's folder holds beside its page."""

    model: str
    shown: tuple[str, ...]  # sections of the page
    keys: dict[
        str, str
    ]  # of all sections kept, by name: while a section's key is the same, so is its result


class ReportFolder:
    """A report on disk: its page, and one result file for each section, so that nothing is measured twice."""

    def __init__(self, path: Path, model: str, *, overwrite: bool = False) -> None:
        """Raises FileExists if the folder holds something else than a report of this model, unless told to overwrite.

        Raises ResultFileError for a report of a newer version.
        """
        self.path = Path(path)
        self._overwrite = overwrite
        held = held_contents(self.path)
        other = held is not None and held.model != model
        if not overwrite and (other or (held is None and (self.path / PAGE).exists())):
            what = f"a report of {held.model}" if held else "a page of another command"
            raise FileExists(
                f"{self.path} holds {what}, not one of {model}. Choose another --out or --model, or pass --overwrite "
                "to replace it."
            )
        if held is not None and other:
            for name in held.keys:
                self._file(name).unlink(missing_ok=True)
            held = None
        self._contents = held or Contents(model, (), {})

    def kept(self, section: str, key: str) -> Report | None:
        """The report of that section alone, if it is kept under this key."""
        if self._contents.keys.get(section) != key or not self._file(section).exists():
            return None
        return load_result(self._file(section), Report)

    def kept_sections(self) -> dict[str, Report]:
        """What the page shows now, section by section."""
        return {
            section: load_result(self._file(section), Report) for section in self._contents.shown
        }

    def keep(self, section: str, key: str, report: Report) -> None:
        """Write the report of a section to its file. Raises FileExists for a file that is not from here."""
        ours = section in self._contents.keys
        save_result(self._file(section), report, overwrite=self._overwrite or ours)
        self._write(replace(self._contents, keys=self._contents.keys | {section: key}))

    def write(self, sections: Mapping[str, Report]) -> Report:
        """Put these sections, by name, on the page. Returns the whole report."""
        report = merged(self._contents.model, sections.values())
        write_page(self.path / PAGE, report, overwrite=True)
        self._write(replace(self._contents, shown=tuple(sections)))
        return report

    def redraw(self) -> Report:
        """Draw the page again from what is kept. Returns the whole report."""
        return self.write(self.kept_sections())

    def _write(self, contents: Contents) -> None:
        self._contents = contents
        save_result(self.path / RESULTS / CONTENTS, contents, overwrite=True)

    def _file(self, section: str) -> Path:
        return self.path / RESULTS / f"{section}.json"


def held_contents(folder: Path) -> Contents | None:
    """What a folder says it holds; None if it is no report's. Raises ResultFileError for a newer version's."""
    file = Path(folder) / RESULTS / CONTENTS
    return load_result(file, Contents) if file.exists() else None


def read_report(folder: str | Path) -> Report:
    """The report in a folder that `dti-geom report` wrote. Raises ResultFileError."""
    held = held_contents(Path(folder))
    if held is None:
        raise ResultFileError(
            f"{folder} holds no report: it has no {RESULTS}/{CONTENTS}. Name what --out named."
        )
    files = [Path(folder) / RESULTS / f"{section}.json" for section in held.shown]
    return merged(held.model, [load_result(file, Report) for file in files])


def section_file(path: str | Path, section: str) -> Path:
    """The file of a result that a command left with --out; the path names it or the folder it lies in."""
    path = Path(path)
    return path / f"{section}.json" if path.is_dir() else path


def read_section(path: str | Path, section: str) -> Any:
    """The result that a command left with --out, by the name of its field in Report. Raises ResultFileError."""
    file = section_file(path, section)
    result = getattr(load_result(file, Report), section)
    if not result:
        raise ResultFileError(
            f"{file} holds no {section}; expected what the command that makes one wrote with --out."
        )
    return result


def merged(model: str, sections: Iterable[Report]) -> Report:
    """The sections of several reports as one."""
    held: dict[str, Any] = {"notes": (), "does_not_apply": {}}
    for one in sections:
        for field in fields(Report):
            value = getattr(one, field.name)
            if field.name == "notes":
                held["notes"] += value
            elif field.name == "does_not_apply":
                held["does_not_apply"] |= value
            elif field.name != "model" and value:
                held[field.name] = value
    return Report(model, **held)


def key_of(*inputs: Any) -> str:
    """A key of JSON values, other for every release and every format of results."""
    return hashlib.sha256(dumps([FORMAT, __version__, *inputs]).encode()).hexdigest()
