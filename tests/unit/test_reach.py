"""One ClusterFiles per login."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from hpc_bridge.errors import CommandError
from hpc_bridge.storage import reach
from hpc_bridge.storage.cluster_files import HERE
from hpc_bridge.storage.reach import files_at
from hpc_bridge.storage.remote_files import RemoteFiles
from hpc_bridge.transports import login as logins
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.transports.login import LOCAL, Login


@pytest.fixture(autouse=True)
def nothing_is_reached_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_files", {})
    monkeypatch.setattr(logins, "_transports", {})
    monkeypatch.setattr(logins, "_open", lambda _: LocalTransport())


def test_equal_logins_have_the_same_files() -> None:
    assert files_at(LOCAL) is files_at(Login()) is HERE
    there = files_at(Login("paramiko", "cluster"))
    assert there is files_at(Login("paramiko", "cluster"))
    assert there is not files_at(Login("paramiko", "cluster", user="other"))
    assert isinstance(there, RemoteFiles)
    assert there.login == Login("paramiko", "cluster")
    assert there.transport is logins.transport_to(there.login)


def test_a_forked_child_waits_for_no_thread_of_its_parent() -> None:
    with logins._opening:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            try:
                files_at(Login("paramiko", "cluster"))
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitpid(child, 0) == (child, 0)


def test_a_transport_that_is_not_installed_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "paramiko", None)
    monkeypatch.delitem(sys.modules, "hpc_bridge.transports.paramiko", raising=False)
    with pytest.raises(CommandError, match=r"pip install 'hpc-bridge\[ssh\]'"):
        files_at(Login("paramiko", "nowhere"))
