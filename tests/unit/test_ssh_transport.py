"""What a transport over SSH makes of a login shell; here `ssh` is a program that runs one here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc_bridge.errors import (
    CommandError,
    CommandTimeout,
    ConnectionLost,
    NoSuchFile,
    TransferFailed,
    Unreachable,
)
from hpc_bridge.transports.archive import Meter
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.deadline import Deadline
from hpc_bridge.transports.openssh import OpenSSHTransport
from hpc_bridge.transports.remote_files import NEEDED, FileBack
from hpc_bridge.transports.remote_shell import Exchange, login_line
from hpc_bridge.transports.ssh import _moving
from tests.waiting import until

MIB = 2**20

# The line is the last word. What else it does is in files of its folder.
SSH = r"""#!/bin/bash
here=$(dirname "$0")
for line; do [ "$line" != -G ] || { cat "$here/settings"; exit; }; done
case " $* " in *" -O check "*) [ -e "$here/master" ]; exit ;; esac
echo x >>"$here/commands"
if [ -e "$here/refuse" ] && [ "$(wc -l <"$here/commands")" -le "$(cat "$here/refuse")" ]; then
    echo "mux_client_request_session: session request failed: Session open refused by peer" >&2
    echo "kex_exchange_identification: Connection closed by remote host" >&2
    exit 255
fi
[ ! -e "$here/noise" ] || { cat "$here/noise"; cat "$here/noise" >&2; }
[ ! -e "$here/forced" ] || exec sh -c "$(cat "$here/forced")"
[ ! -e "$here/breaks" ] || { setsid bash -c "$line" & sleep 0.5; rm "$here/master"; kill -9 -$!
    exit 255; }
