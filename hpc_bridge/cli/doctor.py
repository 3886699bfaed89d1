"""``hpc-bridge doctor``: what works, what does not, and what to do about it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
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
_SLOW_SECONDS = 0.5


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
        lines = _Lines(
            lambda finding: _show(console, finding),
            lambda needs, titles: console.print(
                f"[dim]- {escape(_not_examined(needs, titles))}[/]"
            ),
        )
        with console.status("") as spinner:
            examination = Examination(lines.add, lambda title: _begin(spinner, title))
            yield examination
            lines.end()
        console.print(examination.summary)
    else:
        lines = _Lines(_write, lambda needs, titles: _print(_not_examined(needs, titles)))
        examination = Examination(lines.add)
        yield examination
        lines.end()
        _print(examination.summary)


class _Lines:
    """A line for each finding, and one for those in a row that were skipped for one reason."""

    def __init__(
        self, show: Callable[[Finding], None], show_skipped: Callable[[str, Sequence[str]], None]
    ) -> None:
        self._show = show
        self._show_skipped = show_skipped
        self._skipped: dict[str, list[str]] = {}
        """Titles by what they need, which are still to be shown."""

    def add(self, finding: Finding) -> None:
        if finding.needs is not None:
            self._skipped.setdefault(finding.needs, []).append(finding.title)
            return
        self.end()
        self._show(finding)

    def end(self) -> None:
        for needs, titles in self._skipped.items():
            self._show_skipped(needs, titles)
        self._skipped.clear()


def _not_examined(needs: str, titles: Sequence[str]) -> str:
    names = ", ".join(title.replace(",", "") for title in titles)  # 'load, last hour' is one
    return f"skipped (needs {needs}): {names}"


def _begin(spinner: Spinner, title: str) -> None:
    if title:
        spinner.update(f"{title} ...")
        spinner.start()
    else:  # it would write over a question
        spinner.stop()


def _show(console: Console, finding: Finding) -> None:
    sign, colour = _SIGNS[finding.status]
    took = f" [dim]({finding.seconds:.1f} s)[/]" if finding.seconds >= _SLOW_SECONDS else ""
    message = escape(finding.message)
    console.print(f"{sign} [bold]{finding.title}[/]: {message}{took}")
    if finding.advice:
        console.print(f"  [{colour}]→ {escape(finding.advice)}[/]", soft_wrap=True)


def _write(finding: Finding) -> None:
    took = f" ({finding.seconds:.1f} s)" if finding.seconds >= _SLOW_SECONDS else ""
    _print(f"{finding.status:<8}{finding.title}: {finding.message}{took}")
    if finding.advice:
        _print(f"{'':<8}-> {finding.advice}")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
