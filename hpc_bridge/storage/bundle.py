"""What travels to the node: a flow, its parameters as they were given, and its files."""

from __future__ import annotations

import copy
import copyreg
import dataclasses
import json
import os
import platform
import pwd
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
from hpc_bridge.files import write_private
from hpc_bridge.journal import check_owner, shared_directory_errors

FORMAT = 1
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
    """``<shared dir>/bundles``: bundles that wait for their submission, one folder each."""

    def __init__(self, shared: Path) -> None:
        self._shared = shared
        self._folder = shared / "bundles"

    def save(self, bundle: Packed) -> str:
        """Keep a bundle; returns its key. Raises SharedDirectoryError and leaves nothing behind."""
        key = str(uuid.uuid4())
        folder = self._folder / key
        with shared_directory_errors(self._shared):
            folder.mkdir(mode=0o700)
            try:
                write_private(folder / "bundle.json", bundle.content)
                if bundle.archive is not None:
                    write_private(folder / "files.zip", bundle.archive.read_bytes())
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return key

    def check(self, key: str) -> None:
        """Raise NotOwned unless this account owns the bundle, whose code will run as this account.

        Raises BundleError when there is none.
        """
        folder = self._folder / key
        user = pwd.getpwuid(os.getuid()).pw_name
        advice = (
            f"this worker runs as {user} and takes only runs that {user} has submitted; submit to"
            " the work pool of your own account"
        )
        try:
            for path in (self._shared, self._folder, folder, *folder.iterdir()):
                check_owner(path)
        except (NotOwned, PermissionError) as error:
            raise NotOwned(
                f"the run's bundle belongs to another account: {error}; {advice}"
            ) from error
        except FileNotFoundError as error:
            raise BundleError(
                f"the run's bundle is gone: {error}; submit the flow again"
            ) from error

    def link(self, key: str, run_dir: Path) -> None:
        """Put a bundle into a run directory; it stays in the store for a retry of the run."""
        for path in (self._folder / key).iterdir():
            with shared_directory_errors(self._shared):
                os.link(path, run_dir / path.name)

    def python_of(self, key: str) -> str:
        """The Python minor version that wrote the bundle."""
        stored = json.loads((self._folder / key / "bundle.json").read_bytes())
        return str(stored["hpc_bridge"]["python"])

    def has_files(self, key: str) -> bool:
        """Whether files are to be unpacked on the node."""
        return (self._folder / key / "files.zip").exists()


def default_interpreter() -> str:
    """The submitter's own interpreter, for nodes that see the same file system."""
    return sys.executable
