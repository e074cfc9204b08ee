"""Train a little on digits and save the parameters; run by a test, alone and by two processes."""

import dataclasses
from functools import partial
from typing import Any

import torch
from safetensors.torch import save_file

from fewlabels.classify.preparation import begin
from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import draw_split
from fewlabels.data.vectors import VectorForm
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import ResidentImages, decode_all
from fewlabels.inputs.vectors.store import Vectors, vector_statistics
from fewlabels.keys import Key
from fewlabels.models.build import build_classifier
from fewlabels.models.classifier import Card
from fewlabels.models.small_cnn import SmallCNN
from fewlabels.processes import joined
from fewlabels.training.loop import run
from tests.eager import OTHER, WITH_UNLABELED, eager
from tests.prepared import Rows, small_preparation, small_recipe, vector_views_of

# Not those that mix a row with others, which are of the same process, nor what has batch norm in a head of its own.
APART = ("mixmatch", "remixmatch", "regmixmatch", "shrinkmatch")
NAMES = [name for name in (*WITH_UNLABELED, *OTHER) if name.split()[0] not in APART]
METHODS = {name: partial(eager, name) for name in NAMES} | {
    "fixmatch": lambda: eager("fixmatch", threshold=0.12),
    # With 2 sigmas two classes of a row come so near each other that rounding decides its target, at step 7.
    "softmatch": lambda: eager("softmatch", sigmas=1.0),
    "fullmatch": lambda: eager("fullmatch", threshold=0.5),  # by which likelier classes are not left out
    "vat": lambda: eager("vat", trial=10.0),  # of a short trial rounding decides much
    "uda annealing": lambda: eager("uda", annealing="linear"),
    "layermatch": lambda: eager("layermatch", threshold="soft", outputs="averaged"),
    "policy": lambda: eager("layermatch", threshold="soft"),
    "vectors": lambda: eager("layermatch", threshold="soft"),
}


def main(out: str) -> None:
    torch.set_num_threads(1)
    table = draw_split(open_table("digits"), 4, 1000)
    images, _ = decode_all(table.contents, ImageForm(1, (8, 8)))
    rows = Rows(table, ResidentImages(images))
    card = Card("small_cnn", table.classes, ImageForm(1, (8, 8)), (0.3,), (0.37,))

    recipe = small_recipe(steps=5)
    rules: dict[str, Any] = {
        "layermatch": {"center_memory": 0.5},
        "policy": {"policy": {"head": 0.5, "backbone.stage1": 0.25}},
    }
    vectors = Vectors(images.flatten(1).to(torch.float32))
    card_of_vectors = Card("mlp", table.classes, VectorForm(64), *vector_statistics(vectors, rows.unlabeled))
    of_vectors = dataclasses.replace(rows, images=vectors)
    rules["vectors"] = {
        "store": vectors,
        "views": vector_views_of(card_of_vectors, of_vectors, rows.unlabeled),
        "classifier": build_classifier(card_of_vectors, key=Key(2)),
    }
    # With key 0 a value lies on the kink of a leaky ReLU, and rounding decides its gradient.
    job = small_preparation(rows, lambda: (SmallCNN(1, (8, 16), "group"), 16), card, recipe, 1)
    job = dataclasses.replace(job, key=Key(1))
    with joined(torch.device("cpu")) as process:
        for name, make in METHODS.items():
            state, feed = begin(dataclasses.replace(job, **rules.get(name, {})), make())
            run(state, feed, 0, recipe.steps, watch=lambda *_: None)
            found = {key: tensor.contiguous() for key, tensor in state.learner.state_dict().items()}
            save_file(found, f"{out}-{name}-{process.rank}.safetensors")
