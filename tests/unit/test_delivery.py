"""A submission comes to its cluster whole, and to its scheduler at most once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hpc_bridge.connections import Connection, connect
from hpc_bridge.errors import (
    ConnectionLost,
    SchedulerUnavailable,
    SharedDirectoryError,
    SubmissionRefused,
    Unreachable,
)
from hpc_bridge.jobs import JobId
from hpc_bridge.journal import (
    SUBMISSION,
    RunDirectory,
    new_submission_id,
    prepare_shared_directory,
    submission_file,
)
from hpc_bridge.storage import spool
from hpc_bridge.storage.bundle import BundleStore, Packed
from hpc_bridge.tracking.claims import claims_of
from hpc_bridge.tracking.delivery import deliver
from hpc_bridge.tracking.resubmission import noted_or_found, resubmit
from hpc_bridge.transports.base import Files
from hpc_bridge.transports.openssh import OpenSSHTransport
from tests.unit.counted_files import Seen
from tests.unit.elsewhere import Break, BreakingTransport, Elsewhere, elsewhere
from tests.unit.fake_cluster import FakeCluster
from tests.waiting import until

SCRIPT = "#!/bin/sh\necho ü\n"
BUNDLE = b'{"flow": "x", "hpc_bridge": {"format": 1, "python": "3.12"}}'
FULL = "tar: f/0/job.sh: Cannot write: No space left on device"


@pytest.fixture
def transport() -> Iterator[BreakingTransport]:
    transport = BreakingTransport()
    yield transport
    for thread in transport.left:
        thread.join(30)


@pytest.fixture
def alpha(
    tmp_path: Path, transport: BreakingTransport, monkeypatch: pytest.MonkeyPatch
) -> Elsewhere:
    return elsewhere(tmp_path, transport, monkeypatch)


def begun(shared: Path, connection: Connection) -> tuple[RunDirectory, Files, dict[str, Any]]:
    """A run directory that is to be, with a bundle and its files."""
    store = BundleStore(shared, connection.files)
    archive = shared.with_name("files.zip")
    archive.write_bytes(b"PK")
    key = store.save(Packed(BUNDLE, archive))
    run = RunDirectory(shared / "runs" / new_submission_id(), connection.files)
    journal = {
        "submission": run.submission_id,
        "flow_runs": {"0": str(uuid4())},
        "scheduler": "slurm",
        "bundles": {"0": key},
    }
    folder = f"runs/{run.submission_id}"
    claim, holder = claims_of(run).first(run)
    content = {f"live/{run.submission_id}": b"", f"{folder}/{claim}": holder}
    content |= store.content(key)
    content |= {f"{folder}/job.out": b"", f"{folder}/job.sh": SCRIPT.encode()}
    content |= {f"{folder}/env": b"A=1\0", f"{folder}/{SUBMISSION}": submission_file(journal)}
    files = Files(str(shared), content, store.links(key, f"{folder}/0"))
    return run, files, journal


def delivered(
    shared: Path, connection: Connection, **options: Any
) -> tuple[RunDirectory, JobId | Exception]:
    """The run directory, and what became of its submission."""
    run, files, journal = begun(shared, connection)
    try:
        return run, deliver(connection, run, SCRIPT, files, journal, **options)
    except Exception as error:
        return run, error
    finally:
        claims_of(run).end()


def unmoved(_: float) -> None:
    """Instead of waiting."""


def names(run: RunDirectory) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}


BROUGHT = {
    *("job.sh", "env", "job.out", "submission.json", "tracker.0"),
    *("0/bundle.json", "0/files.zip"),
}

# on this machine


def test_here_all_lies_there_before_the_scheduler_is_asked_and_the_job_is_noted(
    shared: Path, cluster: FakeCluster
) -> None:
    seen: list[set[str]] = []
    cluster.step = lambda _: seen.append({path.name for path in shared.rglob("*.*")})
    run, job_id = delivered(shared, connect("slurm", shared, 30.0))
    assert job_id == JobId("100")
    assert names(run) == BROUGHT
    assert {"job.sh", "submission.json", "bundle.json", "files.zip"} <= seen[0]
    assert run.read_submission()["job_id"] == "100"
    assert run.live_marker.exists()


def test_here_nothing_is_submitted_when_the_disk_is_full(
    shared: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == "env":
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(content)

    monkeypatch.setattr("hpc_bridge.storage.cluster_files.write_private", full)
    run, error = delivered(shared, connect("slurm", shared, 30.0))
    assert isinstance(error, SharedDirectoryError)
    assert "is full" in str(error)
    assert cluster.scripts == []
    assert not run.live_marker.exists()


@pytest.mark.parametrize(
    ("refusal", "lives"), [(SubmissionRefused("no"), False), (ConnectionLost("?"), True)]
)
def test_here_only_what_may_have_become_a_job_stays_live(
    shared: Path, cluster: FakeCluster, refusal: Exception, lives: bool
) -> None:
    cluster.refusal = refusal
    run, error = delivered(shared, connect("slurm", shared, 30.0))
    assert error is refusal
    assert run.live_marker.exists() is lives


# elsewhere


def test_a_submission_elsewhere_is_one_command(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    run, files, journal = begun(shared, alpha.connection)
    before = transport.runs, transport.commands
    assert deliver(alpha.connection, run, SCRIPT, files, journal) == JobId("100")
    # A local transport puts the files of a command by a second call of its own.
    assert (transport.runs, transport.commands) == (before[0] + 1, before[1] + 2)
    assert names(run) == {*BROUGHT, "submitted"}
    assert (run.path / "job.sh").read_text() == SCRIPT
    assert (alpha.programs / "script").read_text() == SCRIPT
    assert (run.path / "0" / "bundle.json").read_bytes() == BUNDLE
    assert run.live_marker.exists()
    claims_of(run).end()


def test_whoever_waits_sees_how_far_a_large_submission_is(
    shared: Path, alpha: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    monkeypatch.setattr("hpc_bridge.tracking.delivery.shown", seen.shown)
    run, files, journal = begun(shared, alpha.connection)
    large = Files(files.folder, {"large": bytes(9 * 2**20), **files.content}, files.links)
    deliver(alpha.connection, run, SCRIPT, large, journal)
    assert seen.figures["Flow to alpha"][-1][0] > 9 * 2**20
    claims_of(run).end()


def test_a_job_elsewhere_is_known_by_the_schedulers_own_word(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    run, _ = delivered(shared, alpha.connection)
    assert "job_id" not in run.read_submission()
    assert noted_or_found(run, alpha.connection.cluster) == JobId("100")
    assert run.read_submission()["job_id"] == "100"
    assert alpha.connection.cluster.counters["find"] == 0


WAYS: list[list[Break]] = [
    ["before"],
    ["while"],
    ["after"],
    ["before", "after"],
    ["before", "while"],
    ["after", "before"],
    ["after", "after"],
]


@pytest.mark.parametrize("ways", WAYS, ids="-".join)
def test_however_the_connection_breaks_there_is_one_job(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport, ways: list[Break]
) -> None:
    """Even when the queue does not show it: what is over has left it, or it is not there yet."""
    transport.breaks = list(ways)
    (alpha.programs / "slow").touch()

    def pause(_: float) -> None:
        if transport.left:
            until((alpha.programs / "begun").exists, 20, "the first submission to begin")

    run, job_id = delivered(shared, alpha.connection, sleep=pause)
    assert job_id == JobId("100")
    assert len(alpha.jobs) == 1
    assert names(run) >= BROUGHT
    assert (run.path / "submitted").read_text() == "100\n"
    assert not (run.path / "submitting").exists()
    assert run.live_marker.exists()


def test_what_a_job_has_printed_stays_when_its_submission_is_tried_again(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    transport.breaks = ["after"]

    def pause(_: float) -> None:
        (output,) = shared.glob("runs/*/job.out")
        output.write_text("begun")

    run, job_id = delivered(shared, alpha.connection, sleep=pause)
    assert job_id == JobId("100")
    assert (run.path / "job.out").read_text() == "begun"


def test_a_job_that_the_queue_shows_is_not_asked_for_again(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    run, files, journal = begun(shared, alpha.connection)
    alpha.shows("7", run.submission_id)
    transport.breaks = ["after"]
    assert deliver(alpha.connection, run, SCRIPT, files, journal, sleep=unmoved) == JobId("7")
    assert alpha.connection.cluster.counters["submit"] == 1
    claims_of(run).end()


def test_a_connection_that_stays_broken_leaves_it_to_a_later_time(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    transport.breaks = ["before"] * 3
    pauses: list[float] = []
    run, error = delivered(shared, alpha.connection, sleep=pauses.append)
    assert isinstance(error, ConnectionLost)
    assert error.retryable
    assert pauses == sorted(pauses)
    assert len(pauses) == 2
    assert not run.path.exists()
    assert not run.live_marker.exists()
    assert alpha.jobs == []


def test_what_came_with_a_broken_connection_is_found_later_and_makes_no_second_job(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    transport.breaks = ["after"] * 3
    run, error = delivered(shared, alpha.connection, sleep=unmoved)
    assert isinstance(error, ConnectionLost)
    assert run.live_marker.exists()
    assert noted_or_found(run, alpha.connection.cluster) == JobId("100")
    assert resubmit(run, alpha.connection) == JobId("100")
    assert len(alpha.jobs) == 1


def test_a_login_host_that_is_away_is_not_tried_again_at_once(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    run, files, journal = begun(shared, alpha.connection)
    transport.is_away = True
    with pytest.raises(Unreachable):
        deliver(alpha.connection, run, SCRIPT, files, journal, sleep=pytest.fail)
    transport.is_away = False
    assert not run.live_marker.exists()
    claims_of(run).end()


def test_a_login_host_that_is_away_for_moments_after_a_broken_connection_is_waited_for(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    """What the connection broke under may be a job by now: a call is not to end for this."""
    transport.breaks = ["after"]
    transport.falls = True

    def pause(seconds: float) -> None:
        transport.is_away = seconds < 10

    _, job_id = delivered(shared, alpha.connection, sleep=pause)
    assert job_id == JobId("100")
    assert len(alpha.jobs) == 1


def test_a_login_host_that_stays_away_leaves_open_what_has_become_of_it(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    transport.breaks = ["after"]
    transport.falls = True
    run, error = delivered(shared, alpha.connection, sleep=unmoved)
    assert isinstance(error, SchedulerUnavailable)
    assert f"Whether job '{run.submission_id}' was submitted is unknown" in str(error)
    assert error.retryable


def test_after_a_refusal_elsewhere_nothing_is_live(shared: Path, alpha: Elsewhere) -> None:
    (alpha.programs / "refusal").write_text("sbatch: error: invalid partition specified: nope\n")
    run, error = delivered(shared, alpha.connection)
    assert isinstance(error, SubmissionRefused)
    assert "invalid partition specified: nope" in str(error)
    assert not run.live_marker.exists()
    assert {path.name for path in run.path.iterdir()}.isdisjoint({"submitting", "submitted"})


def test_a_refusal_is_said_although_the_connection_breaks_then(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alpha.programs / "refusal").write_text("sbatch: error: invalid partition specified: nope\n")

    def broken(*_: Path) -> None:
        raise ConnectionLost("lost")

    monkeypatch.setattr(alpha.connection.files, "remove", broken)
    _, error = delivered(shared, alpha.connection)
    assert isinstance(error, SubmissionRefused)


SSH = """#!/bin/bash
here=$(dirname "$0")
for line; do
    [ "$line" != -G ] || { printf 'user me\\nhostname alpha\\nport 22\\ncontrolpath x\\n'; exit; }
