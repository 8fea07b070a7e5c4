"""Settings of the documentation site: `make docs` builds it from the repository's own pages.

The source folder is the repository's root: a link between two of its files is a link of the site.
"""

import json
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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


def write_schemas(_app: object, _config: object) -> None:
    """Write the page of all JSON Schemas, which git ignores."""
    from dti_geom.reporting.registry import SECTIONS
    from dti_geom.reporting.schemas import schema_of

    parts = [
        "# JSON Schemas\n\nWhat `dti-geom schema RESULT` prints; {doc}`results` says of what.\n"
    ]
    for name in SECTIONS:
        schema = json.dumps(schema_of(name), indent=1, ensure_ascii=False)
        parts.append(f"## {name}\n\n```json\n{schema}\n```\n")
    page, text = Path(__file__).with_name("schemas.md"), "\n".join(parts)
    if not page.exists() or page.read_text() != text:  # else the page would be built again
        page.write_text(text)


def setup(app: "Sphinx") -> None:
    """Read docstrings as plain text, and write the page of schemas."""
    app.connect("config-inited", write_schemas)
    app.connect("autodoc-process-docstring", plain_text)
