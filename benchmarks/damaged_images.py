"""The decoder under damaged images: each is decoded or refused with a reason, soon, and none takes the process with it.

    python benchmarks/damaged_images.py --count 20000 --out benchmarks/results/damaged_images.json

A mutant is a function of its number: `mutant(samples(), 17)` gives the bytes again. Worker processes decode them; one
that crashes, or takes longer than the limit, is counted and named by its number. The workers need a POSIX system.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import platform
import resource
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tyro
from numpy.typing import NDArray
from PIL import Image, features

from fewlabels.inputs.images.decode import ImageForm, Resize, decode_into
from fewlabels.inputs.images.look import look
from fewlabels.inputs.images.workers import PATIENCE_ONE

MEMORY = 4 << 30  # bytes of address space of a worker
RESIZES: tuple[Resize, ...] = ("crop", "squash", "pad")

# --- whole images ---------------------------------------------------------------------------------------


def gray_picture(height: int = 20, width: int = 24) -> NDArray[np.uint8]:
    """Draw a smooth picture [H, W] that lossy formats keep well and that no turn or flip leaves as it is."""
    y, x = np.mgrid[:height, :width]
    return (20 + 150 * x / width + 60 * y / height).astype(np.uint8)


def color_picture(height: int = 20, width: int = 24) -> NDArray[np.uint8]:
    """Draw such a picture in color, [H, W, 3]."""
    gray = gray_picture(height, width)
    return np.stack([gray, 255 - gray, gray[::-1]], -1)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Write an image in a format, in memory."""
    out = io.BytesIO()
    image.copy().save(out, kind, **options)  # as in `samples`
    return out.getvalue()


def turned_exif(orientation: int) -> Image.Exif:
    """Give the EXIF of a camera that was held so."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = orientation, "soft"
    return exif


@cache
def samples() -> dict[str, bytes]:
    """Give a small whole image of each format and mode that is read."""
    gray, color = Image.fromarray(gray_picture()), Image.fromarray(color_picture())
    alpha = Image.fromarray(np.where(gray_picture() > 100, 255, 60).astype(np.uint8))
    rgba, la = color.copy(), gray.convert("LA")
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    few = color.quantize(8)
    deep = Image.fromarray(gray_picture().astype(np.uint16) * 257)
    real = Image.fromarray(gray_picture() / np.float32(255))

    def more() -> dict[str, Any]:
        """Ask for a second frame; a new one each time, since the JPEG writer leaves its settings in an image."""
        return {"save_all": True, "append_images": [color.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]}

    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg gray": (gray, "JPEG", {"quality": 95}),
        "jpeg rgb": (color, "JPEG", {"quality": 95, "subsampling": 0}),
        "jpeg cmyk": (color.convert("CMYK"), "JPEG", {"quality": 95}),
        "jpeg progressive": (color, "JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        "jpeg restarts": (color, "JPEG", {"quality": 95, "subsampling": 0, "restart_marker_blocks": 1}),
        "jpeg turned": (color, "JPEG", {"quality": 95, "subsampling": 0, "exif": turned_exif(6)}),
        "mpo": (color, "MPO", {"quality": 95, "subsampling": 0, **more()}),
        "png 1": (gray.convert("1"), "PNG", {}),
        "png L": (gray, "PNG", {}),
        "png LA": (la, "PNG", {}),
        "png P": (few, "PNG", {}),
        "png P transparent": (few, "PNG", {"transparency": 0}),
        "png RGB": (color, "PNG", {}),
        "png RGBA": (rgba, "PNG", {}),
        "png 16 bits": (deep, "PNG", {}),
        "png animated": (color, "PNG", more()),
        "webp lossy": (color, "WEBP", {"quality": 95}),
        "webp lossless": (color, "WEBP", {"lossless": True}),
        "webp alpha": (rgba, "WEBP", {"lossless": True}),
        "webp animated": (color, "WEBP", {"lossless": True, **more()}),
        "tiff L": (gray, "TIFF", {}),
        "tiff RGB": (color, "TIFF", {}),
        "tiff 16 bits": (deep, "TIFF", {}),
        "tiff floats": (real, "TIFF", {}),
        "tiff pages": (color, "TIFF", more()),
        "tiff lzw": (color, "TIFF", {"compression": "tiff_lzw"}),
        "tiff deflate": (color, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff fax": (gray.convert("1"), "TIFF", {"compression": "group4"}),
        "bmp L": (gray, "BMP", {}),
        "bmp RGB": (color, "BMP", {}),
        "gif": (few, "GIF", {}),
        "gif animated": (color, "GIF", more()),
        "pbm": (gray.convert("1"), "PPM", {}),
        "pgm": (gray, "PPM", {}),
        "pgm 16 bits": (deep, "PPM", {}),
        "ppm": (color, "PPM", {}),
        "jpeg2000": (color, "JPEG2000", {}),
        "avif": (color, "AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    }
    return {name: encoded(image, kind, **options) for name, (image, kind, options) in made.items()}


# --- mutations ------------------------------------------------------------------------------------------

EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 100_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER = 64  # bytes in which most sizes and lengths stand

Mutation = Callable[[bytearray, np.random.Generator], None]


def flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] ^= 1 << int(rng.integers(8))


def cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def insert(data: bytearray, rng: np.random.Generator) -> None:
    place = int(rng.integers(len(data)))
    data[place:place] = rng.bytes(int(rng.integers(1, 33)))


def delete(data: bytearray, rng: np.random.Generator) -> None:
    place = int(rng.integers(len(data)))
    del data[place : place + int(rng.integers(1, 33))]


def repeat(data: bytearray, rng: np.random.Generator) -> None:
    place, size = int(rng.integers(len(data))), int(rng.integers(1, 129))
    data[place:place] = data[place : place + size] * int(rng.integers(1, 9))


def swap_header(data: bytearray, rng: np.random.Generator) -> None:
    """Put the beginning of another format before the rest."""
    other = list(samples().values())[int(rng.integers(len(samples())))]
    size = int(rng.integers(2, HEADER))
    data[:size] = other[:size]


def overwrite_field(data: bytearray, rng: np.random.Generator) -> None:
    """Write an extreme number over 2 or 4 bytes, of either order, rather in the header."""
    place = int(rng.integers(min(len(data), HEADER) if rng.random() < 0.7 else len(data)))
    size, order = int(rng.choice([2, 4])), "<>"[int(rng.integers(2))]
    value = EXTREMES[int(rng.integers(len(EXTREMES)))] & (256**size - 1)
    data[place : place + size] = struct.pack(order + {2: "H", 4: "I"}[size], value)


MUTATIONS: tuple[Mutation, ...] = (flip_bits, cut, insert, delete, repeat, swap_header, overwrite_field)


def mend_checksums(data: bytearray) -> None:
    """Make the checksums of a PNG right again, so that what was damaged is not refused for them alone."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4


