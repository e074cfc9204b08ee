"""What processes do together, in forks of this one: exchanges, sums over rows, and how they find each other."""

import os
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from fewlabels import processes
from fewlabels.errors import Interrupted, UserError
from fewlabels.keys import Key
from fewlabels.methods.parts.across import gather_rows, mean_rows, sum_rows
from fewlabels.methods.parts.draws import directions, first_of, of_rows
from fewlabels.processes import (
    any_of,
    first_says,
    joined,
    local_process,
    mean_gradients,
    send_from_first,
    this_process,
    world_size,
)
from tests.training.together import CAN_FORK, CPU, together

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="what a test does is handed to forks")


# --- who is who ---


def test_each_process_knows_its_place():
    def places(rank):
        here = local_process()
        return world_size(), (this_process().rank, this_process().world_size), (here.rank, here.world_size)

    assert together(places, 3) == [(3, (rank, 3), (rank, 3)) for rank in range(3)]
    assert together(lambda rank: (world_size(), this_process().world_size, local_process().world_size), 1) == [
        (1, 1, 1)
    ]


def test_each_of_several_machines_counts_its_own():
    def places(rank):
        os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
        first = local_process()
        del os.environ["LOCAL_RANK"], os.environ["LOCAL_WORLD_SIZE"]
        return (first.rank, first.world_size), (local_process().rank, local_process().world_size)

    assert together(places) == [((0, 1), (0, 2))] * 2


def test_who_has_joined_joins_no_second_time_and_all_leave_in_the_end():
    def task(rank):
        with joined(CPU) as outer:
            with joined(CPU) as inner:
                inside = (outer.world_size, inner.world_size)
            still = world_size()
        return inside, still, world_size()

    assert together(task, join=False) == [((2, 2), 2, 1)] * 2


def test_a_lost_process_is_said_in_one_sentence():
    def task(rank):
        raise RuntimeError("[/a/gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]. It may be gone.\nmore")

    for error in together(task):
        assert isinstance(error, Interrupted)
        assert "Connection closed by peer" in str(error) and "\n" not in str(error)


def test_another_error_stays_what_it_is():
    def task(rank):
        raise RuntimeError("shapes cannot be multiplied")

    assert [type(error) for error in together(task)] == [RuntimeError] * 2


# --- exchanges ---


@pytest.mark.parametrize("says", [(False, False), (True, False), (False, True)])
def test_any_of_all(says):
    assert together(lambda rank: any_of(says[rank])) == [any(says)] * 2


def test_the_first_speaks_for_all():
    asked = together(lambda rank: (first_says(lambda: f"by {rank}"), first_says(lambda: rank)))
    assert asked == [("by 0", 0)] * 2
    assert first_says(lambda: 7) == 7


@pytest.mark.parametrize("kind", [UserError, Interrupted, OSError])
def test_what_the_first_raises_all_raise(kind):
    def fail():
        raise kind("so it is")

    for error in together(lambda rank: first_says(fail)):
        assert type(error) is kind and str(error) == "so it is"


def test_tensors_of_the_first_are_sent_to_all():
    held = {
        "turned": torch.arange(6).reshape(2, 3).T,
        "half": torch.full((2,), 0.5, dtype=torch.bfloat16),
        "one": torch.tensor(3.0),
        "none": torch.zeros(0, 4),
    }

    def task(rank):
        # What another process holds under these names does not count.
        sent = send_from_first(held if rank == 0 else {"one": torch.tensor(9.0)} if rank == 1 else None, CPU)
        return {name: (t.dtype, t.tolist()) for name, t in sent.items()}

    expected = {name: (t.dtype, t.tolist()) for name, t in held.items()}
    assert together(task, 3) == [expected] * 3
    assert send_from_first(held, CPU) == held and send_from_first(None, CPU) == {}


def test_gradients_are_averaged_and_none_stays_none():
    def task(rank):
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (), (4,))]
        parameters[0].grad = torch.arange(6.0).reshape(2, 3) * (rank + 1)
        parameters[1].grad = torch.tensor(float(rank))
        mean_gradients(parameters)
        return [None if p.grad is None else p.grad.tolist() for p in parameters]

    assert together(task) == [[(torch.arange(6.0).reshape(2, 3) * 1.5).tolist(), 0.5, None]] * 2


# --- the global batch ---

ROWS = torch.tensor([[1.0, -2.0], [3.0, 0.5], [2.0, 7.0], [-4.0, 1.0]])  # of which each process holds a half
BLAME = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])  # what a process has for a sum, or for each of its rows


@pytest.mark.parametrize(
    ("name", "function", "outcome", "gradient"),
    [
        ("sum", sum_rows, [2.0, 6.5], [101.0, 1010.0]),
        ("mean", mean_rows, [0.5, 1.625], [101 / 4, 1010 / 4]),
    ],
)
def test_a_statistic_over_all_rows(name, function, outcome, gradient):
    def task(rank):
        own = ROWS[2 * rank :][:2].clone().requires_grad_()
        found = function(own)
        (found * BLAME[rank]).sum().backward()
        return found.tolist(), own.grad.tolist()

    assert together(task) == [(outcome, [gradient] * 2)] * 2


def test_rows_are_gathered_in_order_and_each_gets_its_gradient():
    def task(rank):
        own = ROWS[2 * rank :][:2].clone().requires_grad_()
        found = gather_rows(own.T.contiguous().T)
        (found * (rank + 1) * torch.arange(1.0, 5)[:, None]).sum().backward()
        return found.tolist(), own.grad.tolist()

    gradients = [[[3.0, 3.0], [6.0, 6.0]], [[9.0, 9.0], [12.0, 12.0]]]
    assert together(task) == [(ROWS.tolist(), gradient) for gradient in gradients]


def test_a_mean_of_no_rows_is_zero():
    assert mean_rows(torch.zeros(0, 2)).tolist() == [0.0, 0.0]
    assert together(lambda rank: mean_rows(torch.zeros(0, 2)).tolist()) == [[0.0, 0.0]] * 2


def test_draws_belong_to_rows_whoever_holds_them():
    images = torch.zeros(6, 1, 2, 2)

    def drawn(rows, others):
        return of_rows(Key(3), "mix", rows, others).uniform().tolist(), directions(Key(3), rows).tolist()

    def task(rank):
        return first_of(images[3 * rank :][:3]), *drawn(images[3 * rank :][:3], images[:2])

    (first, mixes, ways), (second, more, other) = together(task)
    whole, directions_of_all = drawn(images, images[:4])
    assert (first, second) == (0, 3)
    assert mixes[:3] + more[:3] + mixes[3:] + more[3:] == whole
    assert ways + other == directions_of_all


# --- how they find each other ---


def test_what_a_dead_sitting_left_in_the_store_is_no_part_of_this_one():
    store, parts = dist.HashStore(), {}
    store.set_timeout(timedelta(seconds=30))
    store.set("fewlabels/sitting", "dead")
    store.set("dead/heard/1", "of another")

    def join(rank):
        parts[rank] = processes._own_part(store, rank, 3)

    threads = [threading.Thread(target=join, args=(rank,), daemon=True) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)  # the first one comes last, when the others have read the old name
    for thread in threads:
        thread.join(30)
    parts[0].set("said", "hello")
    assert parts[1].get("said") == parts[2].get("said") == b"hello"


def test_where_the_first_never_comes_the_others_give_up(monkeypatch):
    store = dist.HashStore()
    store.set("fewlabels/sitting", "dead")
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=0.2))
    with pytest.raises(dist.DistError, match="did not answer"):
        processes._own_part(store, 1, 2)
