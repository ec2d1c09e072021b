"""CountJobs: counts in the background, one after another, with their state and result files."""

from __future__ import annotations

import asyncio
import csv
import io
import logging
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from markupsafe import escape

from hemascope.errors import HemascopeError
from hemascope.escaping import escape_formula
from hemascope.files import write_atomic
from hemascope.reports.count_pages import count_page
from hemascope.serialization import to_json
from hemascope.serve.app.archives import Upload
from hemascope.serve.counting import CancelledError, Counting, rename_count
from hemascope.serve.store.copied import RECORD
from hemascope.smear.counted import DifferentialCount, NamedField
from hemascope.smear.fhir import to_fhir
from hemascope.smear.hl7 import to_hl7
from hemascope.smear.samples import Sample
from hemascope.smear.tables import sample_columns, sample_row

State: TypeAlias = Literal["waiting", "running", "done", "failed", "cancelled"]
KINDS = {
    "count.json": "application/json",
    "count.csv": "text/csv; charset=utf-8",
    "count.fhir.json": "application/fhir+json",
    "count.hl7": "x-application/hl7-v2+er7",
    "report.html": "text/html; charset=utf-8",
}
"""The result files by name, with their media types."""

logger = logging.getLogger("hemascope.serve")


@dataclass
class Job:
    """A count that was asked for. `key` and `request` tell whether it is asked for once more."""

    id: str
    folder: Path
    sample: str
    uploads: list[Upload]
    wbc: float | None
    um_per_pixel: float | None
    key: str = ""
    request: str = ""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    state: State = "waiting"
    done: int = 0
    problem: str = ""
    cancelled: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state not in ("waiting", "running")

    def describe(self) -> dict[str, object]:
        """The job as the service shows it."""
        files = KINDS if self.state == "done" else {}
        return {
            "id": self.id,
            "sample": self.sample,
            "state": self.state,
            "created": self.created,
            "fields": len(self.uploads),
            "fields_done": self.done,
            "problem": self.problem,
            "files": {name: f"/v1/counts/{self.id}/{name}" for name in files},
        }


