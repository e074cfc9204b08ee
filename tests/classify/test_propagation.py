"""Runs whose targets begin with propagated labels: the table, the share that falls, the row, and what resumes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import fewlabels
from fewlabels import UserError
from fewlabels.classify.baselines import propagated_labels, training_free_baselines
from fewlabels.classify.preparation import PROPAGATED, begin, propagated_targets, stage_of
from fewlabels.errors import Interrupted
from fewlabels.inputs.feed import PropagatedTargets
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.methods.freematch import FreeMatch
from fewlabels.methods.layermatch import LayerMatch
from fewlabels.methods.supervised import Supervised
from fewlabels.training import train as training
from fewlabels.training.loop import run, update
from tests.conftest import assert_same, parameters_of
from tests.prepared import train, with_options
from tests.training.test_loop import NoCopies, NoReads
from tests.training.together import CAN_FORK, together


@pytest.fixture
def job(small_job):
    def make(propagate=0.5, **recipe):
        return with_options(small_job(**recipe), propagate=propagate)

    return make


@pytest.fixture(scope="module")
def done(tmp_path_factory, few_digits, undrawn):
    """A short run with probes."""
    return fewlabels.fit(
        few_digits, labels_per_class=2, seed=1000, steps=24, batch=10, unlabeled_ratio=2, propagate=0.5, threads=1,
        probe_every=8, device="cpu", out=tmp_path_factory.mktemp("propagated") / "run",
    )  # fmt: skip


def table_of(job):
    return propagated_targets(job, LayerMatch(), None).table.numpy()


def test_test_rows_are_nowhere_in_it_and_labeled_rows_have_their_labels(job):
    found, made = table_of(job()), job()
    assert not found[made.test].any()
    for row in made.labeled:
        assert found[row].tolist() == [float(k == made.table.labels[row]) for k in range(10)]
    np.testing.assert_allclose(found[made.unlabeled].sum(1), 1, rtol=1e-5)
    assert (found >= 0).all() and found.dtype == np.float32
    pixels = made.store.images.clone()
    pixels[made.test] = 255 - pixels[made.test]
    other = replace(made, store=type(made.store)(pixels))
    np.testing.assert_array_equal(table_of(other), found)


def test_hidden_labels_change_nothing(job):
    made = job()
    other = replace(made, table=replace(made.table, truth=np.where(made.table.truth >= 0, 9 - made.table.truth, -1)))
    np.testing.assert_array_equal(table_of(made), table_of(other))


def test_only_labels_that_are_learned_from_spread(job):
    """As in trainings without a part of the labels, which judge that part."""
    made = job()
    one_each = made.labeled[np.unique(made.table.labels[made.labeled], return_index=True)[1]]
    fewer = replace(made, labeled=one_each)
    moved = made.table.labels.copy()
    moved[np.setdiff1d(made.labeled, one_each)] = 0
    other = replace(fewer, table=replace(made.table, labels=moved))
    np.testing.assert_array_equal(table_of(fewer), table_of(other))
    left_out = np.setdiff1d(made.labeled, one_each)
    assert not table_of(fewer)[left_out].any()


def test_its_classes_are_those_of_the_baseline(job):
    made = job()
    rows = np.concatenate([made.labeled, made.unlabeled])
    features = made.inputs.features_of(made.store, rows)
    found = propagated_labels(features, made.table.labels, rows, 10)
    baselines = training_free_baselines(features, made.table.labels, rows, made.unlabeled)
    (whitened,) = [each for each in baselines if each.name == "label_propagation_whitened"]
    np.testing.assert_array_equal(found[made.unlabeled].argmax(1), whitened.predicted)


def test_rows_beyond_the_graph_have_their_neighbors_distribution(job, monkeypatch):
    made = job()
    rows = np.concatenate([made.labeled, made.unlabeled])
    features = made.inputs.features_of(made.store, rows)
    monkeypatch.setattr("fewlabels.classify.baselines.MOST_TRAIN", 600)
    found = propagated_labels(features, made.table.labels, rows, 10)
    np.testing.assert_allclose(found[rows].sum(1), 1, rtol=1e-5)
    right = found[made.hidden].argmax(1) == made.table.truth[made.hidden]
    assert right.mean() > 0.85


def test_features_of_a_backbone_take_the_place_of_the_rows(job):
    made = job()
    truth = np.where(made.table.labels >= 0, made.table.labels, made.table.truth)
    features = np.eye(10, dtype=np.float32)[truth] + 0.01 * np.random.default_rng(0).random((len(truth), 10))
    found = table_of(replace(made, features=features.astype(np.float32)))
    assert (found[made.hidden].argmax(1) == truth[made.hidden]).mean() > 0.99


def test_the_share_falls_from_1_to_0_in_a_straight_line():
    propagated = PropagatedTargets(torch.eye(3), 0.5)
    rows = torch.tensor([2, 0])
    for t, share in ((0.0, 1.0), (0.125, 0.75), (0.25, 0.5), (0.5, 0.0), (0.9, 0.0)):
        torch.testing.assert_close(propagated.of(rows, torch.tensor(t)), share * torch.eye(3)[rows])


def test_a_batch_has_the_propagated_labels_of_its_rows(job):
    made = job(steps=8)
    propagated = propagated_targets(made, LayerMatch(), None)
    _, feed = begin(made, LayerMatch(), propagated=propagated)
    for step in (0, 1, 3, 4, 7):
        batch = feed.batch(step, torch.tensor(step))
        torch.testing.assert_close(batch.propagated, propagated.table[batch.rows] * max(1 - step / 8 / 0.5, 0))
        for part, rows in zip(batch.parts(2), batch.rows.tensor_split(2), strict=True):
            torch.testing.assert_close(part.propagated, propagated.of(rows, batch.progress))
    assert begin(made, LayerMatch())[1].batch(0, torch.tensor(0)).propagated is None


def test_without_the_option_the_losses_are_those_of_the_method_alone(job):
    seen = []
    for propagate in (0.0, 0.5):
        made, lines = job(propagate), []
        propagated = propagated_targets(made, FixMatch(threshold=0.12), None)
        assert (propagated is None) == (propagate == 0)
        if propagate:
            propagated = None
        state, feed = begin(made, FixMatch(threshold=0.12), propagated=propagated)
        run(state, feed, 0, 4, watch=lambda _, __, found, lines=lines: lines.append(float(found["loss"])))
        seen.append(lines)
    assert seen[0] == seen[1]


def test_methods_without_such_targets_get_none(job):
    assert propagated_targets(job(), Supervised(), None) is None


@pytest.mark.parametrize("name", ["supervised", "pi_model", "vat"])
def test_asked_of_other_methods_it_is_refused_and_those_that_take_it_are_named(name, tmp_path):
    with pytest.raises(UserError, match=r"--propagate.*fixmatch.*layermatch.*uda"):
        fewlabels.fit("digits", method=name, labels_per_class=1, propagate=0.5, out=tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_the_row_says_so_and_so_do_the_records(done):
    names = [row["name"] for row in done.summary["rows"]]
    assert names[-1] == "layermatch + propagation" and names[0] == "supervised"
    assert done.summary["chosen"]["name"] == names[-1] and done.summary["method"] == "layermatch"
    assert (done.path / PROPAGATED).is_file() and not (done.path / "supervised" / PROPAGATED).exists()


def test_the_layer_probe_sees_the_same_targets(done):
    lines = [json.loads(line) for line in (done.path / "probe.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [8, 16, 24]
    found = json.loads(json.dumps(fewlabels.probe(done.path)))
    assert {name: found[name] for name in lines[-1]} == lines[-1]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_training_that_stopped_continues_to_the_same_bytes(job, tmp_path, damaged):
    """Also where the kept targets are not whole any more: they are made again."""
    made = job(steps=12)
    whole = train(replace(made, folder=tmp_path / "whole"), FreeMatch(), "freematch", tmp_path / "whole")
    folder, calls = tmp_path / "stopped", iter([False] * 5 + [True] + [False] * 100)
    with pytest.raises(Interrupted):
        train(replace(made, folder=folder), FreeMatch(), "freematch", folder, stop=lambda: next(calls))
    kept = (folder / PROPAGATED).read_bytes()
    if damaged:
        (folder / PROPAGATED).write_bytes(kept[:100])
    again = train(replace(made, folder=folder), FreeMatch(), "freematch", folder)
    assert (folder / PROPAGATED).read_bytes() == kept
    assert_same(whole.state.tensors(), again.state.tensors())
    plain = train(with_options(made, propagate=0.0), FreeMatch(), "freematch", tmp_path / "plain")
    sizes = [sum(t.numel() for t in each.state.tensors().values()) for each in (again, plain)]
    assert sizes[0] == sizes[1]  # no checkpoint grows by it


def test_a_resumed_training_takes_the_table_that_was_kept(job, tmp_path, monkeypatch):
    made = job()
    first = propagated_targets(made, LayerMatch(), tmp_path)
    monkeypatch.setattr("fewlabels.classify.preparation.propagated_labels", None)
    assert torch.equal(propagated_targets(made, LayerMatch(), tmp_path).table, first.table)


def test_a_step_reads_and_copies_nothing(job, as_on_a_gpu):
    made = job()
    state, feed = begin(made, LayerMatch(outputs="averaged"), propagated=propagated_targets(made, LayerMatch(), None))
    for step in range(3):
        inputs = feed.inputs(step)
        if step:
            with NoCopies():
                update(state, feed.batch_of(inputs, state.step))
        else:
            with NoReads():
                update(state, feed.batch_of(inputs, state.step))


def test_compiled_it_is_the_same_step(job, graphs):
    endings = []
    for compiled in (False, True):
        made = job(steps=5, compile=compiled)
        state, feed = begin(made, LayerMatch(), propagated=propagated_targets(made, LayerMatch(), None))
        run(state, feed, 0, 5, watch=lambda *_: None)
        endings.append(parameters_of(state))
    assert len(graphs) == 2
    for name, value in endings[0].items():
        torch.testing.assert_close(endings[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_in_parts_it_has_the_gradient_of_the_whole(job):
    endings = []
    for parts in (1, 2):
        made = job(norm="group", accumulate=parts)
        method = FixMatch(threshold=0.3)
        state, feed = begin(made, method, propagated=propagated_targets(made, method, None))
        update(state, feed.batch(0, state.step))
        endings.append(parameters_of(state))
    for name, value in endings[0].items():
        torch.testing.assert_close(endings[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.skipif(not CAN_FORK, reason="processes are forks here")
def test_two_processes_get_what_one_gets(job):
    made = job(norm="group")

    def trained(_=0):
        method = FixMatch(threshold=0.3)
        state, feed = begin(made, method, propagated=propagated_targets(made, method, None))
        run(state, feed, 0, 3, watch=lambda *_: None)
        return [p.detach().numpy() for p in state.learner.parameters()]

    alone = trained()
    for found in together(trained):
        for mine, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)


def test_a_rehearsal_does_not_wait_for_it(job, monkeypatch):
    from fewlabels.classify.checks import try_step

    def fails(*_, **__):
        raise AssertionError("made for a step that is thrown away")

    monkeypatch.setattr("fewlabels.classify.preparation.propagated_labels", fails)
    try_step(job(), LayerMatch(), "layermatch")
    with pytest.raises(AssertionError, match="thrown away"):
        training.train(stage_of(job(), LayerMatch(), "layermatch", None))
