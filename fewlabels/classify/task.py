"""The task "classify", from data and options to the summary of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from fewlabels.classify.checks import check_propagate, check_rule, try_step
from fewlabels.classify.choose_method import AUTO, choose_method
from fewlabels.classify.embedding import embedded, zero_features
from fewlabels.classify.finish import finish
from fewlabels.classify.hand_over import LABELS, METHOD, Choice, arranged, check_choice, choose_outcome, linear_head
from fewlabels.classify.identity import configuration, data_difference, identity_of, method_difference
from fewlabels.classify.outcome import Outcome
from fewlabels.classify.preparation import PROBE, Preparation, probe_of
from fewlabels.classify.prepare import prepare
from fewlabels.classify.report.words import compared_with_start, verdict
from fewlabels.classify.split import with_split
from fewlabels.classify.stages import (
    CROSS,
    HALVES,
    enough,
    folds_on_features,
    on_features_of,
    say_estimate,
    training_free,
    trainings,
)
from fewlabels.classify.tables import result_table
from fewlabels.config import Options
from fewlabels.console import Show
from fewlabels.data.sources.open import open_table, source_of
from fewlabels.data.splits import split_text
from fewlabels.errors import UserError
from fewlabels.files import csv_text, replace_text
from fewlabels.inputs.base import GIVEN, content_of
from fewlabels.inputs.kinds import inputs_of
from fewlabels.methods import make_method, method_name, method_spec
from fewlabels.methods.base import Method
from fewlabels.models.embedded import EMBEDDED
from fewlabels.models.of_function import Backbone, OfFunction, as_module
from fewlabels.own_file import own_file
from fewlabels.processes import any_of, first_says, this_process
from fewlabels.runs.folder import RunFolder
from fewlabels.runs.run import Run
from fewlabels.runs.task import Context, Identity, Stages, Task
from fewlabels.training.boards import check_board

AS_MANY = "as many as the machine gives"


class Classify(Task[Options]):
    """From few labels and many unlabeled rows to a classifier.

    Args:
        data: whatever `fewlabels.open_table` takes.
        options: what the user gave.
        method: with its options; by default what the options name.
        model: a backbone of the user's own; by default what the options name.
        unlabeled: more rows without labels; by default what the options name.
    """

    name = "classify"
    options_type = Options
    metric = "accuracy"

    def __init__(
        self,
        data: Any,
        options: Options,
        *,
        method: Method | None = None,
        model: Backbone | None = None,
        unlabeled: Any = None,
    ) -> None:
        self.backbone = None if model is None else as_module(model)
        if isinstance(self.backbone, OfFunction) and options.classify_features == "auto":
            options = replace(options, classify_features="only")  # there is nothing else to train
        super().__init__(data, options)
        if method is None and options.method != AUTO:
            method = make_method(options.method)
        self.method = copy.deepcopy(method)
        if method is not None:
            self.options = replace(self.options, method=method_spec(method))
        self.unlabeled = options.unlabeled if unlabeled is None else unlabeled
        self.source = source_of(data)

    def identify(self) -> Identity:
        """Open the table and split it; nothing is read but lists of files, and what lies in memory."""
        table = open_table(self.data, self.unlabeled, self.options.root)
        if isinstance(self.backbone, OfFunction) and not inputs_of(table.contents).are_pictures:
            raise UserError(
                "a function as model is for images: call it on your vectors, and give what it makes of them"
            )
        self.table, self.reason = with_split(table, self.options), GIVEN
        if self.method is None:
            name, self.reason = choose_method(self.table)
            self.method, self.options = make_method(name), replace(self.options, method=name)
        name = f"{self.table.name}-{method_name(self.method)}-{self.options.seed}"
        values = {} if self.backbone is not None else identity_of(self.table, self.options, self.method)
        return Identity(name, values)

    def prepare(self, context: Context) -> Mapping[str, Any]:
        """Make all that is needed before the first step; try a step of the method, and measure threads."""
        self.context, options, method = context, self.options, self.chosen_method
        no_pool = not len(self.table.unlabeled_rows)
        check_choice(options.choose, on_features=True, no_pool=no_pool)  # before work is done that would be in vain
        if options.log != "none":
            check_board(options.log)
        check_propagate(options, method, method_name(method))
        given, show = self.options, context.show
        found, self.digests, why = prepare(
            self.table, options, self.backbone, context.device,
            folder=context.folder.path, stop=context.stop, show=show,
        )  # fmt: skip
        own = own_file(type(method))
        _check_same_file(own and own.digest)
        why = {"method": self.reason, **why}
        if _learns_from_features(found):
            found, why = self._with_features(found, given, why)
        check_choice(options.choose, on_features=_learns_from_features(found), no_pool=no_pool)
        self.preparation = found
        threads, why["threads"] = self._rehearse(found)
        self.why = why
        return configuration(
            found, self.digests, given, method, self.backbone, self.source, why,
            threads=threads, own=own and own.digest,
        )  # fmt: skip

    @property
    def chosen_method(self) -> Method:
        """The method, which is known once the run was identified."""
        assert self.method is not None
        return self.method

    def _with_features(
        self, found: Preparation, given: Options, why: dict[str, str]
    ) -> tuple[Preparation, dict[str, str]]:
        """Check that the method learns from features, before any are made: some turn images, which features cannot be.

        A step is tried on features that are all 0.
        """
        name = method_name(self.chosen_method)
        try:
            try_step(on_features_of(found, given, zero_features(found)), self.chosen_method, name)
        except UserError as error:
            said = f"{name} does not learn from features ({error})"
            if given.classify_features == "only":
                raise UserError(said) from error
            found = replace(found, options=replace(found.options, classify_features="no"))
            small = "; --model small_cnn takes less time" if found.options.model in EMBEDDED else ""
            self.context.show.line(f"{said}: the whole network is trained without them{small}", "yellow")
            return found, why | {"classify_features": said}
        return found, why

    def _rehearse(self, found: Preparation) -> tuple[int, str]:
        """Try a step of the method, and a probe where one is asked for; return how many threads to take, and why.

        These are the number that was given, or that of the run's beginning, since sums depend on it, or the fastest.
        """
        method, folder, name = self.chosen_method, self.context.folder, method_name(self.chosen_method)
        probe = probe_of(found, method) if self.options.probe_every else None  # its errors come first
        begun, self.step_seconds = first_says(folder.threads), 0.0
        threads, why = (begun, "the run was begun with them") if begun else (torch.get_num_threads(), AS_MANY)
        if self.options.threads is not None:
            threads, why = self.options.threads, GIVEN
        if first_says(lambda: (folder / "summary.json").is_file()):
            return threads, why  # nothing is trained any more
        only = found.options.classify_features == "only"
        if only and probe is None:
            return threads, why
        if not only:
            check_rule(found, method, name)
        rehearsal = try_step(found, method, name)
        if not only:
            if begun is None and self.options.threads is None:
                measured = rehearsal.fastest_threads(self.context.stop)
                threads, why = first_says(lambda: measured)
            self.step_seconds = rehearsal.seconds_with(threads)
        if probe is not None:
            state = rehearsal.state
            with suppress(torch.OutOfMemoryError):  # in training such a probe is left out
                probe(state.learner.network, state.learner.method, state.step)
        return threads, why

    def say_differences(self, before: Mapping[str, Any], names: Sequence[str], now: Mapping[str, Any]) -> list[str]:
        """Say what differs in the user's words: which rows came, went or changed, which file has the method."""
        special = ("method_file_digest", "begun_with")
        plain = [n for n in names if n not in special and (not n.startswith("data.") or n == "data.name")]
        problems = super().say_differences(before, plain, now)
        if "begun_with" in names:
            problems.append("it was begun with other parameters, from another run or with another backbone")
        if "method_file_digest" in names:
            problems.insert(0, method_difference(before, now))
        if {"data.rows", "data.content"} & set(names):
            problems.insert(0, data_difference(self.context.folder, self.table, self.digests))
        return problems

    def again(self, folder: RunFolder, show: Show) -> None:
        """Say that the run was finished before, and how to probe it if it was not probed."""
        super().again(folder, show)
        records = [folder / f"{PROBE}.jsonl", folder / "features" / f"{PROBE}.jsonl"]
        if self.options.probe_every and not any(path.is_file() for path in records):
            show.line(f"it was not probed while it trained; as it is now: fewlabels probe {folder.path}")

    def begin(self) -> None:
        """Write the split and what is quarantined, and say what was chosen."""
        folder, show, found = self.context.folder, self.context.show, self.preparation
        table, options = found.table, found.options

        def write() -> None:
            replace_text(folder / "split.csv", split_text(self.table, self.digests))
            replace_text(folder / "quarantine.csv", csv_text(("path", "reason"), table.quarantine.items()))

        first_says(write)
        for note in table.notes:
            show.line(note)
        if table.quarantine:
            what = f"{found.inputs.source}s set aside: {len(table.quarantine)}"
            show.line(f"{what}; quarantine.csv names them with the reasons", "yellow")
        if self.why["method"] != GIVEN:
            show.line(f"method {method_name(self.chosen_method)}: {self.why['method']}")
        form = found.classifier.card.form
        said = {"model": options.model, **found.inputs.choices(form, options), "steps": options.steps}
        for choice, value in said.items():
            show.line(f"{choice.rpartition('_')[2]} {value}: {self.why[choice]}")
        process = this_process()
        if process.world_size > 1 and found.store.device.type == "cpu":
            show.line(
                f"{process.world_size} processes share each batch; batch norm takes the statistics of a process's own "
                "part"
            )

    def stages(self) -> Stages:
        """Train on features where the backbone begins with weights, then the whole network; finish."""
        found, method, show = self.preparation, self.chosen_method, self.context.show
        embedding = None
        if _learns_from_features(found):
            embedding = embedded(found, content_of(self.digests), show, self.context.stop)
        else:
            self._say_estimate()
        found = replace(found, features=None if embedding is None else embedding.last.features)
        baselines = first_says(lambda: training_free(found, self.context.folder))
        groups: list[list[Outcome]] = []
        ended: str | None = None
        choice: Choice | None = None
        seed, choose = self.options.seed, self.options.choose
        if embedding is not None:
            on_features = on_features_of(found, self.options, embedding)
            folds = folds_on_features(found, self.options)
            group = yield from trainings(on_features, method, folds, seed, show)
            # The first process alone writes what comes out.
            head = linear_head(found, embedding, folds, choose) if this_process().rank == 0 else None
            if head is not None:
                choice = choose_outcome(head, group[-1], found.table.labels, choose)
                group = arranged(group, head, choice)
            groups.append(group)
            ended = self.why["classify_features"] if found.options.classify_features == "only" else None
            if choose not in (LABELS, METHOD):
                ended = ended or f"--choose {choose} hands over a linear head on the features"
            ended = ended or first_says(lambda: enough(found, embedding.last.features))
            if ended:
                show.line(f"the backbone is not trained: {ended}")
            else:
                self._say_estimate()
        if ended is None:
            folds = HALVES if found.options.classify_calibrate == CROSS else 0
            groups.append((yield from trainings(found, method, folds, seed, show)))
        return first_says(
            lambda: finish(self.context.folder, found, method, self.options, baselines, groups, choice, ended)
        )

    def _say_estimate(self) -> None:
        say_estimate(self.preparation, self.chosen_method, self.step_seconds, self.context.show)

    def show(self, run: Run, show: Show) -> None:
        """Show the table and what it means."""
        show.table(result_table(run.summary))
        for line in verdict(run.summary):
            show.line(line, "bold")
        if said := compared_with_start(run.summary):
            show.line(said)
        if why := run.summary["chosen"]["why"]:
            show.line(f"Why it ended here: {why}.")
        for warning in run.summary["warnings"]:
            show.line(f"Warning: {warning['text']}", "yellow")
        show.line(f"report: {run.path / 'report.html'}")


def _learns_from_features(preparation: Preparation) -> bool:
    return preparation.options.classify_features in ("first", "only")


def _check_same_file(digest: str | None) -> None:
    """Check that all processes read the method from the same file."""
    if any_of(first_says(lambda: digest) != digest):
        raise UserError("the processes of this run do not see the same file of the method: give each machine the same")
