"""The engine: one loop per rank that turns ready tiles into durable T_b, with or without MPI.

`loop` is one pass of the loop, `tiles`, `windows` and `shards` its tasks, `overlaps` what tiles
hand to each other, `transport` and `mpi` how ranks speak, `run` the whole of `bigbox paint`.
"""
