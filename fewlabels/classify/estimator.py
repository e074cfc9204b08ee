"""The scikit-learn estimator: the same trainings, by the rules of Pipeline, GridSearchCV and `cross_val_score`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import nn

from fewlabels.classify.calibration import calibrate
from fewlabels.classify.checks import check_propagate, check_rule
from fewlabels.classify.choose_method import AUTO, choose_method
from fewlabels.classify.fit import fit, made_method, read_options
from fewlabels.classify.preparation import stage_of
from fewlabels.classify.prepare import prepare
from fewlabels.classify.run import load
from fewlabels.classify.split import with_split
from fewlabels.config import Options
from fewlabels.data.sources.arrays import says_nothing
from fewlabels.data.sources.open import open_table
from fewlabels.data.table import UNLABELED, Labels, Table
from fewlabels.data.vectors import are_vectors
from fewlabels.errors import UserError
from fewlabels.inputs.kinds import inputs_for
from fewlabels.methods import make_method, method_name, method_spec
from fewlabels.methods.base import Method
from fewlabels.models.classifier import Classifier
from fewlabels.models.of_function import Backbone, as_module
from fewlabels.runs.device import choose_device
from fewlabels.runs.host import host_settings_kept
from fewlabels.training.record import read_lines
from fewlabels.training.train import METRICS, train

THREADS = 1  # vectors go through one layer: more threads wait for each other, and the outcome depends on their number

Lines: TypeAlias = list[dict[str, Any]]
"""a training's metrics, each with its step, as in metrics.jsonl"""

OF_THE_ESTIMATOR = ("method", "model", "budget", "steps", "seed", "device", "out")  # options that are parameters
OF_THE_ROWS = ("labels_per_class", "split", "labels", "unlabeled", "root")  # these are what `fit` is given
OF_A_RUN = ("classify_calibrate", "log", "probe_every")  # more than one training, or files


