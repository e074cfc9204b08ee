"""`fewlabels.fit`: from data to a trained classifier with its report."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewlabels.classify.choose_method import AUTO
from fewlabels.classify.run import ClassifierRun
from fewlabels.classify.task import Classify
from fewlabels.config import Options, check_names, with_paths
from fewlabels.console import Show
from fewlabels.data.sources.open import Array, Data
from fewlabels.errors import UserError
from fewlabels.methods import make_method, method_spec
from fewlabels.methods.base import Method
from fewlabels.models.build import CUSTOM
from fewlabels.models.layers import Policy, preset_of, read_policy
from fewlabels.models.of_function import Backbone
from fewlabels.runs import fit as runs_fit


def fit(
    data: Data,
    *,
    method: str | Method = "layermatch",
    model: str | Backbone = "auto",
    unlabeled: str | Path | Array | None = None,
    policy: str | Policy = "auto",
    show: Show | None = None,
    **options: Any,
) -> ClassifierRun:
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
        UserError: bad input; says what was given, what is allowed and how to fix it.
        Interrupted: it was asked to stop, and saved its state.
    """
    task = make_task(data, method, model, unlabeled, policy, options)
    run = runs_fit.fit(task, show)
    return ClassifierRun(run.path, run.summary)


def make_task(
    data: Data,
    method: str | Method,
    model: str | Backbone,
    unlabeled: str | Path | Array | None,
    policy: str | Policy,
    options: Mapping[str, Any],
) -> Classify:
    """Make the task of what `fit` takes.

    Raises:
        UserError: names that no option has, or values that are not allowed; all at once.
    """
    made = None if method == AUTO else made_method(method)
    chosen = read_options(AUTO if made is None else method_spec(made), model, unlabeled, policy, options)
    backbone = None if isinstance(model, str) else model
    return Classify(data, chosen, method=made, model=backbone, unlabeled=unlabeled)


def made_method(method: str | Method) -> Method:
    """Return the method of a name, or a copy of one.

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
