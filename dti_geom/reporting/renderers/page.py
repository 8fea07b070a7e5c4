"""Render sections as one HTML file that opens offline."""

import dataclasses
import gzip
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from dti_geom import __version__
from dti_geom.files import dumps, to_json
from dti_geom.reporting import plots, text
from dti_geom.reporting.blocks import Figure, Note, Pictures, PointMap, Section, Table
from dti_geom.reporting.cells import cell_texts
from dti_geom.reporting.opening import opening_of
from dti_geom.reporting.registry import section_data, section_of
from dti_geom.reporting.renderers.csv import section_csv
from dti_geom.reporting.report import Report

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


_JSON: dict[str, Any] = {"sort_keys": False, "allow_nan": False, "separators": (",", ":")}


@dataclass(frozen=True)
class _Part:
    """One section of the page."""

    name: str  # its anchor and the name of its downloads
    title: str
    html: "Markup"
    data: Any  # JSON values; None: the section has no result
    csv: str
    drawn: bool = False  # it has a plot


def page_html(report: Report) -> str:
    """Return the HTML of a report; the same report gives the same text.

    Raises ValueError for a number that is not finite.
    """
    dumps(report)  # refuses what is not finite before anything is drawn
    colors = {
        "ink": plots.INK,
        "muted": plots.MUTED,
        "rule": plots.GRID,
        "paper": plots.PAPER,
        "accent": plots.BLUE,
    }
    opening = opening_of(report)
    parts = list(_parts(report))
    if opening:
        section = opening.section
        html = blocks_html(section.blocks, section.title)
        # The slider stands above the plots that it moves a line through.
        parts.sort(key=lambda part: part.name != "magnitudes")
        parts.insert(0, _Part("result", section.title, html, None, ""))
    return (
        _templates()
        .get_template("page.html")
        .render(
            title=opening.title if opening else report.model,
            model=report.model,
            notes=report.notes,
            parts=parts,
            version=__version__,
            plotly=_packed_plotly() if any(part.drawn for part in parts) else "",
            colors=colors,
            dark=plots.DARK,
        )
    )


def blocks_html(blocks: Sequence[Any], about: str) -> "Markup":
    """Return the HTML of blocks. about: the label of tables without a title."""
    from markupsafe import Markup

    return Markup("").join(_block_html(block, about) for block in blocks)


def _parts(report: Report) -> list[_Part]:
    parts = []
    for name, result in report.sections():
        if isinstance(result, str):  # the reason why there is no result
            section = Section(name.capitalize(), [Note(f"Does not apply: {result}")])
            data, csv = None, ""
        else:
            section, data = section_of(result), to_json(section_data(result))
            csv = section_csv(section)
        html = blocks_html(section.blocks, section.title)
        parts.append(_Part(name, section.title, html, data, csv, _has_plot(section)))
    return parts


def _has_plot(section: Section) -> bool:
    return any(
        _has_plot(block) if isinstance(block, Section) else isinstance(block, Figure | PointMap)
        for block in section.blocks
    )


@cache
def _packed_plotly() -> str:
    """Plotly's JavaScript: 2.0 of 4.8 MB."""
    from plotly.offline import get_plotlyjs

    return packed(get_plotlyjs())


def packed(content: Any) -> str:
    """Return a text as it is, or a value as JSON, compressed by gzip, in base64."""
    text = content if isinstance(content, str) else json.dumps(content, **_JSON)
    return b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _block_html(block: Any, about: str) -> "Markup":
    from markupsafe import Markup

    context: dict[str, Any] = {"block": block, "about": about}
    match block:
        case Figure():
            context["figure"] = block.draw()
        case PointMap():
            context["points"] = {
                field.name: to_json(getattr(block, field.name))
                for field in dataclasses.fields(block)
                if field.name not in ("draw", "caption")
            }
        case Table():
            context["rows"] = cell_texts(block)
        case Section():
            context["inner"] = blocks_html(block.blocks, block.title)
        case Pictures() if not block.rows:
            return Markup("")
    template = _templates().get_template(f"blocks/{type(block).__name__.lower()}.html")
    return Markup(template.render(context))


def _linked(sentence: str) -> "Markup":
    """Escape a sentence and link the papers it names, such as arXiv 2512.13672."""
    from markupsafe import Markup, escape

    link = r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>'
    return Markup(re.sub(r"arXiv (\d{4}\.\d{5})", link, str(escape(sentence))))


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("dti_geom.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # tojson writes <, > and & as \u escapes, so that no text can close the script it stands in.
    templates.policies["json.dumps_kwargs"] = _JSON
    templates.filters |= {
        "linked": _linked,
        "packed": packed,
        "shown": text.shown,
        "sentence": text.sentence,
        "short": text.short_path,
    }
    return templates
