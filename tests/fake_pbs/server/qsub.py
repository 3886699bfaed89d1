"""qsub: takes a job."""

from __future__ import annotations

import getopt
import grp
import os
import signal
import sys
import time

from . import users
from .asked import USAGE, Asked, Illegal, begin_of, directives, indices_of, user_variables
from .attributes import seconds, variable_list
from .lives import depend_text, schedule, settle_dependency
from .placing import Refused, check_value, chunks_of, duration, totals, written
from .runner import launch, wake_at
from .store import Store

_NOT_RERUN = " cannot submit non-rerunable Array Job"


def main(store: Store, words: list[str]) -> int:
    """The program; its exit code."""
    asked = Asked()
    try:
        script, name, command = _read(asked, words)
        variables = user_variables(asked.values["v"]) if "v" in asked.values else {}
        if store.switch("down") is not None:
            users.complain(
                f"Connection refused\nqsub: cannot connect to server {store.server} (errno=15010)"
            )
            return 162
        with store.lock():
            job = _take(store, asked, words, script, name, command, variables)
            started = schedule(store)
    except Illegal as illegal:
        users.complain(
            f"qsub: {illegal.words}" + (f"\n{USAGE.rstrip()}" if illegal.is_usage else "")
        )
        return 2
    except Refused as refused:
        users.complain(f"qsub: {refused.words}" if refused.words else USAGE.rstrip())
        return refused.code
    for each in started:
        launch(store, each)
    if "a" in asked.values:
        wake_at(store, begin_of(asked.values["a"]) or 0)
    if store.switch("lose-answer") is not None:
        os.unlink(f"{store.folder}/lose-answer")
        os.kill(os.getpid(), signal.SIGKILL)
    if "z" not in asked.values:
        users.say(f"{job}\n")
    return 0


def _read(asked: Asked, words: list[str]) -> tuple[str, str, list[str]]:
    """Options and script: (script, the name it gives the job, a command instead)."""
    try:
        rest = asked.add(words)
    except getopt.GetoptError as error:
        # getopt(3) takes "--frobnicate" as the options -, f, r with the value "obnicate".
        more = "qsub: illegal -r value\n" if str(error.opt).startswith("frob") else ""
        users.complain(
            f"qsub: invalid option -- '{'-' if more else error.opt}'\n{more}{USAGE.rstrip()}"
        )
        raise SystemExit(2) from None
    if _is_array_not_rerun(asked):
        raise Illegal(_NOT_RERUN)
    if any(word == "--" for word in words) and rest:
        return "", "STDIN", rest
    if len(rest) > 1:
        raise Refused(2, "")
    if rest:
        script = _file(rest[0])
        name = os.path.basename(rest[0])
    else:
        script = sys.stdin.buffer.read().decode("latin-1")
        name = "STDIN"
    try:
        prefix = asked.values.get("C", os.environ.get("PBS_DPREFIX", "#PBS"))
        asked.add(directives(script, prefix))
    except getopt.GetoptError as error:
        line = next(x for x in script.splitlines() if x.startswith("#PBS") and f"-{error.opt}" in x)
        raise Refused(
            1, f"invalid option -- '{error.opt}'\nqsub: directive error: {line[5:]} "
        ) from None
    if _is_array_not_rerun(asked):
        lines = [
            line
            for line in script.splitlines()
            if line.startswith((f"{prefix} -J", f"{prefix} -r"))
        ]
        raise Refused(1, f"{_NOT_RERUN}\nqsub: directive error: {lines[-1][len(prefix) + 1 :]} ")
    return script, name, []


def _is_array_not_rerun(asked: Asked) -> bool:
    return "J" in asked.values and asked.values.get("r") == "n"


def _file(path: str) -> str:
    if os.path.isdir(path):
        raise Refused(1, "script not a file")
    try:
        with open(os.fsencode(path), "rb") as file:
            return file.read().decode("latin-1")
    except FileNotFoundError:
        raise Refused(1, "script file:: No such file or directory") from None
    except PermissionError:
        raise Refused(8, "opening script file:: Permission denied") from None


