"""A simulated pre/post ICA cohort in memory: one subject at a time, ground truth included (methods/network_state.md §7).

Every random number comes from a stream keyed by (seed, what, subject, session): a subject's data do not depend on how many
subjects there are, and a cohort without effect has the same noise as the one with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl4neuro.errors import UserError
from ssl4neuro.simulate.cavity import REST, draw_lesion
from ssl4neuro.simulate.courses import LOADINGS, CourseModel, draw_courses, fnc
from ssl4neuro.simulate.networks import MAX_NODES, NETWORKS, load_brain, network_map, rim
from ssl4neuro.simulate.noise import SmoothField

SUBJECT, SESSION, SITE, LESION = 0, 1, 2, 3  # first element of a stream's key
MEDIAN_FD = 0.15  # mm, the head motion at which `MapModel.motion` holds
MOTION_SUBJECT, MOTION_SESSION = 0.30, 0.25  # sd of the logarithm of the mean framewise displacement
MOTION_SPREAD = (MOTION_SUBJECT**2 + MOTION_SESSION**2) ** 0.5
UNITS = 10.0  # peak of a map on disk: MELODIC's are z-like


@dataclass(frozen=True)
class MapModel:
    """How maps differ, in units of a node's peak. `noise` is what calibrates the oracle; see `oracle.py`."""

    change: float = 0.20  # amplitude of the affected node after the operation, relative
    change_sd: float = 0.04  # over subject x network, cut to 0.10-0.30
    widening: float = 0.04  # width of the affected node after the operation, relative
    drift: float = 0.10  # sd of a session's place on the effect's axis, all networks alike; the operation moves it by 1
    shift: float = 2.0  # mm, sd of a subject's displacement of a network along each axis
    node: float = 0.10  # sd of a subject's gain of each node
    texture: float = 0.15  # sd of a subject's smooth multiplicative field
    field: float = 0.05  # sd of a subject's smooth additive field
    site: float = 0.03  # sd of a site's smooth additive field, common to all maps of the site
    motion: float = 0.03  # size of the rim pattern at the median head motion
    noise: float = 0.70  # sd of each component's smooth multiplicative field: a network never looks the same twice
    background: float = 0.05  # sd of each component's smooth additive field
    white: float = 0.03  # sd of the voxel noise at 8 mm; its variance goes with 1 / voxel volume
    noise_fwhm: float = 14.0  # mm, of the component's two fields
    subject_fwhm: float = 28.0  # mm
    site_fwhm: float = 60.0  # mm


@dataclass(frozen=True)
class IcaSettings:
    """What is simulated; the defaults are the quick start's.

    Raises:
        UserError: a value out of range.
    """

    subjects: int = 40
    sessions: int = 2  # of each subject: the first half `pre`, the second half `post`
    networks: int = 5  # the first ones of `NETWORKS`
    components: int = 1  # independent components of each network in each session
    resolution: float = 8.0  # mm
    seed: int = 0
    effect: float = 1.0  # size of the state effect; 0 is the null
    confounded: bool = False  # scanner gain, head motion and scan length go with the state
    sites: int = 2
    motion: float = MEDIAN_FD  # median of the mean framewise displacement, mm
    tr: float = 2.0  # s
    cavity: bool = False  # the operation leaves a cavity in the maps after it
    maps: MapModel = field(default_factory=MapModel)
    courses: CourseModel = field(default_factory=CourseModel)

    def __post_init__(self) -> None:
        checks = [
            ("subjects", self.subjects >= 2, "at least 2"),
            ("sessions", self.sessions >= 2 and self.sessions % 2 == 0, "an even number, half of them pre and half post"),
            ("networks", 1 <= self.networks <= len(NETWORKS), f"1 to {len(NETWORKS)}"),
            ("components", 1 <= self.components <= 20, "1 to 20"),
            ("seed", self.seed >= 0, "0 or more"),
            ("effect", 0 <= self.effect <= 3, "0 (none) to 3"),
            ("sites", self.sites >= 1, "at least 1"),
            ("motion", 0 <= self.motion <= 2, "0 to 2 mm"),
            ("tr", 0.3 <= self.tr <= 4, "0.3 to 4 s"),
        ]
        for name, fine, allowed in checks:
            if not fine:
                raise UserError(f"{name} {getattr(self, name)}: out of range; give {allowed}")

    @property
    def session_states(self) -> list[tuple[str, str]]:
        """Session names and their states, in order: `ses-pre`, `ses-post`; numbered when there are several of each."""
        half = self.sessions // 2
        number = [""] if half == 1 else [str(k + 1) for k in range(half)]
        return [(f"ses-{state}{k}", state) for state in ("pre", "post") for k in number]


