"""What can be seen of a cluster from its login node."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_bridge.sites.surroundings import (
    Folder,
    Surroundings,
    filesystem,
    look_around,
    parse_mounts,
)

MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /home rw,relatime shared:5 - autofs /etc/auto.home rw
31 30 0:41 / /home/ada rw,relatime shared:6 master:1 - nfs4 server:/home/ada rw,vers=4.2
32 22 0:42 / /scratch\\040space rw - lustre mds@tcp:/scratch rw
33 22 0:43 / /opt rw - ext4 /dev/vdb rw
34 22 0:44 / /opt rw - fuse.squashfuse_ll squashfuse_ll rw
half a line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ada/x", "nfs4"),
        ("/home/bob", "autofs"),
        ("/homes", "ext4"),
        ("/scratch space/ada", "lustre"),
        ("/opt", "fuse.squashfuse_ll"),  # the later mount hides the earlier
    ],
)
def test_a_folder_is_on_the_nearest_mount_above_it(path: str, kind: str) -> None:
    assert filesystem(Path(path), parse_mounts(MOUNTINFO)) == kind


def test_without_mounts_the_file_system_is_not_known() -> None:
    assert filesystem(Path("/"), []) is None


@pytest.mark.parametrize(
    ("kind", "is_shared"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "9p")),
        *((kind, True) for kind in ("fuse.glusterfs", "fuse.sshfs", "wekafs", "smb3")),
        *((kind, False) for kind in ("ext4", "xfs", "tmpfs", "overlay", "autofs", "zfs", None)),
        *((kind, False) for kind in ("fuse.squashfuse_ll", "nfsd", "fuse.fuse-overlayfs")),
    ],
)
def test_which_file_systems_several_machines_share(kind: str | None, is_shared: bool) -> None:
    assert Folder("~", kind).is_shared is is_shared


@pytest.mark.parametrize(
    ("home", "scratch", "suggested"),
    [
        ("nfs4", "lustre", "~/.hpc-bridge"),
        ("ext4", "lustre", "$SCRATCH/.hpc-bridge"),
        ("ext4", "xfs", "~/.hpc-bridge"),
        (None, None, "~/.hpc-bridge"),
    ],
)
def test_the_suggested_shared_directory(
    home: str | None, scratch: str | None, suggested: str
) -> None:
    around = Surroundings("h", Folder("~", home), (Folder("$SCRATCH", scratch),))
    assert around.shared_dir == suggested


def test_this_machine(tmp_path: Path) -> None:
    found = look_around({"SCRATCH": str(tmp_path), "WORK": "/does/not/exist", "PROJECT": "x"})
    assert [folder.name for folder in found.others] == ["$SCRATCH"]
    assert found.home.filesystem
    assert look_around({"LMOD_CMD": "/opt/lmod"}).has_modules
