"""The profile's fields as its documentation has them."""

from __future__ import annotations

from hpc_bridge.sites.field_table import field_table
from tests.conftest import ROOT


def test_the_documentation_has_every_field_as_the_schema_has_it() -> None:
    assert (ROOT / "docs/site-profile.md").read_text().endswith(f"\n\n{field_table()}")


def test_fields_of_parts_lists_and_mappings_are_told_apart() -> None:
    rows = [line.split("|")[1].strip() for line in field_table().splitlines()[2:]]
    for name in ("`paths.shared_dir`", "`partitions[].walltime`", "`job_variables.*.maximum`"):
        assert name in rows
    assert len(rows) == len(set(rows))
