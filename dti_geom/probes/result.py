"""The base of what probes return."""

import importlib


class Result:
    """A result that shows itself in a notebook, by the section that the page shows too."""

    def _repr_html_(self) -> str:
        # Named, not imported: reporting lies above this layer.
        notebook = importlib.import_module("dti_geom.reporting.renderers.notebook")
        html: str = notebook.result_html(self)
        return html
