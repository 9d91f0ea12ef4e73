"""Show what a painted box is like, and judge it: numpy, scipy, dask and zarr, no networks, no MPI.

spectra  power spectra, bispectra and distributions, in bounded memory
seams    whether the boundaries of tiles can be seen
maps     slabs of a box as pictures
report   all of these for one box, judged, on one page
runs     one run on a page: what was done when, how busy each rank was
"""
