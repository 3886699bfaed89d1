"""pbsnodes: -a -F json with and without -v, -l, and one node by name."""

from __future__ import annotations

import getopt
import json
import time

from . import users
from .forms import _is_numeric
from .placing import Node, nodes_of
from .store import Store

COMMENT = "node down: communication closed"


def main(store: Store, words: list[str]) -> int:
    """The program; its exit code."""
    options, names = getopt.gnu_getopt(words, "alvSjLF:D:H")
    given = {letter[1]: value for letter, value in options}
    if store.switch("down") is not None:
        users.complain(
            f"Connection refused\npbsnodes: cannot connect to server {store.server}, error=15010"
        )
        return 1
    with store.lock():
        nodes = nodes_of(store, store.live())
    code = 0
    for name in names:
        if name not in {node.name for node in nodes} | {node.host for node in nodes}:
            users.complain(f"Node: {name},  Error: Unknown node ")
            code = 1
    if code:
        return code
    if names:
        nodes = [node for node in nodes if node.name in names or node.host in names]
    if "l" in given:
        for host in {node.host: None for node in nodes if not node.is_up}:
            users.say(f"{host:<20} down {COMMENT}\n")
        return 0
    if given.get("F") != "json":
        users.complain("pbsnodes: the fake answers only -F json and -l")
        return 2
    entries = _virtual(nodes) if "v" in given else _by_host(nodes)
    heading = {"timestamp": int(time.time()), "pbs_version": store.config["version"]}
    answer = {**heading, "pbs_server": store.server, "nodes": entries}
    users.say(_dumped(answer, 0) + "\n")
    return 0


def _virtual(nodes: list[Node]) -> dict[str, dict]:
    """Every virtual node, after the one that each host has by nature."""
    found: dict[str, dict] = {}
    names = {node.name for node in nodes}
    for node in nodes:
        if node.host not in names and node.host not in found:
            found[node.host] = _entry(
                node.host, node, {"mem": "0b", "ncpus": 0}, {}, is_natural=True
            )
        has = {"mem": f"{node.has['mem'] // 1024**2}gb", "ncpus": node.has["ncpus"]}
        has["ngpus"] = node.has["ngpus"]
        used = {n: node.has[n] - node.free[n] for n in ("mem", "ncpus", "ngpus")}
        found[node.name] = _entry(node.name, node, has, used, is_natural=node.name == node.host)
    return found


def _entry(name: str, node: Node, has: dict, used: dict, is_natural: bool) -> dict:
    entry: dict = {"Mom": node.host, "ntype": "PBS", "state": _state(node, used)}
    if is_natural or not node.is_up:
        entry["pcpus"] = 2 if is_natural else node.has["ncpus"]
    if node.jobs and name == node.name:
        entry["jobs"] = node.jobs
    entry["resources_available"] = {"arch": "linux", "host": node.host, **has, "vnode": name}
    entry["resources_assigned"] = {
        n: f"{v}kb" if n == "mem" else v for n, v in sorted(used.items()) if v
    }
    if not node.is_up:
        entry["comment"] = COMMENT
    entry |= {"resv_enable": "True", "sharing": "default_shared", "license": "l"}
    entry["last_state_change_time"] = int(time.time())
    if name == node.name and node.name != node.host:
        entry["last_used_time"] = int(time.time())
    return entry


def _state(node: Node, used: dict) -> str:
    if not node.is_up:
        return "down"
    return "job-busy" if used and node.free["ncpus"] <= 0 else "free"


def _by_host(nodes: list[Node]) -> dict[str, dict]:
    """One entry for each host, its virtual nodes taken together."""
    found: dict[str, dict] = {}
    for host in {node.host: None for node in nodes}:
        mine = [node for node in nodes if node.host == host]
        has = {n: sum(node.has[n] for node in mine) for n in ("mem", "ncpus", "ngpus")}
        used = {n: has[n] - sum(node.free[n] for node in mine) for n in has}
        jobs = list({job: None for node in mine for job in node.jobs})
        entry: dict = {"Mom": host, "ntype": "PBS", "state": _state(mine[0], {}), "pcpus": 2}
        if jobs:
            entry["jobs"] = jobs
        if not mine[0].is_up:
            entry["comment"] = COMMENT
        entry |= {
            "resv_enable": "True",
            "sharing": "default_shared",
            "license": "l",
            "last_state_change_time": "<various>",
            "last_used_time": "<various>",
            "resources_available": {
                "arch": "linux",
                "host": host,
                "mem": f"{has['mem']}kb",
                "ncpus": has["ncpus"],
                "vnode": "<various>",
                "accelerator_memory": "0kb",
                "hbmem": "0kb",
                "naccelerators": 0,
                "vmem": "0kb",
                "ngpus": has["ngpus"],
            },
            "resources_assigned": {n: f"{v}kb" if n == "mem" else v for n, v in used.items() if v},
        }
        found[host] = entry
    return found


def _dumped(value: object, indent: int) -> str:
    """As the tools indent: nothing behind a colon, and an empty object over two lines."""
    space, inner = " " * indent, " " * (indent + 4)
    if isinstance(value, dict):
        if not value:
            return f"{{\n{space}}}"
        members = ",\n".join(f'{inner}"{k}":{_dumped(v, indent + 4)}' for k, v in value.items())
        return f"{{\n{members}\n{space}}}"
    if isinstance(value, list):
        return "[\n" + ",\n".join(f'{inner}"{each}"' for each in value) + f"\n{space}]"
    if isinstance(value, int) or _is_numeric(str(value)):
        return str(value)
    return json.dumps(value)
