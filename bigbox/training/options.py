"""Hold what `bigbox train` was asked for, and refuse what does not go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bigbox.errors import BadInput

# Options that only one of the networks has.
OF_ONE = {"halogen": ("loss",), "lodi": ("parametrisation", "halogen", "halogen_share")}
SHARE = 0.5  # of LODI's samples with predicted haloes


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Hold how any training runs. None is the preset's own choice."""

    steps: int | None = None
    batch: int | None = None
    rate: float | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    hours: float | None = None
    within: float | None = None  # hours


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Hold what `bigbox train` was asked for. Its --help says more.

    None is the preset's own choice. Raises BadInput for options that do not go together.
    """

    kind: str  # "halogen" or "lodi"
    boxes: list[Path]
    out: Path
    preset: str = "mini"
    held_out: int | None = None  # boxes
    compile: str = "auto"  # "auto", "on" or "off"
    loss: str | None = None  # "mean" or "paper"
    parametrisation: str | None = None  # "v" or "noise"
    further: Path | None = None
    halogen: Path | None = None
    halogen_share: float | None = None
    float32_weights: bool = False

    def __post_init__(self) -> None:
        for kind, names in OF_ONE.items():
            for name in names:
                if kind != self.kind and (value := getattr(self, name)) is not None:
                    flag = f"--{name.replace('_', '-')}"
                    raise BadInput(f"{flag} {value}: of {kind} alone; leave it out")
        if self.halogen_share is None:
            return
        if self.halogen is None:
            raise BadInput(
                f"--halogen-share {self.halogen_share:g}: of the haloes that a model predicts; "
                "name it by --halogen MODEL"
            )
        if not 0 <= self.halogen_share <= 1:
            raise BadInput(f"--halogen-share {self.halogen_share:g}: is outside 0 .. 1")

    @property
    def predicted_share(self) -> float:
        """Return the share of LODI's samples whose haloes are predicted."""
        if self.halogen is None:
            return 0.0
        return SHARE if self.halogen_share is None else self.halogen_share
