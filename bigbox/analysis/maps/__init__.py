"""Show slabs of a box: cutting them out, the colours of a panel, the picture of `bigbox plot`."""
