"""Render a result in a notebook."""

from collections.abc import Sequence
from typing import Any

from dti_geom.reporting.blocks import Figure, Finding, PointMap, Section
from dti_geom.reporting.registry import section_of
from dti_geom.reporting.renderers.page import blocks_html


def result_html(result: object) -> str:
    """Return a result's sentences, tables and pictures. Plots are only named: `show` draws them."""
    section = section_of(result)
    return _titled(section, blocks_html(_without_figures(section.blocks), section.title))


def show(result: object) -> None:
    """Display a result in a notebook: its sentences, plots, tables and pictures.

    Takes what a probe, `evaluate`, `interpolate`, `read_run` or a sweep returns. Raises
    DtiGeomError for anything else.
    """
    section = section_of(result)
    _display_html(_titled(section, ""))
    _show_blocks(section.blocks, section.title)


def _show_blocks(blocks: Sequence[Any], about: str) -> None:
    from IPython.display import display

    for block in blocks:
        if isinstance(block, Section):
            _display_html(_titled(block, ""))
            _show_blocks(block.blocks, block.title)
        elif isinstance(block, (Figure, PointMap)):
            display(block.draw())  # type: ignore[no-untyped-call]
            _display_html(blocks_html([Finding(block.caption)], about))
        else:
            _display_html(blocks_html([block], about))


def _display_html(html: str) -> None:
    from IPython.display import HTML, display

    display(HTML(html))  # type: ignore[no-untyped-call]


def _titled(section: Section, html: str) -> str:
    from markupsafe import escape

    aside = f" <small>{escape(section.aside)}</small>" if section.aside else ""
    return f"<h3>{escape(section.title)}{aside}</h3>{html}"


def _without_figures(blocks: Sequence[Any]) -> list[Any]:
    kept: list[Any] = []
    for block in blocks:
        if isinstance(block, Section):
            kept.append(Section(block.title, _without_figures(block.blocks), aside=block.aside))
        elif not isinstance(block, (Figure, PointMap)):
            kept.append(block)
    return kept
