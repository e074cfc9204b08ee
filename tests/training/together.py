"""Processes of one run as forks of a test's process, which are there at once."""

import multiprocessing
import os
import socket
import sys

import torch

from fewlabels.processes import joined

CAN_FORK = sys.platform == "linux"  # elsewhere a fork of a process with threads is not safe
CPU = torch.device("cpu")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def together(task, size=2, join=True):
    """Let so many processes do a task, as `torchrun` would start them; give what it returned or raised in each."""
    context = multiprocessing.get_context("fork")
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{free_port()}", "WORLD_SIZE": f"{size}"}
    pipes = [context.Pipe(duplex=False) for _ in range(size)]

    def work(rank):
        torch.set_num_threads(1)  # a fork has no threads but its own
        local = {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "LOCAL_WORLD_SIZE": f"{size}"}
        os.environ.update(address | local)
        try:
            if join:
                with joined(CPU):
                    found = task(rank)
            else:
                found = task(rank)
        except Exception as error:
            found = error
        pipes[rank][1].send(found)

    workers = [context.Process(target=work, args=(rank,), daemon=True) for rank in range(size)]
    for worker in workers:
        worker.start()
    answers = []
    for receiver, _ in pipes:
        assert receiver.poll(120), "a process does not answer"
        answers.append(receiver.recv())
    for worker in workers:
        worker.join()
    return answers
