"""A folder for the Hugging Face Hub: the classifier, and a card that says honestly what it is."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from fewlabels.errors import UserError
from fewlabels.files import replace_file, replace_text
from fewlabels.models.classifier import Card, read_card
from fewlabels.version import __version__

FILES = ("model.safetensors", "model.json", "README.md")


def write_hub_folder(run: Path, folder: Path, text: str) -> bool:
    """Write `model.safetensors`, `model.json` and a model card, README.md; `fewlabels.load` reads the folder.

    Args:
        run: folder of a finished run.
        folder: where to. A README.md there stays as it is: it may have been edited.
        text: of the model card.

    Returns:
        Whether the card was written.

    Raises:
        UserError: no finished run, or a folder of other things.
    """
    finished_card(run)
    if folder.exists() and not (folder / FILES[1]).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there, and holds no model: give a new folder, or an empty one")
    for name in FILES[:2]:
        replace_file(folder / name, partial(shutil.copyfile, run / name))
    written = not (folder / FILES[2]).exists()
    if written:
        replace_text(folder / FILES[2], text)
    return written


def finished_card(run: Path) -> Card:
    """Read the card of a run that is finished.

    Raises:
        UserError: it is none.
    """
    card = read_card(run / "model.json")
    if not (run / "summary.json").is_file():
        raise UserError(f"{run} has no summary.json: its run is not finished. Give the same command again.")
    return card


def push(folder: Path, repo: str, *, private: bool = True) -> str:
    """Bring the three files of such a folder to a repository of the Hub, which is made where there is none.

    Args:
        folder: that `write_hub_folder` wrote.
        repo: its name, as "user/name".
        private: whether a new repository is seen by its owner alone.

    Returns:
        The address of the repository.

    Raises:
        UserError: the Hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="fewlabels", library_version=__version__)
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(FILES), commit_message="fewlabels")
    except Exception as error:  # what fails there, and how, depends on what it speaks to the network with
        said = " ".join(f"{error}".split()).rstrip(".")
        raise UserError(
            f"{repo} could not be written on the Hub: {said}. `hf auth login` says who you are; the folder {folder} "
            "is complete and can be pushed later."
        ) from error
    return str(address)
