"""How snapshots, catalogues and density grids come into a box: readers, checks, deposits."""
