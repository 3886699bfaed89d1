"""The main job on PBS: what the tests of tests/site/test_main_job.py say, and what is PBS's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.pbs.conftest import PBSSite
from tests.site.conftest import Site
from tests.site.test_main_job import (
    LACKING,
    RESULTS,
    test_a_deployment_runs_through_the_worker,
    test_a_job_that_dies_in_the_queue_is_noticed,
    test_a_job_that_is_requeued_runs_again,
    test_a_worker_takes_runs_of_the_pool,
    test_included_files_arrive,
    test_the_flows_own_exception_comes_back,
    test_the_job_outlives_its_caller,
    test_the_job_runs_on_a_node_where_it_was_called,
    test_the_key_is_in_no_byte_but_the_env_file,
    test_what_the_node_lacks_is_named,
)

WAYS = "types", "async", "parent_in_a_job", "submit"


@pytest.fixture(scope="module", autouse=True)
def _early(site: PBSSite) -> Iterator[None]:
    """What every test would wait for by itself, three at a time."""
    with ThreadPoolExecutor(3) as pool:
        for case in (*WAYS, *LACKING, "raise", "partition"):
            site.early[case] = pool.submit(Site.case, site, case)
        yield
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", WAYS)
def test_the_result_comes_back_in_each_way_of_calling(site: PBSSite, case: str) -> None:
    answer = site.case(case)
    assert answer.get("result") == RESULTS[case], answer


def test_pbs_own_words_are_in_the_exception(site: PBSSite) -> None:
    answer = site.case("partition")
    assert answer["raised"] == "SubmissionRefused"
    assert "qsub: Unknown queue" in answer["text"]


def test_a_refused_run_leaves_the_worker_at_work(site: PBSSite, site_worker: str) -> None:
    answer = site.case("partition_by_worker")
    assert "qsub: Unknown queue" in answer["text"]
    assert site.case("pool")["result"] == 0.2


def test_odd_text_is_kept_byte_for_byte(site: PBSSite) -> None:
    text = '$(touch trap) `touch trap` \'a\' "b" \\ # é ; | & %j ✓ {"x": 1}'
    result = site.case("weird", WEIRD=text)["result"]
    assert result["value"] == text
    assert not (site.home() / "trap").exists()


def test_a_missing_shared_directory_is_named(site: PBSSite) -> None:
    answer = site.case("submit", HPC_BRIDGE_SHARED_DIR="/nowhere/at/all")
    assert answer["raised"] == "SharedDirectoryError"
    assert "/nowhere/at/all does not exist" in answer["text"]


def test_without_qsub_on_the_path_that_is_said(site: PBSSite) -> None:
    done = site.python("jobs.py", "partition", PATH="/usr/bin:/bin")
    answer = json.loads(done.stdout)
    assert answer["raised"] == "CommandNotFound"
    assert "/opt/pbs/bin" in answer["text"]


WRONG = """
import json
from prefect import flow
from hpc_bridge import pbs
told = []
for options in (
    dict(partition="workq"),
    {"qos": "high"},
    {"queue": "a b"},
    {"gpus": "tiny:2"},
    {"begin": "now+1hour"},
    {"directives": ["-N other"]},
    {"scheduler": "local"},
    {"walltime": "soon"},
):
    try:
        pbs(**options)(flow(lambda: None, name="wrong"))()
    except Exception as error:
        told.append(f"{type(error).__name__}: {error}")
print(json.dumps(told))
"""


def test_wrong_input_is_refused_before_anything_is_submitted(site: PBSSite) -> None:
    site.put("wrong.py", WRONG)
    before = submissions(site)
    done = site.python("wrong.py")
    told = json.loads(done.stdout.splitlines()[-1])
    words = [
        "'partition' is Slurm's word; PBS's is 'queue'",
        "qos",
        "queue",
        "gpus",
        "begin",
        "is decided by hpc-bridge",
        "scheduler",
        "walltime",
    ]
    assert len(told) == len(words), told
    for word, refusal in zip(words, told, strict=True):
        assert word in refusal
        assert refusal.startswith(("InvalidJobSpec", "SettingsError"))
    assert submissions(site) == before


def submissions(site: PBSSite) -> set[str]:
    """Run directories."""
    return {path.name for path in (site.home() / ".hpc-bridge/runs").glob("hb*")}


def test_setup_lines_run_before_the_flow(site: PBSSite) -> None:
    site.put(
        "setup_lines.py",
        "import os\n"
        "from prefect import flow\n"
        "from hpc_bridge import pbs\n\n"
        '@pbs(memory="600M", setup=["export MINE=set"])\n'
        "@flow\n"
        "def loaded() -> list:\n"
        "    names = ('MINE', 'PBS_ENVIRONMENT', 'PBS_O_QUEUE')\n"
        "    return [os.environ.get(name) for name in names]\n\n"
        "print(loaded())\n",
    )
    done = site.python("setup_lines.py")
    assert done.stdout == "['set', 'PBS_BATCH', 'workq']\n", done.stderr
