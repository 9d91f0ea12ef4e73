"""Turn cosmologies into astropy's, and astropy's into those of a box.

A box knows matter, baryons, h, sigma8 and n_s; astropy has no place for the last two but its
`meta`. Radiation is left out on both sides, as in `bigbox.physics.cosmology`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bigbox.errors import BadInput
from bigbox.physics.cosmology import PARAMETERS, Cosmology

if TYPE_CHECKING:
    from astropy.cosmology import FLRW


def to_astropy(known: Mapping[str, Any]) -> FLRW:
    """Return astropy's FlatLambdaCDM, or LambdaCDM where a box tells omega_lambda.

    known: the attribute "cosmology" of a box; what it lacks is that of CAMELS. sigma8 and n_s are
    in the `meta` of what is returned.

    >>> cosmology = to_astropy({"omega_m": 0.31, "h": 0.68})
    >>> print(cosmology.H0, cosmology.Om0)
    68.0 km / (Mpc s) 0.31
    >>> cosmology.meta["sigma8"]
    0.8
    """
    from astropy.cosmology import FlatLambdaCDM, LambdaCDM

    mine = Cosmology.from_header(known)
    common: dict[str, Any] = {
        "H0": round(100 * mine.h, 12),
        "Om0": mine.omega_m,
        "Tcmb0": 0.0,
        "Ob0": mine.omega_b,
        "meta": {"sigma8": mine.sigma8, "n_s": mine.n_s},
    }
    if mine.omega_lambda is None:
        return FlatLambdaCDM(**common)
    return LambdaCDM(Ode0=mine.omega_lambda, **common)


def parameters_of(cosmology: Mapping[str, float] | FLRW | None) -> dict[str, float]:
    """Return a cosmology as the parameters that a box keeps: a mapping of them, or astropy's.

    Raises BadInput for a name that is none of theirs.

    >>> from astropy.cosmology import Planck18
    >>> parameters_of(Planck18)
    {'omega_m': 0.30966, 'omega_b': 0.04897, 'h': 0.6766, 'sigma8': 0.8102, 'n_s': 0.9665}
    >>> parameters_of({"omega_m": 0.3})
    {'omega_m': 0.3}
    """
    if cosmology is None:
        return {}
    if isinstance(cosmology, Mapping):
        known = (*PARAMETERS, "omega_lambda")
        for name in cosmology.keys() - set(known):
            raise BadInput(f"cosmology: {name!r} is none of {', '.join(known)}; leave it out")
        return {name: float(value) for name, value in cosmology.items()}
    meta = dict(cosmology.meta or {})
    found = {
        "omega_m": cosmology.Om0,
        "omega_b": cosmology.Ob0,
        "h": cosmology.h,
        "sigma8": meta.get("sigma8"),
        "n_s": meta.get("n_s", meta.get("n")),
    }
    if not getattr(cosmology, "is_flat", True):
        found["omega_lambda"] = cosmology.Ode0
    return {name: float(value) for name, value in found.items() if value is not None}
