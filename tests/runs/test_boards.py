"""Boards: each number of a training once, under one id however often it is continued; the services are stand-ins."""

import io
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from rich.console import Console

import fewlabels
from fewlabels import processes
from fewlabels.classify.preparation import stage_of
from fewlabels.cli import main
from fewlabels.console import Show
from fewlabels.errors import UserError
from fewlabels.methods.supervised import Supervised
from fewlabels.training.boards import BOARDS, Subject, open_board
from fewlabels.training.record import read_lines
from fewlabels.training.train import Training
from tests.prepared import train

pytestmark = pytest.mark.usefixtures("undrawn")

STEPS = 40


class Service:
    """What a service keeps: the runs by id, each with what was said of it, its numbers and how it ended."""

    def __init__(self):
        self.runs = {}
        self.broken = False

    def write(self, run, step, numbers):
        if self.broken:
            raise ConnectionError("the service is gone")
        self.runs[run].numbers.append((step, numbers))


class WandB(Service):
    """Weights & Biases: a run with a step that only grows."""

    def init(self, *, project, group, name, id, resume, config, dir, reinit):
        assert (resume, reinit) == ("allow", "create_new") and dir.is_dir()
        fresh = SimpleNamespace(name=name, group=group, project=project, facts=config, numbers=[], ends=[])
        run = self.runs.setdefault(id, fresh)
        last = run.numbers[-1][0] + 1 if run.numbers else 0

        def log(numbers, step, commit):
            assert commit and step >= handle.step
            self.write(id, step, numbers)
            handle.step = step + 1

        def finish(exit_code):
            run.ends.append({0: True, 1: False}[exit_code])

        handle = SimpleNamespace(step=last, log=log, finish=finish)
        return handle


class MLflow(Service):
    """MLflow: a client that takes anything, twice too."""

    def __init__(self):
        super().__init__()
        self.experiments = {}
        self.entities = SimpleNamespace(Metric=lambda key, value, timestamp, step: (key, value, step))

    def MlflowClient(self):  # noqa: N802
        return self

    def get_experiment_by_name(self, name):
        found = self.experiments.get(name)
        return found and SimpleNamespace(experiment_id=found)

    def create_experiment(self, name):
        assert name not in self.experiments
        return self.experiments.setdefault(name, f"{len(self.experiments)}")

    def create_run(self, experiment, run_name, tags):
        project = next(name for name, number in self.experiments.items() if number == experiment)
        run = SimpleNamespace(
            name=run_name, group=tags["group"], project=project, facts=dict(tags), numbers=[], ends=[]
        )
        self.runs[f"run{len(self.runs)}"] = run
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run{len(self.runs) - 1}"))

    def log_param(self, run, key, value):
        self.runs[run].facts[key] = value

    def update_run(self, run, status):
        assert status == "RUNNING" and run in self.runs

    def get_metric_history(self, run, key):
        return [SimpleNamespace(step=step) for step, numbers in self.runs[run].numbers if key in numbers]

    def log_batch(self, run, metrics):
        self.write(run, metrics[0][2], {key: value for key, value, _ in metrics})

    def set_terminated(self, run, status):
        self.runs[run].ends.append({"FINISHED": True, "KILLED": False}[status])


class TensorBoard(Service):
    """TensorBoard: what lies after the step it is opened with is forgotten."""

    def SummaryWriter(self, folder, purge_step):  # noqa: N802
        name = folder.rpartition("/")[2]
        run = self.runs.setdefault(name, SimpleNamespace(name=name, numbers=[], ends=[]))
        run.numbers = [(step, numbers) for step, numbers in run.numbers if step < purge_step]

        def add_scalar(key, value, step):
            if not run.numbers or run.numbers[-1][0] != step:
                self.write(name, step, {})
            run.numbers[-1][1][key] = value

        return SimpleNamespace(add_scalar=add_scalar, flush=lambda: None, close=lambda: run.ends.append(True))


STAND_INS = {
    "wandb": ("wandb", WandB),
    "mlflow": ("mlflow", MLflow),
    "tensorboard": ("torch.utils.tensorboard", TensorBoard),
}


@pytest.fixture
def service(request, monkeypatch):
    """Put a stand-in in the package's place."""
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    module, kind = STAND_INS[request.param]
    made = kind()
    monkeypatch.setitem(sys.modules, module, made)
    return made


def stopped_at(monkeypatch, step):
    """Let trainings break off after this step, as by a kill."""
    call = Training.__call__

    def watch(self, state, now, metrics):
        call(self, state, now, metrics)
        if now == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "__call__", watch)


