"""A laptop whose one login host fails it: what the faults over SSH are made with."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

from tests.conftest import SITE
from tests.server import server_client
from tests.site.conftest import Site, Worker
from tests.site.laptop import HOST, Laptop, _set_up
from tests.site.sshd import Sshd
from tests.waiting import until

CALL = """
import json, sys
import jobs
from hpc_bridge import slurm
from prefect import tags

way, tag, seconds, how, options, variables = sys.argv[1:]
flow = slurm(**jobs.JOB, **json.loads(options))(jobs.counted)
flow = flow.with_options(job_variables=json.loads(variables))
with tags(tag):
    if way == "call":
        print(flow(float(seconds), how))
    else:
        future = getattr(flow, way)(float(seconds), how)
        print("given", flush=True)
        print(future.result())
"""


@dataclass(frozen=True)
class Afar(Laptop):
    """One whose site has a name, and so a pool, a login host and a shared directory of its own."""

    word: str = "far"
    root: Site | None = None
    """The site, as whoever is on it sees it."""

    @property
    def name(self) -> str:
        return self.word

    @property
    def shared(self) -> str:
        """On the cluster."""
        return f"/home/researcher/far/{self.word}/shared"

    @property
    def hooks(self) -> str:
        """Where flows leave what they have done, on the cluster."""
        return f"/home/researcher/far/{self.word}/hooks"

    def there(self, path: str) -> Path:
        """A file of the cluster as this machine sees it."""
        return SITE / f"root{path}"

    def shell_there(self, command: str, user: str = "researcher") -> str:
        """Standard output of a shell command on the login host, which takes no SSH."""
        assert self.root is not None
        return self.root.shell(command, user)

    def knows(self, server: Sshd, *lines: str, name: str = HOST, address: str = "") -> None:
        """Name a login host in the SSH configuration, before those that are there."""
        address = address or server.address
        home, shown = self.home(), (SITE / "known_hosts").read_text().split(" ", 1)[1]
        with (home / ".ssh/known_hosts").open("a") as file:
            file.write(f"[{address}]:{server.port} {shown}")
        options = [
            *lines,
            f"HostName {address}",
            f"Port {server.port}",
            "User researcher",
            f"IdentityFile {home}/.ssh/id_ed25519",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {home}/.ssh/known_hosts",
            "GlobalKnownHostsFile /dev/null",
            f"ControlPath {home}/.ssh/cm-%C",
        ]
        config = home / ".ssh/config"
        config.write_text("\n  ".join([f"Host {name}", *options, "\n"]) + config.read_text())

    def says(self, **parts: Any) -> None:
        """Write the site's profile; ``parts`` stand beside those that are usual."""
        login = {"transport": self.transport, "host": HOST} | parts.pop("login", {})
        self.profile(login=login, **{"paths": {"shared_dir": self.shared}, **parts})

    def says_of(self, name: str, host: str, shared: str) -> None:
        """Write the profile of another site, with a login host and shared directory of its own."""
        login = {"transport": self.transport, "host": host}
        path = self.profile(name=name, login=login, paths={"shared_dir": shared})
        (Path(path) / f"{self.name}.yaml").rename(Path(path) / f"{name}.yaml")

    def slow_sbatch(self, *, before: float = 0, after: float = 0) -> dict[str, Any]:
        """Part of a profile: a scheduler that is slow to take a job, or to say that it has."""
        text = f"""#!/bin/sh
touch {self.hooks}/asked
sleep {before}
answer=$(sbatch "$@"); x=$?
touch {self.hooks}/taken
sleep {after}
echo "$answer"; exit $x
"""
        path = self.there(f"{self.hooks}/sbatch")
        path.write_text(text)
        path.chmod(0o755)
        return {"type": "slurm", "commands": {"sbatch": f"{self.hooks}/sbatch"}}

    def call(
        self,
        way: str,
        seconds: float = 0,
        how: str = "",
        *,
        options: dict[str, Any] | None = None,
        **variables: Any,
    ) -> subprocess.Popen[str]:
        """A script that calls ``counted`` in one of three ways, and prints what came of it."""
        self.put("call.py", CALL)
        given = json.dumps({"env": {"HOOK_DIR": self.hooks}, **variables})
        words = (way, self.word, str(seconds), how, json.dumps(options or {}), given)
        return self.start(
            *(sys.executable, "call.py", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def worker(self, name: str, **variables: str) -> Worker:
        """A worker process of the personal pool."""
        return Worker(self, self.pool, f"{self.word}-{name}", **variables)

    def runs(self) -> list[Any]:
        """Flow runs that ``call`` has made."""
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[self.word]))
        with server_client() as client:
            return client.read_flow_runs(flow_run_filter=tagged)

    def starts(self) -> int:
        """How often the flows of all runs have begun."""
        files = self.there(self.hooks).glob("*.starts")
        return sum(len(file.read_text().splitlines()) for file in files)

    def go(self) -> None:
        """Let all gated flows that have begun go on."""
        for file in self.there(self.hooks).glob("*.starts"):
            self.shell_there(f"touch {self.hooks}/{file.name.removesuffix('.starts')}.go")

    def submissions(self) -> list[str]:
        """Names of their folders."""
        return self.shell_there(f"ls {self.shared}/runs").split()

    def jobs(self) -> list[str]:
        """Ids of all jobs that the scheduler has ever had of these submissions."""
        names = ",".join(self.submissions()) or "none"
        return self.shell_there(f"sacct -XnPD -o jobid -S now-1hour --name {names}").split()

    def reconcile(self) -> None:
        """Tell the ends that a script had no time for."""
        live = f"ls {self.shared}/live"
        if self.shell_there(live):
            done = self.run("hpc-bridge", "reconcile")
            assert done.returncode == 0, done.stderr
        assert self.shell_there(live) == ""

    def litter(self) -> list[str]:
        """What transfers and submissions that broke have left."""
        found = f"find {self.shared} -name '.hpc-bridge-*' -o -name submitting -o -name '*.new'"
        return self.shell_there(found).split()


