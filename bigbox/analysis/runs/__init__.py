"""Show one run on a page: what was done when, and how busy each rank was."""

from bigbox.analysis.runs.page import write_page

__all__ = ["write_page"]