def _take(
    store: Store,
    asked: Asked,
    words: list[str],
    script: str,
    name: str,
    command: list[str],
    variables: dict[str, str],
) -> str:
    """Check with the lock held as the server does, and write the job; its id."""
    values = asked.values
    _check_group(asked.more)
    queue, _, server = values.get("q", store.config["default_queue"]).partition("@")
    if server and server != store.server:
        shown = server[: len(store.server)]  # cut, as the real one does
        users.complain(f"Unknown Host.\nqsub: cannot connect to server {shown} (errno=15008)")
        raise SystemExit(160)
    resources, chunks = _resources(store, asked.resources)
    number = store.next_number()
    if queue not in store.config["queues"]:
        raise Refused(170, "Unknown queue")
    _check_limits(store, queue or store.config["default_queue"], resources)
    indices = indices_of(values["J"]) if "J" in values else []
    if len(indices) > store.config["max_array_size"]:
        raise Refused(3, "Array job exceeds server or queue size limit")
    now = int(time.time())
    user, host = users.name(), store.server
    name = values.get("N", name)
    here = users.raw(_here())
    suffix = f"{number}.^array_index^" if indices else f"{number}"
    begin = (begin_of(values["a"]) or 0) if "a" in values else 0
    depends = _depends(store, asked.more.get("depend", ""))
    variables = _variables(host, queue, here, variables)
    state, substate = ("H", 22) if depends else ("W", 30) if begin > now else ("Q", 10)
    if "h" in values:
        state, substate = "H", 20
    attributes: dict[str, object] = {
        "Job_Name": name,
        "Job_Owner": f"{user}@{host}",
        "job_state": state,
        "queue": queue,
        "server": host,
        "Checkpoint": "u",
        "ctime": now,
        "Error_Path": _path(values.get("e"), f"{name}.e{suffix}", here, host),
        "Hold_Types": "u" if "h" in values else "s" if depends else "n",
        "Join_Path": values.get("j", "n"),
        "Keep_Files": values.get("k", "n"),
        "Mail_Points": values.get("m", "a"),
        "mtime": now,
        "Output_Path": _path(values.get("o"), f"{name}.o{suffix}", here, host),
        "Priority": int(values.get("p", 0)),
        "qtime": now,
        "Rerunable": "False" if values.get("r") == "n" else "True",
        "Resource_List": resources,
        "substate": substate,
        "Variable_List": variable_list(variables),
        "project": values.get("P", "_pbs_project_default"),
        "Submit_Host": host,
    }
    optional = {"A": "Account_Name", "M": "Mail_Users", "R": "Remove_Files", "S": "Shell_Path_List"}
    attributes |= {a: values[letter] for letter, a in optional.items() if letter in values}
    if words:
        attributes["Submit_arguments"] = " ".join(map(users.raw, words))
    if command:
        attributes["executable"] = users.raw(command[0])
        arguments = [f"<jsdl-hpcpa:Argument>{w}</jsdl-hpcpa:Argument>" for w in command[1:]]
        attributes |= {"argument_list": "".join(arguments)} if arguments else {}
    if begin > now:
        attributes["Execution_Time"] = int(begin)
    if state == "Q":
        attributes["etime"] = now
    if depends:
        attributes["depend"] = depend_text(depends, host)
    if "umask" in asked.more:
        attributes["umask"] = asked.more["umask"].lstrip("0") or "0"
    if "group_list" in asked.more:
        attributes["group_list"] = asked.more["group_list"]
    record = {
        "id": f"{number}[].{host}" if indices else f"{number}.{host}",
        "number": number,
        "index": -1,
        "indices": indices,
        "parent": None,
        "attributes": attributes,
        "chunks": [(chunk.count, chunk.resources) for chunk in chunks],
        "place": resources["place"],
        "begin": begin,
        "depends": depends,
        "command": command,
        "variables": variables,
        "here": here,
    }
    with open(f"{store.folder}/scripts/{number}", "wb") as file:
        file.write(script.encode("latin-1"))
    if indices:
        _write_subjobs(store, record, values["J"])
    store.put(record)
    _announce(store, record)
    return record["id"]


def _resources(store: Store, asked: dict[str, str]) -> tuple[dict[str, str], list]:
    """``Resource_List`` and the chunks."""
    select, place = asked.get("select"), asked.get("place")
    rest = {n: v for n, v in asked.items() if n not in ("select", "place")}
    for name, value in rest.items():
        if select is not None and name in ("ncpus", "mem", "ngpus", "mpiprocs"):
            words = f'"-lresource=" cannot be used with "select" or "place", resource is: {name}'
            raise Refused(5, words)
        check_value(store, name, value, "Unknown resource Resource_List.", "Resource_List.")
    chunks = chunks_of(
        store,
        select
        or "1:"
        + ":".join(
            f"{n}={rest.get(n, '1')}"
            for n in ("ncpus", "mem", "ngpus")
            if n in rest or n == "ncpus"
        ),
    )
    found = rest | totals(chunks) | {"select": written(chunks)}
    found["place"] = place or ("free" if select else "pack")
    if "walltime" in found:
        found["walltime"] = duration(found["walltime"])
    elif store.config["default_walltime"]:
        found["walltime"] = store.config["default_walltime"]
    return found, chunks


