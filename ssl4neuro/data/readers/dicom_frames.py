"""Pixels of a DICOM file: decoded, upright in value (MONOCHROME1 inverted), colour as 8-bit RGB."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from ssl4neuro.data.readers.dicom_fields import DicomProblem, guarded, pydicom_module, text
from ssl4neuro.data.readers.dicom_headers import DicomImage, read_dataset

# What decodes which transfer syntax; longest beginning of its UID first.
DECODERS = {
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", "pip install pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", "pip install pyjpegls"),
    "1.2.840.10008.1.2.4.9": ("JPEG 2000", "pip install pylibjpeg pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.20": ("HTJ2K", "pip install pylibjpeg pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.10": ("MPEG", "export it uncompressed or as mp4"),
    "1.2.840.10008.1.2.4.5": ("JPEG", "pip install pylibjpeg pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.7": ("JPEG lossless", "pip install pylibjpeg pylibjpeg-libjpeg"),
}


def decoded_frames(image: DicomImage) -> Shaped[np.ndarray, "time height width *colour"]:
    """All frames of a file as stored, rescaling not applied; colour becomes RGB uint8.

    Raises:
        DicomProblem: no pixels, not decodable here, or not what the header describes.
    """
    file = image.file
    dataset = read_dataset(file)
    names = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
    if not any(name in dataset for name in names):
        raise DicomProblem(file, "holds no pixels; export the file again or remove it")
    pydicom = pydicom_module(file)
    with guarded(file, "broken header"):
        advice = _advice(_syntax(dataset, pydicom))
        bits = int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 8)
    with guarded(file, f"pixels cannot be decoded{advice}"):
        pixels = pydicom.pixels.pixel_array(dataset)  # YBR becomes RGB
        photometric = text(dataset, "PhotometricInterpretation").upper()
        if photometric == "PALETTE COLOR":
            pixels = pydicom.pixels.apply_color_lut(pixels, dataset)
    pixels = np.asarray(pixels)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    colour = image.samples == 3 or photometric == "PALETTE COLOR"
    shape = (image.count, image.rows, image.columns, *((3,) if colour else ()))
    if pixels.shape != shape[1:] and pixels.shape != shape:
        found = " × ".join(map(str, pixels.shape))
        raise DicomProblem(file, f"decodes to {found} instead of {' × '.join(map(str, shape))}; export the file again")
    pixels = pixels.reshape(shape)
    if colour:
        return _eight_bits(pixels, photometric, bits)
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)
    return _inverted(pixels, bits) if photometric == "MONOCHROME1" else pixels


def _syntax(dataset: Any, pydicom: Any) -> str:
    """UID of the transfer syntax; a file without the preamble that names one gets that in which it was parsed."""
    if not getattr(dataset, "file_meta", None) or "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = getattr(dataset, "original_encoding", (True, True))
        uid = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = uid if little else pydicom.uid.ExplicitVRBigEndian
    return str(dataset.file_meta.TransferSyntaxUID)


def _advice(syntax: str) -> str:
    """`: JPEG-LS (1.2...), needs ...` for a compressed transfer syntax, empty for the others."""
    for start, (name, remedy) in DECODERS.items():
        if syntax.startswith(start):
            return f": {name} compressed (transfer syntax {syntax[:24]}), {remedy}, or else"
    return ""


def _eight_bits(pixels: np.ndarray, photometric: str, bits: int) -> np.ndarray:
    """Colour as uint8; entries of 16-bit palettes fill all bits, or by mistake of the writer only the lower eight."""
    if pixels.dtype == np.uint8:
        return pixels
    if photometric == "PALETTE COLOR":
        bits = 16 if int(pixels.max(initial=0)) > 255 else 8
    return (pixels >> max(bits - 8, 0)).astype(np.uint8)


def _inverted(pixels: np.ndarray, bits: int) -> np.ndarray:
    """MONOCHROME1, where the lowest value is white, with the lowest value black; the type stays."""
    if pixels.dtype.kind == "f":
        return pixels.max() - pixels
    low, high = (0, 2**bits - 1) if pixels.dtype.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (low + high - pixels.astype(np.int64)).astype(pixels.dtype)
