"""The layer probe: what it compares, against formulas written by hand, and that the training does not notice it."""

import copy
import dataclasses
import json
import math
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fewlabels.classify.layer_probe import ROWS, Probe
from fewlabels.classify.preparation import begin, probe_of
from fewlabels.console import Show
from fewlabels.errors import UserError
from fewlabels.methods import method_class, method_names
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.methods.layermatch import LayerMatch
from fewlabels.methods.parts.losses import consistency
from fewlabels.methods.supervised import Supervised
from fewlabels.models.layers import layers_of
from fewlabels.training.loop import run
from tests.conftest import assert_same
from tests.prepared import Rows, train, with_options

pytestmark = pytest.mark.versions


def probed(job, method, steps=0):
    state, feed = begin(job, method)
    run(state, feed, 0, steps, watch=lambda *_: None)
    probe = probe_of(job, method)
    return probe(state.learner.network, state.learner.method, state.step), state, probe


def without_truth(rows):
    return rows.with_(truth=np.full_like(rows.truth, -1))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("most_sure", [1.0, 0.4])
@pytest.mark.parametrize("policy", [{}, {"head": 0.0}])
def test_the_heads_numbers_follow_the_formulas(small_job, most_sure, policy):
    """dL/dW = mean of w (p - e_y^) f^T for pseudo-labels, and of (p - e_y) f^T for true ones; the bias likewise."""
    job = dataclasses.replace(small_job("group"), policy=policy)
    _, state, probe = probed(job, FixMatch(threshold=0.0), steps=3)
    net, truth = state.learner.network, job.table.truth
    weight, bias = (t.detach().double().numpy() for t in (net.classifier.head.weight, net.classifier.head.bias))
    batches = [probe.feed.batch(number, state.step) for number in range(probe.batches)]
    with torch.no_grad():
        f_w, f = (np.stack([net.features(b.unlabeled[i]).double().numpy() for b in batches]) for i in (0, 1))
    p_w, p = softmax(f_w @ weight.T + bias), softmax(f @ weight.T + bias)
    y = truth[np.stack([batch.rows.numpy() for batch in batches])]
    confidence, target = p_w.max(2), p_w.argmax(2)
    threshold = 0.0 if most_sure == 1 else np.quantile(confidence, 1 - most_sure)
    w = (confidence >= threshold).astype(float)
    one = np.concatenate([f, np.ones((*f.shape[:2], 1))], 2)
    pseudo = np.einsum("bn,bnk,bnd->kd", w, p - np.eye(10)[target], one)
    kept = np.einsum("bn,bnk,bnd->kd", w, p - np.eye(10)[y], one)
    every = np.einsum("bnk,bnd->kd", p - np.eye(10)[y], one)

    found = probe(net, FixMatch(threshold=float(threshold)), state.step)
    head = found.layers[-1]
    assert head.layer == "head" and y.size >= ROWS
    for number, true in ((head.cosine_kept, kept), (head.cosine_all, every)):
        expected = (pseudo * true).sum() / np.linalg.norm(pseudo) / np.linalg.norm(true)
        assert number == pytest.approx(expected, abs=1e-4)
    assert head.ratio == pytest.approx(np.linalg.norm(pseudo) / np.linalg.norm(every), rel=1e-4)
    assert found.kept == pytest.approx(most_sure, abs=0.01)
    assert found.wrong == pytest.approx((w * (target != y)).sum() / w.sum()) and 0 < found.wrong < 1


class TrueTargets(LayerMatch):
    """Pseudo-labels that are the truth, or its opposite; all rows are kept, or only the sure ones."""

    def forward(self, net, batch):
        out = super().forward(net, batch)
        truth, weight = self.truth[batch.rows], out["row_weight"]
        loss = self.sign * consistency(out["unlabeled_logits"], truth, weight)
        return out | {"unlabeled_loss": loss, "target": truth}


def true_targets(rows, sign=1.0, **options):
    method = TrueTargets(**options)
    method.truth, method.sign = torch.from_numpy(np.where(rows.truth < 0, rows.labels, rows.truth)), sign
    return method