exec setsid --wait bash -c "$line"
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Path:
    """The folder of the program."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "ssh").write_text(SSH)
    (folder / "ssh").chmod(0o755)
    (folder / "settings").write_text(f"user me\nhostname {tmp_path.name}\nport 22\ncontrolpath x\n")
    (folder / "master").touch()
    return folder


@pytest.fixture
def there(ssh: Path) -> Iterator[OpenSSHTransport]:
    with OpenSSHTransport("login", program=str(ssh / "ssh")) as transport:
        yield transport


# the line for the login shell


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "tcsh", "csh", "fish"])
def test_every_login_shell_hands_on_the_same_program(shell: str) -> None:
    if (path := shutil.which(shell)) is None:
        pytest.skip(f"no {shell} here")
    odd = "it's \\n \\\\' !x\n$HOME `y` {a,b} ~ * ü\\"
    line = login_line(f"printf %s {subprocess.list2cmdline(['x'])}; cat <<'END'\n{odd}\nEND\n")
    done = subprocess.run([path, "-c", line], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"x{odd}\n", "")


def test_a_line_that_no_shell_takes_is_an_error_of_its_own() -> None:
    with pytest.raises(CommandError, match="longer than a login shell takes"):
        login_line("x" * 130_000)


def test_words_arrive_as_they_are(there: OpenSSHTransport) -> None:
    words = ["it's", "a\\b", "x!", "two\nlines", "", "ü", "A=b", "-n"]
    done = there.run(["printf", "%s|", *words], timeout=20)
    assert done.stdout == "".join(f"{word}|" for word in words)
    assert there.run(["A=b", "true"], timeout=20).exit_code == 127


def test_what_an_outer_job_leaves_behind_is_not_seen(
    there: OpenSSHTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_CONF", "SQUEUE_FORMAT", "OTHER"):
        monkeypatch.setenv(name, "x")
    done = there.run(["env"], timeout=20, unset=["SLURM_*", "SQUEUE_*"])
    seen = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert seen & {"SLURM_JOB_ID", "SLURM_CONF", "SQUEUE_FORMAT", "OTHER"} == {
        "SLURM_CONF",
        "OTHER",
    }


def test_noise_is_no_output(there: OpenSSHTransport, ssh: Path) -> None:
    (ssh / "noise").write_bytes(b"Welcome \xff\0\n" * 1000)
    script = r"printf 'caf\351'; echo why >&2; exit 3"
    done = there.run(["sh", "-c", script], timeout=20)
    assert (done.exit_code, done.stdout, done.stderr) == (3, "caf\ufffd", "why\n")


@pytest.mark.parametrize("size", [0, 5, 16_000, 16_001, 9 * MIB])
def test_input_of_any_size_arrives(there: OpenSSHTransport, size: int) -> None:
    assert there.run(["wc", "-c"], stdin=b"x" * size, timeout=20).stdout == f"{size}\n"
    chunks = [b"x" * size, b"", b"y"]
    assert there.run(["wc", "-c"], stdin=iter(chunks), timeout=20).stdout == f"{size + 1}\n"


# what goes wrong


def test_a_host_that_runs_other_commands_says_so(there: OpenSSHTransport, ssh: Path) -> None:
    (ssh / "forced").write_text("echo only squeue here; exit 1")
    with pytest.raises(CommandError, match=r"no commands of ours. It said: only squeue") as caught:
        there.run(["true"], timeout=20)
    assert str(caught.value).endswith("without it.")  # what has not run says nothing here
    assert "ForceCommand" in there.check()[0]


def test_a_tool_that_is_missing_is_named(there: OpenSSHTransport, ssh: Path) -> None:
    tools = ssh / "tools"
    tools.mkdir()
    for name in {"sh", *NEEDED} - {"tar", "find"}:
        (tools / name).symlink_to(shutil.which(name) or name)
    (tools / "find").write_text("#!/bin/sh\nexit 1\n")
    (tools / "find").chmod(0o755)
    (ssh / "forced").write_text(f'PATH={tools}; eval "$line"')
    text = (ssh / "ssh").read_text().replace("exec sh -c", "export line; exec sh -c")
    (ssh / "ssh").write_text(text)
    assert [said.split(" ", 1)[0] for said in there.check()] == ["tar", "sha256sum", "GNU"]


def test_a_refused_channel_is_asked_for_again(there: OpenSSHTransport, ssh: Path) -> None:
    (ssh / "refuse").write_text("4")
    sent = iter([b"not ", b"lost"])
    assert there.run(["cat"], stdin=sent, timeout=20).stdout == "not lost"
    assert there.link._channels.limit == 1


def test_a_channel_that_stays_refused_is_no_doubt(there: OpenSSHTransport, ssh: Path) -> None:
    (ssh / "refuse").write_text("999")
    with pytest.raises(Unreachable, match=r"no channel .* nothing was run$") as caught:
        there.run(["true"], timeout=6)  # it gives up while it waits, hardly while it asks
    assert caught.value.command == ["true"]


def test_a_connection_that_breaks_leaves_doubt(there: OpenSSHTransport, ssh: Path) -> None:
    (ssh / "breaks").touch()
    with pytest.raises(ConnectionLost, match=r"is unknown: sh -c \.\.\. sh 3$") as caught:
        there.run(["sh", "-c", 'd=$1\nsleep "$d"\n', "sh", "3"], timeout=20)
    assert caught.value.retryable
    with pytest.raises(Unreachable, match=r"run `.*ssh -fNM login`, log in there"):
        there.run(["true"], timeout=20)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    there: OpenSSHTransport, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"echo last words >&2; sleep 60 & echo $$ $! > {pids}; wait"
    with pytest.raises(CommandTimeout) as caught:
        there.run(["sh", "-c", script], timeout=1)
    assert caught.value.stderr == "last words\n"
    for pid in pids.read_text().split():
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10, f"{pid} has ended")


# files


def test_files_appear_whole_or_not_at_all(there: OpenSSHTransport, tmp_path: Path) -> None:
    folder = tmp_path / "it's new"
    local = tmp_path / "local"
    local.write_bytes(os.urandom(2 * MIB))
    local.chmod(0o755)
    there.put(Files(str(folder), {"a b": b"1", "deep/er/c": local}))
    assert (folder / "deep/er/c").read_bytes() == local.read_bytes()
    modes = [path.stat().st_mode & 0o777 for path in (folder, folder / "a b", folder / "deep/er/c")]
    assert modes == [0o700, 0o600, 0o700]
    (folder / "taken").mkdir()
    with pytest.raises(TransferFailed, match="taken"):
        there.put(Files(str(folder), {"taken": b"2"}))
    assert sorted(path.name for path in folder.iterdir()) == ["a b", "deep", "taken"]


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", ".", "a//b"])
def test_a_name_that_leads_elsewhere_is_refused(
    there: OpenSSHTransport, tmp_path: Path, name: str
) -> None:
    with pytest.raises(TransferFailed, match="is not a name below the folder"):
        there.put(Files(str(tmp_path / "new"), {name: b""}))


def test_a_file_that_arrives_changed_is_not_taken(
    there: OpenSSHTransport, tmp_path: Path, ssh: Path
) -> None:
    tools = ssh / "tools"
    tools.mkdir()
    (tools / "tar").write_text(
        '#!/bin/sh\n/bin/tar "$@" && printf x | dd of=f/0/x conv=notrunc 2>/dev/null\n'
    )
    (tools / "tar").chmod(0o755)
    (ssh / "ssh").write_text(SSH.replace("#!/bin/bash", f"#!/bin/bash\nPATH={tools}:$PATH"))
    with pytest.raises(TransferFailed, match="what arrived is not what was sent"):
        there.put(Files(str(tmp_path / "new"), {"x": bytes(2 * MIB)}))
    assert list((tmp_path / "new").iterdir()) == []


def test_an_archive_that_breaks_off_does_nothing(
    there: OpenSSHTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc_bridge.transports import remote_files

    def without_end(*_: object) -> Iterator[bytes]:
        return iter(())

    monkeypatch.setattr(remote_files, "_finish", without_end)
    with pytest.raises(TransferFailed, match="the archive broke off"):
        there.put(Files(str(tmp_path / "new"), {"x": b"1"}))
    assert list((tmp_path / "new").iterdir()) == []


def test_the_command_is_not_run_without_its_files(there: OpenSSHTransport, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TransferFailed):
        there.run(
            ["touch", str(tmp_path / "was-run")],
            timeout=20,
            files=Files(str(tmp_path / "file" / "x"), {"x": b""}),
        )
    assert not (tmp_path / "was-run").exists()


def test_a_message_that_names_the_folder_aside_is_only_a_message(
    there: OpenSSHTransport,
) -> None:
    with pytest.raises(TransferFailed, match=r"/proc/\.hpc-bridge-.*: No such file or directory"):
        there.put(Files("/proc", {"x": b""}))


def test_links_are_made_where_nothing_is(there: OpenSSHTransport, tmp_path: Path) -> None:
    links = {"a": "x", "sub/b": "x", "c": f"{tmp_path}/x", "sub/up": "sub/b", "kept": "x"}
    (tmp_path / "kept").write_bytes(b"2")
    done = there.run(["echo", "1"], timeout=20, files=Files(str(tmp_path), {"x": b"1"}, links))
    assert done.stdout == "1\n"
    assert (tmp_path / "x").stat().st_nlink == 5
    assert (tmp_path / "kept").read_bytes() == b"2"
    with pytest.raises(TransferFailed, match="No such file or directory"):
        there.put(Files(str(tmp_path), {}, {"d": "none"}))
    with pytest.raises(TransferFailed, match="is not a name below"):
        there.put(Files(str(tmp_path), {}, {"../d": "x"}))


def test_what_does_not_exist_is_told_from_what_fails(
    there: OpenSSHTransport, tmp_path: Path
) -> None:
    reads: list[Callable[[str], object]] = [
        there.get,
        lambda path: there.read_from(path, 0, 9),
        lambda path: there.get_tree(path, tmp_path / "back"),
        lambda path: there.get_file(path, tmp_path / "back"),
    ]
    for read in reads:
        with pytest.raises(NoSuchFile, match=r"there is no .*/none"):
            read(str(tmp_path / "none"))
    assert [path.name for path in tmp_path.iterdir()] == ["fake"]


def test_a_tree_comes_back_as_it_went(there: OpenSSHTransport, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "odd\\name ü").write_bytes(os.urandom(2 * MIB))
    (source / "link").symlink_to("sub")
    there.put_tree(source, str(tmp_path / "there"))
    there.get_tree(str(tmp_path / "there"), tmp_path / "back")
    assert subprocess.run(["diff", "-r", source, tmp_path / "back"]).returncode == 0
    with pytest.raises(TransferFailed, match="exists already"):
        there.put_tree(source, str(tmp_path / "there"))


def test_files_that_move_are_not_the_time_of_their_command() -> None:
    deadline = Deadline(total=0.05)
    chunks = _moving(iter([b"1", b"2"]), deadline)
    assert next(chunks) == b"1"
    until(lambda: deadline.passed, 10, "the time is over")
    assert next(chunks) == b"2"
    assert not deadline.passed


def test_progress_is_told_of_what_is_large(there: OpenSSHTransport, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    content = bytes(9 * MIB)
    there.put(Files(str(tmp_path), {"x": content}), progress=lambda *figures: told.append(figures))
    assert told[-1] == (9 * MIB, 9 * MIB)
    told.clear()
    there.get(str(tmp_path / "x"), progress=lambda *figures: told.append(figures))
    assert told[-1] == (9 * MIB, 9 * MIB)
    told.clear()
    files = Files(str(tmp_path), {"y": content})
    there.run(["true"], timeout=60, files=files, progress=lambda *figures: told.append(figures))
    assert told[-1] == (9 * MIB, 9 * MIB)
    told.clear()
    there.put(Files(str(tmp_path), {"x": b"1"}), progress=lambda *figures: told.append(figures))
    assert told == []


# odd answers


@pytest.mark.parametrize("said", [b"", b" 1", b" 12 comm", b" x command\n", b"\n"])
def test_an_end_that_has_not_come_whole_is_none(said: bytes) -> None:
    exchange = Exchange("true", "mark")
    exchange.on_stderr(b"mark\nwarning\nmark" + said)
    assert exchange.end is None
    whole = Exchange("true", "mark")
    whole.on_stderr(b"mark\nwarning\nmark 127 command\n")
    assert whole.end == (127, "command")


@pytest.mark.parametrize("line", [b"\n", b"many -\n", b"1 2 3\n", b"\xff -\n"])
def test_a_file_without_its_size_is_a_failed_transfer(line: bytes) -> None:
    back = FileBack(lambda _: None, lambda size: Meter(None, size))
    with pytest.raises(TransferFailed, match="no size"):
        back(line + b"content")
