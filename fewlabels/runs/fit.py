"""`fit`: from data to a run, stage by stage; what is done is not done again."""

from __future__ import annotations

import platform
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from fewlabels.console import Show
from fewlabels.errors import Interrupted
from fewlabels.own_file import own_file
from fewlabels.processes import any_of, first_says, joined
from fewlabels.runs.device import choose_device
from fewlabels.runs.folder import RUNS, RunFolder
from fewlabels.runs.host import host_settings_kept
from fewlabels.runs.run import Run
from fewlabels.runs.task import Context, Identity, Task
from fewlabels.training.interrupt import noted_signals
from fewlabels.training.train import train
from fewlabels.version import __version__


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
        values = _identity(task, identity, device)
        first_says(folder.check_free)
        first_says(lambda: held.enter_context(folder.alone()))
        if first_says(lambda: folder.is_finished(values)):
            task.again(folder, show)
        else:
            _work(task, Context(folder, device, process, stop, show), values)
        run = Run(folder.path, first_says(lambda: folder.read_json("summary.json")))
        task.show(run, show)
        return run


def _identity(task: Task[Any], identity: Identity, device: torch.device) -> dict[str, Any]:
    """Return by what a finished run is recognized; nothing, where its data must be looked at."""
    if not identity.values:
        return {}
    return {**_of_task(task), "version": __version__, "device": device.type, "values": dict(identity.values)}


def _of_task(task: Task[Any]) -> dict[str, Any]:
    own = own_file(type(task))
    return {"task": task.name, "task_file_digest": own and own.digest}


def _work(task: Task[Any], context: Context, identity: dict[str, Any]) -> None:
    folder, show = context.folder, context.show
    config: dict[str, Any] = {**_of_task(task), **task.prepare(context)}
    where = {"device": str(context.device), "machine": platform.machine(), "torch": str(torch.__version__)}
    threads = int(config["where"]["threads"])
    config["where"] = {**where, **config["where"]}
    there = first_says(lambda: folder.begin(config, identity, partial(task.say_differences, now=config)))
    if first_says(lambda: (folder / "summary.json").is_file()):
        task.again(folder, show)
        return
    show.line(f"{'continuing' if there else 'writing to'} {folder.path}")
    task.begin()
    torch.set_num_threads(threads)
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
    if any_of(context.stop()):
        raise Interrupted("stopped between two stages; all that is done is kept")
