"""How to repeat a run: the command that is shown makes the same options."""

import shlex
from pathlib import Path

import pytest

from fewlabels import cli
from fewlabels.classify import fit as fitting
from fewlabels.classify.report.repeat import command
from fewlabels.config import Options, option_values
from fewlabels.methods import make_method


def config_of(method="layermatch", data="/a folder/photos", name=None, **options):
    made = make_method(method)
    given = option_values(Options(method=name or method.split(":")[0], **options))
    given = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    own = {key: list(value) if isinstance(value, tuple) else value for key, value in option_values(made).items()}
    return {
        "given": given | {"data": data},
        "method": {"name": method.split(":")[0]} | own,
        "options": {"model": "small_cnn"},
        "where": {"threads": 2},
    }


@pytest.fixture
def repeated(monkeypatch):
    """Give a function that gives a command to the command line, and gives what would be trained."""
    taken = {}
    monkeypatch.setattr(fitting, "fit", lambda data, **options: taken.update(options, data=data))

    def repeat(text):
        first, *words = shlex.split(text)
        assert first == "fewlabels" and cli.main(words) == 0
        return taken

    return repeat


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("layermatch", {}),
        ("layermatch:threshold=soft:memory=10", {"labels_per_class": 1, "seed": 7, "budget": "quick"}),
        (
            "fixmatch:passes=one:threshold=0.9",
            {"baseline": False, "classify_labeled_in_unlabeled": False, "pretrained": True, "classify_freeze": True},
        ),
        ("mixmatch", {"policy": '{"head": 0, "backbone.stage3": 0.5}', "images_size": 32, "lr": 0.5}),
        ("supervised", {"unlabeled": Path("/more"), "split": Path("/it's/split.csv"), "steps": 5}),
    ],
)
def test_the_command_gives_the_same_options(repeated, method, options):
    said = command(config_of(method, **options), "again")
    taken = repeated(said)
    assert taken.pop("data") == "/a folder/photos" and taken.pop("threads") == 2
    assert taken.pop("out") == Path("again")
    made, wanted = taken.pop("method"), make_method(method)
    assert type(made) is type(wanted) and option_values(made) == option_values(wanted)
    expected = option_values(Options(**options))
    del taken["show"]
    assert taken == {name: expected[name] for name in taken} and len(taken) > 20
    assert "--method.weight" not in said  # what was not changed is not said


def test_data_in_memory_is_shown_as_a_call(monkeypatch):
    said = command(config_of("fixmatch:threshold=0.9", data=None, seed=3), "again")
    assert said == "fewlabels.fit(data, method='fixmatch:threshold=0.9', seed=3, threads=2, out='again')"
    taken = {}
    eval(said, {"fewlabels": type("F", (), {"fit": lambda data, **options: taken.update(options)}), "data": None})
    assert make_method(taken["method"]).threshold == 0.9 and taken["seed"] == 3
    config = config_of("supervised", data=None)
    config["options"]["model"] = "custom"
    assert command(config, "o") == "fewlabels.fit(data, method='supervised', model=backbone, threads=2, out='o')"


def test_a_method_of_ones_own_is_given_with_all_its_options():
    config = config_of(name="/own/file.py:Sharpened")
    config["method"] = {"name": "Sharpened", "temperature": 0.5, "weight": 1.0}
    said = command(config, "o")
    assert "--method /own/file.py:Sharpened --threads 2 --out o --method.temperature 0.5 --method.weight 1.0" in said
