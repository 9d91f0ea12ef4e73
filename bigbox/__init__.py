"""bigbox: 21 cm brightness temperature painted onto dark-matter boxes far larger than memory."""

__version__ = "0.1.0"
