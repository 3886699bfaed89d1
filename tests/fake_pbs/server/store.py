"""The state folder: one file for each job, one lock, and switches as files.

``jobs/`` holds what is queued or running, ``history/`` what has ended. Everything is changed with
the lock held, and every file is replaced whole, so a process may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator

DEFAULTS: dict = {
    "server": "pbshost",
    "version": "23.06.06",
    "default_queue": "workq",
    "nodes": {
        "pbshost[0]": {"host": "pbshost", "ncpus": 4, "mem": "8gb", "ngpus": 2},
        "pbshost[1]": {"host": "pbshost", "ncpus": 4, "mem": "8gb", "ngpus": 2},
    },
    "queues": {
        "workq": {},
        "gpuq": {"resources_max": {"walltime": "24:00:00"}},
    },
    "resources": ["ngpus"],
    "limits": {},
    "max_array_size": 10000,
    "check_interval": 1.0,
    "kill_delay": 3.0,
    "home": None,
    "default_walltime": None,
}
"""What ``server.json`` of the state folder may set.

``queues``: ``enabled``, ``started``, ``resources_max``, ``acl_users`` by queue. ``limits``:
``max_queued`` and ``max_run`` for each user. ``check_interval``: seconds between looks at a
running job's walltime and memory (10 in reality); ``kill_delay``: between TERM and KILL (10).
``home``: the folder in which jobs start; None is the account's own.
"""


class Store:
    """The state folder of one fake server."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        for name in ("jobs", "history", "spool", "aux", "scripts", "tmp", "undelivered"):
            os.makedirs(f"{folder}/{name}", mode=0o700, exist_ok=True)
        self.config = dict(DEFAULTS)
        with contextlib.suppress(FileNotFoundError), open(f"{folder}/server.json") as file:
            self.config |= json.load(file)
        self.server: str = self.config["server"]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time; children forked inside would keep it, so none is."""
        descriptor = os.open(f"{self.folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def switch(self, name: str) -> str | None:
        """What the switch's file says; None when it is off."""
        try:
            with open(f"{self.folder}/{name}", encoding="latin-1") as file:
                return file.read().strip()
        except FileNotFoundError:
            return None

    def next_number(self) -> int:
        """The next sequence number; failed submissions use theirs up too."""
        try:
            with open(f"{self.folder}/sequence") as file:
                number = int(file.read())
        except FileNotFoundError:
            number = 1
        self._replace(f"{self.folder}/sequence", str(number + 1))
        return number

    def live(self) -> list[dict]:
        """Jobs that have not ended, in order."""
        return self._all("jobs")

    def ended(self) -> list[dict]:
        return [] if self.switch("no-history") is not None else self._all("history")

    def get(self, job: str) -> dict | None:
        """A job by its full id, queued, running or in history."""
        for folder in ("jobs", "history"):
            if folder == "history" and self.switch("no-history") is not None:
                continue
            record = self._read(f"{self.folder}/{folder}/{job}")
            if record is not None:
                return record
        return None

    def subjobs(self, parent: dict) -> list[dict]:
        """Of an array, in order."""
        return [
            record
            for index in parent["indices"]
            if (record := self.get(f"{parent['number']}[{index}].{self.server}")) is not None
        ]

    def put(self, record: dict) -> None:
        """Write a job where its state says it belongs: history, or not at all without one."""
        path = f"{self.folder}/jobs/{record['id']}"
        if record["attributes"]["job_state"] != "F":
            self._replace(path, json.dumps(record))
            return
        if self.switch("no-history") is None:
            self._replace(f"{self.folder}/history/{record['id']}", json.dumps(record))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def forget(self, record: dict) -> None:
        for folder in ("jobs", "history"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/{folder}/{record['id']}")

    def order(self, job: str, words: str) -> None:
        """Tell the process that runs ``job`` something: a line that it reads at its next look."""
        with open(f"{self.folder}/aux/{job}.orders", "a") as file:
            file.write(words + "\n")

    def _all(self, folder: str) -> list[dict]:
        records = []
        for name in os.listdir(f"{self.folder}/{folder}"):
            record = None if name.startswith(".") else self._read(f"{self.folder}/{folder}/{name}")
            if record is not None:
                records.append(record)
        return sorted(records, key=lambda record: (record["number"], record["index"]))

    @staticmethod
    def _read(path: str) -> dict | None:
        try:
            with open(path) as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    @staticmethod
    def _replace(path: str, text: str) -> None:
        folder, name = os.path.split(path)
        part = f"{folder}/.{name}.{os.getpid()}"
        with open(part, "w") as file:
            file.write(text)
        os.replace(part, path)


def touch(record: dict, **attributes: object) -> None:
    """Set attributes of a job (None removes) and the time of its last change."""
    for name, value in attributes.items():
        if value is None:
            record["attributes"].pop(name, None)
        else:
            record["attributes"][name] = value
    record["attributes"]["mtime"] = int(time.time())
