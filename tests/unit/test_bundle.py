"""What travels to the node: the flow and its parameters as they are, and no secret."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy
import prefect
import pytest
from prefect import flow, tags
from prefect.flows import Flow
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    temporary_settings,
)

from hpc_bridge import slurm
from hpc_bridge.errors import BundleError
from hpc_bridge.jobs.units import parse_memory
from hpc_bridge.storage.bundle import packed

MARKERS = ["pnu_marker_of_the_key", "marker_of_the_auth_string", "marker-of-the-server"]


class Own:
    """A class that the node cannot import."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class Options:
    """With a factory, whose sentinel is told by identity."""

    rate: float = 0.1
    layers: list[int] = dataclasses.field(default_factory=lambda: [1, 2])


@slurm(work_pool="ours", memory="16G")
@flow
def describe(**values: Any) -> dict[str, str]:
    """Uses a module-level class and a function of hpc-bridge."""
    fresh = Options()
    fresh.layers.append(parse_memory("3M"))
    return {name: type(value).__name__ for name, value in values.items()} | {
        "fresh": f"{fresh.layers} {Options().layers}",
        "factory alone": str([f.default is dataclasses.MISSING for f in dataclasses.fields(fresh)]),
    }


PARAMETERS: dict[str, Any] = {
    "values": {
        "a_set": {1, 2},
        "a_tuple": (1, "two"),
        "an_array": numpy.arange(3, dtype="float32"),
        "own": Own(7),
        "options": Options(layers=[3]),
        "a_path": Path("/data"),
        "some_bytes": b"\x00\xff",
        "nothing": None,
    }
}


@pytest.fixture(autouse=True)
def _marked_settings() -> Iterator[None]:
    marked = {
        PREFECT_API_KEY: MARKERS[0],
        PREFECT_API_AUTH_STRING: MARKERS[1],
        PREFECT_API_URL: f"http://{MARKERS[2]}:4200/api",
    }
    with temporary_settings(marked):
        yield


