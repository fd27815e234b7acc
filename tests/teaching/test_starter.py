"""hw5_lab.starter: the hand-out runs until a question, holds nothing of a solution, and can be answered."""

import ast
import gzip
import re
import struct
import subprocess
import sys

import pytest
from helpers import ROOT
from submissions.answers import ANSWERS

from hw5_lab.teaching import grade, starter
from hw5_lab.teaching.grade import POINTS, find_submission
from hw5_lab.teaching.grade_sandbox import Sandbox
from hw5_lab.teaching.starter_texts import QUESTIONS

NAMES = ("hw5_vae", "hw5_gan")


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starter")
    assert starter.main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def boxes():
    with Sandbox() as first, Sandbox() as second:
        yield [first, second]


def unanswered(text):
    """[(class, function node, question)] that the hand-out leaves to the student."""
    found = []
    for owner, node in starter.every_function(ast.parse(text)):
        last = node.body[-1]
        if isinstance(last, ast.Raise) and last.exc.func.id == "NotImplementedError":
            found.append((owner, node, last.exc.args[0].value))
    return found


def fill(text, answers):
    """The hand-out with these answers: each stands in place of its error."""
    lines = text.split("\n")
    for owner, node, _ in reversed(unanswered(text)):
        if (owner, node.name) in answers:
            last = node.body[-1]
            inits = [each.lineno for each in node.body if "super()" in ast.unparse(each)]
            body = [" " * last.col_offset + line for line in answers[owner, node.name].strip("\n").split("\n")]
            lines[(inits or [last.lineno])[0] - 1 : last.end_lineno] = body
    return "\n".join(lines)


def run(folder, name, *args):
    command = [sys.executable, f"{name}.py", *args]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=300)


def test_what_is_handed_out(handed_out):
    assert sorted(path.name for path in handed_out.iterdir()) == [
        "README.md",
        "data",
        "hw5_gan.py",
        "hw5_utils.py",
        "hw5_vae.py",
        "requirements.txt",
    ]
    assert len(list((handed_out / "data" / "sample").glob("*.gz"))) == 4
    readme = (handed_out / "README.md").read_text()
    assert all(f"| {number} |" in readme for number in QUESTIONS) and "{" not in readme
    for name in NAMES:
        text = (handed_out / f"{name}.py").read_text()
        assert max(map(len, text.split("\n"))) <= 120 and "hw5_lab" not in text and "\n\n\n\n" not in text


def test_every_question_is_asked_once(handed_out):
    """Those of the grader, and the figures; a docstring with the number stands at each."""
    asked = [(name, number) for name in NAMES for _, _, number in unanswered((handed_out / f"{name}.py").read_text())]
    questions = set(QUESTIONS) - {"2(d)", "4(f)"}
    assert questions == set(POINTS) | {"2(e)i", "2(e)ii", "2(e)iii"}
    assert sorted(number for _, number in asked) == sorted([*questions, "2(a)", "2(e)iii", "4(a)", "4(b)", "4(c)"])
    for name in NAMES:
        text = (handed_out / f"{name}.py").read_text()
        assert all(f'"""{number}. ' in text for file, number in asked if file == name)


@pytest.mark.parametrize("name, first", [("hw5_vae", "2(a)"), ("hw5_gan", "4(a)")])
def test_runs_until_the_first_question(name, first, handed_out):
    finished = run(handed_out, name, "--epochs", "1")
    assert finished.returncode == 1 and finished.stderr.rstrip().endswith(f"NotImplementedError: {first}")


def test_the_starter_earns_nothing(handed_out, boxes):
    results, remarks = grade.grade(find_submission([handed_out]), boxes)
    assert sum(result.points for result in results) == 0 and remarks == []
    assert [result.lines() for result in results if "not answered yet" not in " ".join(result.lines())] == []
    assert "not answered yet (2(b)ii)" in grade.table(results, remarks)


