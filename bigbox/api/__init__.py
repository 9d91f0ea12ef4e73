"""Do from Python what the commands do: one function each, which the command calls.

    ingest plan paint validate plot simulate train evaluate     as `bigbox.ingest` and so on
    opening.py      `bigbox.open`: a box as an xarray data set
    accessor.py     `box.bigbox` of such a data set
    backend.py      xarray.open_dataset(.., engine="bigbox")
    cosmology.py    cosmologies from and to astropy

What they return are frozen dataclasses. Keyword arguments have the names of the options.
"""
