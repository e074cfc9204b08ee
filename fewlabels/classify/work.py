"""What the phases of a run share."""

from __future__ import annotations

from dataclasses import dataclass

from fewlabels.classify.choose import Plan
from fewlabels.classify.job import Job
from fewlabels.config import Options
from fewlabels.data.table import Table
from fewlabels.methods.base import Method
from fewlabels.runs.folder import RunFolder
from fewlabels.runs.show import Show


@dataclass(frozen=True, eq=False)
class Work:
    """A run at work: its data, its choices, what trains, and where it writes."""

    folder: RunFolder
    table: Table
    content: str
    options: Options
    method: Method
    name: str
    plan: Plan
    job: Job
    show: Show

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the run: the first of several does."""
        return self.job.process.rank == 0
