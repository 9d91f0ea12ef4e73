"""Small halo catalogues in the layouts of other codes: places in Mpc/h, masses in M_sun/h."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.snapshots import BOX

# Of rockstar/io/meta_io.c; a box size of 0 stands there for a run that is not periodic.
_ROCKSTAR = """\
#a = {a:.6f}
#Om = 0.300000; Ol = 0.700000; h = 0.671100
#FOF linking length: 0.280000
#Unbound Threshold: 0.500000; FOF Refinement Threshold: 0.700000
#Particle mass: 1.03289e+07 Msun/h
#Box size: {box:.6f} Mpc/h
#Force resolution assumed: 0.009 Mpc/h
#Units: Masses in Msun / h
#Units: Positions in Mpc / h (comoving)
#Units: Velocities in km / s (physical, peculiar)
#Units: Halo Distances, Lengths, and Radii in kpc / h (comoving)
#Units: Angular Momenta in (Msun/h) * (Mpc/h) * km/s (physical)
#Units: Spins are dimensionless
"""


def _rows(path: Path, head: str, *columns: NDArray) -> Path:
    np.savetxt(path, np.column_stack(columns), fmt="%.8g", header=head.rstrip("\n"), comments="")
    return path


def rockstar(
    path: Path,
    places: NDArray,
    masses: NDArray,
    parents: NDArray | None = None,
    *,
    redshift: float = 0.0,
    box: float = BOX,
) -> Path:
    """out_N.list; with parents as find_parents (util/) makes it."""
    count, none = len(masses), np.zeros(len(masses))
    names = "#ID DescID Mvir Vmax Vrms Rvir Rs Np X Y Z VX VY VZ"
    columns = [np.arange(count), none - 1, masses, none + 200, none + 100, none + 150, none + 20]
    columns += [none + 100, *places.T, none, none, none]
    if parents is not None:
        names, columns = f"{names} PID", [*columns, parents]
    head = f"{names}\n{_ROCKSTAR.format(a=1 / (1 + redshift), box=box)}"
    return _rows(path, head, *columns)


def halos_ascii(path: Path, places: NDArray, masses: NDArray) -> Path:
    """halos_N.R.ascii, what each rank of Rockstar writes."""
    none = np.zeros(len(masses))
    names = "#id num_p mvir mbound_vir rvir vmax rvmax vrms x y z vx vy vz Jx Jy Jz idx i_so i_ph"
    columns = [np.arange(len(masses)), none + 100, masses, masses, none + 150, none, none, none]
    head = f"{names}\n{_ROCKSTAR.format(a=1.0, box=BOX)}"
    return _rows(path, head, *columns, *places.T, *[none] * 6, none, none - 1, none - 1)


def hlist(
    path: Path, places: NDArray, masses: NDArray, parents: NDArray, redshift: float = 0.0
) -> Path:
    """hlist_A.list of consistent-trees; its columns carry their numbers."""
    none = np.zeros(len(masses))
    names = (
        "#scale(0) id(1) desc_scale(2) desc_id(3) num_prog(4) pid(5) upid(6) desc_pid(7) "
        "phantom(8) sam_mvir(9) mvir(10) rvir(11) rs(12) vrms(13) mmp?(14) scale_of_last_MM(15) "
        "vmax(16) x(17) y(18) z(19) vx(20) vy(21) vz(22)"
    )
    head = f"{names}\n#Omega_M = 0.300000; Omega_L = 0.700000; h0 = 0.671100\n"
    head += f"#Full box size = {BOX:.6f} Mpc/h\n#Scale: Scale factor of halo.\n"
    columns = [none + 1 / (1 + redshift), np.arange(len(masses)), none, none - 1, none]
    columns += [parents, parents, none - 1, none, 3 * masses, masses, *[none] * 6, *places.T]
    return _rows(path, head, *columns, *[none] * 3)


def ahf(path: Path, places: NDArray, masses: NDArray, hosts: NDArray) -> Path:
    """RUN.z0.000.AHF_halos: kpc/h, M_sun/h; AHF's user's guide."""
    names = "#ID(1)\thostHalo(2)\tnumSubStruct(3)\tMvir(4)\tnpart(5)\tXc(6)\tYc(7)\tZc(8)\tVXc(9)"
    none = np.zeros(len(masses))
    columns = [1 + np.arange(len(masses)), hosts, none, masses, none + 100, *(1e3 * places).T, none]
    return _rows(path, names, *columns)


def pinocchio(
    path: Path, places: NDArray, masses: NDArray, *, redshift: float = 0.0, h: str = "/h"
) -> Path:
    """pinocchio.Z.RUN.catalog.out in text, of src/write_halos.c; two decimals in places."""
    head = f"""\
# Group catalog for redshift {redshift:f} and minimal mass of 10 particles
#    1) group ID
#    2) group mass (Msun{h})
# 3- 5) initial position (Mpc{h})
# 6- 8) final position (Mpc{h})
# 9-11) velocity (km/s)
#   12) number of particles
#
"""
    ids, none = np.arange(len(masses)), np.zeros(len(masses))
    rows = zip(ids, masses, *(places + 0.5).T, *places.T, none, none, none, strict=True)
    form = " %12d %13.6e" + 9 * " %10.2f" + " %12d\n"
    path.write_text(head + "".join(form % (*row, 10) for row in rows))
    return path
