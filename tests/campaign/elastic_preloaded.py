"""Import what a worker needs, before the server forks."""

import distributed  # noqa: F401

import bigbox.cli
import bigbox.engine.elastic
import bigbox.engine.run
import bigbox.testing.painters  # noqa: F401
