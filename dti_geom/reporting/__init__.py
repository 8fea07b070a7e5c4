"""Results in, page out: one self-contained HTML file that opens offline.

The figure functions also serve notebooks. plotly and jinja2 are loaded by the first call that needs them.
"""

from dti_geom.reporting.inspection import (
    Trajectory,
    inflation_figure,
    inflation_finding,
    trajectories,
    trajectory_figure,
    trajectory_finding,
)
from dti_geom.reporting.neighbors import neighbors_finding, overlap_figure, overlap_finding, shared_tokens
from dti_geom.reporting.norms import norm_figure, norm_finding
from dti_geom.reporting.page import SECTIONS, Report, Section, render_page, write_page

__all__ = [
    "SECTIONS",
    "Report",
    "Section",
    "Trajectory",
    "inflation_figure",
    "inflation_finding",
    "neighbors_finding",
    "norm_figure",
    "norm_finding",
    "overlap_figure",
    "overlap_finding",
    "render_page",
    "shared_tokens",
    "trajectories",
    "trajectory_figure",
    "trajectory_finding",
    "write_page",
]
