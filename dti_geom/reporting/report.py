"""A report: the results of one model, and why others are missing."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from dti_geom.reporting.registry import SECTIONS


@dataclass(frozen=True)
class Report:
    """What is known of one model, by section."""

    model: str
    results: dict[str, object] = field(default_factory=dict)  # by section name
    does_not_apply: dict[str, str] = field(default_factory=dict)  # sections without one, and why
    notes: tuple[str, ...] = ()  # plain sentences for the top of the page

    def sections(self) -> Iterator[tuple[str, object]]:
        """Yield each section's name and its result, or why it has none, in page order."""
        for name in SECTIONS:
            if name in self.results:
                yield name, self.results[name]
            elif name in self.does_not_apply:
                yield name, self.does_not_apply[name]
