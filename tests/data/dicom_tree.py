"""A writer of small DICOM files for tests, byte by byte from the standard (PS3.5), so that no library both writes and reads.

`phantom` is a dot that moves down over time and to the right over slices: a mix-up of axes or order cannot go unseen.
"""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

IMPLICIT, EXPLICIT, BIG, RLE = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".5"))
MR, US, ENHANCED_MR, SR, CT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "6.1", "4.1", "88.11", "2"))
SECRETS = ("Planted^Name", "PID-13579", "1.2.826.77.4711", "19770707", "cine for Mr Planted")
TAGS = {
    "ImageType": (0x00080008, "CS"), "SOPClassUID": (0x00080016, "UI"), "SOPInstanceUID": (0x00080018, "UI"),
    "StudyDate": (0x00080020, "DA"), "AcquisitionDate": (0x00080022, "DA"), "StudyTime": (0x00080030, "TM"),
    "AcquisitionDateTime": (0x0008002A, "DT"), "AcquisitionTime": (0x00080032, "TM"), "Modality": (0x00080060, "CS"),
    "SeriesDescription": (0x0008103E, "LO"), "PatientName": (0x00100010, "PN"), "PatientID": (0x00100020, "LO"),
    "PatientBirthDate": (0x00100030, "DA"), "SequenceOfUltrasoundRegions": (0x00186011, "SQ"),
    "PhysicalUnitsXDirection": (0x00186024, "US"), "PhysicalUnitsYDirection": (0x00186026, "US"),
    "PhysicalDeltaX": (0x0018602C, "FD"), "PhysicalDeltaY": (0x0018602E, "FD"), "CineRate": (0x00180040, "IS"),
    "EchoTime": (0x00180081, "DS"), "TriggerTime": (0x00181060, "DS"), "FrameTime": (0x00181063, "DS"),
    "FrameTimeVector": (0x00181065, "DS"), "FrameAcquisitionDateTime": (0x00189074, "DT"),
    "CardiacSynchronizationSequence": (0x00189118, "SQ"), "StudyInstanceUID": (0x0020000D, "UI"),
    "SeriesInstanceUID": (0x0020000E, "UI"), "SeriesNumber": (0x00200011, "IS"), "InstanceNumber": (0x00200013, "IS"),
    "ImagePositionPatient": (0x00200032, "DS"), "ImageOrientationPatient": (0x00200037, "DS"),
    "TemporalPositionIdentifier": (0x00200100, "IS"), "SliceLocation": (0x00201041, "DS"),
    "FrameContentSequence": (0x00209111, "SQ"), "PlanePositionSequence": (0x00209113, "SQ"),
    "PlaneOrientationSequence": (0x00209116, "SQ"), "NominalCardiacTriggerDelayTime": (0x00209153, "FD"),
    "SamplesPerPixel": (0x00280002, "US"), "PhotometricInterpretation": (0x00280004, "CS"),
    "PlanarConfiguration": (0x00280006, "US"), "NumberOfFrames": (0x00280008, "IS"), "Rows": (0x00280010, "US"),
    "Columns": (0x00280011, "US"), "PixelSpacing": (0x00280030, "DS"), "BitsAllocated": (0x00280100, "US"),
    "BitsStored": (0x00280101, "US"), "HighBit": (0x00280102, "US"), "PixelRepresentation": (0x00280103, "US"),
    "RescaleIntercept": (0x00281052, "DS"), "RescaleSlope": (0x00281053, "DS"),
    "RedPaletteColorLookupTableDescriptor": (0x00281101, "US"), "GreenPaletteColorLookupTableDescriptor": (0x00281102, "US"),
    "BluePaletteColorLookupTableDescriptor": (0x00281103, "US"), "RedPaletteColorLookupTableData": (0x00281201, "OW"),
    "GreenPaletteColorLookupTableData": (0x00281202, "OW"), "BluePaletteColorLookupTableData": (0x00281203, "OW"),
    "PixelMeasuresSequence": (0x00289110, "SQ"), "PixelValueTransformationSequence": (0x00289145, "SQ"),
    "SharedFunctionalGroupsSequence": (0x52009229, "SQ"), "PerFrameFunctionalGroupsSequence": (0x52009230, "SQ"),
    "PixelData": (0x7FE00010, "OW"),
}  # fmt: skip
LONG = {"OB", "OW", "SQ", "UN", "UT"}


def value_bytes(vr: str, value: object, end: str) -> bytes:
    """A value in its encoding, padded to an even length."""
    if isinstance(value, bytes):
        return value + b"\0" * (len(value) % 2)
    values = value if isinstance(value, list | tuple) else [value]
    if vr in ("US", "FD"):
        return b"".join(struct.pack(end + {"US": "H", "FD": "d"}[vr], part) for part in values)
    content = "\\".join(str(part) for part in values).encode()
    return content + (b"\0" if vr == "UI" else b" ") * (len(content) % 2)


def element(name: str, value: object, syntax: str) -> bytes:
    """One data element; a sequence is a list of dictionaries."""
    end = ">" if syntax == BIG else "<"
    tag, vr = TAGS[name]
    head = struct.pack(end + "HH", tag >> 16, tag & 0xFFFF)
    if vr == "SQ":
        bodies = [dataset_bytes(item, syntax) for item in value]  # type: ignore[attr-defined]
        content = b"".join(struct.pack(end + "HHL", 0xFFFE, 0xE000, len(body)) + body for body in bodies)
    else:
        content = value_bytes(vr, value, end)
    length = 0xFFFFFFFF if name == "PixelData" and syntax == RLE else len(content)
    if syntax == IMPLICIT:
        return head + struct.pack("<L", length) + content
    vr = "OB" if name == "PixelData" and syntax == RLE else vr
    size = struct.pack(end + "HL", 0, length) if vr in LONG else struct.pack(end + "H", length)
    return head + vr.encode() + size + content


