"""A disk that becomes full while files come."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.apps.transfer.full_disk import DATA


@pytest.mark.lab
def test_both_are_told_and_what_had_room_is_not_sent_again(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    command = [sys.executable, "-m", "tests.apps.transfer.full_disk", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all("No space left on device" in each for each in found["full"][:2]), found
    assert found["left"] == ["-part", "other"], "nothing has its final name"
    assert found["then"][:2] == ["None", str(len(DATA))], found
    assert int(found["then"][2]) > 0
    assert found["whole"]