@dataclass(frozen=True)
class Nuisance:
    """What differs between scans and is not the state."""

    mean_fd: float  # mm
    tsnr: float
    gain: float  # the scanner's
    volumes: int


@dataclass(frozen=True)
class SimulatedScan:
    """One session as it lies on disk, and the truth about it. Components are shuffled and have random signs."""

    subject: str
    session: str
    state: str  # pre or post
    site: str
    tr: float  # s
    nuisance: Nuisance
    network: list[str]  # of each component
    sign: Int[np.ndarray, "components"]  # +1 or -1, of map and course together
    maps: Float[np.ndarray, "components voxels"]
    courses: Float[np.ndarray, "components time"]
    latent: float  # the session's place on the effect's axis: `effect` after the operation, 0 before, and drift
    change: Float[np.ndarray, "components"]  # true relative amplitude change of the affected node
    slope: Float[np.ndarray, "components"]  # true spectral slope
    lesion: Bool[np.ndarray, "voxels"] | None = None  # hamartoma before, cavity after the operation


@dataclass(frozen=True)
class Person:
    """What a subject's sessions share; first axis is the network."""

    name: str
    site: int
    age: float  # years
    sex: str
    gain: Float[np.ndarray, "networks nodes"]
    shift: Float[np.ndarray, "networks 3"]  # mm
    change: Float[np.ndarray, "networks"]
    texture: Float[np.ndarray, "networks voxels"]
    field: Float[np.ndarray, "networks voxels"]
    slope: Float[np.ndarray, "networks"]
    loadings: Float[np.ndarray, "networks latents"]
    motion: float
    scanner: float


