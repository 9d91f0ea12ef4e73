"""AHF's halo catalogues (Amiga's Halo Finder), text: *.AHF_halos.

    run.z0.000.AHF_halos, or of rank 3: run.0003.z0.000.AHF_halos
    #ID(1)  hostHalo(2)  numSubStruct(3)  Mvir(4)  npart(5)  Xc(6)  Yc(7)  Zc(8)  VXc(9) ...

Masses are in M☉/h, places in comoving kpc/h. The redshift stands in the name only, the box size
nowhere. hostHalo is the number of the halo that holds this one, and 0, in older versions -1, for
none: as the first, the heaviest, has it. http://popia.ft.uam.es/AHF (user's guide, output files).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue, HaloType
from bigbox.ingest.columns import TextCatalogue, choose_in_each
from bigbox.ingest.headers import Header, with_lacks
from bigbox.ingest.text_table import TextTable


def recognises(path: Path) -> bool:
    """Return whether a file is called as AHF's are."""
    return path.name.endswith(".AHF_halos")


def open_catalogue(given: Sequence[Path], kind: HaloType) -> Catalogue:
    """Open the files of all ranks; subhaloes do not count (group), or do (subhalo)."""
    for path in given:
        if not recognises(path):
            raise BadInput(f"{path}: its name does not end in .AHF_halos, as others given do")
    tables = tuple(TextTable.open(path) for path in sorted(set(given)))
    chosen, at = choose_in_each(tables, kind)
    which = "with" if kind == "subhalo" else "without"
    found = TextCatalogue.of(
        tables,
        [_header(table.path) for table in tables],
        kind,
        f"catalogue: AHF haloes {which} subhaloes, {chosen.label}",
        f"left out: subhaloes ({chosen.parent} of a host)",
        at,
    )
    if kind == "subhalo" or not chosen.parent:
        return found
    host = float(tables[0].read(0, 1, at[0])[0, -1])
    if host not in (0.0, -1.0):
        raise BadInput(
            f"{found}: its first halo is in halo {host:g}: {chosen.parent} of a halo "
            "in no other one cannot be told; give --halo-type subhalo to count all"
        )
    return replace(found, no_parent=(host,))


def _header(path: Path) -> Header:
    match = re.search(r"\.z(\d+\.\d+)\.AHF_halos$", path.name)
    return with_lacks(
        Header("AHF", 0.0, 1e-3, 1.0, float(match[1]) if match else -1.0),
        "AHF writes no box size",
        "its name tells no redshift (.z0.000.AHF_halos)",
    )
