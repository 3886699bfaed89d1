"""Files of a cluster: those of this machine, and the same through a transport's programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc_bridge.storage.cluster_files import HERE, ClusterFiles
from hpc_bridge.storage.remote_files import RemoteFiles
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.transports.login import LOCAL
from tests.unit.cluster_files_contract import (
    CASES,
    Case,
    Place,
    what_is_not_allowed_is_a_permission_error,
)

REMOTE = RemoteFiles(LOCAL, LocalTransport())


@pytest.fixture(params=[HERE, REMOTE], ids=["here", "remote"])
def files(request: pytest.FixtureRequest) -> ClusterFiles:
    result: ClusterFiles = request.param
    return result


@pytest.fixture
def at(files: ClusterFiles, tmp_path: Path) -> Place:
    """An empty folder."""
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    return Place(files, folder, folder)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_contract(case: Case, at: Place) -> None:
    case(at)


@pytest.mark.skipif(os.getuid() == 0, reason="root may do everything")
def test_what_is_not_allowed_is_a_permission_error(at: Place) -> None:
    what_is_not_allowed_is_a_permission_error(at)
