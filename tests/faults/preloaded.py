"""Import what `bigbox paint` and its companions need, before the server forks."""

import zarr  # noqa: F401

import bigbox.cli
import bigbox.engine.run
import bigbox.export
import bigbox.ingestion.density
import bigbox.ingestion.particles
import bigbox.simulation.run
import bigbox.store.status
import bigbox.store.verify
import bigbox.testing.painters  # noqa: F401
