"""How density grids come into a box: readers, checks, and the deposit of particles."""
