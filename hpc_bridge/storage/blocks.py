"""The block that keeps results on the cluster's file system."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from prefect._internal.compatibility.async_dispatch import async_dispatch
from prefect.filesystems import WritableFileSystem
from pydantic import Field

from hpc_bridge.files import expanded_path, write_private


class ClusterStorage(WritableFileSystem):
    """A folder of a cluster that login and compute nodes see alike.

    The block knows its place: on the cluster itself files are read and written directly. Files are
    0600 and appear whole or not at all.
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
        result that is not there.
        """
        return self._read(path)

    async def awrite_path(self, path: str, content: bytes) -> str:
        """As ``write_path``."""
        return await asyncio.to_thread(self._write, path, content)

    @async_dispatch(awrite_path)
    def write_path(self, path: str, content: bytes) -> str:  # type: ignore[override]
        """Write ``content``; returns the absolute path."""
        return self._write(path, content)

    @property
    def _base(self) -> Path:
        return Path(expanded_path(self.basepath))

    def _resolve(self, path: str) -> Path:
        base = self._base.resolve()
        resolved = (base / path).resolve()
        if not resolved.is_relative_to(base):
            raise ValueError(f"{path!r} lies outside of {self.basepath}")
        return resolved

    def _read(self, path: str) -> bytes:
        resolved = self._resolve(path)
        try:
            return resolved.read_bytes()
        except FileNotFoundError:
            if self._base.is_dir():
                advice = "it was never stored, for instance because it cannot be pickled: the job's"
                advice += " output says why"
            else:
                advice = f"this machine does not see {self._base}; read results where it does"
            raise ValueError(
                f"the result {resolved} of cluster {self.site!r} does not exist: {advice}"
            ) from None

    def _write(self, path: str, content: bytes) -> str:
        resolved = self._resolve(path)
        resolved.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(resolved, content)
        return str(resolved)
