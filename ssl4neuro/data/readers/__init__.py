"""Readers of ICA data and courses, by the option of `ssl4neuro prepare` that names their source."""

from ssl4neuro.data.readers.bids import BidsReader
from ssl4neuro.data.readers.courses import CourseReader
from ssl4neuro.data.readers.gift import GiftReader
from ssl4neuro.data.readers.melodic import MelodicReader

READERS: dict[str, type] = {"bids": BidsReader, "melodic": MelodicReader, "gift": GiftReader, "courses": CourseReader}
