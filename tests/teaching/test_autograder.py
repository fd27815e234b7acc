"""hw5_lab.autograder: one zip that holds all of Gradescope's autograder, and runs by its two entry points."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from graded import PLAIN, POINTS, earned, of_file

from hw5_lab.teaching import autograder, grade


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The platform's folder: the zip in source/, empty results/ and submission/, paths moved here."""
    root = tmp_path_factory.mktemp("platform")
    autograder.write(root / "out.zip", as_root=True)
    source = root / "autograder" / "source"
    with zipfile.ZipFile(root / "out.zip") as archive:
        archive.extractall(source)
        for entry in archive.infolist():
            os.chmod(source / entry.filename, entry.external_attr >> 16)
    (root / "opt" / "hw5" / "bin").mkdir(parents=True)
    (root / "opt" / "hw5" / "bin" / "python").symlink_to(sys.executable)
    for name in ("setup.sh", "run_autograder"):
        text = (source / name).read_text()
        text = text.replace("/autograder/", f"{root}/autograder/").replace("/opt/hw5/bin/python", sys.executable)
        (source / name).write_text(text)
    (root / "autograder" / "submission").mkdir()
    return root / "autograder"


def run(platform, **texts):
    for path in (platform / "submission").iterdir():
        path.unlink()
    for name, text in texts.items():
        (platform / "submission" / f"{name}.py").write_text(text)
    finished = subprocess.run([platform / "source" / "run_autograder"], text=True, capture_output=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return json.loads((platform / "results" / "results.json").read_text())


def test_what_is_in_the_zip(unpacked):
    source = unpacked / "source"
    for name in ("setup.sh", "run_autograder"):
        path = source / name
        assert path.read_text().startswith("#!/usr/bin/env bash\n") and os.access(path, os.X_OK)
        assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert "whl/cpu" in (source / "setup.sh").read_text() and "chmod -R go=" in (source / "setup.sh").read_text()
    held = {path.name for path in source.rglob("*") if path.is_file()}
    assert not held & {"hw5_vae.py", "hw5_gan.py", "hw5_diffusion.py", "starter_texts.py"}  # no solution
    first = json.loads((source / "first.json").read_text())
    assert first["score"] == 0 and len(first["tests"]) == sum(map(len, POINTS.values()))
    assert all("did not start" in test["output"] for test in first["tests"])


@pytest.mark.slow
def test_a_submission_is_graded_by_the_two_entry_points(unpacked):
    results = run(unpacked, hw5_vae=PLAIN["hw5_vae"])
    assert results["score"] == sum(sum(POINTS[number].values()) for number in of_file("hw5_vae"))
    assert {test["visibility"] for test in results["tests"]} == {"visible"}


@pytest.mark.slow
def test_no_file_leaves_0_with_the_reason(unpacked):
    results = run(unpacked)
    assert results["score"] == 0 and "there is no file to grade" in results["tests"][0]["output"]


@pytest.mark.slow
def test_a_grader_that_is_killed_leaves_what_was_graded(unpacked, monkeypatch):
    """As by the platform's memory limit: the reason is said, and what is needed."""
    script = unpacked / "source" / "run_autograder"
    text = script.read_text()
    killer = unpacked / "source" / "killer.py"
    killer.write_text(
        "import os, sys, runpy\n"
        "from hw5_lab.teaching import grade\n"
        "real = grade.judge\n"
        "def judge(question, *rest):\n"
        "    if question.number == '2(b)ii': os.kill(os.getpid(), 9)\n"
        "    real(question, *rest)\n"
        "grade.judge = judge\n"
        "grade.main(sys.argv[1:])\n"
    )
    script.write_text(
        text.replace("-m hw5_lab.grade", str(killer)).replace(
            "export OMP", f"export PYTHONPATH={unpacked}/source/hw5 OMP"
        )
    )
    results = run(unpacked, hw5_vae=PLAIN["hw5_vae"])
    script.write_text(text)
    assert results["score"] == sum(POINTS["2(a)"].values()) + sum(POINTS["2(b)i"].values())
    assert "ended (code 137), by its memory limit? It needs 450 MB" in results["output"]
    assert "not graded yet" in next(test["output"] for test in results["tests"] if test["number"] == "2(b)ii")


def test_other_points_and_faults(tmp_path, capsys):
    mine = tmp_path / "mine.toml"
    mine.write_text('["2(a)"]\nlayers = { points = 3, visibility = "hidden" }\n')
    assert autograder.main([str(tmp_path / "out.zip"), "--points", str(mine)]) == 0
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        (test,) = json.loads(archive.read("first.json"))["tests"]
        assert archive.read("points.toml").decode() == mine.read_text()
    assert (test["max_score"], test["visibility"]) == (3, "hidden")
    mine.write_text("x = ")
    for line in (["out.zip", "--points", str(mine)], [str(tmp_path / "nowhere" / "out.zip")]):
        assert autograder.main(line) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_zip_holds_all_modules_that_grading_imports():
    code = "import sys; from hw5_lab.teaching import grade; print(*[m for m in sys.modules if m.startswith('hw5_')])"
    line = [sys.executable, "-c", code]
    loaded = subprocess.run(line, cwd=autograder.ROOT, text=True, capture_output=True).stdout.split()
    held = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in autograder.files()}
    assert set(loaded) - {"hw5_lab.teaching"} <= held and earned({**grade.EMPTY}) == 0
