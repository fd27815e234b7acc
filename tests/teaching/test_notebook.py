"""hw5.ipynb: made from its text, every cell runs, twice, and nothing is cloned or installed twice."""

import json
import os
import subprocess
import sys

import pytest
from helpers import rows, small_sample

from hw5_lab import notebook
from hw5_utils import HERE


def small_settings():
    """Settings of runs that take seconds."""
    images = ["--data_dir", str(small_sample()), "--limit", "60", "--measure", "quick"]
    flags = {
        "hw5_vae": [*images, "--hidden_units", "8"],
        "hw5_gan": [*images, "--batch_size", "30"],
        "hw5_diffusion": ["--samples", "50", "--langevin_steps", "5", "--measure", "quick"],
    }
    return {"EPOCHS": dict.fromkeys(flags, 1), "FLAGS": flags}


def cell(mark):
    """The source of the cell whose mark begins so."""
    (found,) = [source for _, source in notebook.cells(notebook.TEXT.read_text()) if source.startswith(f"# {mark}")]
    return found


def test_the_notebook_is_the_one_of_its_text(tmp_path, capsys):
    assert notebook.main([str(tmp_path / "made.ipynb")]) == 0
    made = (tmp_path / "made.ipynb").read_text()
    assert made == (HERE / "hw5.ipynb").read_text(), "run python -m hw5_lab.notebook again"
    (tmp_path / "made.ipynb").write_text("with my answers")
    for path in (tmp_path / "made.ipynb", tmp_path / "nowhere" / "x.ipynb"):
        with pytest.raises(SystemExit, match="2"):
            notebook.main([str(path)])
        error = capsys.readouterr().err
        assert str(path) in error and error.count("\n") == 1
    assert (tmp_path / "made.ipynb").read_text() == "with my answers"


def test_the_project_is_cloned_once_and_installed_where_it_is_missing(tmp_path, monkeypatch):
    done = []

    def stand_in(line, check):
        done.append([str(word) for word in line])
        if "clone" in done[-1]:
            (tmp_path / "hw5").mkdir()
            (tmp_path / "hw5" / "hw5_utils.py").touch()

    monkeypatch.setattr(subprocess, "run", stand_in)
    monkeypatch.setattr(sys, "path", list(sys.path))
    source, names = cell("the project"), {"ADDRESS": "https://example.org/hw5"}
    for _ in range(2):
        monkeypatch.chdir(tmp_path)
        exec(source, names)
        assert os.getcwd() == str(tmp_path / "hw5")
    assert done == [["git", "clone", "--depth", "1", "https://example.org/hw5", str(tmp_path / "hw5")]]
    exec(source.replace('"tqdm"', '"no_such_package"'), names)  # one is missing
    assert done[1:] == [[sys.executable, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"]]
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(SystemExit, match="set ADDRESS above"):
        exec(source, {"ADDRESS": ""})


@pytest.mark.slow
def test_every_cell_runs_twice_and_more_epochs_continue(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel: pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: pip install nbclient ipykernel")
    for name in ("hw5_lab", "hw5_utils.py", "hw5_vae.py", "hw5_gan.py", "hw5_diffusion.py"):
        (tmp_path / name).symlink_to(HERE / name)
    settings = next(
        number for number, (_, source) in enumerate(notebook.cells(notebook.TEXT.read_text())) if "EPOCHS =" in source
    )

    def execute(**changed):
        content = json.loads(notebook.notebook(notebook.TEXT.read_text()))
        lines = content["cells"][settings]["source"]
        lines += [f"\n{name} = {value!r}\n" for name, value in {**small_settings(), **changed}.items()]
        book = nbformat.reads(json.dumps(content), as_version=4)
        nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        return json.dumps(book)

    shown = execute()
    for name in ("data_space.png", "samples_epoch_1.png", "score_field.png", "torch.Size([3, 784])", "iframe srcdoc"):
        assert name in shown, name
    runs = tmp_path / "outputs" / "notebook"
    assert [len(rows(runs / name)) for name in ("vae", "gan", "diffusion")] == [1, 1, 1]
    again = execute(EPOCHS={"hw5_vae": 2, "hw5_gan": 1, "hw5_diffusion": 1})
    assert again.count("is finished: nothing to resume") == 2 and "Going on from epoch 1 to 2" in again
    assert sorted(path.name for path in runs.iterdir() if path.is_dir()) == ["diffusion", "gan", "vae"]
