"""Two hosts as two network namespaces of one machine: do they end in the bytes of two processes on one host?

    python benchmarks/two_hosts.py

Needs root and `ip` (iproute2). The hosts share no folder: each has its own working directory, its own copy of the data
and its own decoded images; a pair of virtual network cards is all that joins them. Asked on digits and on a folder of
images; then one host is killed while training and comes back, once with `torchrun --max-restarts` on the other and
once with the same command given on both. The JSON goes to benchmarks/results/.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from kills import make_images

ADDRESSES = ("10.213.7.1", "10.213.7.2")
PORT = 29411
FILES = ("model.safetensors", "predictions.parquet", "metrics.jsonl", "split.csv", "quarantine.csv", "config.yaml")
OPTIONS = "--batch 8 --unlabeled-ratio 2 --no-baseline --threads 1 --out run"
ASKED = {"digits": "digits --labels-per-class 1", "folder": "images"}


@contextmanager
def namespaces() -> Generator[list[str]]:
    """Make two namespaces that are joined by a pair of virtual network cards; remove them in the end."""
    names = [f"fewlabels-{os.getpid()}-{n}" for n in range(2)]
    cards = [f"fl{os.getpid() % 100000}{end}" for end in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", cards[0], "type", "veth", "peer", "name", cards[1])
        for name, card, address in zip(names, cards, ADDRESSES, strict=True):
            _ip("link", "set", card, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", card)
            for each in (card, "lo"):
                _ip("-n", name, "link", "set", each, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _card(name: str) -> str:
    shown = subprocess.run(["ip", "-n", name, "-br", "link"], check=True, capture_output=True, text=True).stdout
    return next(line.split("@")[0] for line in shown.splitlines() if "@" in line)


class Host:
    """One host: a namespace, or the machine itself where it has none."""

    def __init__(self, folder: Path, images: Path, name: str | None = None, number: int = 0) -> None:
        self.folder, self.name, self.number = folder, name, number
        self.folder.mkdir(parents=True)
        shutil.copytree(images, folder / "images")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, data: str, steps: int, restarts: int = 0) -> None:
        """Give the command."""
        joined = f"--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint {ADDRESSES[0]}:{PORT}"
        # The first host is named in words: in a namespace a host does not find its own address by its name.
        joined += f" --local-addr {ADDRESSES[self.number]} --rdzv-conf is_host={int(self.number == 0)}"
        within = ["ip", "netns", "exec", self.name] if self.name else []
        launch = (joined if self.name else "--standalone --nproc-per-node 2") + f" --max-restarts {restarts}"
        words = ["-m", "torch.distributed.run", *launch.split(), "-m", "fewlabels", "train", *data.split()]
        environ = os.environ | {"OMP_NUM_THREADS": "1", "FEWLABELS_CACHE": "cache", "PYTHONPATH": str(Path.cwd())}
        if self.name:
            environ["GLOO_SOCKET_IFNAME"] = _card(self.name)
            # With the store that torchrun shares by default, a host that comes back is not told of the new round.
            environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        with open(self.folder / "said.txt", "ab") as said:
            self.process = subprocess.Popen(
                [*within, sys.executable, *words, *OPTIONS.split(), "--steps", str(steps)],
                cwd=self.folder, env=environ, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

    def end(self, seconds: float = 300) -> int:
        """Wait for the end; give the exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Kill all that runs on this host at once, as a power cut does but for the network that says so."""
        assert self.name is not None
        pids = subprocess.run(["ip", "netns", "pids", self.name], check=True, capture_output=True, text=True).stdout
        for pid in pids.split():
            os.kill(int(pid), signal.SIGKILL)
        self.end()

    def wait_for_checkpoint(self) -> None:
        """Wait until the run has saved something."""
        while not any((self.folder / "run/checkpoint").glob("step-*0.safetensors")):
            assert self.process is not None and self.process.poll() is None, (self.folder / "said.txt").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """End what still runs, in any case."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()


def compare(one: Host, first: Host, second: Host) -> dict[str, Any]:
    """Compare the outputs of the first host with those of one machine; the second has none."""
    equal = [name for name in FILES if (one.folder / "run" / name).read_bytes() == _bytes(first, name)]
    return {
        "equal": equal,
        "different": [name for name in FILES if name not in equal],
        "second_host_has_a_run": (second.folder / "run").exists(),
    }


def _bytes(host: Host, name: str) -> bytes:
    path = host.folder / "run" / name
    return path.read_bytes() if path.exists() else b""


def play(one: Host, hosts: list[Host], data: str, steps: int, kill: int | None = None, restarts: int = 0) -> Any:
    """Let both hosts train; kill one of them on the way, where asked to; compare."""
    for host in hosts:
        host.start(data, steps, restarts)
    codes: list[int] = []
    if kill is not None:
        hosts[0].wait_for_checkpoint()
        hosts[kill].kill()
        if not restarts:
            codes.append(hosts[1 - kill].end(60))
            hosts[1 - kill].start(data, steps)
        hosts[kill].start(data, steps, restarts)
    ended = [host.end() for host in hosts]
    found = {"exit_codes": ended} | ({"exit_code_of_the_other_when_one_was_killed": codes} if codes else {})
    return (
        found
        | {"continued": "continued from step" in (hosts[0].folder / "said.txt").read_text()}
        | compare(one, *hosts)
    )


def main(steps: int = 100) -> None:
    """Ask, and write the result."""
    result: dict[str, Any] = {"command": "python benchmarks/two_hosts.py", "steps": steps, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder, namespaces() as names:
        root = Path(folder)
        make_images(root / "images", 600, 0)
        for what, data in ASKED.items():
            one = Host(root / what / "one", root / "images")
            one.start(data, steps)
            assert one.end() == 0, (one.folder / "said.txt").read_text()
            cases: dict[str, dict[str, int]] = {"undisturbed": {}}
            if what == "folder":
                cases |= {
                    "second host killed, both given again": {"kill": 1},
                    "first host killed, both given again": {"kill": 0},
                    "second host killed and given again, --max-restarts 3": {"kill": 1, "restarts": 3},
                }
            for case, how in cases.items():
                place = root / what / case.replace(" ", "-")
                hosts = [Host(place / str(n), root / "images", name, n) for n, name in enumerate(names)]
                try:
                    result[f"{what}, {case}"] = play(one, hosts, data, steps, **how)
                except (subprocess.TimeoutExpired, AssertionError) as error:
                    said = "\n".join((host.folder / "said.txt").read_text()[-3000:] for host in hosts)
                    result[f"{what}, {case}"] = {"failed": f"{type(error).__name__}"}
                    print(said)
                finally:
                    for host in hosts:
                        host.stop()
                print(case, result[f"{what}, {case}"], flush=True)
    Path(__file__).with_name("results").joinpath("two_hosts.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
