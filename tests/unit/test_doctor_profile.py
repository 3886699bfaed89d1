"""What the doctor says of a profile and of its published copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_bridge.doctor.findings import Status
from hpc_bridge.doctor.profile import check_profile, judge_error, judge_published
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.errors import SiteError
from hpc_bridge.settings import load_settings
from hpc_bridge.sites.files import user_part_file
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.user_part import UserPart


def profile(**changes: object) -> SiteProfile:
    given = {"name": "here", "scheduler": {"type": "slurm"}, **changes}
    return SiteProfile.model_validate(given)


FILE, SERVER = "/etc/hpc-bridge/sites/here.yaml", "http://prefect.example/api"


@pytest.mark.parametrize(
    ("source", "published", "statuses"),
    [
        (FILE, None, []),
        (FILE, profile(), [Status.GREEN]),
        (FILE, profile(description="changed"), [Status.YELLOW]),
        (SERVER, profile(), []),
    ],
)
def test_the_published_one_is_compared_with_the_file(
    source: str, published: SiteProfile | None, statuses: list[Status]
) -> None:
    verdicts = judge_published(Site(profile(), source=source), published)
    assert [verdict.status for verdict in verdicts] == statuses
    for verdict in verdicts:
        assert (f"hpc-bridge site diff {FILE} here" in verdict.advice) == bool(verdict.advice)


def test_a_job_is_given_what_settings_user_and_site_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", "/mine/python")
    given = profile(
        environment={"python": "/site/python"},
        network={"api_url": "http://nodes.example/api"},
        paths={"shared_dir": "/gpfs/{user}"},
        job_variables={"memory": {"default": "2G"}},
    )
    site = Site(given, UserPart(user="ada", account="lab", partition="slow"), FILE)
    subject = Subject(load_settings(), partition="fast", site=site)
    asked = subject.configuration
    assert asked.interpreter == "/mine/python"
    assert (asked.partition, asked.account, asked.memory) == ("fast", "lab", 2048)
    assert (asked.shared_dir, subject.api_url) == ("/gpfs/ada", "http://nodes.example/api")
    script = subject.script("hbtest", python="/probe")
    assert "#SBATCH --partition=fast\n" in script
    assert "python=/probe\n" in script


def test_without_a_profile_the_variable_alone_is_advised() -> None:
    settings = load_settings()
    assert Subject(settings).where_to_set("a.b", "HPC_X") == "HPC_X"
    with_profile = Subject(settings, site=Site(profile(), source=FILE))
    assert with_profile.where_to_set("a.b", "HPC_X") == "HPC_X, or a.b in the profile of here"


@pytest.mark.parametrize("setting", ["heer", "elsewhere"])
def test_a_setting_that_names_no_profile_is_told(
    setting: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SITE", setting)
    before = check_profile(Subject(load_settings()), None, has_server=False)
    assert before.status is Status.GREEN  # a name for pools, where nobody has described a site
    (tmp_path / "here.yaml").write_text("name: here\nscheduler: {type: slurm}\n")
    monkeypatch.setenv("HPC_BRIDGE_SITES", str(tmp_path))
    verdict = check_profile(Subject(load_settings()), None, has_server=False)
    assert verdict.status is Status.YELLOW
    assert "did you mean 'here'?" in verdict.message
    assert "correct HPC_BRIDGE_SITE" in verdict.advice


def test_a_broken_part_of_the_users_own_is_named() -> None:
    file = user_part_file("here")
    verdict = judge_error(SiteError(f"{file} has problems:\n  line 1: acount: is not known"))
    assert verdict.advice.startswith(f"correct {file}, ")
    assert "site validate FILE" in judge_error(SiteError(f"{FILE}, line 1: wrong")).advice


def test_what_is_to_be_accepted_is_left_to_the_command_that_shows_it() -> None:
    error = SiteError(
        "site 'here', published on x, would have your jobs execute this:\n\nprologue:\n  | rm\n\n"
        "Read it, then run: hpc-bridge site accept here"
    )
    verdict = judge_error(error)
    assert verdict.advice == "hpc-bridge site accept here"
    assert verdict.message == "site 'here', published on x, would have your jobs execute this"
