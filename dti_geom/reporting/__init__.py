"""Show results: a section of blocks for each, rendered as page, terminal text, notebook and CSV."""
