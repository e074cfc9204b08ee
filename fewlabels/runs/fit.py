"""`fit`: from data to a run, stage by stage; what is done is not done again."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from fewlabels.console import Show
from fewlabels.errors import Interrupted
from fewlabels.processes import first_says, joined
from fewlabels.runs.device import choose_device
from fewlabels.runs.folder import RUNS, RunFolder
from fewlabels.runs.host import host_settings_kept
from fewlabels.runs.run import Run
from fewlabels.runs.task import Context, Task
from fewlabels.training.interrupt import noted_signals
from fewlabels.training.train import train


def fit(task: Task[Any], show: Show | None = None) -> Run:
    """Do a run's work, or continue it where it was stopped; one that is finished is read.

    Args:
        task: what to do; it is used up.
        show: where to say what happens; silent by default.

    Raises:
        UserError: bad input; says what was given, what is allowed and how to fix it.
        Interrupted: the run was asked to stop, and saved its state.
    """
    device = choose_device(task.options.device)
    with host_settings_kept(), joined(device) as process, noted_signals() as stop, ExitStack() as held:
        show = show if show is not None and process.rank == 0 else Show(None)
        identity = task.identify()
        folder = RunFolder(task.options.out or RUNS / identity.name)
        first_says(folder.check_free)
        first_says(lambda: held.enter_context(folder.alone()))
        if first_says(lambda: folder.is_finished(identity.values)):
            task.again(folder, show)
        else:
            _work(task, Context(folder, device, process, stop, show), dict(identity.values))
        run = Run(folder.path, first_says(lambda: folder.read_json("summary.json")))
        task.show(run, show)
        return run


def _work(task: Task[Any], context: Context, identity: dict[str, Any]) -> None:
    folder, show = context.folder, context.show
    config = task.prepare(context)
    there = first_says(lambda: folder.begin(config, identity, partial(task.say_differences, now=config)))
    show.line(f"{'continuing' if there else 'writing to'} {folder.path}")
    task.begin()
    torch.set_num_threads(config["where"]["threads"])
    if first_says(lambda: (folder / "summary.json").is_file()):
        task.again(folder, show)
        return
    stages = task.stages()
    try:
        stage = next(stages)
        while True:
            _stop_here(context)
            stage = stages.send(train(stage, show, context.stop))
    except StopIteration as end:
        summary: dict[str, Any] = end.value
    first_says(lambda: folder.write_json("summary.json", summary))


def _stop_here(context: Context) -> None:
    if context.stop():
        raise Interrupted("stopped between two stages; all that is done is kept")
