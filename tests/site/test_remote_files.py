"""The cluster's files from outside, over both SSH transports, past noisy start-up files."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc_bridge.storage.cluster_files import Account, Part
from hpc_bridge.storage.remote_files import RemoteFiles
from hpc_bridge.transports import logins
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.login import Login
from tests.conftest import SITE
from tests.site.conftest import Site
from tests.site.sshd import KINDS, MIB, Client, Sshd
from tests.unit.cluster_files_contract import (
    CASES,
    Case,
    Place,
    what_is_not_allowed_is_a_permission_error,
)

NOISE = "printf 'Welcome \\351 \\0'; yes noise | head -n 999; echo careful >&2\n"


@pytest.fixture(scope="module", autouse=True)
def noise(site: Site) -> Iterator[None]:
    """What the researcher's shells say, and set, when they start."""
    added = {".bashrc": NOISE, ".bash_profile": f"{NOISE}export SCRATCH='/scratch/a b'\n"}
    paths = {name: site.home() / name for name in added}
    before = {path: path.read_bytes() if path.exists() else None for path in paths.values()}
    for name, text in added.items():
        paths[name].write_text(text)
    yield
    for path, content in before.items():
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)


@pytest.fixture(scope="module", params=KINDS)
def files(
    request: pytest.FixtureRequest, plain: Sshd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RemoteFiles]:
    """Of the researcher, over one connection for all tests."""
    folder = tmp_path_factory.mktemp("client")
    client = Client(folder / "ssh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logins, "machine_folder", lambda: folder)
        name = client.knows(plain)
        with client.connect(request.param, name) as transport:
            yield RemoteFiles(Login(request.param, name), transport)


@pytest.fixture
def at(files: RemoteFiles, home: str) -> Place:
    """An empty folder of the researcher's."""
    files.make_folder(Path(home, "shared"))
    return Place(files, Path(home, "shared"), SITE / f"root{home}/shared")


@pytest.mark.parametrize(
    "case", [*CASES, what_is_not_allowed_is_a_permission_error], ids=lambda case: case.__name__
)
def test_contract(case: Case, at: Place) -> None:
    case(at)


def test_a_full_disk_takes_nothing_and_says_so(files: RemoteFiles) -> None:
    folder = Path("/full/files")
    files.put(Files(str(folder), {"x": b"old"}))
    try:
        for content in (bytes(8 * MIB), bytes(9 * MIB)):
            with pytest.raises(OSError, match="No space left on device") as caught:
                files.put(Files(str(folder), {"x": b"new", "y": content}))
            assert caught.value.errno == errno.ENOSPC
        assert list(files.listing(folder, depth=9)) == ["x"]
        files.transport.run(["sh", "-c", "cat /dev/zero >/full/files/all"], timeout=20)
        with pytest.raises(OSError, match="No space left on device"):
            files.write(folder / "y", b"1")
        assert list(files.listing(folder, depth=9)) == ["all", "x"]
        assert files.read(folder / "x") == b"old"
    finally:
        files.remove_trees(folder)


def test_files_come_with_their_links_before_a_command(at: Place, files: RemoteFiles) -> None:
    links = {f"{number}/bundle.json": "0/bundle.json" for number in range(1, 1001)}
    archive = Files(str(at.folder), {"0/bundle.json": b"{}"}, links)
    argv = ["stat", "-c", "%h", f"{at.folder}/1000/bundle.json"]
    assert files.transport.run(argv, timeout=60, files=archive).stdout == "1001\n"


def test_variables_are_those_of_a_login_shell(files: RemoteFiles) -> None:
    assert files.expanded("$SCRATCH/{user}/$NONE") == "/scratch/a b/researcher/$NONE"
    assert files.expanded("~/x") == "/home/researcher/x"
    assert files.expanded("~root/x") == "/root/x"
    assert files.account() == Account("researcher", files.account().uid, "/home/researcher")


@pytest.mark.parametrize("shell", ["tcsh", "fish", "zsh"])
def test_variables_of_other_shells(
    client: Client, kind: str, site: Site, plain: Sshd, shell: str
) -> None:
    if site.run("sh", "-c", f"command -v {shell}").returncode != 0:
        pytest.skip(f"no {shell} on the site")
    startup = {"tcsh": ".login", "zsh": ".zprofile", "fish": ".config/fish/config.fish"}[shell]
    word = "setenv SCRATCH" if shell == "tcsh" else "export SCRATCH="
    site.put(startup, f"echo noise\n{word} /of/{shell}\n".replace("= ", "="), "colleague")
    before = site.shell("getent passwd colleague | cut -d: -f7")
    site.shell(f"usermod -s $(command -v {shell}) colleague", "root")
    try:
        transport = client.connect(kind, client.knows(plain), user="colleague")
        files = RemoteFiles(Login("paramiko", "colleague"), transport)
        assert files.expanded("$SCRATCH/x") == f"/of/{shell}/x"
    finally:
        site.shell(f"usermod -s {before} colleague", "root")
        site.run("rm", "-rf", startup.split("/")[0], user="colleague")


def test_a_connection_that_breaks_costs_a_second_try(
    client: Client, kind: str, servers: Callable[..., Sshd], home: str
) -> None:
    server = servers()
    files = RemoteFiles(Login(), client.connect(kind, client.knows(server)))
    cuts = 0

    def cut(done: int, _: int | None) -> None:
        nonlocal cuts
        if done > 4 * MIB and not cuts:
            cuts += 1
            server.kill_sessions()

    content = bytes(16 * MIB)
    files.put(Files(home, {"x": content}), progress=cut)
    assert cuts == 1
    assert list(files.listing(Path(home))) == ["x"]
    assert files.parts([Part(Path(home, "x"), -MIB)]) == [bytes(MIB)]
    assert server.logins == 2
