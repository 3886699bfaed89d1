"""What every unit test starts from: none of this machine's own settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("HPC_BRIDGE_", "SLURM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HPC_BRIDGE_CONFIG", str(tmp_path / "no-such-config.toml"))
