"""Learning from few labels: image classifiers from a handful of labeled images and many unlabeled ones."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fewlabels.version import __version__

if TYPE_CHECKING:
    from fewlabels.classify.add_labels import add_labels
    from fewlabels.classify.bench import BenchResult, bench
    from fewlabels.classify.estimator import FewLabelClassifier
    from fewlabels.classify.fit import fit
    from fewlabels.classify.probe import probe
    from fewlabels.classify.run import ClassifierRun, load
    from fewlabels.config import Options
    from fewlabels.data.sources.open import open_table
    from fewlabels.data.table import Table
    from fewlabels.errors import Interrupted, UserError
    from fewlabels.methods.base import Method
    from fewlabels.models.classifier import Classifier
    from fewlabels.runs.run import Run

__all__ = [
    "BenchResult",
    "Classifier",
    "ClassifierRun",
    "FewLabelClassifier",
    "Interrupted",
    "Method",
    "Options",
    "Run",
    "Table",
    "UserError",
    "__version__",
    "add_labels",
    "bench",
    "fit",
    "load",
    "open_table",
    "probe",
]

_HOME = {
    "BenchResult": "classify.bench",
    "Classifier": "models.classifier",
    "ClassifierRun": "classify.run",
    "FewLabelClassifier": "classify.estimator",
    "Interrupted": "errors",
    "Method": "methods.base",
    "Options": "config",
    "Run": "runs.run",
    "Table": "data.table",
    "UserError": "errors",
    "add_labels": "classify.add_labels",
    "bench": "classify.bench",
    "fit": "classify.fit",
    "load": "classify.run",
    "open_table": "data.sources.open",
    "probe": "classify.probe",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for: torch takes seconds, and much of our work needs none."""
    if name not in _HOME:
        raise AttributeError(f"module 'fewlabels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fewlabels.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
