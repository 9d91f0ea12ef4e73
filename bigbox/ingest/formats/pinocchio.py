"""PINOCCHIO's halo catalogues in text (CatalogInAscii).

    pinocchio.0.5000.run.catalog.out, of several files .catalog.out.0, .1, ...
    # Group catalog for redshift 0.500000 and minimal mass of 10 particles
    #    1) group ID              #    2) group mass (Msun/h)     # 3- 5) initial position (Mpc/h)
    # 6- 8) final position (Mpc/h)    # 9-11) velocity (km/s)     #   12) number of particles

With OutputInH100 the units are those with /h, else without: then h must be told. The box size is
not written. https://github.com/pigimonaco/Pinocchio (src/write_halos.c).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue, HaloType
from bigbox.ingest.columns import TextCatalogue
from bigbox.ingest.hdf5 import beginning
from bigbox.ingest.headers import Header, with_lacks
from bigbox.ingest.text_table import TextTable

_START = b"# Group catalog for redshift"
_PLACES_AND_MASS = (5, 6, 7, 1)  # final positions


def recognises(path: Path) -> bool:
    """Return whether a file begins, or is called, as PINOCCHIO's catalogues are."""
    named = re.fullmatch(r"pinocchio\..*\.catalog\.out(\.\d+)?", path.name) is not None
    return path.is_file() and (named or beginning(path, len(_START)) == _START)


def open_catalogue(given: Sequence[Path], kind: HaloType) -> Catalogue:
    """Open the files of one catalogue. It has no subhaloes."""
    paths = sorted(set(given))
    for path in paths:
        if beginning(path, len(_START)) != _START:
            raise BadInput(
                f"{path}: is no PINOCCHIO catalogue in text; set CatalogInAscii in its parameters"
            )
    tables = tuple(TextTable.open(path) for path in paths)
    headers = [_header(table) for table in tables]
    label = "catalogue: PINOCCHIO groups, mass at final position"
    return TextCatalogue.of(tables, headers, kind, label, "", (_PLACES_AND_MASS,) * len(tables))


def _header(table: TextTable) -> Header:
    text = "\n".join(table.head)
    redshift = re.search(r"for redshift\s+([\d.]+)", text)
    found = with_lacks(
        Header("PINOCCHIO", 0.0, 1.0, 1.0, float(redshift[1]) if redshift else -1.0),
        "PINOCCHIO writes no box size into it",
        "its head tells no redshift",
    )
    if "Msun/h" in text:
        return found
    why = "its units are Mpc and M_sun, without h (OutputInH100): give h as --halo-length-unit and "
    return replace(found, lacks={**found.lacks, "units": f"{why}as --halo-mass-unit"})