def mutant(whole: dict[str, bytes], number: int) -> tuple[str, bytes]:
    """Give the name of the sample, and what became of it after one to four mutations."""
    rng = np.random.default_rng(number)
    name = list(whole)[int(rng.integers(len(whole)))]
    data = bytearray(whole[name])
    for _ in range(rng.integers(1, 5)):
        if data:
            MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng)
    if name.startswith("png") and rng.random() < 0.7:
        mend_checksums(data)
    return name, bytes(data)


def form_of(number: int) -> ImageForm:
    """Give the form that a mutant is brought to: all kinds in turn."""
    return ImageForm((1, 3)[number % 2], (16, 16), RESIZES[number // 2 % 3])


# --- decoding them --------------------------------------------------------------------------------------


def serve(pipe: Connection) -> None:
    """Decode the mutants whose numbers come through the pipe; give what became of each, its seconds and the memory.

    The seconds are the processor's, so that other work on the machine does not count.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the decoders' own complaints
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    samples()
    pipe.send("ready")
    while True:
        number = pipe.recv()
        _, data = mutant(samples(), number)
        form = form_of(number)
        start = time.process_time()
        with contextlib.suppress(Exception):  # decoding has the reason
            look(data)
        try:
            reason = decode_into(np.zeros((1, *form.size, form.channels), np.uint8), [data], form).get(0)
        except MemoryError:
            reason = "it needs more memory than the limit"
        seconds = time.process_time() - start
        pipe.send((reason, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))


class Worker:
    """A process that decodes one mutant after the other, and is started anew after one that it did not survive."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None

    def decode(self, number: int, limit: float = PATIENCE_ONE) -> tuple[str, str | None, float, float]:
        """Give decoded, refused, crashed or hung; the reason; the seconds; the most memory of the process in MB."""
        if self._process is None:
            self._start()
        self._pipe.send(number)
        try:
            if not self._pipe.poll(limit):
                self.stop()
                return "hung", None, limit, 0.0
            reason, seconds, memory = self._pipe.recv()
        except (EOFError, OSError):
            self.stop()
            return "crashed", None, 0.0, 0.0
        return "decoded" if reason is None else "refused", reason, seconds, memory

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it is ready

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


@dataclass
class Found:
    """What became of the mutants of one sample; crashed and hung ones by their numbers."""

    decoded: int = 0
    refused: int = 0
    crashed: list[int] = field(default_factory=list)
    hung: list[int] = field(default_factory=list)
    without_reason: list[int] = field(default_factory=list)
    slowest_seconds: float = 0.0
    most_memory_mb: float = 0.0


def try_mutants(numbers: range, said: Callable[[int], None] = lambda _: None) -> dict[str, Found]:
    """Decode mutants in a worker process; give what became of them, by sample."""
    found = {name: Found() for name in samples()}
    worker, before = Worker(), 0.0
    try:
        for number in numbers:
            what, reason, seconds, memory = worker.decode(number)
            one = found[mutant(samples(), number)[0]]
            if what in ("crashed", "hung"):
                getattr(one, what).append(number)
            else:
                setattr(one, what, getattr(one, what) + 1)
                if reason is not None and (not reason.strip() or "\n" in reason):
                    one.without_reason.append(number)
            one.slowest_seconds = max(one.slowest_seconds, round(seconds, 3))
            if memory > before:  # the process's most so far: this one made it
                one.most_memory_mb = max(one.most_memory_mb, round(memory, 1))
            before = memory
            said(number)
    finally:
        worker.stop()
    return found


def merged(parts: list[dict[str, Found]]) -> dict[str, Found]:
    """Put together what several workers found."""
    out = {name: Found() for name in samples()}
    for part in parts:
        for name, one in part.items():
            whole = out[name]
            for key in ("decoded", "refused", "crashed", "hung", "without_reason"):
                setattr(whole, key, getattr(whole, key) + getattr(one, key))
            whole.slowest_seconds = max(whole.slowest_seconds, one.slowest_seconds)
            whole.most_memory_mb = max(whole.most_memory_mb, one.most_memory_mb)
    return out


def in_parallel(numbers: range, workers: int) -> dict[str, Found]:
    """Try mutants in several worker processes."""
    parts: list[dict[str, Found]] = []

    def work(rank: int) -> None:
        parts.append(try_mutants(numbers[rank::workers], _progress if rank == 0 else lambda _: None))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(parts) < workers:
        raise RuntimeError("a thread ended before its mutants were tried")
    return merged(parts)


def _progress(number: int) -> None:
    if number % 1000 == 0:
        print(f"mutant {number:,}", flush=True)


def _where() -> dict[str, str]:
    libraries = {name: features.version(name) for name in ("jpg", "zlib", "libtiff", "webp", "avif", "jpg_2000")}
    return {
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        **{name: version for name, version in libraries.items() if version},
        "date": time.strftime("%Y-%m-%d"),
    }


def _lines(found: dict[str, Found]) -> Iterator[str]:
    for name, one in found.items():
        yield (
            f"{name:20} decoded {one.decoded:5} refused {one.refused:5} crashed {len(one.crashed):3} "
            f"hung {len(one.hung):3} slowest {one.slowest_seconds:6.3f} s"
        )


def main(count: int = 20_000, out: Path | None = None, first: int = 0, workers: int = 2) -> None:
    """Try `count` mutants from number `first` on, print what became of them, and write it to `out`."""
    start = time.perf_counter()
    found = in_parallel(range(first, first + count), workers)
    keys = ("decoded", "refused", "crashed", "hung", "without_reason")
    total: dict[str, Any] = dict.fromkeys(keys, 0)
    for one in found.values():
        for key, value in asdict(one).items():
            if key in keys:
                total[key] += value if isinstance(value, int) else len(value)
    total["slowest_seconds"] = max(one.slowest_seconds for one in found.values())
    total["most_memory_mb"] = max(one.most_memory_mb for one in found.values())
    result = {
        "command": f"python benchmarks/damaged_images.py --count {count}" + (f" --first {first}" if first else ""),
        "limits": {"seconds_an_image": PATIENCE_ONE, "address_space_gb": MEMORY / (1 << 30)},
        "where": _where(),
        "seconds": round(time.perf_counter() - start, 1),
        "total": total,
        "each": {name: asdict(one) for name, one in found.items()},
    }
    print("\n".join(_lines(found)))
    print(json.dumps(total))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
