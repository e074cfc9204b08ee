"""The automatic choices: each sensible, each with its reason, each overridable."""

import platform
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from fewlabels.classify.choose import PROPAGATE, PROPAGATE_TO, fast_bfloat16
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.config import Options
from fewlabels.data.sources.open import from_arrays
from fewlabels.data.splits import draw_split
from fewlabels.errors import UserError
from fewlabels.runs.device import choose_device
from fewlabels.runs.folder import RunFolder
from fewlabels.training.recipe import OptimizerRecipe
from tests.prepared import resolved

CPU, GPU = torch.device("cpu"), torch.device("meta")


def table_of(side, channels=1, classes=("cat", "dog"), rows=40):
    x = np.zeros((rows, side, side, channels), np.uint8)
    return draw_split(from_arrays({"x": x, "y": np.arange(rows) % len(classes), "classes": classes}), 2, 0)


@pytest.mark.parametrize(
    ("side", "rows", "device", "model", "size"),
    [
        (8, 40, CPU, "small_cnn", 16),
        (28, 2400, CPU, "small_cnn", 28),
        (32, 2400, GPU, "wrn_28_2", 32),
        (32, 40, GPU, "small_cnn", 32),
        (96, 2400, GPU, "wrn_37_2", 64),
        (300, 40, CPU, "small_cnn", 64),
    ],
)
def test_without_embedded_weights_model_and_size_follow_images_rows_and_device(
    monkeypatch, side, rows, device, model, size
):
    monkeypatch.setattr("fewlabels.classify.choose.weights_file", lambda name: None)
    plan = resolved(Options(), table_of(side, rows=rows), device)
    assert (plan.model, plan.form.size) == (model, (size, size))


@pytest.mark.parametrize(
    ("side", "channels", "model"),
    [(8, 1, "small_cnn"), (16, 3, "small_cnn"), (17, 1, "efficientnet_lite0"), (300, 3, "efficientnet_lite0")],
)
def test_images_that_are_not_tiny_are_seen_by_the_embedded_backbone_at_its_own_size(side, channels, model):
    plan = resolved(Options(), table_of(side, channels), CPU)
    assert plan.model == model
    if model != "small_cnn":
        assert (plan.form.shape, plan.form.interpolation) == ((3, 224, 224), "bicubic")
        assert plan.classify_features == "only"
        assert resolved(Options(steps=500), table_of(side, channels), CPU).classify_features == "only"
        assert "first" in plan.why["classify_features"] and "quick" not in plan.why["classify_features"]
    assert resolved(Options(model="small_cnn"), table_of(side, channels), CPU).classify_features == "no"


def test_every_choice_has_a_reason():
    plan = resolved(Options(), table_of(28), CPU)
    named = {
        "model",
        "channels",
        "images_size",
        "images_resize",
        "white",
        "images_flip",
        "images_operations",
        "classify_features",
        "classify_calibrate",
        "propagate",
    } | {field.name for kind in (ClassifierRecipe, OptimizerRecipe) for field in fields(kind)}
    averaging = {"ema_memory", "batch_norm_memory"}
    named = (named - {"unlabeled_batch", "kind"} - averaging) | {"unlabeled_ratio"}
    assert named | {f"averaging_{name}" for name in averaging} == set(plan.why)
    assert all(plan.why.values())


def test_what_is_given_is_taken():
    options = Options(
        model="wrn_28_2", images_size=20, images_flip="dihedral", images_operations=3, steps=7, batch=5,
        unlabeled_ratio=2, lr=0.5, optimizer="adamw",
        weight_decay=0.0, schedule="linear", clip_norm=2.0, precision="bfloat16", threads=1,
    )  # fmt: skip
    plan = resolved(options, table_of(28), CPU)
    recipe = plan.recipe
    assert (plan.model, plan.form.size, plan.images_flip, plan.images_operations, plan.threads) == (
        "wrn_28_2",
        (20, 20),
        "dihedral",
        3,
        1,
    )
    assert (recipe.steps, recipe.batch, recipe.unlabeled_batch, recipe.precision) == (7, 5, 10, "bfloat16")
    optimizer = recipe.optimizer
    assert (optimizer.kind, optimizer.lr, optimizer.weight_decay) == ("adamw", 0.5, 0.0)
    assert (optimizer.schedule, optimizer.clip_norm) == ("linear", 2.0)