done
case " $* " in *" -O check "*) exit 0 ;; esac
exec setsid --wait bash -c "$line"
"""


def test_a_full_disk_elsewhere_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ssh"
    program.write_text(SSH)
    program.chmod(0o755)
    with OpenSSHTransport("alpha", program=str(program)) as transport:
        alpha = elsewhere(tmp_path, transport, monkeypatch)
        shared = prepare_shared_directory(tmp_path / "shared", alpha.connection.files)
        run, files, journal = begun(shared, alpha.connection)
        (alpha.programs / "tar").write_text(
            f"#!/bin/sh\ncat >/dev/null\necho '{FULL}' >&2\nexit 2\n"
        )
        (alpha.programs / "tar").chmod(0o755)
        with pytest.raises(
            SharedDirectoryError, match=f"{shared} on alpha is full; free some space"
        ):
            deliver(alpha.connection, run, SCRIPT, files, journal)
        (alpha.programs / "tar").unlink()
        assert alpha.jobs == []
        assert not run.path.exists()
        assert list((shared / "live").iterdir()) == []
        assert [path for path in shared.iterdir() if path.name.startswith(".hpc-bridge")] == []
        assert deliver(alpha.connection, run, SCRIPT, files, journal) == JobId("100")
        assert names(run) == {*BROUGHT, "submitted"}
        claims_of(run).end()


def test_the_spool_keeps_a_bundle_until_its_submission_has_arrived(
    shared: Path, alpha: Elsewhere, transport: BreakingTransport
) -> None:
    transport.breaks = ["before"] * 3
    run, files, journal = begun(shared, alpha.connection)
    (key,) = journal["bundles"].values()
    with pytest.raises(ConnectionLost):
        deliver(alpha.connection, run, SCRIPT, files, journal, sleep=unmoved)
    assert set(spool.content(key)) == {"bundle.json", "files.zip"}
    claims_of(run).end()
