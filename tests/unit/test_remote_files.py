"""What RemoteFiles makes of a login host's answers, and of a connection that breaks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import CommandError, ConnectionLost, TransferFailed
from hpc_bridge.storage.cluster_files import HERE, Part
from hpc_bridge.storage.remote_account import answered
from hpc_bridge.storage.remote_files import RemoteFiles
from hpc_bridge.storage.remote_programs import by_folder, by_name, os_error, pieces
from hpc_bridge.transports.base import Completed, Files
from hpc_bridge.transports.local import LocalTransport
from hpc_bridge.transports.login import LOCAL


class Breaking(LocalTransport):
    """A connection that breaks under the first command, before or after it has taken effect."""

    def __init__(self) -> None:
        self.commands = 0
        self.breaks_before = self.breaks_after = 0

    def run(self, *args: Any, **options: Any) -> Completed:
        return self._breaking(lambda: super(Breaking, self).run(*args, **options))

    def put(self, *args: Any, **options: Any) -> None:
        self._breaking(lambda: super(Breaking, self).put(*args, **options))

    def get(self, *args: Any, **options: Any) -> bytes:
        return bytes(self._breaking(lambda: super(Breaking, self).get(*args, **options)))

    def _breaking(self, call: Callable[[], Any]) -> Any:
        self.commands += 1
        if self.commands <= self.breaks_before:
            raise ConnectionLost("lost")
        done = call()
        if self.commands <= self.breaks_after:
            raise ConnectionLost("lost")
        return done


@pytest.fixture
def transport() -> Breaking:
    return Breaking()


@pytest.fixture
def files(transport: Breaking) -> RemoteFiles:
    return RemoteFiles(LOCAL, transport)


# a connection that breaks


def _calls(files: RemoteFiles, folder: Path) -> dict[str, Callable[[], object]]:
    return {
        "parts": lambda: files.parts([Part(folder / "x"), Part(folder / "none")]),
        "listings": lambda: files.listings([folder, folder / "none"]),
        "entries": lambda: files.entries([folder, folder / "none"]),
        "account": files.account,
        "expanded": lambda: files.expanded("~/$HOME/{user}"),
        "read": lambda: files.read(folder / "x"),
        "put": lambda: files.put(Files(str(folder), {"y": b"2"}, {"z": "y"})),
        "make_folder": lambda: files.make_folder(folder / "sub"),
        "touch": lambda: files.touch(folder / "x", folder / "w"),
        "link": lambda: files.link(folder / "x", folder / "l"),
        "rename": lambda: files.rename(folder / "x", folder / "r"),
        "remove": lambda: files.remove(folder / "x", folder / "none"),
        "remove_trees": lambda: files.remove_trees(folder / "x", folder / "none"),
    }


HARMLESS = sorted(set(_calls(RemoteFiles(LOCAL), Path())) - {"rename"})


@pytest.mark.parametrize("name", [*HARMLESS, "rename"])
def test_a_call_is_one_command(
    files: RemoteFiles, transport: Breaking, tmp_path: Path, name: str
) -> None:
    (tmp_path / "x").write_bytes(b"1")
    _calls(files, tmp_path)[name]()
    assert transport.commands == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_done_again(
    files: RemoteFiles, transport: Breaking, tmp_path: Path, name: str, when: str
) -> None:
    for folder in (tmp_path / "smooth", tmp_path / "broken"):
        folder.mkdir()
        (folder / "x").write_bytes(b"1")
    expected = _calls(RemoteFiles(LOCAL, LocalTransport()), tmp_path / "smooth")[name]()
    setattr(transport, f"breaks_{when}", 1)
    result = _calls(files, tmp_path / "broken")[name]()
    if name in ("parts", "account", "expanded"):
        assert result == expected
    names = {path.relative_to(tmp_path / "smooth") for path in (tmp_path / "smooth").iterdir()}
    assert {path.relative_to(tmp_path / "broken") for path in (tmp_path / "broken").iterdir()} == (
        names
    )
    assert transport.commands == 2


@pytest.mark.parametrize("name", ["parts", "put", "link"])
def test_twice_is_enough(
    files: RemoteFiles, transport: Breaking, tmp_path: Path, name: str
) -> None:
    (tmp_path / "x").write_bytes(b"1")
    transport.breaks_before = 9
    with pytest.raises(ConnectionLost):
        _calls(files, tmp_path)[name]()
    assert transport.commands == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_link_that_somebody_else_has_is_taken_after_a_break_too(
    files: RemoteFiles, transport: Breaking, tmp_path: Path, when: str
) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).write_text(name)
    os.link(tmp_path / "other", tmp_path / "claim")
    setattr(transport, f"breaks_{when}", 1)
    with pytest.raises(FileExistsError):
        files.link(tmp_path / "mine", tmp_path / "claim")


def test_what_might_be_done_twice_is_left_in_doubt(
    files: RemoteFiles, transport: Breaking, tmp_path: Path
) -> None:
    (tmp_path / "x").touch()
    transport.breaks_after = 2
    with pytest.raises(ConnectionLost):
        files.rename(tmp_path / "x", tmp_path / "y")
    with pytest.raises(ConnectionLost):
        files.make_folder(tmp_path / "new", exist_ok=False)
    assert transport.commands == 2


# what goes wrong there


@pytest.mark.parametrize(
    ("said", "number", "path"),
    [
        ("tar: f/0/x: Cannot write: No space left on device", errno.ENOSPC, "/given"),
        ("tar: f/0/x: Wrote only 4096 of 10240 bytes\ntar: Exiting", errno.ENOSPC, "/given"),
        ("mkdir: cannot create directory '/a b': Disk quota exceeded", errno.EDQUOT, "/a b"),
        ("touch: cannot touch '/x': Read-only file system", errno.EROFS, "/x"),
        ("cat: /x: Stale file handle", errno.ESTALE, "/given"),
        ("xargs: x\nhead: error reading '/x': Input/output error", errno.EIO, "/x"),
        ("ln: failed to create hard link '/y' => '/x': File exists", errno.EEXIST, "/y"),
        ("ln: /x: hard link not allowed for directory", errno.EPERM, "/given"),
    ],
)
def test_the_words_of_a_program_are_an_error_of_a_file(said: str, number: int, path: str) -> None:
    error = os_error(said, "/given")
    assert error is not None
    assert (error.errno, error.filename) == (number, path)
    assert type(error) is type(OSError(number, ""))


def test_other_words_are_the_commands_error() -> None:
    assert os_error("bash: fork: retry: Resource temporarily\nKilled", "/x") is None
    assert os_error("", "/x") is None


def test_a_program_that_is_missing_is_no_missing_file(
    files: RemoteFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").symlink_to("/usr/bin/env")
    monkeypatch.setenv("PATH", str(tmp_path))
    calls = _calls(files, tmp_path)
    for name in ("parts", "listings", "entries", "touch", "link", "rename", "remove"):
        with pytest.raises(CommandError, match="xargs") as caught:
            calls[name]()
        assert caught.value.exit_code == 127


@pytest.mark.parametrize("answer", [b"", b"one=+two", b"one=+two=+three=+", b"one=+two=+rest"])
def test_pieces_that_are_not_all_there_are_no_answer(answer: bytes) -> None:
    with pytest.raises(CommandError):
        pieces(answer, "=", 2)
    assert pieces(b"one=+=-", "=", 2) == [b"one", None]


@pytest.mark.parametrize(
    ("answer", "stage"),
    [
        (b"/top\0\0d\0007\0001.5\000700\0000\0001\0002\0", "whole"),
        (b"/top\0\0d\000many\0001.5\000700\0000\0001\0002\0", "odd"),
        (b"/top\0\0d\0007\0001.5\000rwx\0000\0001\0002\0", "odd"),
        (b"/top\0a\0f\0007\0001.5\000700\0000\0001\0002\0", "nowhere"),
    ],
)
def test_what_find_never_says_is_no_answer(answer: bytes, stage: str) -> None:
    folder = Path("/top")
    if stage == "whole":
        assert by_folder(answer, "", [folder]) == [{}]
        return
    with pytest.raises(CommandError, match="find's answer"):
        by_folder(answer, "", [folder])
    if stage == "odd":
        with pytest.raises(CommandError, match="find's answer"):
            by_name(answer, "", [folder])


def test_variables_that_break_off_are_those_that_came_whole() -> None:
    begin = b"anna\n7\n/home/anna\n"
    first = b"=\0A\0one\0=\0"
    known = answered(begin + first + b"noise=\0A\0two\0B\0hal", [], "=")
    assert known.variables == {"A": "one"}
    with pytest.raises(CommandError, match="variables"):
        answered(begin + b"=\0A\0one\0B\0=\0", [], "=")


def test_a_failed_transfer_keeps_its_reason(tmp_path: Path) -> None:
    class Full(LocalTransport):
        def put(self, *_: Any, **__: Any) -> None:
            raise TransferFailed("no", stderr="tar: x: Cannot open: No space left on device")

    class Odd(LocalTransport):
        def put(self, *_: Any, **__: Any) -> None:
            raise TransferFailed("what arrived is not what was sent")

    with pytest.raises(OSError, match="No space left") as caught:
        RemoteFiles(LOCAL, Full()).write(tmp_path / "x", b"")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(TransferFailed, match="not what was sent"):
        RemoteFiles(LOCAL, Odd()).write(tmp_path / "x", b"")


# the account


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A start-up file of login shells that says much and sets a variable."""
    path = tmp_path / ".bash_profile"
    path.write_text(
        "yes noise | head -n 9999; printf 'x\\0y'; echo careful >&2\n"
        "read -r line && echo $line\n"
        "export SCRATCH='/scratch/it is' EMPTY= TWO=$'a\\nb'\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("EXISTING", "ex")
    for name in ("SCRATCH", "EMPTY", "TWO", "NONE"):
        monkeypatch.delenv(name, raising=False)
    return path


def test_variables_are_those_of_a_login_shell(
    files: RemoteFiles, transport: Breaking, profile: Path
) -> None:
    assert files.expanded("$SCRATCH/{user}/$TWO$EMPTY/") == (
        f"/scratch/it is/{HERE.account().user}/a\nb"
    )
    assert files.account() == HERE.account()
    assert files.expanded("$SCRATCH/{user}/$TWO$EMPTY/")
    assert files.expanded("~/{user}") == f"{profile.parent}/{HERE.account().user}"
    assert transport.commands == 1


def test_a_login_shell_that_ends_early_does_not_matter(files: RemoteFiles, profile: Path) -> None:
    profile.write_text("export SCRATCH=/scratch\nexit 3\n")
    assert files.expanded("$EXISTING/$SCRATCH") == "ex/$SCRATCH"


@pytest.mark.parametrize(
    "text",
    [
        "/a//b/./c/",
        "~",
        "~/x",
        "~root/x",
        "~no-such-user/x",
        "~$(touch owned)/x",
        "x/~/y",
        "$HOME/${HOME}/$EXISTING",
        "$NONE/${NONE}/$EXISTINGx/${EXISTING}x",
        "$(touch owned)/`touch owned`/${HOME:-$(touch owned)}/$'x'/;touch owned",
        "$",
        "$$/$1/$?/${}/${",
        "relative/ü/{user}x",
    ],
)
def test_paths_are_expanded_as_here(
    files: RemoteFiles, profile: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(profile.parent)
    assert files.expanded(text) == HERE.expanded(text)
    assert not (profile.parent / "owned").exists()