def statements(node):
    """All statements of a function as text, docstrings aside."""
    return {
        ast.unparse(part)
        for part in ast.walk(node)
        if isinstance(part, ast.stmt)
        and part is not node
        and not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
    }


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_solution_is_left(name, handed_out):
    """No statement of an answer, nor of the functions that are a part of one."""
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    text = (handed_out / f"{name}.py").read_text()
    left = set().union(*(statements(node) for _, node in starter.every_function(ast.parse(text))))
    given = {function for _, function in starter.GIVEN[f"{name}.py"]}
    answered = [node for owner, node, number in starter.answered(tree) if node.name not in given]
    assert len(answered) > 10
    trivial = {
        "axes = figure.subplots()",
        "return grid",
        "super().__init__()",
        "loss_d.backward()",
        "self.optim_d.zero_grad()",
        "self.optim_d.step()",
        "self.optim_g.zero_grad()",
        "self.optim_g.step()",
    }
    for node in answered:
        assert not (statements(node) - trivial) & left, node.name
    for words in (
        "kaiming_uniform_",
        "nn.Conv2d",
        "cross_entropy",
        "LeakyReLU",
        "detach",
        "math.pi)",
        "torch.randn(",
        "torch.bernoulli",
        "alpha) *",
        "log_q",
        "log_p",
        "0.9189",
        "0.6931",
        "593",
        "107777",
        "107,777",
    ):
        assert words not in text, words


@pytest.mark.parametrize(
    "edit, words",
    [
        (("def step(", "def stride("), "GIVEN replaces step, which is not there"),
        (('"""4(e).', '"""4(g).'), "4(g), which starter_texts.py does not ask"),
        (('"""4(e). The generator', '"""The generator'), "no function _get_loss_g whose docstring begins with"),
        (("self.visualize_goal()", "generator_loss(0)"), "draw_epoch uses generator_loss, a part of an answer"),
    ],
)
def test_changed_scripts_are_noticed(edit, words):
    """What the texts of the starter no longer fit is said, rather than handed out."""
    source = (ROOT / "hw5_gan.py").read_text().replace(*edit)
    with pytest.raises(starter.Stale, match=re.escape(words)):
        starter.make(source, "hw5_gan.py")


def test_a_folder_with_something_in_it_is_refused(handed_out, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file"):
        assert starter.main([str(path)]) == 2
        assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "x"


def answer(folder, handed_out, **answers):
    for name in NAMES:
        text = (handed_out / f"{name}.py").read_text()
        (folder / f"{name}.py").write_text(fill(text, answers.get(name, {})))


def test_answers_earn_all_points(handed_out, boxes, tmp_path):
    answer(tmp_path, handed_out, **ANSWERS)
    results, remarks = grade.grade(find_submission([tmp_path]), boxes)
    assert [(result.question, result.lines()) for result in results if result.points < result.out_of] == []
    assert remarks == []


@pytest.mark.slow
def test_each_answer_earns_its_points_alone(handed_out, boxes, tmp_path):
    """A student who has answered one question only: no other is needed, but for 2(c)."""
    alone = {
        "2(a)": ("Decoder",),
        "2(b)i": ("logpdf_diagonal_gaussian",),
        "2(b)iv": ("sample_Bernoulli",),
        "2(e)iii": ("interpolate_mu",),
        "4(a)": ("DNet",),
        "4(b)": ("GNet",),
        "4(c)": ("_weight_init",),
        "4(d)": ("_get_loss_d",),
        "4(e)": ("_get_loss_g",),
    }
    for question, names in alone.items():
        wanted = lambda key: set(key) & set(names) and (key[1] == "_weight_init") == (question == "4(c)")  # noqa: E731
        chosen = {
            name: {key: body for key, body in answers.items() if wanted(key)} for name, answers in ANSWERS.items()
        }
        answer(tmp_path, handed_out, **chosen)
        (result,) = grade.grade(find_submission([tmp_path]), boxes, (question,))[0]
        most = sum(POINTS[question].values())
        assert result.points == most, (question, result.lines())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_answers_train_and_draw(name, handed_out, tmp_path):
    """From the hand-out alone, with the answers written in, the scripts run to their end."""
    folder = tmp_path / "student"
    assert starter.main([str(folder)]) == 0
    answer(folder, handed_out, **ANSWERS)
    for path in (folder / "data" / "sample").iterdir():  # 300 images, where nothing is downloaded
        content = gzip.decompress(path.read_bytes())
        head, size = (16, 784) if "images" in path.name else (8, 1)
        short = content[:4] + struct.pack(">I", 300) + content[8 : head + 300 * size]
        (folder / "data" / path.name).write_bytes(gzip.compress(short))
    finished = run(folder, name, "--epochs", "2")
    assert finished.returncode == 0, finished.stderr
    assert "epoch 2: " in finished.stdout
    drawn = {path.name for path in (folder / "outputs").rglob("*.png")}
    assert drawn == (
        {"data_space.png", "latent_space.png", "inter_class_interpolation.png"}
        if name == "hw5_vae"
        else {"goal.png", "samples_epoch_2.png"}
    )
