"""What becomes of flows when the connection to their cluster fails, on a real Slurm over real sshd.

Each time: one job for each run, flows that run once, states that are right afterwards, few logins,
and nothing half done on the cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from tests.site.afar import Afar, comes_up, goes_down, laptop_afar
from tests.site.conftest import Site, history, side_by_side
from tests.site.sshd import KINDS, MIB, Sshd
from tests.waiting import HUNG, until

NOISY = (
    'ForceCommand sh -c "echo Welcome; echo noise >&2; exec sh -c \\"\\$SSH_ORIGINAL_COMMAND\\""'
)
SLURM_ONLY = (
    'ForceCommand sh -c "case \\"\\$SSH_ORIGINAL_COMMAND\\" in'
    " sbatch*|squeue*|sacct*) \\$SSH_ORIGINAL_COMMAND;; *) echo Slurm commands only >&2; exit 1;;"
    ' esac"'
)
TRY = """
import json, sys
import jobs
from hpc_bridge import slurm
from hpc_bridge.errors import HPCBridgeError

for site in sys.argv[1:]:
    flow = slurm(**jobs.JOB, site=site, include_files=["big/"])(jobs.counted)
    try:
        flow()
    except HPCBridgeError as error:
        print(json.dumps([site, type(error).__name__, str(error)]))
"""
LARGE = """
import os, sys
from prefect import flow
import jobs
from hpc_bridge import slurm

@slurm(**jobs.JOB)
@flow
def large() -> bytes:
    return os.urandom(50 * 2**20)

