"""Embedding geometry for text-to-image models, and Directional Textual Inversion."""

__version__ = "0.1.0"
