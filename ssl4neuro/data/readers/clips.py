"""Readers of cine and video, by the `--layout` of `ssl4neuro prepare clips`.

A new layout is a class with the methods of `ssl4neuro.data.scan.Reader`, whose `read` returns `ClipRows`, with the options of
the others, and one line here. `description` says under `cine` whether clips are one heart beat (`cyclic`; None where unknown).
"""

from ssl4neuro.data.readers.acdc import AcdcReader
from ssl4neuro.data.readers.bids_clips import BidsClipReader
from ssl4neuro.data.readers.emidec import EmidecReader
from ssl4neuro.data.readers.files import FileReader

LAYOUTS: dict[str, type] = {"acdc": AcdcReader, "emidec": EmidecReader, "bids": BidsClipReader, "files": FileReader}
