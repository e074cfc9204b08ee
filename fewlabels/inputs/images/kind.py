"""Images as a kind of input."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewlabels.config import Options
from fewlabels.console import Show
from fewlabels.data.image import ImageLike, reason_of
from fewlabels.data.pixels import image_list
from fewlabels.data.table import Labels, Table, spread
from fewlabels.errors import UserError
from fewlabels.inputs.base import Inputs, Intake, NearCopies, Provider, Reasons, Size, Statistics, Wanted
from fewlabels.inputs.images.bring import bring_images
from fewlabels.inputs.images.cache import states_of
from fewlabels.inputs.images.components import pixel_features
from fewlabels.inputs.images.decode import TRANSPARENT, WHITE, ImageForm, Resize
from fewlabels.inputs.images.look import Look, highest_level, look, white_level
from fewlabels.inputs.images.near import near_copies
from fewlabels.inputs.images.store import ResidentImages, decoded, pixel_statistics
from fewlabels.inputs.images.views import ImageViews, Normalize
from fewlabels.inputs.images.weak import Flip

# Measured on development seeds (docs/LOG.md).
LOOKED_AT = 200  # images
SURVEYED = 1000  # images whose size is looked at, to describe a data set
DEEP_LOOKED_AT = 50  # of those with more than 8 bits, each decoded
MOST_CUT = 1 / 3  # of the typical image, above which nothing is cropped
TINY = 16  # pixels; smaller images are enlarged to it


@dataclass(frozen=True)
class Headers(Size):
    """What the headers of some images say.

    Attributes:
        native: height and width of a typical image.
        looks: by the row.
    """

    native: tuple[int, ...] = ()
    looks: Mapping[int, Look] = field(default_factory=dict[int, Look])


class ImageInputs(Inputs[ImageForm]):
    """Images."""

    one, many, source = "image", "images", "file"
    copies = "test images have a near copy among the training images"
    features = "pixels"
    own_options = (
        *("images_size", "images_resize", "images_flip", "images_operations", "images_strengths", "images_feed"),
        *("images_cache", "pretrained", "classify_features"),
    )
    steps: ClassVar[Mapping[str, int]] = {"quick": 300, "normal": 1200, "full": 12_000}
    pipeline, example = "image-classification", '["image.jpg"]'
    are_pictures = True

    def holds(self, contents: Sequence[Any]) -> bool:
        """Tell whether these are images: what is nothing else."""
        return True

    def read_form(self, values: Mapping[str, Any]) -> ImageForm:
        """Read a form as JSON and YAML hold it."""
        read: dict[str, Any] = {**values, "size": tuple(values["size"])}
        return ImageForm(**read)

    def look(self, table: Table) -> Headers:
        """Look at the headers of up to `LOOKED_AT` images, which opens their files once more than `bring` does."""
        looks = _looks(table)
        native = tuple(int(np.median([getattr(each, of) for each in looks.values()])) for of in ("height", "width"))
        channels = max(each.channels for each in looks.values())
        return Headers(max(native), max(native) <= TINY, channels, native, looks)

    def choose(
        self, options: Options, table: Table, size: Headers, reasons: Reasons, wanted: Wanted
    ) -> tuple[ImageForm, dict[str, Any]]:
        """Choose size, resizing, flips and operations; see `Inputs.choose`."""
        looks, native, side = size.looks, size.native, size.side
        seen = list(looks.values())
        shape = reasons.pick("images_size", _square(options.images_size), *_size(native, wanted))
        form = ImageForm(
            channels=_channels(wanted.trained, size.channels, reasons),
            size=shape,
            resize=reasons.pick("images_resize", options.images_resize, *_resize(seen, shape)),
            white=reasons.pick("white", None, *_white(table, looks)),
            interpolation=wanted.interpolation,
        )
        chosen = {
            "images_flip": reasons.pick("images_flip", options.images_flip, *_flip(table)),
            "images_operations": reasons.pick("images_operations", options.images_operations, *_operations(side)),
            "images_resize": form.resize,
        }
        return form, chosen

    def listing(self, table: Table) -> str:
        """Hash places, sizes and times of files, and what lies in memory."""
        return hashlib.sha256("\0".join(states_of(table.contents)).encode(errors="backslashreplace")).hexdigest()[:32]

    def survey(self, table: Table) -> tuple[dict[str, str], str]:
        """Look at the headers of images: return those that cannot be read, and the sizes of the others in words."""
        rows = spread(np.arange(len(table)), SURVEYED)
        sizes: Counter[str] = Counter()
        broken: dict[str, str] = {}
        for row in rows:
            try:
                seen = look(table.contents[row])
                sizes[f"{seen.height}x{seen.width}x{seen.channels}"] += 1
            except Exception as error:  # as in decoding, damage makes Pillow raise almost anything
                broken[table.names[row]] = reason_of(error)
        common = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(5))
        more = f" and {len(sizes) - 5} other sizes" if len(sizes) > 5 else ""
        return broken, f"sizes of {len(rows)} images, height x width x channels: {common}{more}"

    def bring(
        self,
        table: Table,
        form: ImageForm,
        options: Options,
        device: torch.device,
        stop: Callable[[], bool],
        show: Show,
    ) -> Intake:
        """Decode them, or take them from the cache."""
        return bring_images(table, form, options, device, stop, show)

    def near_copies(self, store: Provider, test: Labels, train: Labels) -> NearCopies:
        """Find near copies by a perceptual hash."""
        return near_copies(store, test, train)

    def statistics(self, store: Provider, train: Labels) -> Statistics:
        """Return those of each channel."""
        return pixel_statistics(store, train)

    def normalize(self, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
        """Normalize each channel."""
        return Normalize(mean, std)

    def views(self, statistics: Statistics, store: Provider, train: Labels, options: Options) -> ImageViews:
        """Make flips, crops and RandAugment."""
        assert options.images_flip != "auto" and options.images_operations is not None  # resolved
        return ImageViews(*statistics, options.images_flip, options.images_operations, options.images_strengths).to(
            store.device
        )

    def features_of(self, store: Provider, train: Labels) -> NDArray[np.float32]:
        """Return principal components of the pixels."""
        return pixel_features(store, train)

    def choices(self, form: ImageForm, options: Options) -> dict[str, Any]:
        """Return size, resizing and flips."""
        size = "x".join(map(str, form.size))
        return {"images_size": size, "images_resize": form.resize, "images_flip": options.images_flip}

    def listed(self, given: Any, form: ImageForm) -> Sequence[ImageLike]:
        """Return a list of images."""
        return image_list(given)

    def read(self, rows: Sequence[Any], form: ImageForm, chunk: int) -> Iterator[tuple[int, Provider, dict[int, str]]]:
        """Read images; the next are decoded meanwhile."""
        for first, pixels, broken in decoded(rows, form, chunk):
            yield first, ResidentImages(pixels), broken

    def described(self, form: ImageForm) -> dict[str, Any]:
        """Say what an image must be brought to."""
        return _described(form)

    def random(self, form: ImageForm, statistics: Statistics, count: int) -> Tensor:
        """Return random pixels, uint8."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (count, *form.shape), dtype=torch.uint8, generator=generator)

    def scale_of(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Return those of levels 0..255, a channel each."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in statistics)
        return 255 * mean, torch.where(std == 0, 0, 1 / std) / 255


def _square(size: int | None) -> tuple[int, int] | None:
    return None if size is None else (size, size)


def _looks(table: Table) -> dict[int, Look]:
    """Look at some images; give what is seen, by their rows."""
    looks: dict[int, Look] = {}
    reasons: list[str] = []
    for row in spread(np.arange(len(table)), LOOKED_AT):
        try:
            looks[int(row)] = look(table.contents[row])
        except Exception as error:  # set aside by name when it is decoded
            reasons.append(f"{table.names[row]}: {reason_of(error)}")
    if not looks:
        raise UserError(
            f"none of the images of {table.name} that were tried can be read ({'; '.join(reasons[:3])}). "
            "Give image files, or arrays [n, H, W] or [n, H, W, C] of uint8 or of floats in 0..1."
        )
    return looks


def _channels(expects_colors: bool, found: int, reasons: Reasons) -> int:
    if expects_colors and found <= 3:
        return reasons.pick("channels", None, 3, "pretrained networks saw colors")
    said = {1: "the images looked at are gray", 3: "there are images in color"}
    return reasons.pick("channels", None, found, said.get(found, "as many as the arrays have"))


def _resize(looks: list[Look], size: tuple[int, int]) -> tuple[Resize, str]:
    wanted = size[1] / size[0]
    aspects = np.array([each.width / each.height for each in looks]) / wanted
    lost = float(np.median(1 - np.minimum(aspects, 1 / aspects)))
    if lost > MOST_CUT:
        return "pad", f"a crop would cut {100 * lost:.0f} % off the typical image"
    if lost == 0:
        return "crop", "the typical image has the wanted shape: nothing is cut off"
    return "crop", f"it cuts only {100 * lost:.0f} % off the typical image"


def _white(table: Table, looks: Mapping[int, Look]) -> tuple[float, str]:
    deep = [table.contents[row] for row, each in looks.items() if each.deep][:DEEP_LOOKED_AT]
    highest = max(map(_highest, deep), default=0.0)
    if not highest:
        return WHITE, "no image looked at has more than 8 bits"
    white = white_level(highest)
    return white, f"the highest level of images with more than 8 bits is {highest:g} ({len(deep)} looked at)"


def _highest(image: ImageLike) -> float:
    try:
        return highest_level(image)
    except Exception:  # set aside by name when it is decoded
        return 0.0


def _size(native: tuple[int, ...], wanted: Wanted) -> tuple[tuple[int, int], str]:
    side, most = max(native), wanted.side
    if wanted.trained:
        return (most, most), "the size that the network was trained at"
    if side < TINY:
        larger = round(native[0] * TINY / side), round(native[1] * TINY / side)
        return larger, f"enlarged from {native[0]}x{native[1]}: strong views destroy so coarse an image"
    if side <= most:
        return (native[0], native[1]), "the images' own"
    return (most, most), f"the images are larger; {most} is what the network can use at bearable cost"


def _flip(table: Table) -> tuple[Flip, str]:
    if all(len(name) == 1 or name.isdigit() for name in table.classes):
        shown = ", ".join(table.classes[:3])
        return "none", (
            f"classes are named {shown}, ... or have no names: a mirrored digit or letter would be another one; "
            "--images.flip horizontal if they are not characters"
        )
    return "horizontal", "a mirrored photo shows the same thing; --images.flip none if left and right matter here"


def _operations(side: int) -> tuple[int, str]:
    return (1, f"images of {side} pixels hold too little for two") if side <= TINY else (2, "FixMatch's")


_RESIZED = {
    "crop": "cut the middle out of the image, as large as fits, of the aspect of `size`, and resize that (Pillow: "
    "ImageOps.fit)",
    "squash": "resize height and width each on its own (Pillow: Image.resize)",
    "pad": "resize so that the whole image fits in, and fill up on both sides with the mean color of its border "
    "(Pillow: ImageOps.pad)",
}


def _described(form: ImageForm) -> dict[str, Any]:
    mode = {1: "L", 3: "RGB"}.get(form.channels)
    return {
        "input": {
            "name": form.what,
            "type": "uint8",
            "shape": ["n", form.channels, *form.size],
            "axes": ["image", "channel", "row", "column"],
            "range": [0, 255],
            "mode": mode,
            "colors": {1: "gray", 3: "red, green, blue"}.get(form.channels, "as in the arrays that it was trained on"),
        },
        "preprocessing": {
            "1_upright": "turn the image as its EXIF orientation says",
            "2_white": f"of a gray image of more than 8 bits, level {form.white:g} and above become 255, 0 stays 0",
            "3_transparent": "put a transparent image over `transparent_over`",
            "4_colors": f"convert it to {mode} (ITU-R 601-2 for gray)" if mode else "take its channels as they are",
            "5_resize": f"{_RESIZED[form.resize]}, {form.interpolation}, averaging where it becomes smaller",
            "6_numbers": "leave the levels at 0..255; the graph divides and normalizes them itself",
            "jpeg": "a JPEG may be decoded at 1/2, 1/4 or 1/8, at least twice `size` (Pillow: Image.draft), as in "
            "training",
        },
        "size": {"height": form.size[0], "width": form.size[1]},
        "resize": form.resize,
        "white": form.white,
        "transparent_over": TRANSPARENT,
    }
