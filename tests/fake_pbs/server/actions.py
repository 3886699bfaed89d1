"""qdel, qrerun, qhold, qrls: what is done to jobs; qselect: which there are."""

from __future__ import annotations

import getopt
import os
import time
from collections.abc import Callable

from . import users
from .ids import (
    BAD_STATE,
    FINISHED,
    FINISHED_ELEMENT,
    NOT_RERUNNABLE,
    UNAUTHORIZED,
    UNKNOWN,
    named,
)
from .lives import delete, release, requeue, schedule, update_array
from .processes import birth
from .runner import launch
from .store import Store, touch


class Wrong(Exception):
    """An order that is refused: exit code and words."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


def _is_down(store: Store, program: str) -> bool:
    if store.switch("down") is None:
        return False
    words = f"{program}: cannot connect to server {store.server} (errno=15010)"
    if program == "qdel":
        words = f"Couldn't connect to cluster: {store.server}"
    users.complain(f"Connection refused\n{words}")
    return True


def _job(store: Store, job: str, is_manager_only: bool = False) -> dict:
    record = store.get(job)
    if record is None:
        raise Wrong(UNKNOWN, f"Unknown Job Id {job}")
    is_own = record["attributes"]["Job_Owner"].split("@")[0] == users.name()
    if not users.is_manager() and (is_manager_only or not is_own):
        raise Wrong(UNAUTHORIZED, f"Unauthorized Request  {job}")
    if record["attributes"]["job_state"] == "X":
        raise Wrong(FINISHED_ELEMENT, f"Request invalid for finished array subjob {job}")
    if record["attributes"]["job_state"] == "F":
        raise Wrong(FINISHED, f"Job has finished {job}")
    return record


def _each(store: Store, program: str, names: list[str], act: Callable[[str], None]) -> int:
    """Do it to each; the last error is the exit code, the good ones are done all the same."""
    if _is_down(store, program):
        return 162
    code = 0
    with store.lock():
        for name in names:
            found = named(store, name)
            if found is None:
                users.complain(f"{program}: illegally formed job identifier: {name}")
                code = 1
                continue
            is_range = len(found.jobs) > 1
            known = [job for job in found.jobs if store.get(job) is not None]
            try:
                if is_range and not known:
                    raise Wrong(UNKNOWN, f"Unknown Job Id {found.full}")
                for job in known if is_range else found.jobs:
                    act(job)
            except Wrong as wrong:
                words = wrong.words
                if program == "qdel" and wrong.code == UNKNOWN and "[" not in name:
                    words = f"Unknown Job Id {name}"
                users.complain(f"{program}: {words}")
                code = wrong.code
        started = schedule(store)
    for job in started:
        launch(store, job)
    return code


def qdel(store: Store, words: list[str]) -> int:
    options, names = getopt.gnu_getopt(words, "W:x")
    given = dict(options)

    def act(job: str) -> None:
        record = store.get(job)
        is_past = record is not None and record["attributes"]["job_state"] == "F"
        if "-x" in given and record is not None and is_past:
            store.forget(record)
            return
        by, is_forced = f"{users.name()}@{store.server}", given.get("-W") == "force"
        record = _job(store, job)
        if record["attributes"]["job_state"] == "E" and not is_forced:
            raise Wrong(BAD_STATE, f"Request invalid for state of job {job}")
        delete(store, record, by, is_forced)

    return _each(store, "qdel", names, act)


def qrerun(store: Store, words: list[str]) -> int:
    _, names = getopt.gnu_getopt(words, "W:")

    def act(job: str) -> None:
        record = _job(store, job, is_manager_only=True)
        if record["attributes"]["Rerunable"] != "True":
            raise Wrong(NOT_RERUNNABLE, f"job is not rerunnable {job}")
        if record.get("places") is None:
            raise Wrong(BAD_STATE, f"Request invalid for state of job {job}")
        store.order(job, "rerun")

    return _each(store, "qrerun", names, act)


def qhold(store: Store, words: list[str]) -> int:
    _, names = getopt.gnu_getopt(words, "h:")

    def act(job: str) -> None:
        record = _job(store, job)
        if record["attributes"]["job_state"] in "QWH":
            comment = f"Job held by {users.name()} on {time.ctime()}"
            touch(record, job_state="H", substate=20, Hold_Types="u", etime=None, comment=comment)
            store.put(record)

    return _each(store, "qhold", names, act)


def qrls(store: Store, words: list[str]) -> int:
    _, names = getopt.gnu_getopt(words, "h:")

    def act(job: str) -> None:
        record = _job(store, job)
        if record["attributes"]["substate"] == 20:
            touch(record, comment=None)
            release(store, record)
            if record["indices"]:
                update_array(store, record["id"])

    return _each(store, "qrls", names, act)


def qselect(store: Store, words: list[str]) -> int:
    options, _ = getopt.gnu_getopt(words, "a:A:c:h:HJl:N:p:q:r:s:t:Tu:xP:")
    given = {letter[1]: value for letter, value in options}
    if _is_down(store, "qselect"):
        return 162
    with store.lock():
        records = store.live()
        if "x" in given or "H" in given:
            records += store.ended()
    exact = {"N": "Job_Name", "A": "Account_Name", "P": "project", "q": "queue"}
    for record in sorted(records, key=lambda r: (r["number"], r["index"])):
        attributes = record["attributes"]
        is_asked = (
            all(attributes.get(name) == given[x] for x, name in exact.items() if x in given)
            and (record["parent"] is None or "T" in given)
            and ("J" not in given or record["indices"])
            and attributes["job_state"] in given.get("s", attributes["job_state"])
            and ("H" not in given or attributes["job_state"] == "F")
            and attributes["Job_Owner"].split("@")[0] in given.get("u", attributes["Job_Owner"])
        )
        if is_asked:
            users.say(f"{record['id']}\n")
    return 0


def tick(store: Store, words: list[str]) -> int:
    """Not a program of PBS: a cycle of the scheduler, for the tests."""
    with store.lock():
        started = schedule(store)
    for job in started:
        launch(store, job)
    return 0


def revive(store: Store, words: list[str]) -> int:
    """Not a program of PBS: a dead node comes back, and its jobs run again from the start."""
    with store.lock():
        alive = set()
        for name in os.listdir(f"{store.folder}/aux"):
            if name.startswith("process."):
                with open(f"{store.folder}/aux/{name}") as file:
                    born, _, job = file.read().partition(" ")
                if str(birth(int(name.split(".")[1]))) == born:
                    alive.add(job)
        for record in store.live():
            hosts = {place["host"] for place in record.get("places", ())}
            if hosts & set(words) and record["id"] not in alive:
                requeue(store, record, -4)
    return tick(store, [])
