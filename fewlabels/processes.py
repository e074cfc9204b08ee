"""The processes of a run: which one this is, what they say to each other, and the mean of their gradients."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fewlabels.errors import Interrupted, UserError

T = TypeVar("T")

# An exchange may take so long: the others wait while the first evaluates a large set alone. Torch has half an hour.
PATIENCE = timedelta(hours=2)
_SITTING = "fewlabels/sitting"  # where the store has the name of the newest sitting


@dataclass(frozen=True)
class Process:
    """One of the processes of a run, number `rank` of `world_size`."""

    rank: int = 0
    world_size: int = 1

    def slots(self, count: int) -> slice:
        """Return the slots of a global batch of `count` that this process fills."""
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)


ALONE = Process()


def world_size() -> int:
    """Return the number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def this_process() -> Process:
    """Return which of the run's processes this is."""
    return Process(dist.get_rank(), dist.get_world_size()) if world_size() > 1 else ALONE


def any_of(flag: bool) -> bool:
    """Tell whether any of the run's processes says yes; all must ask at the same point."""
    if world_size() == 1:
        return flag
    answers: list[bool | None] = [None] * world_size()
    dist.all_gather_object(answers, flag)
    return any(answers)


def local_process() -> Process:
    """Return which of the run's processes on this machine this is."""
    if world_size() == 1:
        return ALONE
    return Process(int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size()))))


def first_says(say: Callable[[], T]) -> T:
    """Let the first process do something for all: the others wait, and get what it gives or raises.

    Raises:
        UserError, Interrupted: what `say` raised, in every process.
    """
    if world_size() == 1:
        return say()
    said: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            said[0] = say()
        except (UserError, Interrupted, OSError) as error:
            said[1] = error
    dist.broadcast_object_list(said)
    if said[1] is not None:
        raise said[1]
    return said[0]


def send_from_first(tensors: dict[str, Tensor] | None, device: torch.device) -> dict[str, Tensor]:
    """Give the named tensors that the first process holds to all, on their devices."""
    if world_size() == 1:
        return tensors or {}
    header = first_says(lambda: [(name, t.shape, t.dtype) for name, t in (tensors or {}).items()])
    sent: dict[str, Tensor] = {}
    for name, shape, kind in header:
        here = tensors[name] if tensors and this_process().rank == 0 else torch.empty(shape, dtype=kind)
        sent[name] = here.to(device).contiguous()
        dist.broadcast(sent[name], 0)
    return sent


@contextmanager
def joined(device: torch.device) -> Generator[Process]:
    """Join the other processes where `torchrun` started several; leave them in the end."""
    on_gpu = device.type == "cuda"
    # Streams and graphs belong to the current device.
    with torch.cuda.device(device) if on_gpu else nullcontext(), _group("nccl" if on_gpu else "gloo") as process:
        yield process


@contextmanager
def _group(backend: str) -> Generator[Process]:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or world_size() > 1:
        yield this_process()
        return
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
        store = _own_part(store, rank, size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        yield this_process()
    except RuntimeError as error:
        if not is_lost(error):
            raise
        # Without the place in gloo's source that its messages begin with, and the advice that they end with.
        said = re.sub(r"^\[[^]]*\.cc:\d+\] ", "", str(error).splitlines()[0]).split(". ")[0]
        raise Interrupted(
            f"another process of this run ended or cannot be reached ({said}); what is saved is kept"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _own_part(store: dist.Store, rank: int, size: int) -> dist.Store:
    """Agree on a part of the store that this sitting alone uses.

    With `--max-restarts` torchrun keeps one store for all sittings, with the addresses of processes that are dead, and
    one that reads such an address waits in vain (github.com/pytorch/pytorch/issues/135712). So the first draws a name;
    each of the others answers under the name that it finds, and takes it when the first has sent the answer back.
    """
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set(_SITTING, mine)
        for other in range(1, size):
            store.set(f"{mine}/heard/{other}", store.get(f"{mine}/{other}").decode())
        return dist.PrefixStore(mine, store)
    until = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < until:
        name = store.get(_SITTING).decode()
        store.set(f"{name}/{rank}", mine)
        heard = f"{name}/heard/{rank}"
        if store.check([heard]) and store.get(heard).decode() == mine:
            return dist.PrefixStore(name, store)
        time.sleep(0.05)
    raise dist.DistError("the first process did not answer")


def is_lost(error: RuntimeError) -> bool:
    """Tell a failed exchange from any other error: gloo has no type of its own for it."""
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection" in str(error)


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes by one exchange; each process holds an equal part of the batch."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    parts: tuple[Tensor, ...] = flat.split([g.numel() for g in gradients])
    views = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
    torch._foreach_copy_(gradients, views)  # pyright: ignore[reportPrivateUsage]
