"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

# Two cores and many workers: one thread each is faster than all of them fighting for two.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public real data (`$SSL4NEURO_DATA`, or `../shared/data` beside the checkout)."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SSL4NEURO_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set SSL4NEURO_DATA)")
    return folder
