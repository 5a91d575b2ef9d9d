"""What `simulate cine` can be told, and the constants of its model: groups, scanners, regional contraction.

Two studies. `groups`: the five groups of ACDC in turn; hypokinesia is present in all of MINF and in nobody else. `hypokinesia`:
chambers, walls and ejection fractions are those of NOR in everyone, and the share `hypokinesia` of the subjects has a region
that contracts less while the remote muscle makes up for it, so that neither the ED frame nor a volume tells who.
"""

from dataclasses import dataclass, field

from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest

STUDIES = ("groups", "hypokinesia")
MASKS = ("anatomy", "hypokinesia")
MAX_FRAMES, MAX_SLICES, MAX_SUBJECTS = 60, 16, 9999


@dataclass(frozen=True)
class Group:
    """Mean and sd over the subjects of a group; volumes in ml at ED, walls in mm, ejection fractions as shares."""

    edv: tuple[float, float]
    ef: tuple[float, float]
    wall: tuple[float, float]
    septal: float  # extra thickness of the septum, relative
    rv_edv: tuple[float, float]
    rv_ef: tuple[float, float]


GROUPS = {
    "NOR": Group((128.0, 20.0), (0.61, 0.045), (9.0, 1.0), 0.05, (140.0, 24.0), (0.56, 0.05)),
    "DCM": Group((225.0, 40.0), (0.32, 0.075), (8.6, 1.1), 0.0, (165.0, 35.0), (0.42, 0.09)),
    "HCM": Group((118.0, 22.0), (0.68, 0.05), (13.5, 2.0), 0.35, (125.0, 24.0), (0.60, 0.06)),
    "MINF": Group((178.0, 36.0), (0.40, 0.08), (8.8, 1.1), 0.05, (138.0, 28.0), (0.53, 0.07)),
    "RV": Group((122.0, 24.0), (0.58, 0.06), (8.8, 1.0), 0.05, (220.0, 38.0), (0.40, 0.08)),
}


@dataclass(frozen=True)
class Scanner:
    """One site; intensities are in units of blood at the first site."""

    spacing: float  # mm, of pixels
    blur: float  # mm, sd of the point spread
    noise: float  # sd in each channel of the complex signal
    blood: float
    myocardium: float
    fat: float
    shading: float  # sd of the logarithm of the coil's sensitivity over the image
    gain: float  # stored integer of intensity 1


SCANNERS = (
    Scanner(1.60, 0.9, 0.045, 1.00, 0.42, 1.15, 0.12, 600.0),
    Scanner(1.75, 1.1, 0.060, 0.94, 0.36, 0.95, 0.18, 420.0),
    Scanner(1.50, 0.8, 0.070, 1.06, 0.46, 1.30, 0.15, 900.0),
    Scanner(1.80, 1.2, 0.040, 0.98, 0.34, 1.05, 0.22, 300.0),
)


@dataclass(frozen=True)
class ContractionModel:
    """Regional contraction, relative to a segment's usual one. `scatter` calibrates the oracle; see `cine_oracle.py`."""

    severity: float = 0.45  # share of its contraction that the middle of a region has lost
    severity_sd: float = 0.08  # cut to the mean +- 0.2
    scatter: float = 0.25  # sd of healthy variation between the segments of a heart
    scatter_angle: float = 0.50  # rad, length of that variation around the ring
    scatter_height: float = 14.0  # mm, and along the axis
    half_angle: tuple[float, float] = (0.55, 0.95)  # rad, half the width of a region
    half_height: tuple[float, float] = (0.18, 0.34)  # half its height, relative to the ventricle's length
    edge_angle: float = 0.12  # rad, softness of its borders
    edge_height: float = 0.05


@dataclass(frozen=True)
class CineSettings:
    """What is simulated; the defaults are the command's.

    Raises:
        UserError: a value out of range.
    """

    subjects: int = 40  # any number from 2; a subject's data do not depend on it
    sessions: int = 1  # cine scans of each subject: same heart, new position, heart rate, coil and noise
    study: str = "groups"  # `groups` (NOR, DCM, HCM, MINF, RV in turn) or `hypokinesia` (NOR only, half of them with a region)
    hypokinesia: float = 0.5  # share of subjects with a region, in the study `hypokinesia`
    mask: str = "anatomy"  # beside the images: `anatomy` (RV, myocardium, LV at ED and ES) or `hypokinesia` (the region at ED)
    frames: tuple[int, int] = (20, 30)  # fewest and most frames of a beat
    slices: tuple[int, int] = (7, 9)  # fewest and most slices, base to apex
    size: int = 96  # rows and columns, pixels
    sites: int = 2  # scanners, 1 to 4: contrast, noise, pixel spacing, blur, shading
    noise: float = 1.0  # factor on each scanner's noise; 0 is none
    effect: float = (
        1.0  # size of group differences and of hypokinesia; 1 is calibrated, 0 the null (labels stay, hearts are NOR)
    )
    seed: int = 0  # of everything
    contraction: ContractionModel = field(default_factory=ContractionModel)

    def __post_init__(self) -> None:
        for name, choices in (("study", STUDIES), ("mask", MASKS)):
            value = getattr(self, name)
            if value not in choices:
                raise UserError(f"{name} {value}: not one of them{suggest(value, choices)}")
        checks = [
            ("subjects", 2 <= self.subjects <= MAX_SUBJECTS, f"2 to {MAX_SUBJECTS}"),
            ("sessions", 1 <= self.sessions <= 99, "1 to 99"),
            ("hypokinesia", 0 <= self.hypokinesia <= 1, "a share from 0 to 1"),
            ("frames", 8 <= self.frames[0] <= self.frames[1] <= MAX_FRAMES, f"fewest and most, 8 to {MAX_FRAMES}"),
            ("slices", 1 <= self.slices[0] <= self.slices[1] <= MAX_SLICES, f"fewest and most, 1 to {MAX_SLICES}"),
            ("size", 96 <= self.size <= 256, "96 to 256 pixels"),
            ("sites", 1 <= self.sites <= len(SCANNERS), f"1 to {len(SCANNERS)}"),
            ("noise", 0 <= self.noise <= 10, "0 (none) to 10"),
            ("effect", 0 <= self.effect <= 1.3, "0 (none) to 1.3"),
            ("seed", self.seed >= 0, "0 or more"),
        ]
        for name, fine, allowed in checks:
            if not fine:
                raise UserError(f"{name} {getattr(self, name)}: out of range; give {allowed}")
