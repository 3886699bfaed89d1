"""What happens to jobs: queued, started, ended, rerun, deleted; arrays and dependencies.

Every function is called with the store's lock held. ``schedule`` gives back the ids of jobs that
the caller has to start (``runner.launch``) once it has let the lock go.
"""

from __future__ import annotations

import time

from .attributes import clock, ranges
from .placing import Chunk, Node, exec_host, exec_vnode, lacking, nodes_of, placed
from .store import Store, touch


def moment(when: float) -> str:
    """As in comments: ``Sat Nov 21 at 02:05``."""
    return time.strftime("%a %b %d at %H:%M", time.localtime(when))


def schedule(store: Store) -> list[str]:
    """One cycle: what waits for its time is queued, what fits is started."""
    if store.switch("down") is not None or store.switch("scheduling-off") is not None:
        return []
    live = store.live()
    for record in live:
        if record["attributes"]["job_state"] == "W" and record["begin"] <= time.time():
            touch(record, job_state="Q", substate=10, etime=int(time.time()))
            store.put(record)
    started: list[str] = []
    parents = {record["id"]: record for record in live if record["indices"]}
    nodes = nodes_of(store, live)
    for record in live:
        state, parent = record["attributes"]["job_state"], parents.get(record["parent"] or "")
        if state != "Q" or record["indices"]:
            continue
        if parent is not None and parent["attributes"]["job_state"] not in "QB":
            continue
        comment = _start(store, record, live, nodes)
        if comment is None:
            started.append(record["id"])
            nodes = nodes_of(store, live)
        elif parent is None:
            _comment(store, record["id"], comment)
        elif comment.startswith("Can Never Run"):
            _comment(store, parent["id"], comment)
    for parent_id in {r["parent"] for r in live if r["id"] in set(started) and r["parent"]}:
        update_array(store, parent_id)
    return started


def _comment(store: Store, job: str, comment: str) -> None:
    record = store.get(job)
    if record is not None and record["attributes"].get("comment") != comment:
        touch(record, comment=comment)
        store.put(record)


def _start(store: Store, record: dict, live: list[dict], nodes: list[Node]) -> str | None:
    """Start a job in the records; else why not."""
    queue = store.config["queues"][record["attributes"]["queue"]]
    if not queue.get("started", True):
        return "Not Running: Queue not started."
    owner = record["attributes"]["Job_Owner"]
    running = [r for r in live if r.get("places") and r["attributes"]["Job_Owner"] == owner]
    if len(running) >= store.config["limits"].get("max_run", float("inf")):
        return "Not Running: User has reached server running job limit."
    siblings = [r for r in live if r.get("places") and r["parent"] == record["parent"]]
    if record["parent"] and len(siblings) >= (record["at_once"] or len(live)):
        return "Not Running: Number of concurrent running subjobs limit reached"
    chunks = [Chunk(count, resources) for count, resources in record["chunks"]]
    why = lacking(chunks, nodes, record["place"])
    if why is not None:
        return why
    places = placed(chunks, nodes, record["place"])
    if places is None:
        return "Not Running: Insufficient amount of resource: ncpus"
    now = time.time()
    used = sum(len(r.get("places", ())) for r in live)
    record["places"] = places
    record["started"] = now
    vnodes = exec_vnode(places)
    touch(
        record,
        job_state="R",
        substate=41,
        exec_host=exec_host(places, used),
        exec_vnode=vnodes,
        stime=int(now),
        run_count=int(str(record["attributes"].get("run_count", 0))) + 1,
        comment=f"Job run at {moment(now)} on {vnodes}",
        session_id=None,
        resources_used=None,
        jobdir=None,
    )
    record["attributes"].setdefault("etime", int(now))
    store.put(record)
    return None


def finish(store: Store, record: dict, how: str, **attributes: object) -> None:
    """End a job: ``how`` goes behind its comment (``finished``, ``failed``, ``terminated``, ...).

    A subjob is X until the whole array has ended.
    """
    now = int(time.time())
    substate = {"finished": 92, "never": 92, "terminated": 91}.get(how.split()[0], 93)
    comment = record["attributes"].get("comment")
    if comment and how != "never":
        attributes["comment"] = (
            comment if comment.endswith(f" and {how}") else f"{comment} and {how}"
        )
    if "Exit_status" in attributes:
        attributes.setdefault("obittime", now)
    state = "X" if record["parent"] else "F"
    touch(record, job_state=state, substate=substate, history_timestamp=now, **attributes)
    record.pop("places", None)
    store.put(record)
    if record["parent"]:
        update_array(store, record["parent"])
    else:
        _release_dependents(store, record)


def requeue(store: Store, record: dict, status: int) -> None:
    """Back into the queue, with the status of the run that was ended still on it."""
    record.pop("places", None)
    now = int(time.time())
    touch(record, job_state="Q", substate=10, Exit_status=status, obittime=now)
    for name in ("exec_host", "exec_vnode", "session_id", "jobdir", "resources_used", "stime"):
        record["attributes"].pop(name, None)
    store.put(record)
    if record["parent"]:
        update_array(store, record["parent"])