def goes_down(server: Sshd) -> None:
    """The login host's end of all connections, as in a reboot; commands that run there live on."""
    server.site.shell(
        f"s=$(ps -o pid= --ppid {server.pid}); c=$(for m in $s; do ps -o pid= --ppid $m; done);"
        f" kill -9 {server.pid} $c $s; true",
        "root",
    )


def comes_up(server: Sshd) -> None:
    """As after a reboot."""
    before = server.log.count("listening")
    command = f"setsid /usr/sbin/sshd -D -E /var/log/slurm/{server.name}.log"
    server.pid = server.site.shell(
        f"{command} -f /etc/site/{server.name} </dev/null >/dev/null 2>&1 & echo $!", "root"
    )
    until(lambda: server.log.count("listening") > before, 10, "sshd listens again")


class Road:
    """An address of the login host's own, to which the network can be away."""

    def __init__(self, server: Sshd) -> None:
        """On the link that is named like the site's network."""
        network, _, _ = server.address.rpartition(".")
        self.address = f"{network}.{100 + server.port % 100}"
        self._link = f"hpcbsite{network.rpartition('.')[2]}"
        server.site.shell(f"ip addr replace {self.address}/24 dev br0", "root")

    def cut(self) -> None:
        """What is sent there vanishes, as nobody has this hardware address."""
        nobody = ("lladdr", "02:00:00:00:00:01", "nud", "permanent")
        self._ip("replace", self.address, *nobody, "dev", self._link)

    def join(self) -> None:
        """The network is back."""
        self._ip("del", self.address, "dev", self._link)

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", "neigh", *words], check=True)


@contextmanager
def laptop_afar(
    site: Site, word: str, transport: str, server: Sshd, *lines: str, **login: str
) -> Iterator[Afar]:
    """One that knows ``server`` as the site's login host; ``lines`` of its SSH configuration."""
    with tempfile.TemporaryDirectory(prefix="lap-", dir="/tmp") as folder:
        laptop = Afar(site.address, transport, Path(folder), f"{word}-{transport}", site)
        _set_up(laptop)
        laptop.knows(server, *lines)
        site.shell(f"cd; rm -rf far/{laptop.word}; mkdir -p {laptop.shared} {laptop.hooks}")
        laptop.says(login=login)
        yield laptop
