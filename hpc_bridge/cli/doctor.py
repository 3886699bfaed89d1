"""``hpc-bridge doctor``: what works, what does not, and what to do about it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status as Spinner

from hpc_bridge.doctor.findings import Examination, Finding, Status

_SIGNS = {
    Status.GREEN: ("[green]✔[/]", "green"),
    Status.YELLOW: ("[yellow]![/]", "yellow"),
    Status.RED: ("[red]✘[/]", "red"),
    Status.SKIPPED: ("[dim]-[/]", "dim"),
}


def run_doctor(
    site: str | None, *, as_json: bool, partition: str | None, with_jobs: bool, wait: float
) -> int:
    """Examine and print; returns the exit code."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")  # before Prefect is imported
    from hpc_bridge.doctor.examine import examine
    from hpc_bridge.doctor.subject import Subject
    from hpc_bridge.settings import load_settings

    with _telling(as_json=as_json) as examination:
        subject = Subject(load_settings(), partition=partition)
        examine(examination, subject, site, wait=wait, with_jobs=with_jobs)
    if as_json:
        lines = [finding.as_json() for finding in examination.findings]
        sys.stdout.write(json.dumps(lines, indent=2) + "\n")
    return examination.exit_code


@contextmanager
def _telling(*, as_json: bool) -> Iterator[Examination]:
    if as_json:
        yield Examination(lambda _: None)
    elif sys.stdout.isatty():
        console = Console(highlight=False)
        with console.status("") as spinner:
            yield Examination(
                lambda finding: _show(console, finding), lambda title: _begin(spinner, title)
            )
    else:
        yield Examination(_write)


def _begin(spinner: Spinner, title: str) -> None:
    spinner.update(f"{title} ...")


def _show(console: Console, finding: Finding) -> None:
    sign, colour = _SIGNS[finding.status]
    took = f" [dim]({finding.seconds:.1f} s)[/]" if finding.seconds >= 0.1 else ""
    message = escape(finding.message)
    console.print(f"{sign} [bold]{finding.title}[/]: {message}{took}")
    if finding.advice:
        console.print(f"  [{colour}]→ {escape(finding.advice)}[/]", soft_wrap=True)


def _write(finding: Finding) -> None:
    line = f"{finding.status:<8}{finding.title}: {finding.message} ({finding.seconds:.1f} s)\n"
    advice = f"{'':<8}-> {finding.advice}\n" if finding.advice else ""
    sys.stdout.write(line + advice)
    sys.stdout.flush()
