"""The files of a cluster, here or over the transport of its login."""

from __future__ import annotations

from hpc_bridge.storage.cluster_files import HERE, ClusterFiles
from hpc_bridge.transports.login import LOCAL, Login

_files: dict[Login, ClusterFiles] = {}


def files_at(login: Login) -> ClusterFiles:
    """The process's one for a login; nothing is connected yet. Raises as ``transport_to``."""
    if login == LOCAL:
        return HERE
    if login not in _files:
        from hpc_bridge.storage.remote_files import RemoteFiles

        # Without a lock, which a forked child might find taken; of two threads the first wins.
        _files.setdefault(login, RemoteFiles(login))
    return _files[login]
