"""What scans and subjects carry besides their images: names of files and IDs, header fields, and columns of the acquisition."""

import re
from pathlib import PurePosixPath

import pandas as pd
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import SpatialImage

SITE, LENGTH, GEOMETRY = "site or scanner", "scan length", "geometry and file format"
INTENSITY, DATE = "intensity scale", "date and order"
KINDS = {
    SITE: r"sites?|cent(er|re)s?|scanners?|manufacturers?\w*|vendors?|institutions?|hospitals?|coils?|batch(es)?|device\w*"
    r"|scanner_?type|(magnetic_)?field_?strength|software\w*|station\w*|acquisition_?site",
    LENGTH: r"n_?\w*(volumes?|vols?|frames?|clips?|slices?|scans?|runs?|timepoints?)|rows|volumes?|frames?"
    r"|(scan|acq\w*|run)_?(duration|length)",
    GEOMETRY: r"tr|te|repetition_?time|echo_?time|flip_?angle|interval|voxel\w*|spacing\w*|zooms?|pixel\w*|resolution|height"
    r"|width|thickness\w*|matrix|dtype|format|file_?(type|format|size)|bits\w*|header\w*|flip(ped)?|mirror(ed)?|orientation"
    r"|protocol|phase_?encoding\w*|sequence",
    INTENSITY: r"\w*intensity\w*|scale|slope|gain|brightness|rescale\w*|window\w*|max_?value|mean_?signal",
    DATE: r"\w*date|datetime|acq\w*_?time|scan_?time|study_?time|order|scan_?order|timestamp|year|scan_?year"
    r"|visit_?(no|number|order)",
}
HEADER_TEXTS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")


def kind_of(column: str) -> str | None:
    """Which kind of acquisition property a column's name says that it is; None for anything else."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).casefold().replace(" ", "_").replace("-", "_")
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, name)), None)


def id_patterns(names: pd.Series) -> dict[str, pd.Series]:
    """Letters of IDs with `#` for each number, their last number, and its first digit where all have as many digits."""
    bare = names.str.replace(r"^sub[-_]?", "", regex=True)
    numbers = bare.str.findall(r"\d+").map(lambda found: found[-1] if found else None)
    found = {
        "letters of the ID": bare.str.replace(r"\d+", "#", regex=True),
        "number in the ID": pd.to_numeric(numbers, errors="coerce"),
    }
    if numbers.notna().all() and numbers.str.len().nunique() == 1 and numbers.str.len().iloc[0] > 1:
        found["first digit of the ID"] = numbers.str[0].map(lambda digit: f"'{digit}")
    return found


def file_pattern(file: str, own: tuple[str, ...] = ()) -> tuple[str, str]:
    """Folders and name without the scan's `own` names and numbers, and the ending.

    `controls/sub-01_bold.nii.gz` of sub-01 is `controls/_bold` and `.nii.gz`.
    """
    path = PurePosixPath(file)
    ending = "".join(s for s in path.suffixes[-2:] if not re.search(r"\d", s))
    text = str(path).removesuffix(ending)
    for part in sorted(filter(None, own), key=len, reverse=True):
        text = re.sub(re.escape(part.removeprefix("sub-")), "", text.replace(part, ""), flags=re.IGNORECASE)
    return re.sub(r"\d+", "#", text), ending


def header_properties(image: SpatialImage) -> dict[str, str]:
    """Free text of a NIfTI header (numbers as `#`), the type of its numbers, and its scaling."""
    header = image.header
    found = {"number type": str(header.get_data_dtype())}
    if isinstance(header, Nifti1Header):
        for field in HEADER_TEXTS:
            text = bytes(header[field]).split(b"\0")[0].decode("latin-1").strip()
            found[f"header field {field}"] = re.sub(r"\d+", "#", text)
        found["header scaling"] = "scaled" if header.get_slope_inter() not in ((1.0, 0.0), (None, None)) else "as it is"
    return found
