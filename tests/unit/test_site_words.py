"""Partitions of Slurm, queues of PBS: what files say, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_bridge.errors import SiteError
from hpc_bridge.sites.files import load_site, read_profile
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.publishing import profile_text
from hpc_bridge.sites.travelling import travelling
from hpc_bridge.sites.yaml_text import load
from tests.unit.site_folders import SiteFolders, write

PBS = """\
name: {name}
scheduler: {{type: pbs}}
queues:
  - {{name: workq, default: true, walltime: 1d}}
  - {{name: gpuq}}
{rest}"""


def pbs_site(folders: SiteFolders, rest: str = "", name: str = "p") -> Path:
    return write(folders.user / f"{name}.yaml", PBS.format(name=name, rest=rest))


def problems(path: Path) -> list[str]:
    with pytest.raises(SiteError) as caught:
        read_profile(path)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_queues_are_the_list_of_partitions(site_folders: SiteFolders) -> None:
    rules = "job_variables:\n  queue: {default: gpuq, choices: [gpuq, workq]}\n"
    profile = read_profile(pbs_site(site_folders, rules))
    assert [one.name for one in profile.partitions] == ["workq", "gpuq"]
    assert profile.default_partition is not None
    assert profile.default_partition.name == "gpuq"
    assert load_site("p").admin_variables()["partition"] == "gpuq"


def test_the_other_schedulers_word_is_an_error_that_says_so(
    site_folders: SiteFolders, tmp_path: Path
) -> None:
    written = PBS.format(name="p", rest="job_variables:\n  partition: {default: workq}\n")
    path = write(tmp_path / "p.yaml", written.replace("queues:", "partitions:"))
    assert problems(path) == [
        "line 3: partitions: is Slurm's word, and this site has PBS; write queues",
        "line 7: job_variables.partition: is Slurm's word, and this site has PBS; write queue",
    ]
    path = site_folders.write(tmp_path, "s", "queues: [{name: cpu}]\n")
    assert problems(path) == [
        "line 3: queues: is PBS's word, and this site has Slurm; write partitions"
    ]


def test_both_words_are_one_too_many(tmp_path: Path) -> None:
    path = write(tmp_path / "p.yaml", PBS.format(name="p", rest="partitions: [{name: x}]\n"))
    assert problems(path) == [
        "line 6: partitions: is Slurm's word, and this site has PBS; write queues"
    ]


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        (
            "  - {name: bad, walltime: 1x}\n",
            "line 6: queues.2.walltime: ",
        ),
        (
            "  - {name: workq}\n",
            "line 3: queues: 'workq' is there twice",
        ),
        (
            "  - {name: b, default: true}\n",
            "line 3: queues: workq and b are all the default; keep one",
        ),
        (
            "job_variables: {queue: {default: nope}}\n",
            "line 6: job_variables.queue: the default 'nope' is not offered",
        ),
        (
            "job_variables: {queue: {choices: [nope]}}\n",
            "line 6: job_variables.queue.choices: 'nope' is not offered",
        ),
        (
            "queue: gpuq\n",
            "line 6: queue: there is no such key; did you mean 'queues'?",
        ),
        (
            "accounts: [a]\nqos: [long]\n",
            "line 7: qos: PBS has none; sites use queues instead",
        ),
        (
            "job_variables: {qos: {default: long}}\n",
            "line 6: job_variables.qos: PBS has none; sites use queues instead",
        ),
        (
            "  - {name: x, qos: [long]}\n",
            "line 6: queues.2.qos: PBS has none; sites use queues instead",
        ),
    ],
)
def test_problems_are_told_in_the_words_and_at_the_line_of_the_file(
    site_folders: SiteFolders, rest: str, problem: str
) -> None:
    [found] = problems(pbs_site(site_folders, rest))
    assert found.startswith(problem)


def test_a_users_own_part_has_a_queue(site_folders: SiteFolders) -> None:
    pbs_site(site_folders)
    part = site_folders.write_own_part("p", "queue: gpuq\naccount: lab\n")
    assert load_site("p").user_variables() == {"partition": "gpuq", "account": "lab"}
    for text, words in (
        ("queue: gpq\n", "line 1: queue: 'gpq' is not offered by p; did you mean 'gpuq'?"),
        ("partition: gpuq\n", "is Slurm's word, and this site has PBS; write queue"),
        ("account: lab\nqos: long\n", "line 2: qos: PBS has none"),
        ("quue: gpuq\n", "did you mean 'queue'?"),
        ("queues: []\n", "belongs to the admin's part"),
    ):
        part.write_text(text)
        with pytest.raises(SiteError) as caught:
            load_site("p")
        assert words in str(caught.value)


def test_a_user_of_slurm_has_no_queue(site_folders: SiteFolders) -> None:
    site_folders.write(site_folders.user, "s")
    site_folders.write_own_part("s", "queue: cpu\n")
    with pytest.raises(SiteError, match="queue: is PBS's word, and this site has Slurm"):
        load_site("s")


def test_what_is_written_for_others_is_in_the_words_of_files(
    site_folders: SiteFolders, tmp_path: Path
) -> None:
    rules = "job_variables: {queue: {default: gpuq}}\n"
    profile = read_profile(pbs_site(site_folders, rules))
    _, content = travelling(load_site("p"))
    for text in (profile_text(profile), content.decode()):
        assert set(load(text).content["job_variables"]) == {"queue"}
        assert read_profile(write(tmp_path / "p.yaml", text)) == profile


def test_what_the_server_keeps_is_read_in_either_word() -> None:
    content = {"name": "p", "scheduler": {"type": "pbs"}}
    queues = [{"name": "q"}]
    kept = SiteProfile.model_validate({**content, "queues": queues}).model_dump(mode="json")
    assert SiteProfile.model_validate(kept).partitions[0].name == "q"
