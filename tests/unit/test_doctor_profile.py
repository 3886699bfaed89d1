"""What the doctor says of a profile and of its published copy."""

from __future__ import annotations

import pytest

from hpc_bridge.doctor.findings import Status
from hpc_bridge.doctor.profile import judge_published
from hpc_bridge.doctor.subject import Subject
from hpc_bridge.settings import load_settings
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
        paths={"shared_dir": "/work/{user}"},
        job_variables={"memory": {"default": "2G"}},
    )
    site = Site(given, UserPart(user="ada", account="lab", partition="slow"), FILE)
    subject = Subject(load_settings(), partition="fast", site=site)
    asked = subject.configuration
    assert asked.interpreter == "/mine/python"
    assert (asked.partition, asked.account, asked.memory) == ("fast", "lab", 2048)
    assert (asked.shared_dir, subject.api_url) == ("/work/ada", "http://nodes.example/api")
    script = subject.script("hbtest", python="/probe")
    assert "#SBATCH --partition=fast\n" in script
    assert "python=/probe\n" in script


def test_without_a_profile_the_variable_alone_is_advised() -> None:
    settings = load_settings()
    assert Subject(settings).where_to_set("a.b", "HPC_X") == "HPC_X"
    with_profile = Subject(settings, site=Site(profile(), source=FILE))
    assert with_profile.where_to_set("a.b", "HPC_X") == "HPC_X, or a.b in the profile of here"