def test_targets_begin_with_propagated_labels_from_scratch_and_with_few_labels():
    """The rule looks at labels and options alone."""
    few = table_of(28)
    most = from_arrays({"x": np.zeros((40, 28, 28), np.uint8), "y": np.arange(40) % 2, "classes": ("cat", "dog")})
    for kept, expected in ((PROPAGATE_TO, PROPAGATE), (PROPAGATE_TO + 1, 0.0)):
        assert resolved(Options(model="small_cnn"), draw_split(most, kept, 0), CPU).propagate == expected
    assert resolved(Options(model="small_cnn", propagate=0.0), few, CPU).propagate == 0
    assert (
        resolved(Options(model="small_cnn", propagate=0.3), draw_split(most, PROPAGATE_TO + 1, 0), CPU).propagate == 0.3
    )
    assert resolved(Options(model="small_cnn", start=Path("a run")), few, CPU).propagate == 0
    assert resolved(Options(model="resnet18", weights=Path("weights.safetensors")), few, CPU).propagate == 0


def test_the_budget_is_one_dial():
    steps = [resolved(Options(budget=b), table_of(28), CPU).recipe.steps for b in ("quick", "normal", "full")]
    assert steps == sorted(set(steps))


def test_tiny_images_learn_in_half_the_steps():
    assert 2 * resolved(Options(), table_of(8), CPU).recipe.steps == resolved(Options(), table_of(28), CPU).recipe.steps


@pytest.mark.parametrize(
    ("classes", "flip"),
    [(("0", "1"), "none"), (("a", "b"), "none"), (("10", "11"), "none"), (("cat", "7"), "horizontal")],
)
def test_characters_are_never_flipped(classes, flip):
    plan = resolved(Options(), table_of(28, classes=classes), CPU)
    assert plan.images_flip == flip
    assert "mirrored" in plan.why["images_flip"]


def test_color_is_kept_and_pretrained_networks_get_three_channels():
    assert resolved(Options(model="small_cnn"), table_of(28, 3), CPU).form.channels == 3
    plan = resolved(Options(pretrained=True), table_of(28, 1), CPU)
    assert (plan.form.channels, plan.model, plan.recipe.optimizer.kind) == (3, "resnet18", "adamw")


def test_an_unknown_device_is_refused():
    with pytest.raises(UserError, match="--device nonsense"):
        choose_device("nonsense")


def test_a_folder_that_is_no_run_is_not_written_to(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="is no run of fewlabels"):
        RunFolder(tmp_path).begin({}, {}, None)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_newer_or_damaged_configuration_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("format: 99\n")
    with pytest.raises(UserError, match="newer"):
        RunFolder(tmp_path).begin({}, {}, None)
    (tmp_path / "config.yaml").write_text("][")
    with pytest.raises(UserError, match="damaged"):
        RunFolder(tmp_path).config()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "amx_tile": True}, True),
        ({"amx_bf16": False, "amx_tile": True}, False),
        ({"neon": True}, False),
    ],
)
def test_on_a_cpu_bfloat16_is_fast_where_matrix_units_multiply_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fast_bfloat16(CPU) is expected
    plan = resolved(Options(model="small_cnn"), table_of(28), CPU)
    assert plan.recipe.precision == ("bfloat16" if expected else "float32")


@pytest.mark.versions
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other names")
def test_torch_tells_whether_there_are_such_units():
    assert isinstance(torch.cpu.get_capabilities()["amx_bf16"], bool)
