"""Views under `torch.compile`: one graph, compiled once, without copies from the host, and the same numbers."""

import pytest
import torch

from fewlabels.inputs.images.views import ImageViews
from fewlabels.inputs.mix import beta, beta_quantiles
from fewlabels.inputs.vectors.views import Strength, VectorViews
from fewlabels.keys import Key
from tests.inputs.test_operations import noise

pytestmark = pytest.mark.versions


@pytest.fixture
def graphs():
    torch.compiler.reset()
    seen = []

    def backend(module, inputs):
        seen.append([str(node.target).split(".")[-1] for node in module.graph.nodes])
        return module.forward

    yield seen, backend
    torch.compiler.reset()


@pytest.mark.parametrize("flip", ["none", "dihedral"])
def test_views_are_one_graph_that_is_compiled_once(graphs, flip):
    seen, backend = graphs
    views = ImageViews((0.5, 0.4, 0.3), (0.2, 0.2, 0.3), flip)

    def make(images, step, slots):
        return views.make(images, ("weak", "strong"), Key(0).fold("views").fold(step).fold(slots))

    compiled = torch.compile(make, backend=backend, fullgraph=True)
    for number in range(4):
        given = noise(6, 3, 8, 8) // (number + 1), torch.tensor(number), torch.arange(6)
        for mine, theirs in zip(compiled(*given), make(*given), strict=True):
            assert torch.equal(mine, theirs)
    assert len(seen) == 1
    assert not {"tensor", "nonzero", "item"} & set(seen[0])


def test_views_of_vectors_are_one_graph_that_is_compiled_once(graphs):
    seen, backend = graphs
    views = VectorViews(torch.randn(9, 5), (0.5,) * 5, (2.0,) * 5, Strength(0.1), Strength(0.3, 0.2, 0.2))

    def make(vectors, step, slots):
        return views.make(vectors, ("weak", "strong"), Key(0).fold("views").fold(step).fold(slots))

    compiled = torch.compile(make, backend=backend, fullgraph=True)
    for number in range(4):
        given = torch.randn(6, 5), torch.tensor(number), torch.arange(6)
        for mine, theirs in zip(compiled(*given), make(*given), strict=True):
            assert torch.equal(mine, theirs)
    assert len(seen) == 1
    assert not {"tensor", "nonzero", "item"} & set(seen[0])


def test_beta_is_compiled_whole(graphs):
    seen, backend = graphs
    key = Key(0).fold(torch.arange(5))
    table = beta_quantiles(0.75)
    drawn = torch.compile(lambda state: beta(Key(state), table), backend=backend, fullgraph=True)(key.state)
    assert torch.equal(drawn, beta(key, table))
    assert "tensor" not in seen[0]


def test_parts_that_change_do_not_break_the_graph(graphs):
    _, backend = graphs
    key = Key(0).fold(torch.arange(5))
    drawn = torch.compile(lambda state, part: Key(state).fold(part, "name").uniform(), backend=backend)
    for part in range(4):
        assert torch.equal(drawn(key.state, part), key.fold(part, "name").uniform())