def pack(batch_flow: Flow[..., Any], parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    with packed(batch_flow, parameters or {}) as bundle:
        stored: dict[str, Any] = json.loads(bundle.content)
        return stored


def pickled(bundle: dict[str, Any], part: str) -> bytes:
    return gzip.decompress(base64.b64decode(bundle[part]))


def unpacked(bundle: dict[str, Any], part: str) -> Any:
    return cloudpickle.loads(pickled(bundle, part))


# secrets


def test_no_setting_of_the_submitter_travels() -> None:
    bundle = pack(describe, PARAMETERS)
    everything = json.dumps(bundle).encode()
    everything += pickled(bundle, "function") + pickled(bundle, "context")
    for marker in MARKERS:
        assert marker.encode() not in everything


def test_the_context_is_tags_and_parameters_alone() -> None:
    with tags("urgent"):
        context = unpacked(pack(describe, {"values": {}}), "context")
    assert context["hpc_bridge"] == {"parameters": {"values": {}}}
    assert set(context) == {"tags_context", "hpc_bridge"}
    assert "urgent" in str(context["tags_context"])


def test_there_is_no_flow_run_and_no_list_of_packages() -> None:
    bundle = pack(describe)
    assert "flow_run" not in bundle
    assert not bundle["dependencies"]


def test_a_bundle_names_the_versions_that_wrote_it() -> None:
    assert pack(describe)["hpc_bridge"] == {
        "format": 1,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "prefect": prefect.__version__,
        "cloudpickle": cloudpickle.__version__,
    }


# the flow


def test_the_packed_flow_is_a_plain_one() -> None:
    travelled = unpacked(pack(describe), "function")
    assert type(travelled) is Flow
    assert travelled.name == "describe"
    for name in ("work_pool", "job_variables", "worker_cls"):
        assert not hasattr(travelled, name)


def test_the_flow_that_is_packed_is_not_changed() -> None:
    before = dict(vars(describe))
    pack(describe)
    assert vars(describe) == before
    assert type(describe).__name__ == "BatchFlow"


def test_hpc_bridge_itself_stays_behind() -> None:
    travelled = unpacked(pack(describe), "function")
    assert travelled.fn.__globals__["parse_memory"] is parse_memory
    assert b"WALLTIME_FORMS" not in pickled(pack(describe), "function")


# the parameters


def test_parameters_keep_their_types_and_values() -> None:
    values = unpacked(pack(describe, PARAMETERS), "context")["hpc_bridge"]["parameters"]["values"]
    expected = PARAMETERS["values"]
    array = values.pop("an_array")
    assert array.dtype == numpy.dtype("float32")
    assert array.tolist() == [0.0, 1.0, 2.0]
    assert values.keys() == expected.keys() - {"an_array"}
    for name in values.keys() - {"own", "options"}:  # whose classes travel too
        assert values[name] == expected[name]
        assert type(values[name]) is type(expected[name])
    assert vars(values["own"]) == {"value": 7}
    assert vars(values["options"]) == {"rate": 0.1, "layers": [3]}


RUN = """
import json, sys
from pathlib import Path
from hpc_bridge.node.execute import unpack

bundle = json.loads(Path(sys.argv[1]).read_bytes())
flow, context, parameters = unpack(bundle)
told = flow.fn(**parameters["values"])
told["loaded"] = sorted({name for name in sys.modules if name.startswith("hpc_bridge.")})
told["class"] = type(flow).__qualname__
print(json.dumps(told))
"""


def test_a_node_that_has_none_of_the_modules_can_run_it(tmp_path: Path) -> None:
    with packed(describe, PARAMETERS) as bundle:
        (tmp_path / "bundle.json").write_bytes(bundle.content)
    command = [sys.executable, "-P", "-c", RUN, "bundle.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    loaded = told.pop("loaded")
    assert not [name for name in loaded if "workers" in name or "decorators" in name]
    assert told == {
        "a_set": "set",
        "a_tuple": "tuple",
        "an_array": "ndarray",
        "own": "Own",
        "options": "Options",
        "a_path": "PosixPath",
        "some_bytes": "bytes",
        "nothing": "NoneType",
        "fresh": "[1, 2, 3] [1, 2]",
        "factory alone": "[False, True]",
        "class": "Flow",
    }


# what cannot travel


class Broken:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


@pytest.mark.parametrize(
    ("value", "words"), [(threading.Lock(), "lock"), (Broken(), "RuntimeError: not me")]
)
def test_a_parameter_that_cannot_travel_is_named(value: object, words: str) -> None:
    with pytest.raises(BundleError, match="parameter 'odd' of flow 'describe' cannot be pick") as e:
        pack(describe, {"fine": 1, "odd": value, "later": 2})
    assert words in str(e.value)
    assert "give the flow what it needs to make the object" in str(e.value)


def test_a_flow_that_cannot_travel_is_named() -> None:
    lock = threading.Lock()

    @slurm(work_pool="ours")
    @flow
    def locked() -> None:
        with lock:
            pass

    with pytest.raises(BundleError, match="flow 'locked' cannot be packed: TypeError: "):
        pack(locked)


# files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("data/a.csv", "data/b.csv", "data/secret.csv", "data/notes.txt", "config.yaml"):
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "project"


def archived(project: Path, patterns: list[str]) -> set[str] | None:
    @slurm(work_pool="ours", include_files=patterns, include_files_base_dir=project)
    @flow
    def with_files() -> None: ...

    with packed(with_files, {}) as bundle:
        if bundle.archive is None:
            return None
        with zipfile.ZipFile(bundle.archive) as archive:
            assert archive.testzip() is None
            return set(archive.namelist())


def test_included_files_travel(project: Path) -> None:
    assert archived(project, ["config.yaml", "data/a.csv"]) == {"config.yaml", "data/a.csv"}


def test_a_negated_pattern_leaves_files_out(project: Path) -> None:
    assert archived(project, ["data/*.csv", "!data/secret.csv"]) == {"data/a.csv", "data/b.csv"}


def test_what_prefectignore_names_stays_behind(project: Path) -> None:
    (project / ".prefectignore").write_text("secret.csv\n*.txt\n")
    assert archived(project, ["data/"]) == {"data/a.csv", "data/b.csv"}


def test_no_file_is_no_archive(project: Path) -> None:
    assert archived(project, ["*.parquet"]) is None
    with packed(describe, {}) as bundle:
        assert bundle.archive is None


def test_the_archive_goes_away_at_the_end(project: Path) -> None:
    @slurm(work_pool="ours", include_files=["config.yaml"], include_files_base_dir=project)
    @flow
    def with_files() -> None: ...

    with packed(with_files, {}) as bundle:
        assert bundle.archive is not None
        assert bundle.archive.is_file()
    assert not bundle.archive.parent.exists()
