"""Makes the quickstart's density grid from a GADGET snapshot: CIC, rounded, compressed HDF5.

    python -m deploy.make_quickstart_data SNAPSHOT.0.hdf5 SNAPSHOT.1.hdf5 OUT.hdf5 [--grid 128]

SNAPSHOT.. are all the files of one GADGET-4 snapshot (dark matter is particle type 1). The density
1 + delta (mean 1) is rounded to KEEPBITS bits of mantissa, which costs no more than 2^-(KEEPBITS+1)
of each value and makes the file small enough to ship.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import h5py
import numpy as np
from numcodecs.bitround import BitRound
from numpy.typing import NDArray

from bigbox.ingestion.cic import CHUNK
from tests.reference.cic import density_contrast

KEEPBITS = 10
N_S = 0.9624  # of the tabulated spectrum that the run started from; its own header does not tell


def positions(paths: list[str]) -> Iterator[NDArray[np.floating]]:
    """The positions of the dark-matter particles, (M, 3), in the snapshot's unit of length."""
    for path in paths:
        with h5py.File(path) as file:
            data = file["PartType1/Coordinates"]
            for start in range(0, len(data), CHUNK):
                yield data[start : start + CHUNK]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("snapshot", nargs="+", help="all the files of one GADGET-4 snapshot")
    parser.add_argument("out", help="the HDF5 file to write")
    parser.add_argument("--grid", type=int, default=128, help="voxels on a side (default 128)")
    args = parser.parse_args()
    with h5py.File(args.snapshot[0]) as file:
        header, run = dict(file["Header"].attrs), dict(file["Parameters"].attrs)
    total = int(header["NumPart_Total"][1])
    shape = (args.grid,) * 3
    exact = density_contrast(positions(args.snapshot), shape, float(header["BoxSize"]))
    dm = BitRound(keepbits=KEEPBITS).encode(exact.astype(np.float32)).view(np.float32)
    dm = dm.reshape(shape)
    unit_in_mpc = float(run["UnitLength_in_cm"]) / 3.085678e24
    with h5py.File(args.out, "w") as file:
        data = file.create_dataset(
            "dm",
            data=dm,
            chunks=(32, 128, 128),
            compression="gzip",
            compression_opts=9,
            shuffle=True,
        )
        data.attrs.update(
            {
                "long_name": "dark-matter density over its mean, 1 + delta, cloud-in-cell",
                "units": "1",
                "box_size": float(header["BoxSize"]) * unit_in_mpc,
                "box_size_units": "Mpc/h, comoving",
                "redshift": max(0.0, round(float(header["Redshift"]), 6)),
                "omega_m": float(run["Omega0"]),
                "omega_b": float(run["OmegaBaryon"]),
                "h": float(run["HubbleParam"]),
                "sigma8": float(run["Sigma8"]),
                "n_s": N_S,
                "code": "GADGET-4 (Springel et al. 2021), commit " + header["Git_commit"].decode(),
                "initial_conditions": f"2LPT at z = 49, seed {int(run['Seed'])}, CAMB spectrum",
                "particles": total,
                "rounding": f"mantissa rounded to {KEEPBITS} bits (numcodecs BitRound)",
                "caveat": "loose time integration: structure below 0.02 Mpc/h is not to be trusted",
            }
        )
    rounding = (np.abs(dm - exact)[exact > 0] / exact[exact > 0]).max()
    print(f"{args.out}: {total} particles on {shape}, largest rounding {rounding:.1e}")
    print(f"mean {dm.mean(dtype=float):.6f}, least {dm.min():.3g}, largest {dm.max():.0f}")


if __name__ == "__main__":
    main()
