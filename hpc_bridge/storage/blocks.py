"""The block that keeps results on the cluster's file system."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from prefect._internal.compatibility.async_dispatch import async_dispatch
from prefect.filesystems import WritableFileSystem
from pydantic import Field

from hpc_bridge.files import expanded_path, write_private
from hpc_bridge.settings import on_compute_node
from hpc_bridge.transports.login import LOCAL

if TYPE_CHECKING:
    from hpc_bridge.storage.carrying import RemoteFolder


class ClusterStorage(WritableFileSystem):
    """A folder of a cluster that login and compute nodes see alike.

    The block knows its place: on the cluster itself files are read and written directly, and
    elsewhere as the profile of ``site`` says, over the process's one connection. Files are 0600 and
    appear whole or not at all.
    """

    _block_type_name: ClassVar[str] = "HPC Cluster Storage"
    _block_type_slug: ClassVar[str] = "hpc-cluster-storage"
    _description: ClassVar[str] = "Results on the shared file system of an HPC cluster."

    site: str = Field(description="The cluster that the folder belongs to.")
    basepath: str = Field(
        description=(
            "Absolute folder on the cluster; {user}, ~ and $VARIABLES are those of who uses it."
        )
    )

    async def aread_path(self, path: str) -> bytes:
        """As ``read_path``."""
        return await asyncio.to_thread(self._read, path)

    @async_dispatch(aread_path)
    def read_path(self, path: str) -> bytes:  # type: ignore[override]  # Prefect's own blocks too
        """The content of ``path``, which may be relative to ``basepath``.

        Raises ValueError saying on which cluster the file should be: Prefect takes that for a
        result that is not there; SiteError when its profile cannot be used; and CommandError when
        the cluster cannot be asked, which says where the result is kept.
        """
        return self._read(path)

    async def awrite_path(self, path: str, content: bytes) -> str:
        """As ``write_path``."""
        return await asyncio.to_thread(self._write, path, content)

    @async_dispatch(awrite_path)
    def write_path(self, path: str, content: bytes) -> str:  # type: ignore[override]
        """Write ``content``; returns the absolute path. Raises as ``read_path``, and OSError."""
        return self._write(path, content)

    def _elsewhere(self) -> RemoteFolder | None:
        """The folder as it is reached from here; None where its files are this machine's."""
        if on_compute_node():
            return None
        from hpc_bridge.storage.place import login_of

        login = login_of(self.site)
        if login == LOCAL:
            return None
        from hpc_bridge.storage.carrying import RemoteFolder

        return RemoteFolder(login, self.basepath)

    def _read(self, path: str) -> bytes:
        folder = self._elsewhere()
        try:
            return folder.read(path) if folder else self._resolve(path).read_bytes()
        except FileNotFoundError:
            raise ValueError(self._missing(path, folder)) from None

    def _write(self, path: str, content: bytes) -> str:
        if (folder := self._elsewhere()) is not None:
            return folder.write(path, content)
        resolved = self._resolve(path)
        resolved.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(resolved, content)
        return str(resolved)

    def _resolve(self, path: str) -> Path:
        base = self._base.resolve()
        resolved = (base / path).resolve()
        if not resolved.is_relative_to(base):
            raise ValueError(f"{path!r} lies outside of {self.basepath}")
        return resolved

    @property
    def _base(self) -> Path:
        return Path(expanded_path(self.basepath))

    def _missing(self, path: str, folder: RemoteFolder | None) -> str:
        advice = (
            "it was never stored, for instance because it cannot be pickled: the job's output says"
            " why"
        )
        if folder is not None:
            result = f"the result {folder.resolve(path)} of cluster {self.site!r} does not exist"
            if not folder.exists():
                advice = f"there is no folder {self.basepath} either"
            return f"{result} on {folder.login}: {advice}"
        if not self._base.is_dir():
            advice = (
                f"this machine does not see {self._base}; read results where it does, or say in"
                " the site's profile how its login host is reached (login)"
            )
        return f"the result {self._resolve(path)} of cluster {self.site!r} does not exist: {advice}"