def delete(store: Store, record: dict, by: str, force: bool) -> None:
    """qdel: at once for what waits; what runs is told, and ends when it has ended."""
    if record["indices"]:
        for subjob in store.subjobs(record):
            if subjob["attributes"]["job_state"] not in ("XF" if force else "XFE"):
                delete(store, subjob, by, force)
        parent = store.get(record["id"])
        if parent is not None and parent["attributes"]["job_state"] != "F":
            parent["deleted"] = True
            store.put(parent)
            update_array(store, parent["id"])
        return
    if record.get("places") is None:
        finish(store, record, "terminated")
        return
    how = f"terminated by {by}"
    comment = record["attributes"].get("comment", "")
    if " and terminated" not in comment:
        touch(record, comment=f"{comment} and {how}")
    record["deleted"] = how
    store.put(record)
    store.order(record["id"], "kill" if force else "delete")


def release(store: Store, record: dict) -> None:
    """Take all holds off: to the queue, or to wait for its time."""
    if record["begin"] > time.time():
        touch(record, job_state="W", substate=30, Hold_Types="n")
    else:
        touch(record, job_state="Q", substate=10, Hold_Types="n", etime=int(time.time()))
    store.put(record)


def update_array(store: Store, parent: str) -> None:
    """Bring an array's record up to date with its subjobs."""
    record = store.get(parent)
    if record is None or record["attributes"]["job_state"] == "F":
        return
    subjobs = store.subjobs(record)
    states = [s["attributes"]["job_state"] for s in subjobs]
    counts = {
        "Queued": sum(s in "QHW" for s in states),
        "Running": sum(s in "RS" for s in states),
        "Exiting": states.count("E"),
        "Expired": states.count("X"),
    }
    waiting = [s["index"] for s in subjobs if s["attributes"]["job_state"] in "QHW"]
    ran = [s["attributes"] for s in subjobs if s["attributes"].get("run_count")]
    has_begun = bool(ran) and record["attributes"]["job_state"] != "H"
    if has_begun and record["attributes"]["job_state"] == "Q" and not record.get("deleted"):
        now = time.time()
        touch(record, job_state="B", substate=70, stime=int(now))
        record["attributes"]["comment"] = f"Job Array Began at {moment(now)}"
    record["attributes"]["array_indices_remaining"] = ranges(waiting)
    statuses = [s["Exit_status"] for s in ran if s["job_state"] in "EX"]
    if statuses:
        record["attributes"]["Exit_status"] = int(any(statuses))
    if any(s["job_state"] == "X" for s in ran):
        record["attributes"]["Stageout_status"] = 1
    ended = counts["Expired"] == len(subjobs)
    if ended:
        counts["Expired"] = len(subjobs) - len(ran)
    record["attributes"]["array_state_count"] = " ".join(f"{n}:{c}" for n, c in counts.items())
    store.put(record)
    if ended:
        _end_array(store, record, subjobs)


def _end_array(store: Store, record: dict, subjobs: list[dict]) -> None:
    ran = [s["attributes"] for s in subjobs if s["attributes"].get("run_count")]
    words = {91: "terminated", 93: "failed"}
    how = next((words[s["substate"]] for s in ran if s["substate"] in words), "finished")
    ended = {"obittime": int(time.time())} if ran else {}
    finish(store, record, "terminated" if record.get("deleted") else how, **ended)
    for subjob in subjobs:
        subjob["attributes"]["job_state"] = "F"
        store.put(subjob)


def _release_dependents(store: Store, ended: dict) -> None:
    """Jobs that depend on ``ended`` are released, or ended without having run."""
    status = ended["attributes"].get("Exit_status")
    for record in store.live():
        wanted = record["depends"].get(ended["id"])
        if wanted is None or record["attributes"]["substate"] != 22:
            continue
        settle_dependency(store, record, ended["id"], status)


def settle_dependency(store: Store, record: dict, on: str, status: int | None) -> None:
    """``on`` ended with ``status``; None when it never ran."""
    wanted = record["depends"].pop(on)
    is_met = (
        wanted == "afterany"
        or (wanted == "afterok" and status == 0)
        or (wanted == "afternotok" and status not in (0, None))
    )
    if not is_met:
        finish(store, record, "never")
    elif record["depends"]:
        record["attributes"]["depend"] = depend_text(record["depends"], store.server)
        store.put(record)
    else:
        record["attributes"].pop("depend", None)
        release(store, record)


def depend_text(depends: dict[str, str], server: str) -> str:
    """The attribute: ``afterok:1.pbshost@pbshost,afterany:...``."""
    kinds: dict[str, list[str]] = {}
    for job, kind in depends.items():
        kinds.setdefault(kind, []).append(f"{job}@{server}")
    return ",".join(":".join([kind, *jobs]) for kind, jobs in kinds.items())


def walltime_used(record: dict, until: float) -> str:
    return clock(max(0.0, until - record["started"]))
