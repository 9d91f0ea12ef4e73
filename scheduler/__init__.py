"""How a box is cut into tiles, what waits for what, who paints it, and in which order.

Geometry and ordering only: numpy, no torch, no zarr, no MPI, and nothing of cosmology.
"""
