"""What the lab's own tests share. Where no lab can be had, tests marked `lab` skip with its reason."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simopen import lab

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["tun", "veth"])
def link(request: pytest.FixtureRequest) -> str:
    """Each kind of link in turn; one that cannot be had here skips, and says why."""
    reason = lab.available(request.param)
    if reason:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def for_everybody() -> Iterator[Path]:
    """Copies of what the lab imports, where everybody may read them: neither a checkout nor its venv need be so."""
    import dpkt
    import pyroute2

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        ours = (REPOSITORY / "simopen", REPOSITORY / "tests")
        for package in (*ours, *(Path(module.__file__).parent for module in (dpkt, pyroute2))):
            shutil.copytree(package, Path(folder) / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        yield Path(folder)
