"""A simulated cine cohort in memory: one subject at a time, ground truth included.

Every random number comes from a stream keyed by (seed, what, subject, session): a subject's data do not depend on how many
subjects there are; a cohort without effect has the same noise as the one with it; and a subject with a hypokinetic region has
the very ED frame that it would have without one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16, UInt8
from scipy.ndimage import gaussian_filter1d

from ssl4neuro.simulate.cine_settings import GROUPS, SCANNERS, CineSettings, Group, Scanner
from ssl4neuro.simulate.heart_motion import Beat, SliceMotion, labels, polar, region_mask
from ssl4neuro.simulate.heart_shape import ANGLES, THETA, Body, Heart, Region, draw_variation, make_heart
from ssl4neuro.simulate.heart_tissue import Surroundings, Tissue

BODY, WALL, ORDER, TISSUE, SCAN, NOISE = range(6)  # first element of a stream's key
BLOCK = 20  # subjects among whom regions are shared out evenly
RESPIRATION = 2.0  # mm, sd of a slice's place: each is taken in a breath-hold of its own
POSITION = 3.0  # mm, sd of the heart's place in the image
RV_DELAY = 0.01  # of a beat


@dataclass(frozen=True)
class Person:
    """What the sessions of a subject share."""

    name: str
    site: str
    scanner: Scanner
    group: str
    hypokinetic: bool
    region: Region  # drawn for everybody, in force where `hypokinetic`
    profile: Float[np.ndarray, "slices angles"]  # of the region; zeros where there is none
    severity: float  # share of the contraction lost in its middle; 0 where there is none
    heart: Heart
    body: Body
    surroundings: Surroundings


@dataclass(frozen=True)
class CineScan:
    """One session as it lies on disk, and the truth about it."""

    subject: str
    session: str  # empty where there is only one
    frames: Int16[np.ndarray, "slices time rows columns"]
    spacing: tuple[float, float]  # mm: pixels, slices
    interval: float  # s
    beat: Beat
    es: int  # frame of the smallest cavity
    motion: list[SliceMotion]
    centres: Float[np.ndarray, "slices 2"]  # row and column of the left ventricle's axis
    anatomy: UInt8[np.ndarray, "slices labelled rows columns"]  # at ED (frame 0) and ES
    region: UInt8[np.ndarray, "slices rows columns"]  # at frame 0

    def lv_volume(self, heart: Heart) -> Float[np.ndarray, "time"]:
        """True volume (ml) of the left ventricle in each frame."""
        return heart.lv_volume(self.motion[0].contraction)


class SimulatedCine:
    """The cohort that `settings` stand for. Nothing is kept: `subject(i)` makes the scans of one subject anew."""

    def __init__(self, settings: CineSettings) -> None:
        self.settings = settings

    def __len__(self) -> int:
        return self.settings.subjects

    def __iter__(self) -> Iterator[tuple[Person, list[CineScan]]]:
        """Each subject with its scans."""
        return (self.subject(index) for index in range(len(self)))

    def subject(self, index: int) -> tuple[Person, list[CineScan]]:
        """Subject `index` (0-based) and all its sessions."""
        person = self.person(index)
        return person, [self._scan(person, index, session) for session in range(self.settings.sessions)]

    def person(self, index: int) -> Person:
        """What the sessions of subject `index` share."""
        s, model, rng = self.settings, self.settings.contraction, self._stream(BODY, index)
        group, hypokinetic, site = self._labels(index)
        slices = int(rng.integers(s.slices[0], s.slices[1] + 1))
        body = draw_body(rng, GROUPS["NOR"], GROUPS[group], s.effect)
        organs = Surroundings(
            rng.standard_normal(10), np.array([0.9, -0.6]) + body.septum - np.pi + 0.12 * rng.standard_normal(2)
        )
        severity = float(
            np.clip(model.severity + model.severity_sd * rng.standard_normal(), model.severity - 0.2, model.severity + 0.2)
        )
        region = Region(
            angle=float(rng.uniform(-np.pi, np.pi)),
            half_angle=float(rng.uniform(*model.half_angle)),
            height=float(rng.uniform(0.15, 0.85)),
            half_height=float(rng.uniform(*model.half_height)),
            severity=severity,
        )
        even = np.zeros((slices, ANGLES))
        heart = make_heart(body, slices, even, even)  # for its heights
        profile = region.profile(THETA, heart.heights, model) * hypokinetic
        variation = draw_variation(self._stream(WALL, index), heart.heights * body.length, model)
        heart = make_heart(body, slices, variation, s.effect * severity * profile)
        in_force = s.effect * severity * hypokinetic
        scanner = SCANNERS[site]
        name = f"sub-{index + 1:03d}"
        return Person(name, f"site-{site + 1}", scanner, group, hypokinetic, region, profile, in_force, heart, body, organs)

    def _labels(self, index: int) -> tuple[str, bool, int]:
        """Group, region or not, and site: each shared out evenly over the subjects, independently of the others."""
        s = self.settings
        site = self._turn(index, s.sites, 0)
        if s.study == "groups":
            group = list(GROUPS)[self._turn(index, len(GROUPS), 1)]
            return group, group == "MINF", site
        block, place = divmod(index, BLOCK)
        rng = self._stream(ORDER, 2, block)
        order, share = rng.permutation(BLOCK), rng.random()
        return "NOR", bool((order[place] + share) / BLOCK < s.hypokinesia), site

    def _turn(self, index: int, choices: int, what: int) -> int:
        """One of `choices`, each once in every stretch of `choices` subjects, in random order."""
        block, place = divmod(index, choices)
        return int(self._stream(ORDER, what, block).permutation(choices)[place])

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.settings.seed, spawn_key=key))

    def _scan(self, person: Person, index: int, number: int) -> CineScan:
        s, heart, rng = self.settings, person.heart, self._stream(SCAN, index, number)
        count = int(rng.integers(s.frames[0], s.frames[1] + 1))
        rate = float(np.clip(70 + 10 * rng.standard_normal(), 45, 110))  # beats per minute
        systole = float(np.clip(0.37 + 0.02 * rng.standard_normal() + 0.001 * (rate - 70), 0.30, 0.46))
        filling, kick = float(rng.uniform(0.68, 0.84)), float(rng.uniform(0.11, 0.15))
        beat = Beat(round(60 / rate, 4), float(rng.uniform(RV_DELAY, 0.03)), systole, filling, kick)
        middle = (s.size - 1) / 2 + np.array([0.02, 0.10]) * s.size  # the right ventricle needs room on the left
        placed = POSITION * rng.standard_normal(2) + RESPIRATION * rng.standard_normal((len(heart.heights), 2))
        centres = middle + np.clip(placed, -8, 8) / person.scanner.spacing
        phases = beat.phases(count)
        contraction, delayed, twisting = beat.contraction(phases), beat.contraction(phases - RV_DELAY), beat.twisting(phases)
        motion = [SliceMotion(heart, k, contraction, delayed, twisting) for k in range(len(centres))]
        es = int(np.argmax(contraction))
        grids = [polar((s.size, s.size), person.scanner.spacing, (float(c[0]), float(c[1]))) for c in centres]
        clean = self._render(person, index, motion, grids)
        regions = [region_mask(m, profile, *grid) for m, profile, grid in zip(motion, person.profile, grids, strict=True)]
        return CineScan(
            subject=person.name,
            session=f"ses-{number + 1:02d}" if s.sessions > 1 else "",
            frames=self._acquire(clean, person.scanner, coil(rng, s.size, person.scanner), self._stream(NOISE, index, number)),
            spacing=(person.scanner.spacing, heart.spacing),
            interval=round(beat.duration / count, 5),
            beat=beat,
            es=es,
            motion=motion,
            centres=centres,
            anatomy=np.stack([np.stack([labels(m, *grid, t) for t in (0, es)]) for m, grid in zip(motion, grids, strict=True)]),
            region=np.stack(regions),
        )

    def _render(
        self, person: Person, index: int, motion: list[SliceMotion], grids: list[tuple[np.ndarray, np.ndarray]]
    ) -> Float[np.ndarray, "slices time rows columns"]:
        """Noise-free frames: the tissue of each slice, sampled where every pixel's matter was at ED, and blurred."""
        s, scanner, rng = self.settings, person.scanner, self._stream(TISSUE, index)
        tissue = Tissue(person.heart, person.surroundings, scanner, s.size * scanner.spacing)
        frames = np.empty((len(motion), len(motion[0].contraction), s.size, s.size), dtype=np.float32)
        for k, (m, (r, theta)) in enumerate(zip(motion, grids, strict=True)):
            image = tissue.draw(rng, k)
            for t in range(frames.shape[1]):
                frames[k, t] = tissue.sample(image, *m.to_material(r, theta, t))
        sigma = scanner.blur / scanner.spacing
        for axis in (2, 3):
            frames = gaussian_filter1d(frames, sigma, axis=axis, mode="nearest", truncate=3.0)
        return frames

    def _acquire(
        self,
        clean: Float[np.ndarray, "slices time rows columns"],
        scanner: Scanner,
        sensitivity: Float[np.ndarray, "rows columns"],
        rng: np.random.Generator,
    ) -> Int16[np.ndarray, "slices time rows columns"]:
        """Coil shading, noise in both channels of the complex signal (its magnitude is Rician), stored as integers."""
        out = np.empty(clean.shape, dtype=np.int16)
        sd = np.float32(self.settings.noise * scanner.noise)
        for k, frames in enumerate(clean):
            real = frames * sensitivity + sd * rng.standard_normal(frames.shape, dtype=np.float32)
            imaginary = sd * rng.standard_normal(frames.shape, dtype=np.float32)
            out[k] = np.rint(np.minimum(scanner.gain * np.hypot(real, imaginary), 32767))
        return out