class CountJobs:
    """The counts of a service. One runs at a time; `kept` finished ones stay, the latest.

    With `survives`, the folder outlives the service: what it left unfinished is counted after the
    next start. Otherwise a stop cancels it.
    """

    def __init__(
        self, counting: Counting, folder: Path, most: int, kept: int, survives: bool = False
    ) -> None:
        self.counting, self.folder, self.most, self.kept = counting, folder, most, kept
        self.survives, self._stopping = survives, False
        self.jobs: dict[str, Job] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="count")
        self._tasks: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Finds the jobs of an earlier service in the folder, and goes on with unfinished ones."""
        found = []
        for folder in self.folder.iterdir():
            if (folder / RECORD).exists():
                found.append(_read(folder))
            else:  # its fields had not all arrived
                shutil.rmtree(folder, ignore_errors=True)
        for job in sorted(found, key=lambda job: job.created):
            self.jobs[job.id] = job
            if not job.is_over:
                job.state, job.done = "waiting", 0
                self.submit(job)

    @property
    def unfinished(self) -> int:
        """How many counts wait or run."""
        return sum(not job.is_over for job in self.jobs.values())

    @property
    def is_full(self) -> bool:
        """Whether no further count is taken."""
        return self.unfinished >= self.most

    def find_key(self, key: str) -> Job | None:
        """The job that was asked for with this idempotency key."""
        return next((job for job in self.jobs.values() if key and job.key == key), None)

    def new_folder(self) -> tuple[str, Path]:
        """The name of a new job, which cannot be guessed, and its empty folder."""
        name = secrets.token_urlsafe(18)
        folder = self.folder / name
        (folder / "fields").mkdir(parents=True)
        return name, folder

    def keep(self, job: Job) -> None:
        """Makes a job known, and forgets finished ones that are too many."""
        over = [known for known in self.jobs.values() if known.is_over]
        for known in over[: max(0, len(over) - self.kept + 1)]:
            self.forget(known)
        self.jobs[job.id] = job

    def submit(self, job: Job) -> None:
        """Lets a job that is known wait for its turn."""
        self._save(job)
        task = asyncio.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self, job: Job) -> None:
        """Stops a job that waits or runs; a running one ends after the field it is at."""
        job.cancelled = True
        if job.state == "waiting":
            job.state = "cancelled"
            shutil.rmtree(job.folder / "fields", ignore_errors=True)
            self._save(job)

    def forget(self, job: Job) -> None:
        """Forgets a job, with its files."""
        self.jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    async def close(self, seconds: float) -> None:
        """Lets the jobs go on for so long, and then stops them; see `survives`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        self._stopping = True
        for job in self.jobs.values():
            if not job.is_over and not self.survives:
                self.cancel(job)
        await asyncio.gather(*self._tasks)
        self._pool.shutdown()

    async def _run(self, job: Job) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._count, job)
            job.state = "cancelled" if job.cancelled and job.state != "done" else "done"
        except CancelledError:
            if not job.cancelled:  # the service stops; the job waits for the next one
                return
            job.state = "cancelled"
        except HemascopeError as error:
            job.state, job.problem = "failed", _without_paths(str(error), job)
        except Exception:
            logger.exception("the count %s failed", job.id)
            job.state, job.problem = "failed", "the service failed; its log says why"
        self._save(job)
        shutil.rmtree(job.folder / "fields", ignore_errors=True)

    def _save(self, job: Job) -> None:
        """Keeps what is known of a job, in the folder of a service that comes after."""
        if self.survives and job.folder.exists():
            write_atomic(job.folder / RECORD, msgspec.json.encode(job, enc_hook=str))

    def _count(self, job: Job) -> None:
        if job.cancelled or self._stopping:
            raise CancelledError("cancelled")
        job.state = "running"
        sample = Sample(job.sample, tuple(str(upload.path) for upload in job.uploads), job.wbc)

        def advance(done: int, total: int) -> None:
            job.done = done

        naming = self.counting.name(
            sample, job.um_per_pixel, advance, lambda: job.cancelled or self._stopping
        )
        fields = list(naming)
        self._write(job, self.counting.count(sample, fields, job.um_per_pixel), fields)

    def _write(self, job: Job, count: DifferentialCount, fields: list[NamedField]) -> None:
        names = {str(upload.path): upload.name for upload in job.uploads}
        page = count_page(count, fields, self.counting.classifier.card)
        for path, name in names.items():
            page = page.replace(path, str(escape(name)))
        count = rename_count(count, names)
        for name, content in {
            "count.json": to_json(count),
            "count.csv": to_csv(count, self.counting),
            "count.fhir.json": to_fhir(count).encode(),
            "count.hl7": to_hl7(count).encode(),
            "report.html": page.encode(),
        }.items():
            (job.folder / name).write_bytes(content)


def _read(folder: Path) -> Job:
    """A job that `_save` has kept, wherever its folder is now."""
    content = (folder / RECORD).read_bytes()
    job = msgspec.json.decode(content, type=Job, dec_hook=lambda kind, text: kind(text))
    job.folder = folder
    job.uploads = [Upload(folder / "fields" / one.path.name, one.name) for one in job.uploads]
    return job


def to_csv(count: DifferentialCount, counting: Counting) -> bytes:
    """A count as a table of one row; a text that a spreadsheet would calculate is written out."""
    card, file = counting.classifier.card, io.StringIO()
    values = sample_row(count, card)
    writer = csv.writer(file)
    writer.writerow(sample_columns(card))
    writer.writerow([escape_formula(values[name]) for name in sample_columns(card)])
    return file.getvalue().encode()


def _without_paths(text: str, job: Job) -> str:
    for upload in job.uploads:
        text = text.replace(str(upload.path), upload.name)
    return text
