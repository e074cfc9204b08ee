"""`fit`: from data to a run, phase by phase; a phase that is done is not done again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewlabels.classify.choose import GIVEN, choose_device
from fewlabels.classify.choose_method import AUTO, choose_method
from fewlabels.classify.features import embedded, enough, features_stage
from fewlabels.classify.finish import finish
from fewlabels.classify.phases import Done, free_phase, network_stage, say_estimate, train_stage
from fewlabels.classify.prepare import prepare
from fewlabels.classify.run import Run
from fewlabels.classify.split import with_split
from fewlabels.classify.train import PROBES
from fewlabels.classify.work import Work
from fewlabels.config import Options, check_names, with_paths
from fewlabels.data.sources.open import Array, Data, open_table, source_of
from fewlabels.data.vectors import vectors_of
from fewlabels.errors import Interrupted, UserError
from fewlabels.methods import make_method, method_spec
from fewlabels.methods.base import Method
from fewlabels.models.build import CUSTOM
from fewlabels.models.layers import Policy, preset_of, read_policy
from fewlabels.models.of_function import Backbone, OfFunction, as_module
from fewlabels.processes import first_says, joined
from fewlabels.runs.host import host_settings_kept
from fewlabels.runs.show import Show
from fewlabels.training.interrupt import noted_signals


def fit(
    data: Data,
    *,
    method: str | Method = "layermatch",
    model: str | Backbone = "auto",
    unlabeled: str | Path | Array | None = None,
    policy: str | Policy = "auto",
    show: Show | None = None,
    **options: Any,
) -> Run:
    """Train a classifier from few labels and many unlabeled images.

    Args:
        data: whatever `fewlabels.open_table` takes: a folder `DIR/<class>/*` with optional `unlabeled/` and `test/`, a
            sheet of paths and labels, an .npz file, tar shards, the name of a set, `(x, y)` arrays, a mapping with x, y
            and optional x_test, y_test, classes, a Dataset of torch or Hugging Face; label -1 is unlabeled.
        method: a name; "auto", chosen from the data with the reason; `path/to/file.py:CLASS`, one of your own; or a
            method with its options, such as `FixMatch(threshold=0.9)`. Options in words: "fixmatch:threshold=0.9".
        model: a name, or a backbone of your own, a module that maps float images [n, C, H, W], or vectors, to features
            [n, D]; or a function that does so, which is not trained itself.
        unlabeled: more images without labels: a folder, an array or a Dataset.
        policy: factors on the gradient of unlabeled images by layer, such as {"head": 0, "backbone.stage3": 0.5}, or
            the name of a preset.
        show: where to say what happens; silent by default.
        options: the other fields of `fewlabels.Options`.

    Returns:
        The run: its folder, its numbers, its classifier. The same call continues a run that was stopped.

    Raises:
        UserError: bad input; says what was given, what is allowed and how to mend it.
        Interrupted: it was asked to stop, and saved its state.
    """
    given = AUTO if method == AUTO else made_method(method)
    backbone = None if isinstance(model, str) else as_module(model)
    chosen = read_options(given if isinstance(given, str) else method_spec(given), model, unlabeled, policy, options)
    if isinstance(backbone, OfFunction) and chosen.features == "auto":
        chosen = replace(chosen, features="only")  # there is nothing else to train
    device = choose_device(chosen.device)
    with host_settings_kept(), joined(device) as process, noted_signals() as stop, ExitStack() as held:
        show = show if show is not None and process.rank == 0 else Show(None)
        table = open_table(data, unlabeled, chosen.root)
        if isinstance(backbone, OfFunction) and vectors_of(table.images) is not None:
            raise UserError(
                "a function as model is for images: call it on your vectors, and give what it makes of them"
            )
        if isinstance(given, str):
            name, reason = choose_method(with_split(table, chosen))
            given, chosen = make_method(name), replace(chosen, method=name)
        else:
            reason = GIVEN
        work = prepare(
            table, chosen, given, reason, backbone, device,
            process=process, stop=stop, show=show, held=held, source=source_of(data),
        )  # fmt: skip
        _say_how_shared(work)
        torch.set_num_threads(work.plan.threads)
        return _phases(work)


def made_method(method: str | Method) -> Method:
    """Give the method of a name, or a copy of one.

    Raises:
        UserError: it is neither.
    """
    if isinstance(method, str):
        return make_method(method)
    if not isinstance(method, Method):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
        hint = f" Did you mean {method.__name__}()?" if isinstance(method, type) else ""
        raise UserError(f"method is {method!r}; give a name, path/to/file.py:CLASS, or a Method object.{hint}")
    return copy.deepcopy(method)


def read_options(
    method: str,
    model: str | Backbone,
    unlabeled: str | Path | Array | None,
    policy: str | Policy,
    options: Mapping[str, Any],
) -> Options:
    """Make the options of a run from what `fit` takes, the method in words.

    Raises:
        UserError: names that no option has, or values that are not allowed; all at once.
    """
    check_names(options)
    return Options(
        method=method,
        model=model if isinstance(model, str) else CUSTOM,
        unlabeled=Path(unlabeled) if isinstance(unlabeled, str | Path) else None,
        policy=policy if isinstance(policy, str) else preset_of(read_policy(policy)),
        **with_paths(options),
    )


def _say_how_shared(work: Work) -> None:
    processes = work.job.process.world_size
    if processes > 1 and work.job.rows.images.device.type == "cpu":
        work.show.line(
            f"{processes} processes share each batch; batch norm takes the statistics of a process's own part"
        )


def _phases(work: Work) -> Run:
    run = first_says(lambda: Run.finished(work.folder))
    if run is None:
        features = embedded(work)
        if features is None:
            say_estimate(work)
        free = first_says(lambda: free_phase(work, features))
        stages: list[Done] = []
        ended: str | None = None
        if features is not None:
            _stop_here(work)
            stages.append(train_stage(work, features_stage(work, features)))
            ended = first_says(lambda: enough(work, features))
            if ended:
                work.show.line(f"the backbone is not trained: {ended}")
            else:
                say_estimate(work)
        _stop_here(work)
        if ended is None:
            stages.append(train_stage(work, network_stage(work)))
        _stop_here(work)
        run = first_says(lambda: finish(work, free, stages, ended))
    else:
        work.show.line("this run is finished; nothing is trained again")
        if work.options.probe_every and not (work.folder / PROBES).is_file():
            work.show.line(f"it was not probed while it trained; as it is now: fewlabels probe {work.folder.path}")
    run.show(work.show)
    return run


def _stop_here(work: Work) -> None:
    if work.job.stop():
        raise Interrupted("stopped between two phases; all that is done is kept")