future = large.submit()
future.wait()
print("over", flush=True)
print(len(future.result()))
"""
LOGINS_A_MINUTE = 6

Start = Callable[..., Sshd]


def one_job_has_run_once(laptop: Afar) -> None:
    """And its end is told, and nothing is left that is half done."""
    laptop.reconcile()
    assert [run.state.name for run in laptop.runs()] == ["Completed"]
    assert (len(laptop.submissions()), len(laptop.jobs()), laptop.starts()) == (1, 1, 1)
    until(lambda: not laptop.litter(), 30, "what was under way there has ended")


def text_of(script: subprocess.Popen[str], *, code: int = 0) -> str:
    """What it has printed until its end."""
    out, _ = script.communicate(timeout=HUNG)
    assert script.returncode == code, out
    return out


# a script whose connection breaks while it submits


def submission_breaks(site: Site, start: Start, kind: str, before: float, after: float) -> None:
    """Both sshd processes die while the scheduler thinks, or before it is heard."""
    server = start()
    with laptop_afar(site, f"breaks{before:g}{after:g}", kind, server) as laptop:
        laptop.says(scheduler=laptop.slow_sbatch(before=before, after=after))
        calling = laptop.call("call")
        moment = laptop.there(laptop.hooks) / ("asked" if before else "taken")
        until(moment.exists, 90, "the scheduler is asked")
        server.kill_sessions()
        assert text_of(calling).splitlines()[-1] == "0.0"
        assert server.logins == 2
        one_job_has_run_once(laptop)


def archive_breaks(site: Site, start: Start, kind: str) -> None:
    """Half of 50 MiB are there."""
    server = start()
    with laptop_afar(site, "archive", kind, server) as laptop:
        put_large(laptop, 50)
        calling = laptop.call("call", options={"include_files": ["big/"]})
        shared = laptop.there(laptop.shared)

        def half() -> bool:
            parts = shared.glob(".hpc-bridge-*/f/*/*")
            return any(part.stat().st_size > 10 * MIB for part in parts)

        until(half, 90, "half of the archive is there")
        server.kill_sessions()
        assert text_of(calling).splitlines()[-1] == "0.0"
        assert server.logins == 2
        one_job_has_run_once(laptop)


def host_is_away_for_moments(site: Site, start: Start, kind: str) -> None:
    """It goes down after the scheduler took the job; a call waits, rather than fail."""
    server = start()
    with laptop_afar(site, "moments", kind, server) as laptop:
        laptop.says(scheduler=laptop.slow_sbatch(after=2))
        calling = laptop.call("call")
        until((laptop.there(laptop.hooks) / "taken").exists, 90, "the job is taken")
        goes_down(server)
        until(lambda: laptop.starts() == 1, 60, "the job runs all the same")
        comes_up(server)
        assert text_of(calling).splitlines()[-1] == "0.0"
        assert server.logins <= LOGINS_A_MINUTE
        one_job_has_run_once(laptop)


def host_stays_away(site: Site, start: Start, kind: str) -> None:
    """Then a call says what is not known, and the job that there is does not run the flow."""
    server = start()
    with laptop_afar(site, "gone", kind, server) as laptop:
        laptop.says(scheduler=laptop.slow_sbatch(before=30))
        calling = laptop.call("call")
        until((laptop.there(laptop.hooks) / "asked").exists, 90, "the scheduler is asked")
        goes_down(server)
        said = text_of(calling, code=1)
        (submission,) = laptop.submissions()
        assert f"Whether job '{submission}' was submitted is unknown" in said
        (run,) = laptop.runs()
        assert (run.state.name, run.state.message in said) == ("SubmissionFailed", True)
        comes_up(server)
        until(laptop.jobs, 60, "the scheduler has taken the job")
        laptop.reconcile()
        assert (len(laptop.jobs()), laptop.starts()) == (1, 0)
        assert [state.name for state in history(run.id)] == ["Pending", "SubmissionFailed"]


def slow_scheduler_is_not_asked_twice(site: Site, start: Start, kind: str) -> None:
    """Its command outlives the connection by more than all pauses."""
    submission_breaks(site, start, kind, 28, 0)


def result_breaks(site: Site, start: Start, kind: str) -> None:
    """A large one, on its way back."""
    server = start()
    with laptop_afar(site, "result", kind, server) as laptop:
        laptop.put("large.py", LARGE)
        script = laptop.start(sys.executable, "large.py", stdout=subprocess.PIPE, text=True)
        assert script.stdout is not None
        assert script.stdout.readline() == "over\n"
        reads = f"pgrep -f '{laptop.shared}[/]results'"
        until(lambda: site.run("sh", "-c", reads).returncode == 0, 60, "the result is read")
        server.kill_sessions()
        assert int(text_of(script)) == 50 * MIB
        assert server.logins == 2


def put_large(laptop: Afar, size: int) -> None:
    """A folder with a file of ``size`` MiB that cannot be compressed."""
    folder = laptop.home() / "big"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(size * MIB))


# hosts that are hard to get in


def difficult_door(site: Site, start: Start, kind: str) -> None:
    """A jump host, a banner, noise, no SFTP and a single session."""
    jump, server = start(), start(NOISY, "MaxSessions 1", "Banner /etc/site/banner", sftp=False)
    with laptop_afar(site, "door", kind, server, "ProxyJump jump") as laptop:
        laptop.knows(jump, name="jump")
        assert text_of(laptop.call("call")).splitlines()[-1] == "0.0"
        assert (jump.logins, server.logins) == (1, 1)
        one_job_has_run_once(laptop)


def doors_that_stay_closed(site: Site, start: Start, kind: str) -> None:
    """Each says in words what is wrong, before there is any flow run; a full disk after that."""
    plain = start()
    servers = {
        "only": start(SLURM_ONLY),
        "refused": start("AuthorizedKeysFile none"),
        "changed": start(),
        "full": plain,
    }
    words = {
        "only": ("CommandError", "It said: Slurm commands only", "without it."),
        "refused": ("LoginRefused", "ublickey", "by hand"),
        "changed": ("HostKeyChanged", "ssh-keygen -R", ""),
        "full": ("SharedDirectoryError", "is full; free some space there", "No space left"),
    }
    with laptop_afar(site, "closed", kind, plain) as laptop:
        put_large(laptop, 8)
        full = f"/full/{laptop.word}"
        site.shell(f"rm -rf {full}; mkdir {full}")
        for word, server in servers.items():
            laptop.knows(server, name=word)
            laptop.says_of(f"{word}-{kind}", word, full if word == "full" else laptop.shared)
        other_key(laptop, servers["changed"])
        laptop.put("try.py", TRY)
        done = laptop.python("try.py", *(f"{word}-{kind}" for word in words))
        answers = map(json.loads, done.stdout.splitlines())
        said = {name.partition("-")[0]: (error, text) for name, error, text in answers}
        for word, (error, *parts) in words.items():
            assert said[word][0] == error, said
            assert all(part in said[word][1] for part in parts), said[word]
        assert [server.logins for server in servers.values()] == [1, 0, 0, 1]
        assert site.shell(f"cd {full}; ls live runs bundles; ls -A | grep hpc-; true").split() == [
            "bundles:",
            "live:",
            "runs:",
        ]


def other_key(laptop: Afar, server: Sshd) -> None:
    """The laptop knows another one of that host."""
    key = laptop.folder / "other"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
    kind, shown, *_ = key.with_suffix(".pub").read_text().split()
    known = laptop.home() / ".ssh/known_hosts"
    lines = [line for line in known.read_text().splitlines() if f":{server.port} " not in line]
    known.write_text("\n".join([*lines, f"[{server.address}]:{server.port} {kind} {shown}"]) + "\n")


def test_connections_that_break_under_a_script(site: Site, servers: Start) -> None:
    side_by_side(
        partial(slow_scheduler_is_not_asked_twice, site, servers, "paramiko"),
        partial(host_stays_away, site, servers, "openssh"),
        partial(submission_breaks, site, servers, "openssh", 2, 0),
        partial(host_is_away_for_moments, site, servers, "paramiko"),
        partial(archive_breaks, site, servers, "paramiko"),
        partial(result_breaks, site, servers, "openssh"),
    )


def test_hosts_that_are_hard_to_get_in(site: Site, servers: Start, plain: Sshd) -> None:
    assert plain.logins == 0  # it has written the banner
    side_by_side(
        *(partial(difficult_door, site, servers, kind) for kind in KINDS),
        *(partial(doors_that_stay_closed, site, servers, kind) for kind in KINDS),
    )
