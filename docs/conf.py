"""Settings of the documentation site: `make docs` builds it from the repository's own pages.

The source folder is the repository's root: a link between two of its files is a link of the site.
"""

import json
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

    from dti_geom.reporting.report import Report

project = "dti-geom"
author = "the authors of dti-geom"
version = release = version_of("dti-geom")

extensions = ["myst_nb", "sphinx.ext.autodoc"]
master_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "cli/README.md",
    "dti_geom/mini/weights/MODEL_CARD.md",
    "docs/**",
    "notebooks/*.ipynb",
    "reports/*/README.md",
]

myst_heading_anchors = 3
nb_execution_mode = "off"  # `make test` runs the notebooks; here their committed outputs are shown
nb_merge_streams = True

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"dti-geom {version}"
html_show_sphinx = False
html_show_copyright = False
smartquotes = False  # it turns the two dashes of an option into one


def plain_text(
    _app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Turn a docstring into reStructuredText: here docstrings are plain text.

    Its marks stand for themselves, indented paragraphs and what stands between backticks are code,
    and a paragraph in which a line is indented keeps its lines.
    """
    written: list[str] = []
    in_code = False
    for paragraph in "\n".join(lines).split("\n\n"):
        rows = paragraph.split("\n")
        was_in_code, in_code = in_code, all(row.startswith("  ") or not row for row in rows)
        if in_code:
            written += [] if was_in_code else ["::", ""]
            written += [*(f"    {row}" for row in rows), ""]
            continue
        parts = "\n".join(rows).split("`")
        for place in range(0, len(parts), 2):  # outside of backticks
            for mark in "\\*|_":
                parts[place] = parts[place].replace(mark, f"\\{mark}")
        text = "``".join(parts).split("\n")
        keep = any(row.startswith(" ") for row in rows)
        written += [*(f"| {row.strip()}" for row in text)] if keep else text
        written += [""]
    lines[:] = written


HERE = Path(__file__).parent
REPORTS = HERE.parent / "reports"


def write_page(name: str, text: str) -> None:
    """Write a page of the site that git ignores."""
    page = HERE / name
    if not page.exists() or page.read_text() != text:  # else it would be built again
        page.write_text(text)


def write_schemas(_app: object, _config: object) -> None:
    """Write the page of all JSON Schemas."""
    from dti_geom.reporting.registry import SECTIONS
    from dti_geom.reporting.schemas import schema_of

    parts = [
        "# JSON Schemas\n\nWhat `dti-geom schema RESULT` prints; {doc}`results` says of what.\n"
    ]
    for name in SECTIONS:
        schema = json.dumps(schema_of(name), indent=1, ensure_ascii=False)
        parts.append(f"## {name}\n\n```json\n{schema}\n```\n")
    write_page("schemas.md", "\n".join(parts))


@cache
def published() -> "list[tuple[str, str, Report]]":
    """Return what `reports/` holds: the address of its page, what it is called, and the report."""
    from dti_geom.files.results import load_result
    from dti_geom.reporting.folder import read_report
    from dti_geom.reporting.registry import OTHER_RESULTS, result_type
    from dti_geom.reporting.report import Report

    sections = {place.partition(":")[2]: name for name, place in OTHER_RESULTS.items()}
    reports = [("mini/index.html", "everything on mini", read_report(REPORTS / "mini"))]
    for path in sorted(REPORTS.glob("*/*.json")):
        found = json.loads(path.read_text())
        kind = found.get("kind")  # what an experiment wrote is no result of a command, and has none
        name = found["result"]["probe"] if kind == "Measurement" else sections.get(kind)
        if name is not None:
            result = load_result(path, result_type(name))
            place = path.relative_to(REPORTS).with_suffix("")
            reports.append((f"{place}.html", str(place), Report("mini", {name: result})))
    return reports


def list_reports(_app: object, _config: object) -> None:
    """Write the page that links to the pages of `write_reports`."""
    links = [
        f'<li><a href="../reports/{address}">{name}</a></li>' for address, name, _ in published()
    ]
    html = "\n".join(["```{raw} html", "<ul>", *links, "</ul>", "```"])
    write_page("pages.md", f"# Interactive reports\n\nThe published results, as pages.\n\n{html}\n")


def write_reports(app: "Sphinx", error: Exception | None) -> None:
    """Write the page of every published result into the site."""
    from dti_geom.reporting.renderers.page import page_html

    if error is None:
        for address, _, report in published():
            page = Path(app.outdir) / "reports" / address
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(page_html(report), encoding="utf-8")


def setup(app: "Sphinx") -> None:
    """Read docstrings as plain text, and write the pages that are generated."""
    app.connect("config-inited", write_schemas)
    app.connect("config-inited", list_reports)
    app.connect("build-finished", write_reports)
    app.connect("autodoc-process-docstring", plain_text)
