"""Header of a DICOM image as plain numbers: what its frames show, where they lie and when they were taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ssl4neuro.data.readers.dicom_fields import (
    DicomProblem,
    guarded,
    items,
    moment,
    number,
    numbers,
    pydicom_module,
    text,
    vector,
    view_of,
    whole,
)

# Everything that `image_header` looks at; other fields are not even parsed.
FIELDS = """SeriesInstanceUID SeriesNumber SeriesDescription ProtocolName Modality ImageType Rows Columns SamplesPerPixel
BitsAllocated NumberOfFrames ImagePositionPatient ImageOrientationPatient SliceLocation PixelSpacing TriggerTime
AcquisitionDate AcquisitionTime AcquisitionDateTime InstanceNumber TemporalPositionIdentifier FrameTime FrameTimeVector
CineRate RescaleSlope RescaleIntercept EchoTime EchoNumbers SequenceOfUltrasoundRegions SharedFunctionalGroupsSequence
PerFrameFunctionalGroupsSequence RepetitionTime FlipAngle MagneticFieldStrength HeartRate"""
STATIC = {"CT", "PT", "MG", "CR", "DX", "OPT", "IO"}  # volumes and radiographs unless they have times
NOT_VIDEO = {"SR", "PR", "KO", "REG", "FID", "DOC", "ECG", "HD", "SEG", "PLAN", "SM"}  # SM: frames are tiles of one slide
NOT_VIDEO |= {"RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE", "RTRECORD"}
VIDEO = {"MR", "US", "IVUS", "XA", "RF", "NM", "ES", "XC", "GM", "OP", "OT", "BI", "IVOCT", "ECHO"}
NUISANCES = {
    "field_strength": "MagneticFieldStrength",  # T
    "repetition_time": "RepetitionTime",  # ms
    "echo_time": "EchoTime",  # ms
    "flip_angle": "FlipAngle",  # degrees
    "heart_rate": "HeartRate",  # beats per minute
}
NATIVE = {
    "",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
}  # transfer syntaxes that store pixels as they are
MOST_PACKING = 1000  # decoded bytes per byte of a compressed file; images of one colour reach some hundred
COMPONENTS = {"M": "magnitude", "MAGNITUDE": "magnitude", "P": "phase", "PHASE": "phase", "PHASE MAP": "phase"}


@dataclass(frozen=True)
class Frame:
    """One frame: where it lies (mm), when it was taken (s), and how its stored values become quantities."""

    file: Path
    index: int  # frame in the file
    position: tuple[float, ...] | None = None  # of the first pixel in the patient, x y z
    orientation: tuple[float, ...] | None = None  # direction of rows, then of columns
    location: float | None = None  # SliceLocation, mm
    spacing: tuple[float, float] | None = None  # mm between rows, between columns
    trigger: float | None = None  # s after the R wave
    acquired: float | None = None  # s, clock
    temporal: int | None = None  # number of the time point
    number: int | None = None  # of the instance, or of the frame in its file
    kind: tuple[object, ...] = ()  # frames of another kind (phase instead of magnitude, another echo) are another clip
    rescale: tuple[float, float] = (1.0, 0.0)  # slope, intercept


@dataclass(frozen=True)
class DicomImage:
    """One file. `series` and `series_number` serve to group and sort, never to be shown."""

    file: Path
    series: str
    series_number: int | None
    modality: str
    view: str
    rows: int
    columns: int
    samples: int
    count: int  # frames in the file
    frames: tuple[Frame, ...]  # those of interest
    loop: bool  # frames are a recording in the order stored
    times: Float[np.ndarray, "time"] | None  # s after the first frame, for a loop
    nuisance: tuple[tuple[str, float], ...]


def has_preamble(file: Path) -> bool:
    """Whether `DICM` stands where the standard wants it."""
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_dataset(file: Path, fields: Sequence[str] | None = None) -> Any:
    """Header of a file with only `fields`, or all of it with pixels.

    Raises:
        DicomProblem: not readable.
    """
    pydicom = pydicom_module(file)
    with guarded(file, "not readable as DICOM"):
        headless = not has_preamble(file)
        tags = None if fields is None else list(fields)
        return pydicom.dcmread(file, stop_before_pixels=tags is not None, specific_tags=tags, force=headless)


def image_header(file: Path) -> DicomImage:
    """What the header of an image file says; no pixels are read.

    Raises:
        DicomProblem: no image, another modality, or sizes that cannot be.
    """
    dataset = read_dataset(file, FIELDS.split())
    with guarded(file, "broken header"):
        modality = text(dataset, "Modality").upper()
        known = modality if modality in VIDEO | STATIC | NOT_VIDEO else "unknown modality"
        sizes = [whole(dataset, name, file) for name in ("Rows", "Columns")]
        if modality in NOT_VIDEO or sizes == [None, None]:
            raise DicomProblem(file, f"no cine or video but {known}; remove it or leave it out with --skip-bad")
        rows, columns, samples, count = _sizes(dataset, file)
        groups = items(dataset, "PerFrameFunctionalGroupsSequence")
        if groups and len(groups) != count:
            raise DicomProblem(file, f"describes {len(groups)} frames but says it has {count}; export the file again")
        frames = _described_frames(dataset, groups, file) if groups else ()
        loop = count > 1 and not any(frame.position or frame.trigger is not None for frame in frames)  # plain: none yet
        if not frames:
            frames = tuple(_plain_frame(dataset, index, file) for index in range(count))
        return DicomImage(
            file=file,
            series=text(dataset, "SeriesInstanceUID"),
            series_number=whole(dataset, "SeriesNumber", file),
            modality=modality if known == modality else "",
            view=view_of(f"{text(dataset, 'SeriesDescription')} ; {text(dataset, 'ProtocolName')}"),
            rows=rows,
            columns=columns,
            samples=samples,
            count=count,
            frames=frames,
            loop=loop,
            times=_loop_times(dataset, count, frames, file) if loop else None,
            nuisance=_nuisance(dataset, file),
        )


def _sizes(dataset: Any, file: Path) -> tuple[int, int, int, int]:
    """Rows, columns, samples per pixel and frames, no more than the file can hold."""
    names = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
    sizes = [whole(dataset, name, file) or 0 for name in names]
    count = whole(dataset, "NumberOfFrames", file) or 1  # 0 is written by some exporters of still images
    if min(sizes) < 1 or sizes[2] not in (1, 3) or sizes[3] > 64:
        given = ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
        raise DicomProblem(file, f"sizes that cannot be ({given}); export the file again or remove it")
    size = file.stat().st_size
    syntax = text(getattr(dataset, "file_meta", None) or {}, "TransferSyntaxUID")
    packing = 1 if syntax in NATIVE else MOST_PACKING
    pixels = sizes[0] * sizes[1] * sizes[2] * sizes[3] // 8
    # Subsampled colour (YBR_FULL_422) is stored in two thirds of what it decodes to.
    if count < 1 or count > size or pixels * count > 2 * size * packing:
        raise DicomProblem(
            file,
            f"{count} frames of {sizes[0]} × {sizes[1]} do not fit into its {size} bytes (cut short?); copy the file again",
        )
    return sizes[0], sizes[1], sizes[2], count


def _plain_frame(dataset: Any, index: int, file: Path) -> Frame:
    """A frame described by the fields of its file."""
    trigger = number(dataset, "TriggerTime", file)
    stamp = text(dataset, "AcquisitionDateTime")
    day, clock = (stamp[:8], stamp[8:]) if stamp[8:] else (text(dataset, "AcquisitionDate"), text(dataset, "AcquisitionTime"))
    words = text(dataset, "ImageType").strip("[]").replace("'", "").replace("\\", ",").split(",")
    components = {COMPONENTS[word.strip()] for word in words[2:] if word.strip() in COMPONENTS}
    return Frame(
        file=file,
        index=index,
        position=vector(dataset, "ImagePositionPatient", 3, file),
        orientation=vector(dataset, "ImageOrientationPatient", 6, file),
        location=number(dataset, "SliceLocation", file),
        spacing=_spacing(vector(dataset, "PixelSpacing", 2, file)) or _ultrasound_spacing(dataset, file),
        trigger=None if trigger is None else trigger / 1000,
        acquired=moment(day, clock),
        temporal=whole(dataset, "TemporalPositionIdentifier", file),
        number=whole(dataset, "InstanceNumber", file),
        kind=(*sorted(components), number(dataset, "EchoNumbers", file)),
        rescale=_rescale(dataset, file),
    )


def _described_frames(dataset: Any, groups: Sequence[Any], file: Path) -> tuple[Frame, ...]:
    """Frames of an enhanced file, each described by its own functional groups or by those that all share."""
    shared = items(dataset, "SharedFunctionalGroupsSequence")

    def group(own: Any, name: str) -> Any:
        return next((found[0] for source in (own, *shared[:1]) if (found := items(source, name))), {})

    frames = []
    for index, own in enumerate(groups):
        content, heart = group(own, "FrameContentSequence"), group(own, "CardiacSynchronizationSequence")
        trigger = number(heart, "NominalCardiacTriggerDelayTime", file)
        if trigger is None:
            trigger = number(heart, "ActualCardiacTriggerDelayTime", file)
        offset = number(group(own, "TemporalPositionSequence"), "TemporalPositionTimeOffset", file)
        stamp = text(content, "FrameAcquisitionDateTime") or text(content, "FrameReferenceDateTime")
        place, turn = group(own, "PlanePositionSequence"), group(own, "PlaneOrientationSequence")
        component = text(group(own, "MRImageFrameTypeSequence"), "ComplexImageComponent").upper()
        frames.append(
            Frame(
                file=file,
                index=index,
                position=vector(place, "ImagePositionPatient", 3, file)
                or vector(group(own, "PlanePositionVolumeSequence"), "ImagePositionVolume", 3, file),
                orientation=vector(turn, "ImageOrientationPatient", 6, file)
                or vector(group(own, "PlaneOrientationVolumeSequence"), "ImageOrientationVolume", 6, file),
                location=None,
                spacing=_spacing(vector(group(own, "PixelMeasuresSequence"), "PixelSpacing", 2, file)),
                trigger=offset if trigger is None else trigger / 1000,
                acquired=moment(stamp[:8], stamp[8:]),
                temporal=whole(content, "TemporalPositionIndex", file),
                number=index + 1,
                kind=(COMPONENTS.get(component), number(group(own, "MREchoSequence"), "EffectiveEchoTime", file)),
                rescale=_rescale(group(own, "PixelValueTransformationSequence"), file),
            )
        )
    return tuple(frames)


def _spacing(pair: tuple[float, ...] | None) -> tuple[float, float] | None:
    """mm between rows and between columns; zeros stand for unknown."""
    return (pair[0], pair[1]) if pair is not None and min(pair) > 0 else None


def _ultrasound_spacing(dataset: Any, file: Path) -> tuple[float, float] | None:
    """mm per pixel of an ultrasound frame, where all of it has one scale in cm."""
    regions = items(dataset, "SequenceOfUltrasoundRegions")
    if len(regions) != 1 or any(whole(regions[0], f"PhysicalUnits{axis}Direction", file) != 3 for axis in "XY"):
        return None
    rows, columns = (number(regions[0], f"PhysicalDelta{axis}", file) for axis in "YX")
    return _spacing((10 * abs(rows), 10 * abs(columns))) if rows and columns else None


def _rescale(dataset: Any, file: Path) -> tuple[float, float]:
    """Slope and intercept, 1 and 0 where there are none."""
    slope, intercept = number(dataset, "RescaleSlope", file), number(dataset, "RescaleIntercept", file)
    if slope == 0:
        raise DicomProblem(
            file, "header field RescaleSlope is 0, which would blank the image; export the file again or remove it"
        )
    return 1.0 if slope is None else slope, intercept or 0.0


def _loop_times(dataset: Any, count: int, frames: Sequence[Frame], file: Path) -> Float[np.ndarray, "time"] | None:
    """Times (s) of a recording's frames after the first one, None where the header has none.

    Raises:
        DicomProblem: they do not increase, or are not one per frame.
    """
    steps = numbers(dataset, "FrameTimeVector", file)
    rate, step = number(dataset, "CineRate", file), number(dataset, "FrameTime", file)
    times: np.ndarray | None = None
    stamps = [frame.acquired for frame in frames if frame.acquired is not None]
    if len(steps) > 1 and any(steps):
        if len(steps) != count:
            raise DicomProblem(file, f"FrameTimeVector is for {len(steps)} frames but there are {count}; export the file again")
        times = np.cumsum([0.0, *steps[1:]]) / 1000
    elif stamps and len(stamps) == count and len(set(stamps)) > 1:
        times = np.array(stamps) - stamps[0]
    elif step:
        times = np.arange(count) * step / 1000
    elif rate:
        times = np.arange(count) / rate
    if times is not None and not (np.diff(times) > 0).all():
        raise DicomProblem(
            file, "frame times stand still or go backwards; export the file again or leave it out with --skip-bad"
        )
    return times


def _nuisance(dataset: Any, file: Path) -> tuple[tuple[str, float], ...]:
    values = {name: number(dataset, field, file) for name, field in NUISANCES.items()}
    return tuple((name, value) for name, value in values.items() if value)  # 0: unknown
