"""Rockstar's halo catalogues in text, and those of its merger trees (consistent-trees).

    out_33.list, out_33_pids.list    #ID DescID Mvir ... X Y Z ...      #a = 1.000000
    halos_33.0.ascii, .1, ...        #id num_p mvir ... x y z ...       #Om = 0.3; Ol = 0.7; h = 0.7
                                                                        #Box size: 512.000000 Mpc/h
    hlist_1.00000.list               #scale(0) id(1) ... pid(5) ...     #Omega_M = 0.3; h0 = 0.6
                                     mvir(10) ... x(17) y(18) z(19)     #Full box size = 250 Mpc/h

Masses are in M☉/h, places in comoving Mpc/h. A halo in another one has its number as PID; lists
without PID hold subhaloes too. https://bitbucket.org/gfcstanford/rockstar (README, io/meta_io.c),
https://bitbucket.org/pbehroozi/consistent-trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bigbox.errors import BadInput
from bigbox.ingest.catalogue import Catalogue, HaloType
from bigbox.ingest.columns import TextCatalogue, choose_in_each, plain
from bigbox.ingest.hdf5 import beginning
from bigbox.ingest.headers import Header, with_lacks
from bigbox.ingest.text_table import TextTable

_NO_PARENT = "tells no PID: subhaloes count beside their hosts (find_parents of Rockstar adds it)"
_STARTS = (b"#ID DescID", b"#id num_p", b"#scale(0) id(1)")


def recognises(path: Path) -> bool:
    """Return whether a file begins as Rockstar's do."""
    return path.is_file() and beginning(path, 16).startswith(_STARTS)


def open_catalogue(given: Sequence[Path], kind: HaloType) -> Catalogue:
    """Open text files of one catalogue; subhaloes do not count where PID tells them (group)."""
    for path in given:
        if not recognises(path):
            raise BadInput(f"{path}: is no catalogue of Rockstar, as others of those given are")
    tables = tuple(TextTable.open(path) for path in sorted(set(given)))
    chosen, at = choose_in_each(tables, kind)
    which = "with" if kind == "subhalo" else "without" if chosen.parent else "perhaps with"
    return TextCatalogue.of(
        tables,
        [_header(table) for table in tables],
        kind,
        f"catalogue: Rockstar haloes {which} subhaloes, {chosen.label}",
        f"left out: subhaloes ({chosen.parent} of a host)",
        at,
        "" if chosen.parent else _NO_PARENT,
    )


def _header(table: TextTable) -> Header:
    told = table.told()
    a = told.get("a")
    if a is None and plain(table.names()[0]) == "scale":
        a = float(table.read(0, 1, (0,))[0, 0])
    cosmology = {
        name: told[key]
        for name, keys in (
            ("omega_m", ("om", "omega_m")),
            ("omega_lambda", ("ol", "omega_l")),
            ("h", ("h", "h0")),
        )
        for key in keys
        if key in told
    }
    box = told.get("box size", told.get("full box size", 0.0))
    return with_lacks(
        Header("Rockstar", box, 1.0, 1.0, -1.0 if not a else 1 / a - 1, cosmology),
        "its head tells no box size (#Box size: L Mpc/h)",
        "its head tells no scale factor (#a = ...)",
    )