def draw_body(rng: np.random.Generator, normal: Group, group: Group, effect: float) -> Body:
    """Sizes of a heart of `group`; at effect 0 those that the same subject has in `normal`."""
    z = np.clip(rng.standard_normal(5), -2.2, 2.2)

    def draw(name: str, k: int) -> float:
        (m0, sd0), (m1, sd1) = getattr(normal, name), getattr(group, name)
        return float(m0 + effect * (m1 - m0) + (sd0 + effect * (sd1 - sd0)) * z[k])

    edv = max(draw("edv", 0), 60.0)
    length = 74.0 * (edv / 128.0) ** (1 / 3) * float(np.exp(0.05 * np.clip(rng.standard_normal(), -2, 2)))
    septal = normal.septal + effect * (group.septal - normal.septal) + 0.04 * rng.standard_normal()
    return Body(
        edv=edv,
        ef=float(np.clip(draw("ef", 1), 0.12, 0.80)),
        wall=max(draw("wall", 2), 5.5),
        septal=max(float(septal), 0.0),
        rv_edv=max(draw("rv_edv", 3), 60.0),
        rv_ef=float(np.clip(draw("rv_ef", 4), 0.12, 0.75)),
        length=length,
        septum=float(np.pi + 0.25 + 0.15 * rng.standard_normal()),
        oval=float(0.03 * abs(rng.standard_normal())),
        oval_angle=float(rng.uniform(0, np.pi)),
        twist=(float(-0.07 + 0.02 * rng.standard_normal()), float(0.16 + 0.03 * rng.standard_normal())),
    )


def coil(rng: np.random.Generator, size: int, scanner: Scanner) -> Float[np.ndarray, "rows columns"]:
    """Sensitivity over the image: the exponential of a surface of second order, brightest near the chest wall."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2, indexing="ij")
    weight = rng.standard_normal(5) * 0.5 + np.array([-1.2, -0.8, 0, 0, 0])  # front is upper left
    terms = [y, x, x * y, x * x - 1 / 3, y * y - 1 / 3]
    surface = sum((w * term for w, term in zip(weight, terms, strict=True)), np.zeros_like(x))
    return np.exp(scanner.shading * surface).astype(np.float32)
