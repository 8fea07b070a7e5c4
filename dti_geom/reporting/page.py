"""The page: a table of sections, and the one file that holds them all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dti_geom import __version__
from dti_geom.evaluation import Interpolation
from dti_geom.evaluation.evaluation import Evaluation
from dti_geom.evaluation.reference import TABLES, Comparison
from dti_geom.files import dumps, to_json, write_text
from dti_geom.geometry import PERCENTILES
from dti_geom.probes import (
    Angles,
    Attention,
    Attenuation,
    InspectedFile,
    Neighbors,
    Norms,
    Stagnation,
    Swap,
)
from dti_geom.reporting import plots, text
from dti_geom.reporting.sections.angles import angle_figure, angle_finding
from dti_geom.reporting.sections.attention import (
    attention_figure,
    attention_finding,
    layer_rows,
    map_figure,
)
from dti_geom.reporting.sections.attenuation import attenuation_figure, attenuation_finding
from dti_geom.reporting.sections.evaluation import (
    comparison_figure,
    comparison_finding,
    evaluation_finding,
    example_finding,
    example_methods,
    example_rows,
    examples,
    interval_text,
    overall_methods,
    prompt_rows,
    score,
    tradeoff_figure,
    without_small_pictures,
)
from dti_geom.reporting.sections.inspection import (
    inflation_figure,
    inflation_finding,
    ordered,
    trajectories,
    trajectory_figure,
    trajectory_finding,
)
from dti_geom.reporting.sections.interpolation import (
    interpolation_finding,
    likeness_finding,
    nearest_along,
    path_figure,
    step_figure,
    without_thumbnails,
)
from dti_geom.reporting.sections.neighbors import (
    neighbors_finding,
    overlap_figure,
    overlap_finding,
    shared_tokens,
)
from dti_geom.reporting.sections.norms import norm_figure, norm_finding
from dti_geom.reporting.sections.stagnation import (
    branch_figure,
    stagnation_figure,
    stagnation_finding,
)
from dti_geom.reporting.sections.swap import (
    OUTPUTS,
    painted_finding,
    swap_figure,
    swap_finding,
    sweep_finding,
)
from dti_geom.reporting.sections.sweep import (
    by_group,
    is_clear,
    mean_inflation,
    methods_finding,
    missing,
    norm_score_finding,
    norm_scores_figure,
    overall_differences,
    overall_summaries,
    scores_figure,
)
from dti_geom.reporting.sections.training import (
    course_figure,
    duration,
    pace_figure,
    strips,
    training_finding,
    without_pictures,
)
from dti_geom.sweeps import Sweep
from dti_geom.training import TrainingRun

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Report:
    """What is known of one model; a part that was not measured is absent."""

    model: str
    norms: Norms | None = None
    neighbors: tuple[Neighbors, ...] = ()
    inspected: tuple[InspectedFile, ...] = ()
    swap: Swap | None = None
    attenuation: Attenuation | None = None
    stagnation: Stagnation | None = None
    attention: Attention | None = None
    angles: Angles | None = None
    training: tuple[TrainingRun, ...] = ()
    evaluation: Evaluation | None = None
    comparison: Comparison | None = None
    sweep: Sweep | None = None
    interpolation: Interpolation | None = None
    notes: tuple[str, ...] = ()  # plain sentences
    does_not_apply: dict[str, str] = field(
        default_factory=dict
    )  # sections that have no result, and why


@dataclass(frozen=True)
class Section:
    """One part of the page: its template `templates/<name>.html` gets `result`, `report` and the helpers by name."""

    name: str
    title: str
    result: Callable[[Report], Any]  # nothing, and the section is absent
    helpers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


SECTIONS = (
    Section(
        "norms",
        "Token norms",
        lambda report: report.norms,
        {"figure": norm_figure, "finding": norm_finding},
    ),
    Section(
        "swap",
        "Direction against magnitude",
        lambda report: report.swap,
        {
            "figure": swap_figure,
            "finding": swap_finding,
            "sweep_finding": sweep_finding,
            "painted_finding": painted_finding,
            "output_name": OUTPUTS.get,
        },
    ),
    Section(
        "attenuation",
        "Position against magnitude",
        lambda report: report.attenuation,
        {"figure": attenuation_figure, "finding": attenuation_finding},
    ),
    Section(
        "stagnation",
        "Turn against magnitude",
        lambda report: report.stagnation,
        {"figure": stagnation_figure, "branches": branch_figure, "finding": stagnation_finding},
    ),
    Section(
        "attention",
        "Attention against magnitude",
        lambda report: report.attention,
        {
            "figure": attention_figure,
            "map_figure": map_figure,
            "finding": attention_finding,
            "layer_rows": layer_rows,
        },
    ),
    Section(
        "inspection",
        "Learned embeddings",
        lambda report: report.inspected,
        {
            "figure": inflation_figure,
            "finding": inflation_finding,
            "ordered": ordered,
            "trajectories": trajectories,
            "trajectory_figure": trajectory_figure,
            "trajectory_finding": trajectory_finding,
        },
    ),
    Section(
        "neighbors",
        "Nearest tokens",
        lambda report: report.neighbors,
        {
            "figure": overlap_figure,
            "finding": overlap_finding,
            "query_finding": neighbors_finding,
            "shared": shared_tokens,
        },
    ),
    Section(
        "angles",
        "Angles to initialisers",
        lambda report: report.angles,
        {"figure": angle_figure, "finding": angle_finding},
    ),
    Section(
        "training",
        "Training runs",
        lambda report: without_pictures(report.training),
        {
            "course": course_figure,
            "pace": pace_figure,
            "finding": training_finding,
            "strips": strips,
            "duration": duration,
        },
    ),
    Section(
        "images",
        "What they paint",
        lambda report: examples(report.evaluation),
        {
            "finding": example_finding,
            "methods": example_methods,
            "rows": example_rows,
            "score": score,
        },
    ),
    Section(
        "interpolation",
        "Between tokens",
        lambda report: without_thumbnails(report.interpolation),
        {
            "finding": interpolation_finding,
            "likeness_finding": likeness_finding,
            "nearest_along": nearest_along,
            "path_figure": path_figure,
            "step_figure": step_figure,
        },
    ),
    Section(
        "evaluation",
        "Subject against text",
        lambda report: without_small_pictures(report.evaluation),
        {
            "figure": tradeoff_figure,
            "finding": evaluation_finding,
            "interval": interval_text,
            "score": score,
            "methods_of": overall_methods,
            "prompts": prompt_rows,
        },
    ),
    Section(
        "comparison",
        "Beside the paper",
        lambda report: report.comparison,
        {
            "figure": comparison_figure,
            "finding": comparison_finding,
            "interval": interval_text,
            "score": score,
            "tables": TABLES.items,
        },
    ),
    Section(
        "sweep",
        "Methods against one another",
        lambda report: report.sweep,
        {
            "figure": scores_figure,
            "norms": norm_scores_figure,
            "finding": methods_finding,
            "norm_finding": norm_score_finding,
            "missing": missing,
            "mean_inflation": mean_inflation,
            "overall": overall_summaries,
            "differences": overall_differences,
            "is_clear": is_clear,
            "by_group": by_group,
            "interval": interval_text,
            "score": score,
        },
    ),
)


def write_page(path: Path, report: Report, *, overwrite: bool = False) -> Path:
    """Write the report as one HTML file that needs nothing beside it. Raises FileExists unless told to overwrite."""
    write_text(path, render_page(report), overwrite=overwrite)
    return path


def render_page(report: Report) -> str:
    """The HTML of a report; the same report gives the same text. Raises ValueError for a number that is not finite."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    dumps(report)  # refuses what is not finite before anything is drawn
    templates = _templates()
    parts: list[dict[str, Any]] = []
    for section in SECTIONS:
        part = {"name": section.name, "title": section.title}
        if result := section.result(report):
            template = templates.get_template(f"{section.name}.html")
            html = template.render(result=result, report=report, **section.helpers)
            parts.append(part | {"data": to_json(result), "html": Markup(html)})
        elif reason := report.does_not_apply.get(section.name):
            parts.append(part | {"html": "", "reason": reason})
    return templates.get_template("page.html").render(
        report=report, parts=parts, version=__version__, plotly=Markup(get_plotlyjs())
    )


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
    templates.policies["json.dumps_kwargs"] = {
        "sort_keys": False,
        "allow_nan": False,
        "separators": (",", ":"),
    }
    templates.filters |= {
        "number": text.number,
        "times": text.times,
        "percent": text.percent,
        "degrees": text.degrees,
        "short": text.short_path,
        "shown": text.shown,
    }
    colors = {
        "ink": plots.INK,
        "muted": plots.MUTED,
        "rule": plots.GRID,
        "paper": plots.PAPER,
        "accent": plots.BLUE,
    }
    templates.globals |= {
        "colors": colors,
        "dark": plots.DARK,
        "percentiles": PERCENTILES,
        "zip": zip,
    }
    return templates
