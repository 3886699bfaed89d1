"""PBS's own commands, as the tests of tests/site use a scheduler's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from tests.site.batch import Batch

if TYPE_CHECKING:
    from tests.pbs.conftest import PBSSite

WORDS = {
    "import slurm": "import pbs",
    "@slurm": "@pbs",
    "SLURM_JOB_ID": "PBS_JOBID",
    '{"partition":': '{"queue":',
    '"srun", "--overlap", ': "",
}
"""What a researcher writes for Slurm and for PBS."""


class PBSBatch(Batch):
    """qsub and the others."""

    _site: PBSSite
    name = "pbs"
    node = ""
    by_owner = ""  # PBS says nothing of it
    leaves_detached = True  # its node daemon ends the processes of the job's session
    held: ClassVar[dict[str, Any]] = {"directives": ["-h"]}

    def __init__(self, site: PBSSite) -> None:
        super().__init__(site)
        self.records = str(site.records)
        self.submit_program = shutil.which("qsub", path=site.search_path) or "qsub"

    def in_own_words(self, text: str) -> str:
        for word, own in WORDS.items():
            text = text.replace(word, own)
        return text

    def later(self, hours: int = 1) -> dict[str, Any]:
        start = datetime.now().astimezone() + timedelta(hours=hours)
        return {"begin": f"{start:%Y-%m-%dT%H:%M:%S}"}

    def walltime_line(self, walltime: str) -> str:
        return f"#PBS -l walltime={walltime}"

    def cancel(self, *jobs: str, user: str = "researcher") -> None:
        self._site.shell(f"qdel {self._words(jobs)}", user=user)

    def cancel_all(self) -> None:
        of_account = f"qselect -u {self._site.account} | xargs --no-run-if-empty qdel"
        self._site.run("bash", "-c", of_account, user="root")

    def hold(self, job: str) -> None:
        self._site.shell(f"qhold {self._words([job])}")

    def release(self, *jobs: str) -> None:
        self._site.shell(f"qrls {self._words(jobs)}")

    @contextmanager
    def requeued(self, job: str) -> Iterator[None]:
        # PBS would start it again at once.
        with self._site.starting_nothing():
            self._site.shell(f"qrerun {self._words([job])}", user="root")
            yield

    def queued(self, *jobs: str) -> int:
        live = self._site.shell("qselect -T -s QHWTRSEBU").split()
        return len(set(live) & set(jobs))

    def name_of(self, job: str) -> str:
        return self._site.shell(f"qstat -f {self._words([job])} | sed -n 's/^ *Job_Name = //p'")

    def jobs_named(self, names: Sequence[str]) -> list[int]:
        return [len(self._site.shell(f"qselect -x -N {name}").split()) for name in names]

    def split(self, job: str) -> tuple[str, str]:
        number, index, server = re.split(r"[][]", job)
        return f"{number}[]{server}", index

    def element(self, array: str, index: int) -> str:
        return array.replace("[]", f"[{index}]")

    def is_id(self, text: str) -> bool:
        return re.fullmatch(r"\d+(\[\d+\])?\.[\w.-]+", text) is not None

    @staticmethod
    def _words(jobs: Sequence[str]) -> str:
        return " ".join(f"'{job}'" for job in jobs)
