"""Small snapshots and catalogues in the formats that ingest reads, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bigbox.physics.cosmology import CRITICAL_DENSITY

BOX = 4.0  # Mpc/h
OMEGA_M = 0.3
H = 0.6711
PARAMETERS = {"Omega0": OMEGA_M, "OmegaLambda": 0.7, "OmegaBaryon": 0.049, "HubbleParam": H}


def clustered(count: int, seed: int = 0, box: float = BOX) -> NDArray[np.float32]:
    """Positions in Mpc/h, float32 (count, 3): half in clumps that reach over the box's edges."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, box, (8, 3))
    clumps = centres[rng.integers(0, 8, count // 2)] + rng.normal(0, 0.1, (count // 2, 3))
    positions = np.concatenate([clumps, rng.uniform(0, box, (count - count // 2, 3))])
    return np.mod(positions, box).astype(np.float32)


def particle_mass(count: int, box: float = BOX, share: float = 1.0) -> float:
    """M_sun/h of each of so many particles that are a share of all matter."""
    return share * OMEGA_M * CRITICAL_DENSITY * box**3 / max(count, 1)


def gadget(
    folder: Path,
    positions: NDArray,
    *,
    files: int = 1,
    name: str = "snapshot_000",
    box: float = BOX,
    redshift: float = 0.0,
    masses: NDArray | None = None,  # M_sun/h; None: in the mass table
    style: str = "gadget4",  # where the cosmology is: or "arepo", in the header, older names
    gas: dict[str, NDArray] | None = None,
    more: dict[str, Any] | None = None,  # of the header
    filters: dict[str, Any] | None = None,
    share: float = 1.0,
) -> list[Path]:
    """A GADGET or AREPO snapshot in kpc/h and 1e10 M_sun/h; positions in Mpc/h."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(positions)
    gas = gas or {}
    many = len(gas.get("Coordinates", ()))
    table = np.zeros(6)
    if masses is None:
        table[1] = particle_mass(count, box, share) / 1e10
    paths = []
    for i in range(files):
        part = slice(count * i // files, count * (i + 1) // files)
        cut = slice(many * i // files, many * (i + 1) // files)
        path = folder / (f"{name}.{i}.hdf5" if files > 1 else f"{name}.hdf5")
        with h5py.File(path, "w") as file:
            header: dict[str, Any] = {
                "BoxSize": box * 1e3,
                "Redshift": redshift,
                "Time": 1 / (1 + redshift),
                "MassTable": table,
                "NumFilesPerSnapshot": np.int32(files),
                "NumPart_ThisFile": [cut.stop - cut.start, part.stop - part.start, 0, 0, 0, 0],
                "NumPart_Total": np.array([many, count, 0, 0, 0, 0], np.uint64),
            }
            if style == "gadget4":
                file.create_group("Parameters").attrs.update(
                    PARAMETERS | {"UnitLength_in_cm": 3.085678e21, "UnitMass_in_g": 1.989e43}
                )
            else:
                total = header["NumPart_Total"]
                header |= PARAMETERS | {
                    "NumPart_Total": (total % 2**32).astype(np.uint32),
                    "NumPart_Total_HighWord": (total >> np.uint64(32)).astype(np.uint32),
                }
            file.create_group("Header").attrs.update(header | (more or {}))
            group = file.create_group("PartType1")
            group.create_dataset("Coordinates", data=positions[part] * 1e3, **(filters or {}))
            group["ParticleIDs"] = np.arange(part.start, part.stop, dtype=np.uint32)
            if masses is not None:
                group["Masses"] = (masses[part] / 1e10).astype(np.float32)
            if gas:
                group = file.create_group("PartType0")
                for key, values in gas.items():
                    group[key] = values[cut] * (1e3 if key == "Coordinates" else 1)
        paths.append(path)
    return paths


def swift(
    folder: Path,
    positions: NDArray,
    *,
    redshift: float = 0.0,
    gas: dict[str, NDArray] | None = None,  # by SWIFT's names, in its units but for Coordinates
    haloes: tuple[NDArray, NDArray] | None = None,
) -> Path:
    """A SWIFT snapshot: h-free Mpc and 1e10 M_sun; positions in Mpc/h.

    With haloes (Mpc/h, M_sun/h) also a catalogue of its friends-of-friends groups beside it.
    """
    path, count = folder / "snap_0000.hdf5", len(positions)
    many = len((gas or {}).get("Coordinates", ()))
    with h5py.File(path, "w") as file:
        counts = np.array([many, count, 0, 0, 0, 0, 0], np.uint32)
        _swift_header(file, redshift, NumPart_ThisFile=counts, NumPart_Total=counts)
        file["PartType1/Coordinates"] = positions.astype(np.float64) / H
        share = 1.0 if gas is None else 0.251 / 0.3
        mass = particle_mass(count, share=share) / H / 1e10
        file["PartType1/Masses"] = np.full(count, mass, np.float32)
        for name, values in (gas or {}).items():
            file[f"PartType0/{name}"] = values / H if name == "Coordinates" else values
    if haloes is not None:
        with h5py.File(folder / "fof_output_0000.hdf5", "w") as file:
            number = [len(haloes[1])]
            groups = {"NumGroups_ThisFile": number, "NumGroups_Total": number}
            _swift_header(file, redshift, OutputType=b"FOF", **groups)
            file["Groups/Centres"] = haloes[0].astype(np.float64) / H
            file["Groups/Masses"] = haloes[1] / H / 1e10
    return path


def distributed(path: Path, files: int) -> list[Path]:
    """Cut a SWIFT file into parts name.0.hdf5, ...; the file itself becomes a view of them.

    As SWIFT's distributed output is (src/distributed_io.c, src/fof_catalogue_io.c).
    """
    parts = [path.with_suffix(f".{i}.hdf5") for i in range(files)]
    with h5py.File(path, "r+") as whole:
        names = [n for n in ("PartType1", "Groups") if n in whole]
        data = {f"{n}/{key}": whole[n][key][:] for n in names for key in whole[n]}
        cuts = {n: np.linspace(0, len(d), files + 1).astype(int) for n, d in data.items()}
        (count,) = {len(d) for d in data.values()}
        layouts = {n: h5py.VirtualLayout(d.shape, d.dtype) for n, d in data.items()}
        for i, part in enumerate(parts):
            with h5py.File(part, "w") as file:
                for group in ("Header", "Units", "Cosmology"):
                    whole.copy(group, file)
                here = int(cuts[next(iter(cuts))][i + 1] - cuts[next(iter(cuts))][i])
                header = file["Header"].attrs
                header.update({"NumFilesPerSnapshot": [files], "ThisFile": [i]})
                if "NumGroups_ThisFile" in header:
                    header["NumGroups_ThisFile"] = [here]
                else:
                    header["NumPart_ThisFile"] = [0, here, 0, 0, 0, 0, 0]
                for name, values in data.items():
                    cut = slice(*cuts[name][i : i + 2])
                    file[name] = values[cut]
                    layouts[name][cut] = h5py.VirtualSource(part.name, name, values[cut].shape)
        for name, layout in layouts.items():
            del whole[name]
            whole.create_virtual_dataset(name, layout)
        whole["Header"].attrs.update({"Virtual": [1], "NumFilesPerSnapshot": [files]})
        assert count
    return parts


def _swift_header(file: h5py.File, redshift: float, **counts: Any) -> None:
    """What SWIFT writes (src/common_io.c, src/fof_catalogue_io.c): counts are there, perhaps 0."""
    a = 1 / (1 + redshift)
    file.create_group("Header").attrs.update(
        {
            "Code": b"SWIFT",
            "BoxSize": np.full(3, BOX / H),
            "Dimension": [3],
            "Redshift": [redshift],
            "Scale-factor": [a],
            "Time": [0.0144],
            "NumPart_ThisFile": np.zeros(7, np.int64),
            "NumPart_Total": np.zeros(7, np.uint32),
            "NumPart_Total_HighWord": np.zeros(7, np.uint32),
            "TotalNumberOfParticles": np.zeros(7, np.int64),
            "MassTable": np.zeros(7),
            "NumFilesPerSnapshot": [1],
            "ThisFile": [0],
            "SelectOutput": b"Default",
            "Virtual": [0],
            "OutputType": b"FullVolume",
        }
        | counts
    )
    file.create_group("Units").attrs.update(
        {
            "Unit length in cgs (U_L)": [3.08567758149e24],
            "Unit mass in cgs (U_M)": [1.98841e43],
            "Unit time in cgs (U_t)": [3.08567758149e19],
        }
    )
    file.create_group("Cosmology").attrs.update(
        {
            **{"h": [H], "Omega_m": [OMEGA_M], "Omega_b": [0.049], "Omega_lambda": [0.7]},
            **{"Scale-factor": [a], "Redshift": [redshift]},
        }
    )


def catalogue(
    folder: Path,
    positions: NDArray,
    masses: NDArray,
    *,
    files: int = 1,
    name: str = "fof_subhalo_tab_000",
    box: float = BOX,
    redshift: float = 0.0,
    centre: str = "GroupPos",
    more: dict[str, Any] | None = None,
    subhaloes: bool = False,
) -> list[Path]:
    """A catalogue of FOF groups (Mpc/h, M_sun/h), and as subhaloes the same once more, lighter."""
    folder.mkdir(parents=True, exist_ok=True)
    count, paths = len(masses), []
    for i in range(files):
        part = slice(count * i // files, count * (i + 1) // files)
        path = folder / (f"{name}.{i}.hdf5" if files > 1 else f"{name}.hdf5")
        here = part.stop - part.start
        with h5py.File(path, "w") as file:
            file.create_group("Header").attrs.update(
                {
                    "BoxSize": box * 1e3,
                    "Redshift": redshift,
                    "NumFiles": np.int32(files),
                    "Ngroups_ThisFile": np.uint64(here),
                    "Ngroups_Total": np.uint64(count),
                    "Nsubhalos_ThisFile": np.uint64(here * subhaloes),
                    "Nsubhalos_Total": np.uint64(count * subhaloes),
                }
                | (more or {})
            )
            file.create_group("Parameters").attrs.update(PARAMETERS)
            group = file.create_group("Group")
            if here:  # the codes leave out empty data sets
                group[centre] = (positions[part] * 1e3).astype(np.float32)
                group["GroupMass"] = (masses[part] / 1e10).astype(np.float32)
            if subhaloes:
                file["Subhalo/SubhaloCM"] = (positions[part] * 1e3).astype(np.float32)
                file["Subhalo/SubhaloMass"] = (masses[part] / 2e10).astype(np.float32)
        paths.append(path)
    return paths


def haloes(count: int, positions: NDArray, seed: int = 3) -> tuple[NDArray, NDArray]:
    """Places, among the first (clumped) particles, and masses of 1e8 .. 1.2e12 M_sun/h.

    One or two are in each of the heavier bins. Up to 200 weigh less than all matter.
    """
    rng = np.random.default_rng(seed)
    where = rng.integers(0, len(positions) // 2, count)
    masses = 10 ** rng.uniform(8, 10.9, count).astype(np.float32)
    heavy = [1.2e12, 6e11, 2e11, 1.5e11][: max(count - 1, 0)]
    masses[: len(heavy)] = heavy
    return positions[where], masses