def _check_limits(store: Store, queue: str, resources: dict[str, str]) -> None:
    said = store.config["queues"][queue]
    if not said.get("enabled", True):
        raise Refused(173, "Queue is not enabled")
    if users.name() not in said.get("acl_users", [users.name()]):
        raise Refused(159, "Unauthorized Request ")
    for name, limit in said.get("resources_max", {}).items():
        asked = resources.get(name)
        if asked is not None and (seconds(asked) or 0) > (seconds(str(limit)) or 0):
            raise Refused(188, "Job violates queue and/or server resource limits")
    limit = store.config["limits"].get("max_queued")
    mine = [r for r in store.live() if r["attributes"]["Job_Owner"].split("@")[0] == users.name()]
    if limit is not None and len(mine) >= limit:
        raise Refused(38, "would exceed complex's per-user limit")


def _check_group(more: dict[str, str]) -> None:
    if "group_list" in more:
        try:
            group = grp.getgrnam(more["group_list"].split("@")[0]).gr_gid
        except KeyError:
            group = -1
        if group not in os.getgroups():
            raise Refused(197, "Bad GID for job execution")


def _path(asked: str | None, default: str, here: str, host: str) -> str:
    """With the host, as in Output_Path."""
    if asked is None:
        return f"{host}:{here}/{default}"
    if ":" in asked.split("/")[0]:
        return asked
    return f"{host}:{asked if asked.startswith('/') else f'{here}/{asked}'}"


def _variables(host: str, queue: str, here: str, asked: dict[str, str]) -> dict[str, str]:
    names = ("HOME", "LANG", "LOGNAME", "PATH", "MAIL", "SHELL")
    given = {f"PBS_O_{n}": users.raw(os.environ[n]) for n in names if n in os.environ}
    given["PBS_O_LOGNAME"] = users.name()
    given |= {"PBS_O_WORKDIR": here, "PBS_O_SYSTEM": "Linux"} | asked
    return given | {"PBS_O_QUEUE": queue, "PBS_O_HOST": host}


def _here() -> str:
    """The working directory, by the name that the shell has for it."""
    named = os.environ.get("PWD", "")
    is_it = os.path.isdir(named) and os.path.samefile(named, ".")
    return named if is_it else os.getcwd()


def _depends(store: Store, text: str) -> dict[str, str]:
    """Full id of what is waited for: kind."""
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        kind, *jobs = part.split(":")
        for job in jobs:
            found[job if "." in job else f"{job}.{store.server}"] = kind
    return found


def _write_subjobs(store: Store, record: dict, asked: str) -> None:
    attributes = record["attributes"]
    for index in record["indices"]:
        own = {
            n: v for n, v in attributes.items() if n not in ("Checkpoint", "Hold_Types", "umask")
        }
        own.pop("Submit_arguments", None)
        own |= {"array_id": record["id"], "array_index": index, "job_state": "Q", "substate": 10}
        for name in ("Output_Path", "Error_Path"):
            own[name] = str(own[name]).replace("^array_index^", str(index))
        own.setdefault("etime", attributes["ctime"])
        subjob = record | {
            "id": f"{record['number']}[{index}].{store.server}",
            "index": index,
            "indices": [],
            "parent": record["id"],
            "attributes": own,
            "depends": {},
            "at_once": int(asked.partition("%")[2] or 0),
        }
        store.put(subjob)
    attributes["array"] = "True"
    count = len(record["indices"])
    attributes["array_state_count"] = f"Queued:{count} Running:0 Exiting:0 Expired:0"
    span, _, at_once = asked.partition("%")
    attributes["array_indices_submitted"] = span
    attributes["array_indices_remaining"] = span
    if at_once:
        attributes["max_run_subjobs"] = int(at_once)


def _announce(store: Store, record: dict) -> None:
    """Tell what is waited for; what has ended already decides at once."""
    for job, kind in list(record["depends"].items()):
        other = store.get(job)
        if other is not None and other["attributes"]["job_state"] != "F":
            before = f"{kind.replace('after', 'before')}:{record['id']}@{store.server}"
            others = other["attributes"].get("depend")
            other["attributes"]["depend"] = f"{others},{before}" if others else before
            store.put(other)
            continue
        status = other["attributes"].get("Exit_status") if other is not None else None
        current = store.get(record["id"])
        if current is not None and current["attributes"]["job_state"] != "F":
            settle_dependency(store, current, job, status)
