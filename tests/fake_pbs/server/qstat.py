"""qstat: what is known of jobs, queues and the server."""

from __future__ import annotations

import getopt
import time

from . import users
from .attributes import ORDER
from .forms import Row, dsv_record, job_rows, json_answer, text_record
from .ids import FINISHED, UNKNOWN, is_job, named
from .lives import walltime_used
from .neighbour import neighbours_job
from .store import Store

USAGE = """usage: \n\
qstat [-f] [-J] [-p] [-t] [-x] [-E] [-F format | -w] [-D delim] [ job_identifier... | destination... ]
qstat [-a|-i|-r|-H|-T] [-J] [-t] [-u user] [-n] [-s] [-G|-M] [-1] [-w]
\t[ job_identifier... | destination... ]
qstat -Q [-f] [-F format] [-D delim] [ destination... ]
qstat -q [-G|-M] [ destination... ]
qstat -B [-f] [-F format] [-D delim] [ server_name... ]
qstat --version"""  # noqa: E501

HEAD = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
"""
QUEUE_HEAD = """Queue              Max   Tot Ena Str   Que   Run   Hld   Wat   Trn   Ext Type
---------------- ----- ----- --- --- ----- ----- ----- ----- ----- ----- ----
"""
SERVER_HEAD = """Server             Max   Tot   Que   Run   Hld   Wat   Trn   Ext Status
---------------- ----- ----- ----- ----- ----- ----- ----- ----- -----------
"""
STATES = {"T": "Transit", "Q": "Queued", "H": "Held", "W": "Waiting", "R": "Running",
          "E": "Exiting", "B": "Begun"}  # fmt: skip


class Query:
    """One call of qstat."""

    def __init__(self, store: Store, words: list[str]) -> None:
        self.store = store
        options, self.names = getopt.gnu_getopt(words, "aeinpqrstwxu:fGHJMQEBW:T1F:D:")
        self.given = {letter[1] for letter, _ in options}
        values = {letter[1]: value for letter, value in options}
        self.form = values.get("F", "default").lower()
        self.delimiter = values.get("D", "|")
        self.user = values.get("u")
        self.code = 0
        self.records: list[tuple[str, list[Row]]] = []
        self.lines: list[str] = []

    def run(self) -> int:
        wants_form = "F" in self.given and "f" not in self.given
        if wants_form or self.form not in ("default", "json", "dsv"):
            users.complain("qstat: conflicting options.\n" + USAGE)
            return 2
        if self.store.switch("down") is not None:
            words = f"qstat: cannot connect to server {self.store.server} (errno=15010)"
            users.complain(f"Connection refused\n{words}")
            self.code = 255
        else:
            with self.store.lock():
                self._look()
        return self._answer()

    def _look(self) -> None:
        if "B" in self.given:
            self._server()
        elif "Q" in self.given:
            self._queues()
        else:
            self._jobs()

    def _answer(self) -> int:
        is_table = self.user is not None or "a" in self.given
        if self.form == "json" and not is_table:
            kind = "Server" if "B" in self.given else "Queue" if "Q" in self.given else "Jobs"
            version = self.store.config["version"]
            users.say(json_answer(self.store.server, version, kind, self.records))
        elif "f" in self.given and not is_table:
            title = "Server" if "B" in self.given else "Queue" if "Q" in self.given else "Job Id"
            for name, rows in self.records:
                if self.form == "dsv":
                    users.say(dsv_record(f"{title}: {name}", rows, self.delimiter))
                else:
                    users.say(text_record(f"{title}: {name}", rows, "w" in self.given))
        else:
            users.say("".join(self.lines))
        return self.code

    # Jobs

    def _all(self) -> list[dict]:
        records = self.store.live()
        if "x" in self.given or "H" in self.given:
            records += self.store.ended()
        said = self.store.switch("damage")
        if said is not None:
            records.append(neighbours_job(self.store.server, said))
        if self.store.switch("privacy") is not None and not users.is_manager():
            own = f"{users.name()}@"
            records = [r for r in records if r["attributes"]["Job_Owner"].startswith(own)]
        return sorted(records, key=lambda record: (record["number"], record["index"]))

    def _jobs(self) -> None:
        is_past = "x" in self.given or "H" in self.given
        if is_past and self.store.switch("no-history") is not None:
            for name in self.names or [""]:
                full = named(self.store, name)
                shown = full.full if full is not None else name
                users.complain(f"qstat: PBS is not configured to maintain job history {shown}")
            return
        records = self._all()
        by_id = {record["id"]: record for record in records}
        if not self.names:
            self._show([r for r in records if self._is_listed(r)])
        for name in self.names:
            self._named(name, records, by_id)
        if self.lines:
            self.lines.insert(0, HEAD)

    def _named(self, name: str, records: list[dict], by_id: dict[str, dict]) -> None:
        if not is_job(name):
            if name not in self.store.config["queues"]:
                self._error(170, f"Unknown queue destination {name}")
            else:
                self._show(
                    [r for r in records if r["attributes"]["queue"] == name and self._is_listed(r)]
                )
            return
        job = named(self.store, name)
        if job is None:
            self._error(1, f"illegally formed job identifier: {name}")
            return
        found = [by_id[each] for each in job.jobs if each in by_id]
        if not found:
            past = self.store.get(job.full)
            if past is not None and past["attributes"]["job_state"] == "F":
                words = "Job has finished, use -x or -H to obtain historical job information"
                self._error(FINISHED, f"{job.full} {words}")
            elif past is None:
                self._error(UNKNOWN, f"Unknown Job Id {job.full}")
            return
        if "t" in self.given and found[0]["indices"]:
            found += [r for r in records if r["parent"] == found[0]["id"]]
        self._show(found)

    def _is_listed(self, record: dict) -> bool:
        attributes = record["attributes"]
        if self.user is not None and attributes["Job_Owner"].split("@")[0] not in self.user.split(
            ","
        ):
            return False
        if "J" in self.given and not record["indices"] and not record["parent"]:
            return False
        if "H" in self.given and attributes["job_state"] != "F":
            return False
        return record["parent"] is None or "t" in self.given

    def _error(self, code: int, words: str) -> None:
        self.code = code
        users.complain(f"qstat: {words}")

    def _show(self, records: list[dict]) -> None:
        for record in records:
            attributes = self._told_of(record)
            used = attributes.get("resources_used")
            if used and attributes["job_state"] in "RS":
                used = used | {"walltime": walltime_used(record, time.time())}
                attributes = attributes | {"resources_used": used}
            self.records.append((record["id"], job_rows(attributes)))
            self.lines.append(_line(record["id"], attributes))

    def _told_of(self, record: dict) -> dict:
        """Of an element of which the server has nothing: what it knows of the array."""
        own = record["attributes"]
        array = self.store.get(record["parent"]) if record["parent"] else None
        is_over = own["job_state"] in "XF"
        is_forgotten = is_over and self.store.switch("no-history") is not None
        if array is None or (own.get("run_count") and not is_forgotten):
            return own
        attributes = array["attributes"]
        told = {n: v for n, v in attributes.items() if ORDER.index(n) < ORDER.index("array")}
        told["job_state"] = own["job_state"]
        if own["job_state"] == "Q":
            told["substate"] = own["substate"]
        if is_over:
            told["comment"] = "Subjob finished"
            if "comment" not in attributes:  # an array without one keeps it
                attributes["comment"] = told["comment"]
                self.store.put(array)
        return told

    # Queues and the server

    def _counts(self, records: list[dict]) -> dict[str, int]:
        states = [r["attributes"]["job_state"] for r in records]
        return {word: states.count(letter) for letter, word in STATES.items()}

    def _queues(self) -> None:
        everything = [r for r in self.store.live() if r["parent"] is None]
        for name, said in self.store.config["queues"].items():
            if self.names and name not in self.names:
                continue
            records = [r for r in everything if r["attributes"]["queue"] == name]
            counts = self._counts(records)
            is_enabled, is_started = said.get("enabled", True), said.get("started", True)
            rows: list[Row] = [
                ("queue_type", None, "Execution"),
                ("total_jobs", None, str(len(records))),
                ("state_count", None, _state_count(counts)),
            ]
            if users_of := said.get("acl_users"):
                rows.append(("acl_user_enable", None, "True"))
                rows.append(("acl_users", None, ",".join(users_of)))
            maxima = said.get("resources_max", {})
            rows += [("resources_max", r, str(maxima[r])) for r in sorted(maxima)]
            rows += _assigned(records)
            rows += [("enabled", None, str(is_enabled)), ("started", None, str(is_started))]
            self.records.append((name, rows))
            yes = {True: "yes", False: "no"}
            numbers = " ".join(f"{counts[w]:>5}" for w in _ORDER)
            self.lines.append(
                f"{name:<16} {0:>5} {len(records):>5} {yes[is_enabled]:>3} {yes[is_started]:>3} "
                f"{numbers} Exe*\n"
            )
        if self.lines:
            self.lines = [QUEUE_HEAD, *self.lines]

    def _server(self) -> None:
        store = self.store
        records = [r for r in store.live() if r["parent"] is None]
        counts = self._counts(records)
        is_scheduling = store.switch("scheduling-off") is None
        total = len(records) + len([r for r in store.ended() if r["parent"] is None])
        said = [
            ("server_state", None, "Active" if is_scheduling else "Idle"),
            ("server_host", None, store.server),
            ("scheduling", None, str(is_scheduling)),
            ("total_jobs", None, str(total)),
            ("state_count", None, _state_count(counts)),
            ("default_queue", None, store.config["default_queue"]),
            ("log_events", None, "511"),
            ("mailer", None, "/usr/sbin/sendmail"),
            ("mail_from", None, "adm"),
            ("query_other_jobs", None, str(store.switch("privacy") is None)),
            ("resources_default", "ncpus", "1"),
            ("default_chunk", "ncpus", "1"),
            *_assigned(records),
            ("scheduler_iteration", None, "600"),
            ("resv_enable", None, "True"),
            ("node_fail_requeue", None, "310"),
            ("max_array_size", None, str(store.config["max_array_size"])),
            ("pbs_license_min", None, "0"),
            ("pbs_license_max", None, "2147483647"),
            ("pbs_license_linger_time", None, "31536000"),
            ("license_count", None, "Avail_Global:1000000 Avail_Local:1000000 Used:0 High_Use:0"),
            ("pbs_version", None, store.config["version"]),
            ("eligible_time_enable", None, "False"),
        ]
        if store.switch("no-history") is None:
            said.append(("job_history_enable", None, "True"))
        said += [("max_concurrent_provision", None, "5"), ("max_job_sequence_id", None, "9999999")]
        self.records.append((store.server, said))
        numbers = " ".join(f"{counts[w]:>5}" for w in _ORDER)
        state = "Active" if is_scheduling else "Idle"
        self.lines = [SERVER_HEAD, f"{store.server:<16} {0:>5} {total:>5} {numbers} {state:<10}\n"]


_ORDER = ("Queued", "Running", "Held", "Waiting", "Transit", "Exiting")


def _state_count(counts: dict[str, int]) -> str:
    return "".join(f"{word}:{count} " for word, count in counts.items())


def _assigned(records: list[dict]) -> list[Row]:
    """``resources_assigned`` of what runs; nothing when nothing does."""
    rows: list[Row] = []
    running = [r["attributes"]["Resource_List"] for r in records if r.get("places")]
    memory = [int(m[:-2]) for r in running if (m := r.get("mem", "")).endswith("mb")]
    if memory:
        rows.append(("resources_assigned", "mem", f"{sum(memory)}mb"))
    if running:
        for name in ("ncpus", "nodect"):
            total = sum(int(r[name]) for r in running)
            rows.append(("resources_assigned", name, str(total)))
    return rows


def _line(job: str, attributes: dict) -> str:
    """A line of the plain table."""
    name = str(attributes["Job_Name"])
    name = f"{name[:15]}*" if len(name) >= 16 else name
    owner = str(attributes["Job_Owner"]).split("@")[0]
    used = attributes.get("resources_used", {}).get("cput", "0")
    return (
        f"{job[:17]:<17} {name:<16} {owner:<16}  {used:>8} {attributes['job_state']} "
        f"{attributes['queue']:<16}\n"
    )


def main(store: Store, words: list[str]) -> int:
    """The program; its exit code."""
    try:
        return Query(store, words).run()
    except getopt.GetoptError as error:
        users.complain(f"qstat: invalid option -- '{error.opt}'\n{USAGE}")
        return 2
