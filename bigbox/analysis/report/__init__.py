"""Validate a box: its numbers, the verdict, the figures, the page."""
