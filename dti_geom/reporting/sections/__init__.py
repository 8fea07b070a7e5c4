"""One function per result: result → `Section`."""
