"""Pictures, paths between tokens, and scores."""