class SimulatedCohort:
    """The cohort that `settings` stand for. Nothing is kept: `subject(i)` draws the scans of one subject anew."""

    def __init__(self, settings: IcaSettings) -> None:
        self.settings, self.model = settings, settings.maps
        self.brain = load_brain(settings.resolution)
        self.xyz = self.brain.coordinates()
        self.names = list(NETWORKS)[: settings.networks]
        self.templates = np.stack([network_map(self.xyz, name) for name in self.names])
        self.effects = np.stack([self._after(name) for name in self.names]) - self.templates  # post minus pre, on average
        self.rim = rim(self.brain)
        self.noise_field = SmoothField(self.brain, self.model.noise_fwhm)
        self.subject_field = SmoothField(self.brain, self.model.subject_fwhm)
        self.site_field = SmoothField(self.brain, self.model.site_fwhm)
        self.site_maps = [self.site_field.draw(self._stream(SITE, site), 1)[0] for site in range(settings.sites)]
        # Several components of a network share the evidence that one would carry.
        self.noise_sd = self.model.noise * np.sqrt(settings.components)
        self.background_sd = self.model.background * np.sqrt(settings.components)
        self.white_sd = self.model.white * np.sqrt(settings.components * (8.0 / settings.resolution) ** 3)

    def __len__(self) -> int:
        return self.settings.subjects

    def __iter__(self) -> Iterator[tuple[Person, list[SimulatedScan]]]:
        """Each subject with its scans."""
        return (self.subject(index) for index in range(len(self)))

    def subject(self, index: int) -> tuple[Person, list[SimulatedScan]]:
        """Subject `index` (0-based) and all its sessions, in order."""
        person = self.person(index)
        states = self.settings.session_states
        return person, [self._scan(person, index, k, session, state) for k, (session, state) in enumerate(states)]

    def person(self, index: int) -> Person:
        """What the sessions of subject `index` share."""
        m, c, count = self.model, self.settings.courses, len(self.names)
        rng = self._stream(SUBJECT, index)
        return Person(
            name=f"sub-{index + 1:03d}",
            site=index % self.settings.sites,
            age=float(np.round(rng.uniform(6, 40), 1)),
            sex=str(rng.choice(["F", "M"])),
            gain=1 + m.node * rng.standard_normal((count, MAX_NODES)),
            shift=m.shift * rng.standard_normal((count, 3)),
            change=np.clip(m.change + m.change_sd * rng.standard_normal(count), 0.10, 0.30),
            texture=m.texture * self.subject_field.draw(rng, count),
            field=m.field * self.subject_field.draw(rng, count),
            slope=c.slope + c.subject * rng.standard_normal() + c.network * rng.standard_normal(count),
            loadings=LOADINGS[:count] + c.fnc_subject * rng.standard_normal((count, LOADINGS.shape[1])),
            motion=float(np.exp(MOTION_SUBJECT * rng.standard_normal())),
            scanner=float(np.exp(0.15 * rng.standard_normal())),
        )

    def lesion(self, index: int) -> tuple[Bool[np.ndarray, "voxels"], Bool[np.ndarray, "voxels"]]:
        """Hamartoma and cavity of subject `index`."""
        return draw_lesion(self._stream(LESION, index), self.xyz)

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.settings.seed, spawn_key=key))

    def _after(self, name: str) -> Float[np.ndarray, "voxels"]:
        effect = self.settings.effect
        return network_map(self.xyz, name, change=effect * self.model.change, widening=effect * self.model.widening)

    def _nuisance(self, rng: np.random.Generator, person: Person, post: bool) -> Nuisance:
        """Draws are the same with and without confounding; only what is made of them differs."""
        jitter_fd, jitter_gain, jitter_tsnr = rng.standard_normal(3) * (MOTION_SESSION, 0.12, 0.12)
        position = rng.uniform()
        shortest, longest = 250, 600
        fd_factor, gain_factor = 1.0, 1.0
        if self.settings.confounded:  # calmer, on another scanner setting, and longer after the operation
            shortest, longest = (400, 600) if post else (250, 450)
            fd_factor, gain_factor = (0.7, 1.25) if post else (1.4, 0.8)
        fd = self.settings.motion * person.motion * float(np.exp(jitter_fd)) * fd_factor
        gain = person.scanner * float(np.exp(jitter_gain)) * gain_factor
        tsnr = 60 * np.sqrt(gain) * float(np.exp(jitter_tsnr)) / (1 + fd)
        volumes = int(shortest + position * (longest - shortest + 1))
        return Nuisance(round(fd, 4), round(float(tsnr), 2), round(gain, 4), min(volumes, longest))

    def _scan(self, person: Person, index: int, number: int, session: str, state: str) -> SimulatedScan:
        s, rng, post = self.settings, self._stream(SESSION, index, number), state == "post"
        nuisance = self._nuisance(rng, person, post)
        latent = float(s.effect * post + self.model.drift * rng.standard_normal())
        change = latent * person.change
        signal = self._signal(person, change, latent * self.model.widening)
        artefact = self.model.site * self.site_maps[person.site] + self.model.motion * nuisance.mean_fd / MEDIAN_FD * self.rim
        maps = self._components(rng, signal) + np.repeat(person.field, s.components, axis=0) + artefact
        model, count = s.courses, len(self.names)
        slopes = person.slope + model.session * rng.standard_normal(count) + s.effect * model.state * post
        correlation = fnc(person.loadings + model.fnc_session * rng.standard_normal(person.loadings.shape))
        courses = draw_courses(rng, correlation, slopes, nuisance.volumes, s.tr, s.components, model.within)
        lesion = self.lesion(index)[int(post)] if s.cavity else None
        if lesion is not None and post:
            maps[:, lesion] *= REST
        order = rng.permutation(len(maps))  # MELODIC sorts by explained variance, which no one can foresee
        sign = rng.choice(np.array([-1, 1]), len(maps))
        network = np.repeat(np.arange(count), s.components)[order]
        return SimulatedScan(
            subject=person.name,
            session=session,
            state=state,
            site=f"site-{person.site + 1}",
            tr=s.tr,
            nuisance=nuisance,
            network=[self.names[n] for n in network],
            sign=sign,
            maps=(sign[:, None] * nuisance.gain * UNITS * maps[order]).astype(np.float32),
            courses=(sign[:, None] * courses.reshape(len(maps), -1)[order]).astype(np.float32),
            latent=latent,
            change=change[network],
            slope=slopes[network],
            lesion=lesion,
        )

    def _signal(
        self, person: Person, change: Float[np.ndarray, "networks"], widening: float
    ) -> Float[np.ndarray, "networks voxels"]:
        own = [
            network_map(self.xyz, name, person.gain[k], person.shift[k], float(change[k]), widening)
            for k, name in enumerate(self.names)
        ]
        return np.stack(own) * (1 + person.texture)

    def _components(
        self, rng: np.random.Generator, signal: Float[np.ndarray, "networks voxels"]
    ) -> Float[np.ndarray, "components voxels"]:
        """What ICA finds of each network in one session: multiplicative and additive smooth noise, and voxel noise."""
        signal = np.repeat(signal, self.settings.components, axis=0)
        count = len(signal)
        signal = signal * (1 + self.noise_sd * self.noise_field.draw(rng, count))
        white = rng.standard_normal((count, len(self.xyz)), dtype=np.float32)
        return signal + self.background_sd * self.noise_field.draw(rng, count) + self.white_sd * white
