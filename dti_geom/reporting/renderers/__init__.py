"""Four renderers of the same blocks: page, terminal, notebook and CSV."""
