"""One submission is looked after by one process, however processes come and go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpc_bridge.errors import SharedDirectoryError, WorkerNameTaken
from hpc_bridge.journal import RunDirectory, new_submission_id, prepare_shared_directory
from hpc_bridge.tracking import claims as module
from hpc_bridge.tracking.claims import DEAD_AFTER_SECONDS, Claims, claims_on
from tests.waiting import until

NOBODY = 65534

PROCESS = """
import sys
from pathlib import Path
from hpc_bridge.errors import WorkerNameTaken
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking import claims

claims.RENEW_SECONDS = 0.1
shared = Path(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    order, *words = line.split()
    if order == "take":
        print(claims.claims_on(shared).take(RunDirectory(shared / "runs" / words[0])), flush=True)
    elif order == "release":
        claims.claims_on(shared).release(RunDirectory(shared / "runs" / words[0]))
        print("released", flush=True)
    elif order == "serve":
        try:
            claims.claims_on(shared).serve_as(*words)
            print("serves", flush=True)
        except WorkerNameTaken as error:
            print(error, flush=True)
"""


class Process:
    """Another process, which does what it is told and says what came of it."""

    def __init__(self, shared: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(order) + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, *order: str) -> str:
        self.tell(*order)
        return self.hear()

    def takes(self, run: RunDirectory) -> bool:
        return self.ask("take", run.submission_id) == "True"

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


Start = Callable[[], Process]


@pytest.fixture
def start(shared: Path) -> Iterator[Start]:
    """Starts processes that are ready."""
    started: list[Process] = []

    def ready() -> Process:
        process = Process(shared)
        started.append(process)
        assert process.hear() == "ready"
        return process

    yield ready
    for process in started:
        process.kill()
        for stream in (process.process.stdin, process.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return prepare_shared_directory(tmp_path / "shared")


@pytest.fixture
def run(shared: Path) -> RunDirectory:
    return RunDirectory.create(shared, new_submission_id())


@pytest.fixture
def claims(shared: Path) -> Iterator[Claims]:
    """This process's."""
    claims = Claims(shared)
    yield claims
    claims.end()


def another(shared: Path, **what: object) -> str:
    """A process whose file says something else than that of the one it was copied from."""
    source = Claims(shared)
    source.living()
    path = shared / "trackers" / f"{source._id}.json"
    stored = json.loads(path.read_bytes())
    source.end()
    identity = f"elsewhere-{stored['pid']}-{os.urandom(4).hex()}"
    path.with_stem(identity).write_text(json.dumps(stored | what))
    return identity


def held_by(run: RunDirectory, identity: str, number: int = 0) -> None:
    (run.path / f"tracker.{number}").write_text(f"{identity}\n")


def silent(shared: Path, identity: str, seconds: float) -> None:
    """As if a process had renewed its file so long ago."""
    path = shared / "trackers" / f"{identity}.json"
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Modes of files do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# one alone


def test_a_claim_is_this_processs_however_often_it_is_taken(
    claims: Claims, run: RunDirectory
) -> None:
    assert not claims.holds(run)
    assert [claims.take(run) for _ in range(3)] == [True] * 3
    assert claims.holds(run)
    assert [path.name for path in run.path.iterdir()] == ["tracker.0"]


def test_what_is_released_is_anybodys(claims: Claims, run: RunDirectory, start: Start) -> None:
    claims.take(run)
    other = start()
    assert not other.takes(run)
    claims.release(run)
    assert not claims.holds(run)
    assert other.takes(run)
    assert not claims.take(run)
    assert other.ask("release", run.submission_id) == "released"
    assert claims.take(run)


def test_what_another_process_holds_is_not_released(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    claims.release(run)
    assert not claims.take(run)


def test_threads_of_one_process_may_take_a_claim_together(
    claims: Claims, run: RunDirectory
) -> None:
    taken: list[bool] = []
    barrier = threading.Barrier(8)

    def take() -> None:
        barrier.wait(30)
        claims.take(run)
        taken.append(claims.take(run))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert taken == [True] * 8
    assert [path.name for path in run.path.iterdir()] == ["tracker.0"]


def test_files_of_claims_belong_to_the_account_alone(claims: Claims, run: RunDirectory) -> None:
    claims.take(run)
    folder = run.shared / "trackers"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (*folder.iterdir(), *run.path.iterdir())} == {
        0o600
    }


# processes that end


def test_the_claim_of_a_process_that_was_killed_is_free_at_once(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    assert other.takes(run)
    assert not claims.take(run)
    other.kill()
    assert claims.take(run)
    assert claims.holds(run)


def test_a_zombie_holds_nothing(claims: Claims, run: RunDirectory, start: Start) -> None:
    """Its parent has not asked for its end yet."""
    other = start()
    other.takes(run)
    os.kill(other.process.pid, signal.SIGKILL)
    until(lambda: claims.take(run), 10, "the claim of a zombie to be free")


def test_the_claim_of_a_process_that_ended_well_is_free_at_once(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    assert other.takes(run)
    other.end()
    assert [holder.pid for holder in claims.living()] == [os.getpid()]
    assert claims.take(run)


def test_a_process_that_was_stopped_keeps_its_claim_until_it_is_silent_too_long(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    os.kill(other.process.pid, signal.SIGSTOP)
    assert not claims.take(run)
    (identity,) = [holder.id for holder in claims.living() if holder.pid == other.process.pid]
    silent(run.shared, identity, DEAD_AFTER_SECONDS - 30)
    assert not claims.take(run)
    silent(run.shared, identity, 60)
    assert claims.take(run)
    os.kill(other.process.pid, signal.SIGCONT)
    assert not other.takes(run), "it came back, and its claim was gone"


def test_a_process_that_lives_renews_its_claim(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    (identity,) = [holder.id for holder in claims.living() if holder.pid == other.process.pid]
    silent(run.shared, identity, DEAD_AFTER_SECONDS * 2)
    path = run.shared / "trackers" / f"{identity}.json"
    before = path.stat().st_mtime
    until(lambda: path.stat().st_mtime > before, 10, "the renewal")
    assert not claims.take(run)


def test_a_file_that_somebody_removed_comes_back(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    (identity,) = [holder.id for holder in claims.living() if holder.pid == other.process.pid]
    path = run.shared / "trackers" / f"{identity}.json"
    path.unlink()
    until(path.exists, 10, "the file")
    assert not claims.take(run)


def test_that_ones_own_file_was_removed_is_nobody_elses_death(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.takes(run)
    claims.living()
    (run.shared / "trackers" / f"{claims._id}.json").unlink()
    assert not claims.take(run)


# processes that cannot be seen from here


def test_a_process_of_another_machine_is_judged_by_its_silence(
    claims: Claims, run: RunDirectory
) -> None:
    identity = another(run.shared, place="another boot/pid:[1]", pid=2**22 + 1)
    held_by(run, identity)
    assert not claims.take(run)
    silent(run.shared, identity, DEAD_AFTER_SECONDS - 10)
    assert not claims.take(run)
    silent(run.shared, identity, 20)
    assert claims.take(run)


def test_a_pid_that_came_again_is_another_process(claims: Claims, run: RunDirectory) -> None:
    held_by(run, another(run.shared, pid_started="1"))
    assert claims.take(run)


def test_a_process_of_a_newer_version_is_judged_by_its_silence(
    claims: Claims, run: RunDirectory
) -> None:
    """Its file may say other things than ours."""
    identity = "elsewhere-1-abc"
    claims.living()
    path = run.shared / "trackers" / f"{identity}.json"
    path.write_text('{"format": 2, "node": "login2"}')
    held_by(run, identity)
    assert not claims.take(run)
    silent(run.shared, identity, DEAD_AFTER_SECONDS + 1)
    assert claims.take(run)


# races


def test_of_twenty_processes_one_gets_the_claim(shared: Path, start: Start) -> None:
    processes = [start() for _ in range(20)]
    for _ in range(5):
        run = RunDirectory.create(shared, new_submission_id())
        for process in processes:
            process.tell("take", run.submission_id)
        assert sorted(process.hear() for process in processes) == ["False"] * 19 + ["True"]


def test_of_many_one_inherits_the_claim_of_the_dead(
    shared: Path, run: RunDirectory, start: Start
) -> None:
    dead = start()
    assert dead.takes(run)
    processes = [start() for _ in range(8)]
    dead.kill()
    for process in processes:
        process.tell("take", run.submission_id)
    assert sorted(process.hear() for process in processes) == ["False"] * 7 + ["True"]


def test_who_decided_long_ago_does_not_take_what_has_changed_hands_since(
    claims: Claims, run: RunDirectory, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw a dead holder, then slept while two others came, and one of them left."""
    held_by(run, "dead-1-abc")
    one, two = start(), start()
    link = claims._link

    def slow(run: RunDirectory, number: int) -> bool:
        assert one.takes(run)
        one.ask("release", run.submission_id)
        assert two.takes(run)
        return link(run, number)

    monkeypatch.setattr(claims, "_link", slow)
    assert not claims.take(run)
    assert not claims.holds(run)


# forks


FORK = """
import os, sys
from pathlib import Path
from hpc_bridge.journal import RunDirectory
from hpc_bridge.tracking.claims import claims_on

shared = Path(sys.argv[1])
run = RunDirectory(shared / "runs" / sys.argv[2])
assert claims_on(shared).take(run)
if os.fork() == 0:
    sys.exit(1 if claims_on(shared).take(run) else 0)  # runs what atexit was told
_, status = os.wait()
print(os.waitstatus_to_exitcode(status), flush=True)
sys.stdin.read()
"""


def test_a_forked_child_is_another_process_and_ends_nothing_of_its_parents(
    claims: Claims, run: RunDirectory
) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(run.shared), run.submission_id]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline().strip() == "0"
        assert not claims.take(run)
        parent.stdin.close()
        assert parent.wait(30) == 0
    assert claims.take(run)


# damage


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\0\0\0\0", b"\xff\xfe", b"../x\n", b"x" * 5000, b"released\n"]
)
def test_a_damaged_claim_is_free(claims: Claims, run: RunDirectory, content: bytes) -> None:
    (run.path / "tracker.3").write_bytes(content)
    assert claims.take(run)
    assert claims.holds(run)


def test_strange_files_are_no_claims(claims: Claims, run: RunDirectory, start: Start) -> None:
    claims.take(run)
    for name in ("tracker.txt", "tracker.", "tracker.9.old", ".tracker.7", "tracker"):
        (run.path / name).write_text("other\n")
    assert claims.take(run)
    assert not start().takes(run)


def test_a_folder_that_cannot_be_written_is_said_in_words(shared: Path, run: RunDirectory) -> None:
    shared.chmod(0o755)
    with as_nobody(), pytest.raises(SharedDirectoryError, match=f"{shared} is not writable"):
        Claims(shared).take(run)


def test_a_run_directory_that_cannot_be_read_is_not_taken_for_a_free_one() -> None:
    with tempfile.TemporaryDirectory() as folder:  # the way to tmp_path is closed for others
        Path(folder).chmod(0o755)
        shared = prepare_shared_directory(Path(folder) / "shared")
        run, claims = RunDirectory.create(shared, new_submission_id()), Claims(shared)
        held_by(run, another(shared, place="elsewhere"))
        assert not claims.take(run)
        for path in (shared, shared / "runs", shared / "trackers"):
            path.chmod(0o777)
        for path in (shared / "trackers").iterdir():
            path.chmod(0o666)
        run.path.chmod(0o333)
        with as_nobody(), pytest.raises(SharedDirectoryError, match="Permission denied"):
            claims.take(run)
        assert [path.name for path in run.path.iterdir()] == ["tracker.0"]
        claims.end()


def test_a_process_whose_file_cannot_be_read_is_not_taken_for_dead(
    claims: Claims, run: RunDirectory
) -> None:
    claims.living()
    identity = another(run.shared, place="elsewhere")
    held_by(run, identity)
    path = run.shared / "trackers" / f"{identity}.json"
    path.unlink()
    path.mkdir()  # any error but that it is missing
    with pytest.raises(SharedDirectoryError):
        claims.take(run)


def test_a_run_directory_that_is_gone_is_said_in_words(claims: Claims, run: RunDirectory) -> None:
    run.path.rmdir()
    with pytest.raises(SharedDirectoryError, match="does not exist"):
        claims.take(run)
    claims.release(run)


# workers


def test_a_worker_is_known_by_its_name(claims: Claims) -> None:
    claims.serve_as("pool", "w1")
    (holder,) = claims.living()
    assert (holder.worker, holder.pid) == ("pool/w1", os.getpid())
    assert str(holder) == f"worker 'pool/w1' (pid {os.getpid()} on {holder.host})"


def test_a_second_worker_of_a_name_is_refused_with_the_first_one_named(
    claims: Claims, start: Start
) -> None:
    other = start()
    assert other.ask("serve", "pool", "w1") == "serves"
    with pytest.raises(
        WorkerNameTaken,
        match=rf"^worker 'pool/w1' \(pid {other.process.pid} on .*\) serves pool 'pool' under the"
        " name 'w1' already; stop it, or give this one another --name$",
    ):
        claims.serve_as("pool", "w1")


def test_workers_of_other_names_and_pools_get_along(claims: Claims, start: Start) -> None:
    assert start().ask("serve", "pool", "w1") == "serves"
    assert start().ask("serve", "pool", "w2") == "serves"
    assert start().ask("serve", "pool/w1", "w") == "serves"
    claims.serve_as("pool2", "w1")


def test_of_workers_of_one_name_that_start_together_one_serves(start: Start) -> None:
    processes = [start() for _ in range(6)]
    for turn in range(5):
        for process in processes:
            process.tell("serve", "pool", f"name{turn}")
        heard = [process.hear() for process in processes]
        assert heard.count("serves") == 1, heard


@pytest.mark.parametrize("end", [Process.end, Process.kill])
def test_the_name_of_a_worker_that_is_gone_is_free_at_once(
    claims: Claims, start: Start, end: Callable[[Process], None]
) -> None:
    other = start()
    other.ask("serve", "pool", "w1")
    end(other)
    claims.serve_as("pool", "w1")


def test_a_process_may_serve_after_it_took_a_claim(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    assert claims.take(run)
    claims.serve_as("pool", "w1")
    assert claims.take(run)
    assert start().ask("serve", "pool", "w1") != "serves"


def test_a_worker_that_was_refused_leaves_the_claims_of_its_process_alone(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    other = start()
    other.ask("serve", "pool", "w1")
    claims.take(run)
    with pytest.raises(WorkerNameTaken):
        claims.serve_as("pool", "w1")
    assert not other.takes(run)
    claims.serve_as("pool", "w2")


def test_dead_workers_are_those_that_were_killed(claims: Claims, start: Start) -> None:
    killed, ended, alive, plain = start(), start(), start(), start()
    for name, process in (("killed", killed), ("ended", ended), ("alive", alive)):
        process.ask("serve", "pool", name)
    killed.kill()
    ended.end()
    plain.kill()
    assert claims.dead_workers() == {"pool/killed"}
    start().ask("serve", "pool", "killed")
    assert claims.dead_workers() == set()


def test_files_of_dead_processes_are_removed_after_a_day(claims: Claims, shared: Path) -> None:
    claims.living()
    recent, old = (another(shared, pid_started="1", worker="pool/w") for _ in range(2))
    silent(shared, recent, 86000)
    silent(shared, old, 86500)
    assert claims.dead_workers() == {"pool/w"}
    left = {path.stem for path in (shared / "trackers").iterdir()}
    assert left == {claims._id, recent}


# the process's own


def test_a_process_has_one_set_of_claims_on_a_shared_directory(shared: Path) -> None:
    assert claims_on(shared) is claims_on(shared)
    assert claims_on(shared) is not claims_on(shared / "other")


def test_a_process_that_ended_its_claims_may_begin_again(
    claims: Claims, run: RunDirectory, start: Start
) -> None:
    claims.take(run)
    claims.end()
    other = start()
    assert other.takes(run)
    other.end()
    assert claims.take(run)
    assert not start().takes(run)


def test_place_and_start_tell_processes_apart(start: Start) -> None:
    other = start()
    assert module._pid_started(os.getpid()) not in (None, module._pid_started(other.process.pid))
    assert module._pid_started(2**22 + 1) is None
