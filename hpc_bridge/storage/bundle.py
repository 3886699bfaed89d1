"""What travels to the node: a flow, its parameters as they were given, and its files."""

from __future__ import annotations

import copy
import copyreg
import dataclasses
import json
import platform
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import prefect
from prefect import bundles
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TagsContext
from prefect.flows import Flow

from hpc_bridge.errors import BundleError, NotOwned
from hpc_bridge.journal import check_owner, shared_directory_errors
from hpc_bridge.storage import spool
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles, Part
from hpc_bridge.storage.progress import shown
from hpc_bridge.transports.base import Files

FORMAT = 1
BUNDLE, ARCHIVE = "bundle.json", "files.zip"
_OUR_PART_BYTES = 1024
DEFAULT_LAUNCHER = ["python"]
"""Replaced on the node by the interpreter that the job runs with."""

# Prefect tells cloudpickle which modules to ship, for the whole process, while it packs one flow.
_packing = threading.Lock()

_BOUND_ONLY = ("work_pool", "job_variables", "worker_cls")

# The sentinel of a dataclass's fields is told by identity, which unpickling a class by value loses.
copyreg.pickle(type(dataclasses.MISSING), lambda _: "MISSING")


def _keep_hpc_bridge_by_reference() -> None:
    """An editable install looks like the user's own module to Prefect, which would ship its code.

    Prefect 3.8 offers no list of packages to leave out.
    """
    is_local = bundles._is_local_module

    def is_local_module(module_name: str, module_path: str | None = None) -> bool:
        if module_name.split(".")[0] == "hpc_bridge":
            return False
        return is_local(module_name, module_path)

    bundles._is_local_module = is_local_module


_keep_hpc_bridge_by_reference()


@dataclass(frozen=True, slots=True)
class Packed:
    """A bundle in memory, and the archive of its files when there are any."""

    content: bytes
    archive: Path | None


@contextmanager
def packed(flow: Flow[..., Any], parameters: dict[str, Any]) -> Iterator[Packed]:
    """Pack a flow, its parameters and its ``include_files``; the archive goes away at the end.

    The submitter's settings stay behind: they hold its API key, and on the node they would win over
    the node's own. Raises BundleError naming the parameter that cannot be pickled.
    """
    travelling = _plain(flow)
    tags = TagsContext.get()
    context = {
        "tags_context": tags.serialize() if tags else {},
        "hpc_bridge": {"parameters": parameters},
    }
    draft = FlowRun(flow_id=uuid.uuid4())
    try:
        with _packing, _whole_package_by_value(flow):
            result = bundles.create_bundle_for_flow_run(travelling, draft, context=context)
    except Exception as error:
        raise BundleError(_what_cannot_travel(flow, parameters, error)) from error
    bundle: dict[str, Any] = dict(result["bundle"])
    # The run is made after its bundle; the node asks the server for it.
    del bundle["flow_run"]
    bundle["hpc_bridge"] = {
        "format": FORMAT,
        "python": python_minor(),
        "prefect": prefect.__version__,
        "cloudpickle": cloudpickle.__version__,
    }
    archive = result["zip_path"]
    try:
        yield Packed(json.dumps(bundle).encode(), archive)
    finally:
        if archive is not None:
            shutil.rmtree(archive.parent, ignore_errors=True)


@contextmanager
def _whole_package_by_value(flow: Flow[..., Any]) -> Iterator[None]:
    """Ship the flow's own package too when it lies among the user's files.

    Prefect 3.8 ships the modules that a flow's module imports absolutely, not those of relative
    imports; cloudpickle takes a package with all of its modules.
    """
    name = (getattr(flow.fn, "__module__", None) or "").split(".")[0]
    package = sys.modules.get(name)
    path = getattr(package, "__file__", None)
    ours = package is not None and path is not None and hasattr(package, "__path__")
    if not ours or not bundles._is_local_module(name, path):
        yield
        return
    cloudpickle.register_pickle_by_value(package)
    try:
        yield
    finally:
        with suppress(ValueError):  # Prefect has registered it too, and taken it back
            cloudpickle.unregister_pickle_by_value(package)


def python_minor() -> str:
    """``"3.11"``: pickled code is only good for the same one."""
    return ".".join(platform.python_version_tuple()[:2])


def _plain(flow: Flow[..., Any]) -> Flow[..., Any]:
    """The flow without what binds it to a pool, so that the node need not import the workers."""
    plain: Any = copy.copy(flow)
    launcher = getattr(flow, "launcher", None) or {}
    for name in _BOUND_ONLY:
        plain.__dict__.pop(name, None)
    plain.__class__ = Flow
    # Checked and converted by the caller, whose annotations may name what is not on the node.
    plain.should_validate_parameters = False
    # With an execution launcher of its own a flow is bundled without a list of packages.
    plain.launcher = {"execution": launcher.get("execution") or DEFAULT_LAUNCHER}
    parent = FlowRunContext.get()
    if plain.log_prints is None and parent is not None:
        plain.log_prints = parent.log_prints
    result: Flow[..., Any] = plain
    return result


