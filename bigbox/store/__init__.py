"""The box on disk: its arrays, the painting in progress, and the ledger of what is done."""

from bigbox.store.blocks import BlockReader
from bigbox.store.box import Box

__all__ = ["BlockReader", "Box"]
