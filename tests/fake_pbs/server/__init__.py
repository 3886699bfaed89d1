"""The fake PBS server behind the programs of ``tests/fake_pbs/bin``: standard library only."""
