"""The box on disk: its arrays, the painting in progress, and the ledger of what is done."""

from bigbox.store.blocks import BlockReader
from bigbox.store.box import Box
from bigbox.store.painting import Painting
from bigbox.store.run import discard_painting, start_run
from bigbox.store.shards import DamagedTile

__all__ = ["BlockReader", "Box", "DamagedTile", "Painting", "discard_painting", "start_run"]