def _what_cannot_travel(flow: Flow[..., Any], parameters: dict[str, Any], error: Exception) -> str:
    for name, value in parameters.items():
        try:
            cloudpickle.dumps(value)
        except Exception as reason:  # noqa: BLE001  a __reduce__ may raise anything
            return (
                f"parameter {name!r} of flow {flow.name!r} cannot be pickled:"
                f" {type(reason).__name__}: {reason}; give the flow what it needs to make the"
                " object (a path, a name) instead"
            )
    return f"flow {flow.name!r} cannot be packed: {type(error).__name__}: {error}"


class BundleStore:
    """``<shared dir>/bundles``: bundles that wait for their submission, one folder each.

    On the way to a cluster elsewhere a bundle waits in this machine's spool, and travels with its
    submission.
    """

    def __init__(self, shared: Path, files: ClusterFiles = HERE) -> None:
        self._shared = shared
        self._files = files
        self._folder = shared / "bundles"

    def save(self, bundle: Packed) -> str:
        """Keep a bundle; returns its key. Raises SharedDirectoryError and leaves nothing behind."""
        key = str(uuid.uuid4())
        if not self._files.is_here:
            spool.keep(key, bundle.content, bundle.archive)
            return key
        folder = self._folder / key
        content: dict[str, bytes | Path] = {f"{key}/{BUNDLE}": bundle.content}
        if bundle.archive is not None:
            content[f"{key}/{ARCHIVE}"] = bundle.archive
        with shared_directory_errors(self._shared):
            try:
                self._files.put(Files(str(self._folder), content))
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return key

    def deliver(self, key: str) -> None:
        """Bring a bundle from the spool to the cluster, for another process to submit."""
        if content := spool.content(key):
            what = f"Flow to {self._files.login}"
            with shared_directory_errors(self._shared), shown(what) as progress:
                below = {f"{key}/{name}": path for name, path in content.items()}
                self._files.put(Files(str(self._folder), below), progress=progress)
            spool.drop(key)

    def content(self, key: str) -> dict[str, Path]:
        """What is to travel, by its name in the shared directory; nothing when it is there."""
        return {f"bundles/{key}/{name}": path for name, path in spool.content(key).items()}

    def links(self, key: str, folder: str) -> dict[str, str]:
        """Second names of a bundle's files in a run directory's ``folder``.

        It stays in the store for a retry of the run. Names are those in the shared directory.
        """
        return {f"{folder}/{name}": f"bundles/{key}/{name}" for name in self._names(key)}

    def check(self, key: str) -> None:
        """Raise NotOwned unless this account owns the bundle, whose code will run as this account.

        Raises BundleError when there is none.
        """
        if spool.content(key):
            return
        folder = self._folder / key
        user = self._files.account().user
        advice = (
            f"this worker runs as {user} and takes only runs that {user} has submitted; submit to"
            " the work pool of your own account"
        )
        try:
            files = self._files.listing(folder)
            above = (self._shared, self._folder, folder)
            owned = dict(zip(above, self._files.entries(above), strict=True))
            owned |= {folder / name: entry for name, entry in files.items()}
            for path, entry in owned.items():
                check_owner(path, entry, self._files)
        except (NotOwned, PermissionError) as error:
            raise NotOwned(
                f"the run's bundle belongs to another account: {error}; {advice}"
            ) from error
        except FileNotFoundError as error:
            raise BundleError(
                f"the run's bundle is gone: {error}; submit the flow again"
            ) from error

    def python_of(self, key: str) -> str:
        """The Python minor version that wrote the bundle."""
        waiting = spool.content(key)
        files, folder = (
            (HERE, waiting[BUNDLE].parent) if waiting else (self._files, self._folder / key)
        )
        # What we add comes last; the flow before it may be large.
        (end,) = files.parts([Part(folder / BUNDLE, -_OUR_PART_BYTES)])
        try:
            text = (end or b"").decode(errors="replace")
            ours = json.loads("{" + text[text.rindex('"hpc_bridge": {') :])
            return str(ours["hpc_bridge"]["python"])
        except (ValueError, KeyError):
            stored = json.loads(files.read(folder / BUNDLE))
            return str(stored["hpc_bridge"]["python"])

    def has_files(self, key: str) -> bool:
        """Whether files are to be unpacked on the node."""
        return ARCHIVE in self._names(key)

    def _names(self, key: str) -> list[str]:
        if waiting := spool.content(key):
            return list(waiting)
        names = self._files.listing(self._folder / key)
        return [name for name in (BUNDLE, ARCHIVE) if name in names]


def default_interpreter() -> str:
    """The submitter's own interpreter, for nodes that see the same file system."""
    return sys.executable
