"""What every unit test starts from: none of this machine's own settings."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("HPC_BRIDGE_", "SLURM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HPC_BRIDGE_CONFIG", os.devnull)