@pytest.mark.parametrize("service", BOARDS, indirect=True)
def test_each_number_comes_once_however_often_a_training_is_stopped(service, small_job, tmp_path, monkeypatch):
    kind = next(kind for kind, (_, made) in STAND_INS.items() if isinstance(service, made))

    def board(name, first):
        return open_board(kind, Subject(tmp_path, name, first, {"data": "digits"}))

    def training():
        train(replace(small_job(steps=STEPS), board=board), Supervised(), "a", tmp_path)

    for step in (17, 25):  # a checkpoint is written at every second step, a line at each
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stopped_at(patch, step)
            training()
    training()
    training()  # what is finished opens nothing
    ((_, run),) = service.runs.items()
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert run.numbers == [(line.pop("step"), line) for line in lines] and len(lines) == STEPS
    if kind != "tensorboard":  # which knows no end and no facts
        assert run.ends == [False, False, True]
        assert run.facts["data"] == "digits"


@pytest.mark.parametrize("service", ["tensorboard"], indirect=True)
def test_tensorboard_forgets_what_comes_after_the_step_it_continues_from(service, tmp_path, monkeypatch):
    opened, make = [], service.SummaryWriter
    monkeypatch.setattr(service, "SummaryWriter", lambda *a, **options: opened.append(options) or make(*a, **options))
    open_board("tensorboard", Subject(tmp_path, "a", 4, {}))
    assert opened == [{"purge_step": 5}]


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_supervised_and_the_method_are_told_apart(service, tmp_path):
    options = {"method": "fixmatch", "labels_per_class": 1, "steps": 4, "device": "cpu", "threads": 1}
    fewlabels.fit("digits", out=tmp_path / "run", log="wandb", **options)
    runs = {run.name: run for run in service.runs.values()}
    assert set(runs) == {"run supervised", "run fixmatch + propagation"}
    assert all((run.group, run.project, run.ends) == ("run", "fewlabels", [True]) for run in runs.values())
    facts = runs["run supervised"].facts
    assert (facts["data"], facts["labeled"], facts["training"]) == ("digits", 10, "supervised")


@pytest.mark.parametrize(
    ("service", "variable"), [("wandb", "WANDB_PROJECT"), ("mlflow", "MLFLOW_EXPERIMENT_NAME")], indirect=["service"]
)
def test_the_users_own_project(service, variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "mine")
    kind = variable.split("_")[0].lower()
    for name in "aab":  # continued, and in an experiment that is there
        open_board(kind, Subject(tmp_path, name, 0, {})).close(True)
    assert [run.project for run in service.runs.values()] == ["mine", "mine"]


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_a_board_that_is_gone_ends_no_training(service, small_job, tmp_path):
    said = io.StringIO()
    board = open_board("wandb", Subject(tmp_path, "a", 0, {}))
    service.broken = True
    job = replace(small_job(), board=lambda name, first: board)
    train(job, Supervised(), "a", tmp_path, Show(Console(file=said, width=200)))
    assert said.getvalue().count("the board takes no more numbers (the service is gone); metrics.jsonl has them") == 1
    assert len(read_lines(tmp_path / "metrics.jsonl")) == job.recipe.steps


@pytest.mark.parametrize(
    ("error", "said"),
    [(ConnectionError("no answer\n  from it."), "no answer from it"), (ConnectionError(), "ConnectionError")],
)
@pytest.mark.parametrize("service", ["mlflow"], indirect=True)
def test_a_board_that_cannot_be_opened_is_the_users_to_mend(service, error, said, tmp_path, monkeypatch):
    def fail(name):
        raise error

    monkeypatch.setattr(service, "get_experiment_by_name", fail)
    with pytest.raises(UserError) as failure:
        open_board("mlflow", Subject(tmp_path, "a", 0, {}))
    assert f"--log mlflow: {said}. " in str(failure.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", BOARDS)
def test_a_missing_package_is_said_before_any_work(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, STAND_INS[kind][0], None)
    assert main(["train", "digits", "--labels-per-class", "1", "--log", kind, "--out", str(tmp_path / "run")]) == 2
    assert f"pip install fewlabels[{kind}]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_only_the_first_process_has_a_board(small_job, tmp_path, monkeypatch):
    opened = []
    job = replace(small_job(), board=lambda name, first: opened.append((name, first)))
    training = Training(stage_of(job, Supervised(), "a", tmp_path), Show(None), lambda: False)
    for rank in (0, 1):
        monkeypatch.setattr(processes, "world_size", lambda: 2)
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(dist, "broadcast_object_list", lambda said: None)
        with training.on_board(4):
            pass
    assert opened == [("a", 4)]
