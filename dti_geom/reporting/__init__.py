"""Results in, page out: one self-contained HTML file that opens offline.

The figure functions also serve notebooks. plotly and jinja2 are loaded by the first call that needs them.
"""

from dti_geom.reporting.page import SECTIONS, Report, Section, render_page, write_page
from dti_geom.reporting.results import ReportFolder, read_report, read_section, section_file
from dti_geom.reporting.sections.angles import angle_figure, angle_finding
from dti_geom.reporting.sections.attention import attention_figure, attention_finding, map_figure
from dti_geom.reporting.sections.attenuation import attenuation_figure, attenuation_finding
from dti_geom.reporting.sections.inspection import (
    Trajectory,
    inflation_figure,
    inflation_finding,
    trajectories,
    trajectory_figure,
    trajectory_finding,
)
from dti_geom.reporting.sections.interpolation import (
    interpolation_finding,
    likeness_finding,
    path_figure,
    step_figure,
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
from dti_geom.reporting.sections.swap import swap_figure, swap_finding, sweep_finding
from dti_geom.reporting.sections.training import course_figure, pace_figure, training_finding

__all__ = [
    "SECTIONS",
    "Report",
    "ReportFolder",
    "Section",
    "Trajectory",
    "angle_figure",
    "angle_finding",
    "attention_figure",
    "attention_finding",
    "attenuation_figure",
    "attenuation_finding",
    "branch_figure",
    "course_figure",
    "inflation_figure",
    "inflation_finding",
    "interpolation_finding",
    "likeness_finding",
    "map_figure",
    "neighbors_finding",
    "norm_figure",
    "norm_finding",
    "overlap_figure",
    "overlap_finding",
    "pace_figure",
    "path_figure",
    "read_report",
    "read_section",
    "render_page",
    "section_file",
    "shared_tokens",
    "stagnation_figure",
    "stagnation_finding",
    "step_figure",
    "swap_figure",
    "swap_finding",
    "sweep_finding",
    "training_finding",
    "trajectories",
    "trajectory_figure",
    "trajectory_finding",
    "write_page",
]