@pytest.mark.parametrize("passes", ["one", "two", "three"])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("sign", [1.0, -0.5])
def test_true_targets_agree_wholly_and_their_opposite_not_at_all(small_job, passes, norm, sign):
    """Whatever normalizes the views, drops features, or averages the centers: it is so on both sides."""
    job = dataclasses.replace(with_dropout(small_job(norm)), center_memory=0.5)
    found, _, _ = probed(
        job, true_targets(Rows(job.table, job.store), sign, threshold="fixed", confidence=0.0, passes=passes), steps=3
    )
    assert found.wrong == 0 and found.kept == 1 and found.against == "hidden"
    for layer in found.layers:
        assert (layer.cosine_all, layer.cosine_kept) == pytest.approx((math.copysign(1, sign),) * 2, abs=1e-5)
        assert layer.ratio == pytest.approx(abs(sign), rel=1e-4)


def test_true_targets_of_the_sure_rows_alone_agree_with_these_and_not_wholly_with_all(small_job):
    job = small_job("group", lr=0.2)
    found, _, _ = probed(job, true_targets(Rows(job.table, job.store), threshold="self_adaptive"), steps=10)
    assert 0.05 < found.kept < 0.95
    for layer in found.layers:
        assert layer.cosine_kept == pytest.approx(1, abs=1e-5) and layer.cosine_all < 0.99


def with_dropout(job):
    classifier = copy.deepcopy(job.classifier)
    classifier.backbone.stage2.append(torch.nn.Dropout(0.5))
    return dataclasses.replace(job, classifier=classifier)


def test_a_gradient_of_zero_has_no_angle(small_job):
    found, _, _ = probed(small_job(), FixMatch(threshold=1.0))
    assert found.kept == 0 and found.wrong is None
    assert all(layer.cosine_kept is layer.cosine_all is None and layer.ratio == 0 for layer in found.layers)


MIXED = ("mixmatch", "remixmatch")  # no unlabeled image goes through their networks by itself, to compare labels on


@pytest.mark.parametrize("name", MIXED)
def test_where_all_images_are_mixed_there_is_nothing_to_probe(small_job, name):
    with pytest.raises(UserError, match="cannot be probed"):
        probed(small_job(), method_class(name)())


@pytest.mark.parametrize("name", [n for n in method_names() if n not in ("supervised", *MIXED)])
def test_every_method_can_be_probed_in_every_layer(small_job, name):
    found, state, _ = probed(small_job(), method_class(name)(), steps=8)
    assert [layer.layer for layer in found.layers] == [*layers_of(state.learner.network.classifier)]
    assert 0 <= found.kept <= 1 and found.step == 8


def test_a_layer_kept_from_pseudo_labels_is_shown_as_if_it_were_not(small_job):
    whole, _, _ = probed(small_job(), FixMatch(threshold=0.0))
    job = dataclasses.replace(small_job(), policy={"head": 0.0, "backbone.stage1": 0.5})
    assert probed(job, FixMatch(threshold=0.0))[0] == whole


def test_without_hidden_labels_the_test_split_tells_and_wrong_ones_are_not_known(small_job, digits_rows):
    job = small_job(rows=without_truth(digits_rows))
    found, state, probe = probed(job, LayerMatch(), steps=8)
    assert found.wrong is None and found.kept > 0
    assert found.against == "test"
    assert all(layer.cosine_kept is None and layer.cosine_all is not None for layer in found.layers)
    batch = probe.held_out.batch(0, state.step)
    assert len(batch.labels) == job.recipe.unlabeled_batch and batch.unlabeled == ()
    # Only test rows are looked at, with their own labels.
    assert set(batch.labels.tolist()) <= set(digits_rows.labels[digits_rows.test].tolist())