class FewLabelClassifier(ClassifierMixin, BaseEstimator):
    """Learn from few labels and many unlabeled rows, which have the label -1.

    Vectors are trained on in memory. Images, and whatever `out` is given for, are a run as `fewlabels.fit` makes it.

    Args:
        method: a name, or a method with its options, such as `FixMatch(threshold=0.9)`; "auto" is chosen by the labels.
        model: a name, or a backbone of your own: a module, or a function, which is not trained.
        budget: quick, normal or full: how much work to spend.
        steps: updates of the parameters; None follows from the budget.
        random_state: what is drawn at random is a function of this; a whole number is the seed of `fewlabels.fit`.
        device: where to train: cpu, cuda, auto. Predictions are made on the CPU.
        options: other fields of `fewlabels.Options`.
        out: folder to keep the run in, with its report and baseline; None keeps none, and trains no baseline. A folder
            holds one run: leave it out where several are fitted, as in GridSearchCV.

    Attributes:
        classes_: [K], sorted.
        n_features_in_, feature_names_in_: of vectors; the names where a DataFrame had them.
        transduction_: [N], the labels of the rows of `fit`: those given, else those predicted.
        label_distributions_: float32 [N, K], the probabilities of these rows by the trained classifier.
        history_: the metrics of the method's training, a dictionary for every so many steps, as in metrics.jsonl.
        classifier_: the trained `fewlabels.Classifier`.
    """

    def __init__(
        self,
        *,
        method: str | Method = "layermatch",
        model: str | Backbone = "auto",
        budget: str = "quick",
        steps: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        options: Mapping[str, Any] | None = None,
        out: str | Path | None = None,
    ) -> None:
        self.method = method
        self.model = model
        self.budget = budget
        self.steps = steps
        self.random_state = random_state
        self.device = device
        self.options = options
        self.out = out

    def fit(self, X: Any, y: ArrayLike) -> Self:  # noqa: N803 - scikit-learn's
        """Train.

        Args:
            X: vectors [N, D]; images as an array [N, H, W] or [N, H, W, C] (uint8, or floats in 0..1); or a list of
                paths, PIL images or arrays.
            y: [N], whole numbers or names of classes. -1 is unlabeled; among names None and "" are too.

        Raises:
            ValueError: bad input, also as `UserError`: no labels, one class, options that do not fit.
        """
        given = np.asarray(validate_data(self, y=cast(Any, y)))
        rows = self._checked(X, reset=True)
        check_consistent_length(rows, given)
        self.classes_, codes = encode(given)
        data = {"x": rows, "y": codes, "classes": [str(name) for name in self.classes_.tolist()]}
        more_than_one = self.out is not None or set(self.options or ()) & {*OF_A_RUN}
        in_memory = are_vectors(rows) and not more_than_one and isinstance(self.model, str | nn.Module)
        self.classifier_, self.history_ = self._trained(data) if in_memory else self._run(data)
        self.label_distributions_ = _distributions(self.classifier_, rows)
        self.transduction_ = self._transduction(codes)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Give the probability of each class.

        They are calibrated where labels could be held out (from 50 a class on) or `options` ask for it.

        Args:
            X: rows [n] of the kind that `fit` was given.

        Returns:
            [n, K], in the order of `classes_`.

        Raises:
            ValueError: rows of another kind, or images that cannot be read; names these.
        """
        check_is_fitted(self)
        return self.classifier_.predict(self._checked(X, reset=False))[1]

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Give the most probable class [n] of each row; see `predict_proba`."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:  # noqa: N803
        """Give the accuracy on the labeled rows: in a fold of `cross_val_score` unlabeled rows say nothing.

        Args:
            X: rows [n] of the kind that `fit` was given.
            y: [n], as in `fit`.
            sample_weight: [n].

        Raises:
            ValueError: no row has a label.
        """
        truth = np.asarray(validate_data(self, y=cast(Any, y), reset=False))
        known = is_labeled(truth)
        if not known.any():
            raise UserError(f"none of {len(truth)} rows has a label to score by; give folds with labeled rows in each")
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(self.predict(X)[known] == truth[known], weights=weight))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _checked(self, X: Any, *, reset: bool) -> Any:  # noqa: N803
        """Give vectors as float32 [n, D], checked; images as they are."""
        if not (holds_images(X) if reset else inputs_for(self.classifier_.card.form).are_pictures):
            return validate_data(self, X, dtype=np.float32, reset=reset)
        if reset:
            vars(self).pop("n_features_in_", None)  # of vectors that it was fitted to before
        if hasattr(X, "ndim") and X.ndim > 1:
            return X
        return [str(image) if isinstance(image, np.str_) else image for image in X]

    def _options(self) -> dict[str, Any]:
        """Give the options of the run, but method and model.

        Raises:
            UserError: `options` have what is a parameter of the estimator, or what chooses rows.
        """
        more = dict(self.options or {})
        if given := sorted({*more} & {*OF_THE_ESTIMATOR}):
            raise UserError(f"options has {', '.join(given)}; give random_state for seed, the others as parameters")
        if given := sorted({*more} & {*OF_THE_ROWS}):
            raise UserError(f"options has {', '.join(given)}; here X and y say what is learned from")
        own = {"budget": self.budget, "steps": self.steps, "device": self.device, "seed": _seed(self.random_state)}
        return {"baseline": self.out is not None, **more, **own}

    def _trained(self, data: Mapping[str, Any]) -> tuple[Classifier, Lines]:
        table = open_table(data)
        method = make_method(choose_method(table)[0]) if self.method == AUTO else made_method(self.method)
        more = self._options()
        options = read_options(method_spec(method), self.model, None, more.pop("policy", "auto"), more)
        return train_in_memory(with_split(table, options), options, method, self._backbone())

    def _run(self, data: Mapping[str, Any]) -> tuple[Classifier, Lines]:
        with ExitStack() as held:
            out = Path(held.enter_context(TemporaryDirectory()), "run") if self.out is None else Path(self.out)
            fit(data, method=self.method, model=self.model, out=out, **self._options())
            found = [folder / METRICS for folder in (out, out / "features") if (folder / METRICS).is_file()]
            return load(out, self._backbone()), read_lines(found[0])

    def _backbone(self) -> nn.Module | None:
        return None if isinstance(self.model, str) else copy.deepcopy(as_module(self.model))

    def _transduction(self, codes: Labels) -> NDArray[Any]:
        found = np.where(codes == UNLABELED, self.label_distributions_.argmax(1), codes)
        labels = self.classes_[found]
        unknown = np.isnan(self.label_distributions_[:, 0])
        if unknown.any():
            warnings.warn(f"{unknown.sum()} of {len(codes)} images cannot be read and were set aside", stacklevel=3)
        unknown &= codes == UNLABELED
        if unknown.any():
            labels = labels.astype(object)
            labels[unknown] = UNLABELED
        return labels


def train_in_memory(
    table: Table, options: Options, method: Method, backbone: nn.Module | None
) -> tuple[Classifier, Lines]:
    """Train with the choices and to the outcome of `fit`, where that takes as many threads, and keep nothing on disk.

    There is no baseline, and nothing is measured.

    Args:
        table: with its split, and without a test split.
        options: none of those that need a folder or more than one training.
        method: is not changed.
        backbone: of the user's own.

    Returns:
        The classifier, calibrated where labels were held out, on the CPU; and its metrics.

    Raises:
        UserError: options that do not fit each other or the data, or a loss that exploded.
    """
    with host_settings_kept():
        torch.set_num_threads(options.threads or THREADS)
        found, _, _ = prepare(table, options, backbone, choose_device(options.device))
        name = method_name(method)
        check_propagate(options, method, name)
        check_rule(found, method, name)
        training = train(stage_of(found, method, name, None))
        classifier = training.state.averaged.classifier.eval()
        if len(found.held_out):
            logits = classifier.outputs(found.store, found.held_out).logits.numpy()
            fitted = calibrate(logits, found.table.labels[found.held_out])
            classifier.card = replace(classifier.card, scale=fitted.scale, bias=fitted.bias)
        return classifier.cpu(), training.record.lines


def holds_images(X: Any) -> bool:  # noqa: N803
    """Tell images - an array of three or four axes, or a list of paths, PIL images or arrays - from vectors."""
    if hasattr(X, "ndim"):
        return X.ndim > 2 or (X.ndim == 1 and np.asarray(X).dtype.kind in "OUT")
    if not isinstance(X, list | tuple) or not X:
        return False
    first: Any = cast("Sequence[Any]", X)[0]
    return not isinstance(first, list | tuple | int | float) and getattr(first, "ndim", 2) > 1


def is_labeled(y: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell the rows [N] that have a label from those that have none: -1, None or a blank text."""
    # NumPy turns the -1 of a list with names into a text.
    return np.array([not says_nothing(label) and label != "-1" for label in y.tolist()], bool)


