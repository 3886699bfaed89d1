"""The ``hpc-bridge`` command."""

from hpc_bridge.cli.app import main

__all__ = ["main"]
