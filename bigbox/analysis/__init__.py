"""What can be shown about a painted box: spectra, seams, distributions, errors.

numpy, scipy, dask and zarr only: nothing here knows of the networks, the engine or MPI.
"""