def encode(y: NDArray[Any]) -> tuple[NDArray[Any], Labels]:
    """Give the classes [K], sorted, and the labels as places among them, int64 [N], -1 unlabeled.

    Raises:
        ValueError: no labels, one class, or labels that are no classes.
    """
    known = is_labeled(y)
    if not known.any():
        raise UserError(f"none of the {len(y)} labels in y is a class; give labeled rows of two classes or more")
    given = y[known]
    if given.dtype == object:
        kinds = {isinstance(label, str) for label in given}
        if len(kinds) > 1:
            raise UserError("y has both numbers and names as classes; give all as one of both")
        given = given if kinds.pop() else np.array(given.tolist())
    check_classification_targets(given)
    classes, places = np.unique(given, return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"y has 1 class only, {classes[0]}; give labeled rows of two classes or more, -1 for unlabeled")
    codes = np.full(len(y), UNLABELED)
    codes[known] = places
    return classes, codes


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _distributions(classifier: Classifier, given: Any) -> NDArray[np.float32]:
    """Give probabilities [N, K] of all rows; of images that cannot be read no numbers."""
    rows = inputs_for(classifier.card.form).listed(given, classifier.card.form)
    out = np.full((len(rows), len(classifier.card.classes)), np.nan, np.float32)
    for first, outputs, broken in classifier.classified(rows):
        part = np.arange(first, first + len(outputs.logits) + len(broken))
        out[np.delete(part, [*broken])] = classifier.calibrated(outputs.logits).numpy()
    return out
