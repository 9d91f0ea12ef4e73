"""The box on disk: its arrays, the painting in progress, and the ledger of what is done."""

from bigbox.store.box import Box
from bigbox.store.cutouts import CutoutReader
from bigbox.store.shards import DamagedChunk

__all__ = ["Box", "CutoutReader", "DamagedChunk"]