@pytest.mark.parametrize(
    ("without", "method", "said"),
    [
        (None, Supervised(), "uses no unlabeled images"),
        ("unlabeled", FixMatch(), "there are no unlabeled images"),
        ("test", FixMatch(), "put labeled images into test/"),
    ],
)
def test_what_cannot_be_probed_is_said(small_job, digits_rows, without, method, said):
    rows = without_truth(digits_rows) if without == "test" else digits_rows
    if without:
        rows = rows.take(np.setdiff1d(np.arange(len(rows.labels)), getattr(rows, without)))
    with pytest.raises(UserError, match=said):
        probe_of(small_job(rows=rows), method)


class Silent(FixMatch):
    """Gives its loss alone."""

    def forward(self, net, batch):
        return {"loss": super().forward(net, batch)["loss"]}


def test_a_method_that_gives_no_unlabeled_loss_is_named(small_job):
    with pytest.raises(UserError, match="Silent cannot be probed: it does not give unlabeled_loss"):
        probed(small_job(), Silent())


@pytest.mark.parametrize("recipe", [{}, {"accumulate": 2}, {"compile": True}], ids=str)
def test_the_training_does_not_notice_the_probe(small_job, vector_job, graphs, tmp_path, recipe):
    """The same bytes in each checkpoint and each line, with and without."""
    found = {}
    for every in (None, 5):
        make = vector_job if "compile" in recipe else small_job  # which has batch norm, and takes longer to compile
        job = with_options(make(steps=12, **recipe), probe_every=every)
        out = tmp_path / str(every)
        out.mkdir()
        train(job, LayerMatch(outputs="averaged"), "layermatch", out)
        found[every] = {path.name: path for path in (*out.glob("checkpoint/*"), out / "metrics.jsonl")}
        lines = [json.loads(line) for line in (out / "probe.jsonl").open()] if every else []
        assert [line["step"] for line in lines] == ([5, 10, 12] if every else [])
    assert found[None].keys() == found[5].keys()
    assert found[None]["metrics.jsonl"].read_bytes() == found[5]["metrics.jsonl"].read_bytes()
    for name, path in found[None].items():
        if name != "metrics.jsonl":
            assert_same(load_file(path), load_file(found[5][name]))


def test_dropout_does_not_notice_the_probe_and_the_probe_draws_the_same_each_time(small_job):
    job = with_dropout(small_job())
    found, state, probe = probed(job, FixMatch(threshold=0.0), steps=2)
    before = torch.get_rng_state()
    assert probe(state.learner.network, state.learner.method, state.step) == found
    assert torch.equal(before, torch.get_rng_state())


def test_a_probe_without_memory_is_left_out_and_the_training_goes_on_as_it_was(small_job, tmp_path, monkeypatch):
    said, found = [], []
    for lacks in (False, True):
        job = with_options(small_job(steps=6), probe_every=2)
        show = Show(None)
        monkeypatch.setattr(show, "line", lambda text, style=None: said.append(text))
        if lacks:
            monkeypatch.setattr(Probe, "__call__", no_memory)
        out = tmp_path / str(lacks)
        out.mkdir()
        train(job, FixMatch(), "fixmatch", out, show)
        found.append(load_file(out / "checkpoint/step-00000006.safetensors"))
    assert_same(*found)
    assert [line for line in said if "memory" in line] == [
        "fixmatch: out of memory in the probe, which is left out here"
    ] * 3
    assert not (tmp_path / "True/probe.jsonl").read_text()


def no_memory(*_):
    raise torch.OutOfMemoryError


def test_a_network_that_cannot_be_copied_is_said(small_job):
    state, _ = begin(small_job(), FixMatch())
    state.learner.network.classifier.kept = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(UserError, match="works on a copy of the network, and none can be made"):
        probe_of(small_job(), FixMatch())(state.learner.network, state.learner.method, state.step)


def test_the_clock_of_the_training_stands_still_in_a_probe(small_job, tmp_path, monkeypatch):
    monkeypatch.setattr(Probe, "__call__", slow)
    job = with_options(small_job(steps=6), probe_every=2)
    began = time.perf_counter()
    trained = train(job, FixMatch(), "fixmatch", tmp_path)
    assert time.perf_counter() - began - trained.seconds > 3 * SLOW


SLOW = 0.2


def slow(*_):
    time.sleep(SLOW)
    raise torch.OutOfMemoryError
