"""Import what `bigbox paint` and its companions need, before the server forks."""

import zarr  # noqa: F401

import bigbox.cli
import bigbox.engine.run
import bigbox.export
import bigbox.ingest.density
import bigbox.ingest.particles
import bigbox.simulate.run
import bigbox.store.status
import bigbox.store.verify
import bigbox.testing.painters  # noqa: F401