def dataset_bytes(fields: dict[str, object], syntax: str) -> bytes:
    present = {name: value for name, value in fields.items() if value is not None}
    return b"".join(element(name, present[name], syntax) for name in sorted(present, key=lambda name: TAGS[name][0]))


def run_lengths(row: bytes) -> bytes:
    """PackBits of one plane (PS3.5 annex G): runs of equal bytes only, which is allowed if not small."""
    out, i = bytearray(), 0
    while i < len(row):
        run = 1
        while i + run < len(row) and run < 128 and row[i + run] == row[i]:
            run += 1
        out += bytes([257 - run, row[i]]) if run > 1 else bytes([0, row[i]])
        i += run
    return bytes(out + b"\0" * (len(out) % 2))


def rle_pixels(frames: np.ndarray) -> bytes:
    """Encapsulated RLE frames: empty offset table, then one item per frame with one segment per byte plane, highest first."""
    out = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    for frame in frames:
        planes = [frame.astype(frame.dtype.newbyteorder(">")).reshape(-1).view(np.uint8).reshape(-1, frame.dtype.itemsize)]
        if frame.ndim == 3:
            planes = [frame[..., c].reshape(-1, 1) for c in range(3)]
        segments = [run_lengths(plane[:, byte].tobytes()) for plane in planes for byte in range(plane.shape[1])]
        starts = 64 + np.cumsum([0, *(len(segment) for segment in segments)])[:-1]
        header = struct.pack("<16L", len(segments), *starts, *[0] * (15 - len(segments)))
        body = header + b"".join(segments)
        out += struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body
    return out + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def write(path: Path, pixels: np.ndarray | None, syntax: str = EXPLICIT, **fields: object) -> Path:
    """One file of frames [time, rows, columns] (or [rows, columns], or [..., 3]); `fields` add to or replace the header."""
    header: dict[str, object] = {
        "SOPClassUID": MR, "SOPInstanceUID": f"{SECRETS[2]}.{zlib.crc32(path.name.encode())}", "Modality": "MR",
        "PatientName": SECRETS[0], "PatientID": SECRETS[1], "StudyDate": SECRETS[3], "PatientBirthDate": SECRETS[3],
        "StudyInstanceUID": f"{SECRETS[2]}.1", "SeriesInstanceUID": f"{SECRETS[2]}.2", "SeriesNumber": 1,
        "SeriesDescription": SECRETS[4],
    }  # fmt: skip
    if pixels is not None:
        colour = pixels.shape[-1] == 3
        bits = 8 * pixels.dtype.itemsize
        size = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
        count = pixels.shape[0] if pixels.ndim == (4 if colour else 3) else None
        header |= {
            "SamplesPerPixel": 3 if colour else 1, "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
            "PlanarConfiguration": 0 if colour else None, "NumberOfFrames": count, "Rows": size[0], "Columns": size[1],
            "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
        }  # fmt: skip
        if syntax == RLE:
            header["PixelData"] = rle_pixels(pixels if count is not None else pixels[None])
        else:
            header["PixelData"] = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
    header |= fields
    meta = b"\x02\x00\x01\x00OB\0\0" + struct.pack("<L", 2) + b"\0\x01"
    for tag, uid in ((2, header["SOPClassUID"]), (3, header["SOPInstanceUID"]), (0x10, syntax)):
        content = value_bytes("UI", uid, "<")
        meta += struct.pack("<HH", 2, tag) + b"UI" + struct.pack("<H", len(content)) + content
    group = b"\x02\x00\x00\x00UL\x04\0" + struct.pack("<L", len(meta))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * 128 + b"DICM" + group + meta + dataset_bytes(header, syntax))
    return path


def phantom(times: int = 5, slices: int = 4, rows: int = 16, columns: int = 12) -> np.ndarray:
    """[slices, times, rows, columns] int16: a dot at row 1 + time, column 2 + slice, on noise that tells frames apart."""
    frames = np.random.default_rng(7).integers(0, 50, (slices, times, rows, columns)).astype(np.int16)
    for s in range(slices):
        for t in range(times):
            frames[s, t, 1 + t, 2 + s] = 1000
    return frames


# An oblique stack: the normal is not along any axis of the patient.
ROW = np.array([0.6, 0.8, 0.0])
COLUMN = np.cross([0.48, -0.36, 0.8], ROW)
NORMAL = np.cross(ROW, COLUMN)


def write_stack(
    folder: Path, frames: np.ndarray, skip: Sequence[tuple[int, int]] = (), step: float = 8.0, seed: int = 0, **fields: object
) -> list[Path]:
    """A cine stack [slices, times, rows, columns] as single-frame files, named and numbered in a random order.

    Trigger times are 40 ms apart from 15 ms; slices `step` mm apart along the normal. `skip`: (slice, time) not written.
    """
    cells = [(s, t) for s in range(frames.shape[0]) for t in range(frames.shape[1]) if (s, t) not in skip]
    paths = []
    for number, i in enumerate(np.random.default_rng(seed).permutation(len(cells)), start=1):
        s, t = cells[i]
        own: dict[str, object] = {
            "ImagePositionPatient": [f"{value:.5f}" for value in np.array([-20.0, 30.0, -5.0]) + s * step * NORMAL],
            "ImageOrientationPatient": [f"{value:.6f}" for value in (*ROW, *COLUMN)],
            "TriggerTime": f"{15 + 40 * t:.1f}", "InstanceNumber": number, "PixelSpacing": [1.5, 1.25],
        }  # fmt: skip
        paths.append(write(folder / f"im{number:04d}.dcm", frames[s, t], **(own | fields)))
    return paths
