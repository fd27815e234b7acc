"""hw5_lab.grade: right solutions get all points, known mistakes their diagnosis, hostile code costs its own points."""

import ast
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from submissions import mistakes

from hw5_lab.teaching import grade
from hw5_lab.teaching.grade import POINTS, find_submission
from hw5_lab.teaching.grade_sandbox import Failure, Sandbox, check, clean, read_answer

SUBMISSIONS = Path(__file__).parent / "submissions"
PLAIN = {name: (SUBMISSIONS / "plain" / f"{name}.py").read_text() for name in ("hw5_vae", "hw5_gan")}


@pytest.fixture(scope="module")
def boxes():
    """Two child processes for all tests here. They are started with a secret and a path in the environment."""
    with pytest.MonkeyPatch.context() as patch, Sandbox() as first, Sandbox() as second:
        patch.setenv("SECRET_TOKEN", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        yield [first, second]
    assert not first.folder.exists()


def write(folder, **texts):
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    return find_submission([folder])


def edited(file, edits):
    """The plain submission's file with every old text replaced by the new one, wherever it stands."""
    text = PLAIN[file]
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert old in text, f"the plain submission has no {old!r}"
        text = text.replace(old, new)
    ast.parse(text)
    return text


def lost(results):
    """{question: {part that lost points: why}}"""
    found = {
        result.question: {part.name: part.wrong for part in result.parts if part.points < part.out_of}
        for result in results
    }
    return {question: parts for question, parts in found.items() if parts}


def numbers_of(file):
    return tuple(number for number in POINTS if number.startswith("2" if file == "hw5_vae" else "4"))


def parts_of(question, names):
    return {part for part, points in POINTS[question].items() if points} if names == "*" else set(names.split(", "))


# ---- right solutions


@pytest.mark.parametrize("place", [ROOT, SUBMISSIONS / "plain", SUBMISSIONS / "other_style"])
def test_right_solutions_get_all_points(place, boxes):
    submission = find_submission([place / "hw5_vae.py", place / "hw5_gan.py"])
    results, remarks = grade.grade(submission, boxes)
    assert lost(results) == {} and remarks == []
    assert sum(result.points for result in results) == sum(sum(parts.values()) for parts in POINTS.values())


def test_right_solutions_have_remarks(boxes):
    submission = find_submission([SUBMISSIONS / "other_style"])
    results, _ = grade.grade(submission, boxes, ("2(b)i", "2(b)ii", "4(d)"))
    remarks = " ".join(remark for result in results for remark in result.remarks)
    for words in ("[B,1] is returned", "-inf are exact", "the sum of both losses", "the fakes are not detached"):
        assert words in remarks


def test_our_scripts_need_no_remark(boxes):
    results, _ = grade.grade(find_submission([ROOT / "hw5_vae.py", ROOT / "hw5_gan.py"]), boxes)
    assert [result.remarks for result in results if result.remarks] == []


TWO_LAYERS = (
    "nn.Linear(latent_dimension, hidden_units)\n        self.fc2 = nn.Linear(hidden_units, data_dimension)",
    "nn.Linear(2, 500)\n        self.fc2 = nn.Linear(500, 784)",
)
STYLES = {  # right, each in its own way: the file, the edits, the questions that these touch, words of the remark
    "methods": (
        "hw5_vae",
        (
            "def elbo(",
            "def formula(",
            "-elbo(",
            "-formula(",
            "class VAE(nn.Module):\n",
            "class VAE(nn.Module):\n"
            "    def elbo_loss(self, z, mu, sigma_square, x, p):\n"
            "        return formula(z, mu, sigma_square, x, p)\n\n",
        ),
        ("2(c)",),
        "",
    ),
    "without self": (
        "hw5_vae",
        (
            "def sample_Bernoulli(p):\n    u = torch.rand_like(p)\n    return (u < p).float()\n",
            "",
            "class VAE(nn.Module):\n",
            "class VAE(nn.Module):\n    def sample_Bernoulli(p):\n        return torch.bernoulli(p)\n\n",
        ),
        ("2(b)iv",),
        "",
    ),
    "sizes written into the code": ("hw5_vae", TWO_LAYERS, ("2(a)",), "sizes are written into the code"),
    "other random numbers": (
        "hw5_vae",
        ("torch.randn_like(mu)", "torch.randn(mu.T.shape).T"),
        ("2(b)iii",),
        "other numbers than one",
    ),
    "epsilon": (
        "hw5_vae",
        ("torch.log(p)", "torch.log(p + 1e-8)", "torch.log(1 - p)", "torch.log(1 - p + 1e-8)"),
        ("2(b)ii",),
        "-inf are exact",
    ),
    "a wrong density below": (
        "hw5_vae",
        ("return terms.sum(dim=-1)", "return terms.mean(dim=-1)"),
        ("2(c)",),
        "the formula is right",
    ),
    "main at import": (
        "hw5_vae",
        ('if __name__ == "__main__":\n    main()', "main()"),
        ("2(b)i",),
        "calls main() at import",
    ),
    "sigmoid and BCELoss": (
        "hw5_gan",
        ("self.fc(x.flatten(1))", "torch.sigmoid(self.fc(x.flatten(1)))", "BCEWithLogitsLoss", "BCELoss"),
        ("4(d)", "4(e)"),
        "right for a D that ends with a sigmoid",
    ),
    "layers in another order": ("hw5_gan", mistakes.D_ORDER, ("4(c)",), ""),
}


@pytest.mark.parametrize("style", STYLES)
def test_other_right_styles(style, boxes, tmp_path):
    file, edits, questions, remark = STYLES[style]
    results, remarks = grade.grade(write(tmp_path, **{file: edited(file, edits)}), boxes, questions)
    assert lost(results) == {}
    assert remark.lower() in " ".join(remarks + [each for result in results for each in result.remarks]).lower()


@pytest.mark.parametrize("name", ["hw3_utils", "HW5_utils", "hw_utils"])
def test_the_utils_under_another_name(name, boxes, tmp_path):
    submission = write(tmp_path, hw5_vae=PLAIN["hw5_vae"].replace("hw5_utils", name))
    results, remarks = grade.grade(submission, boxes, ("2(c)",))
    assert lost(results) == {} and remarks == []


# ---- mistakes


CASES = [("hw5_vae", *case) for case in mistakes.VAE] + [("hw5_gan", *case) for case in mistakes.GAN]


def marked(cases):
    """The cases with names; the first of every question is quick."""
    seen, params = set(), []
    for case in cases:
        question = next(iter(case[2]))
        slow = pytest.mark.slow if question in seen else ()
        params.append(pytest.param(*case, id=f"{question} {case[3]}", marks=slow))
        seen.add(question)
    return params


@pytest.mark.parametrize("file, edits, cost, words", marked(CASES))
def test_mistakes(file, edits, cost, words, boxes, tmp_path):
    """Only the question's own points are lost, for the right reason."""
    results, _ = grade.grade(write(tmp_path, **{file: edited(file, edits)}), boxes, tuple(cost))
    found = lost(results)
    assert {question: set(parts) for question, parts in found.items()} == {
        question: parts_of(question, parts) for question, parts in cost.items()
    }, found
    for question in cost:
        assert any(words in why for why in found[question].values()), found


def test_there_are_enough_mistakes():
    assert len({case[3] for case in CASES}) >= 25


# ---- hostile code: none ends the grading, none costs more than its own points

BERNOULLI = "    terms = x * torch.log(p) + (1 - x) * torch.log(1 - p)\n"
FORGE = """    import sys
    frame = sys._getframe()
    while "job" not in frame.f_locals or "answer" not in frame.f_locals["job"]:
        frame = frame.f_back
    {}
    __import__("os")._exit(0)
"""
ANSWER = "frame.f_locals['job']['answer']"
HOSTILE = {  # what stands before logpdf_bernoulli's right answer, and words of the reason; "" where it costs nothing
    "never ends": ("    while True: pass\n", "does not end within 3 s"),
    "sleeps": ("    __import__('time').sleep(1000)\n", "does not end within 3 s"),
    "exits": ("    __import__('sys').exit(0)\n", "SystemExit"),
    "ends its process": ("    __import__('os')._exit(0)\n", "ends without an answer"),
    "aborts": ("    __import__('os').abort()\n", "aborts"),
    "segmentation fault": ("    __import__('ctypes').string_at(0)\n", "crashes (segmentation fault)"),
    "kills the process above": (
        "    os = __import__('os'); os.kill(os.getppid(), 9); os._exit(0)\n",
        "ends the process that runs it",
    ),
    "takes all memory": ("    torch.ones(10**10)\n", "memory"),
    "takes all memory bit by bit": ("    a = []\n    while True: a.append(torch.empty(10**8))\n", "memory"),
    "returns too much": ("    return torch.ones(10**7)\n", "a tensor of shape [10000000] is returned"),
    "recursion": ("    return logpdf_bernoulli(x, p)\n", "RecursionError"),
    "writes terminal codes": ("    raise ValueError('\\x1b[2J all points')\n", "?[2J all points"),
    "prints megabytes": ("    for _ in range(100): print('x' * 10**6)\n", ""),
    "prints a grader's table": ("    print('total 63/63')\n    return x.sum(1)\n", "is right"),
    "deletes its folder": ("    __import__('shutil').rmtree('.', ignore_errors=True)\n", ""),
    "deletes the folder above": (
        "    __import__('shutil').rmtree('../..', ignore_errors=True)\n",
        "ends without an answer",
    ),
    "replaces torch's functions": (
        "    torch.allclose = torch.equal = lambda *_, **__: True\n    return x.sum(1)\n",
        "is right",
    ),
    "wants the grader": ("    import hw5_lab.teaching.diagnoses\n", "No module named 'hw5_lab'"),
    "forges an answer": (
        FORGE.format(f"torch.save({{'calls': [{{'value': torch.zeros(6)}}]}}, {ANSWER})"),
        "no readable answer",
    ),
    "forges nonsense": (FORGE.format(f"open({ANSWER}, 'wb').write(b'all points')"), "no readable answer"),
    "forges a pickle": (
        FORGE.format(f"torch.save(__import__('argparse').Namespace(), {ANSWER})"),
        "no readable answer",
    ),
    "answers with a pipe": (FORGE.format(f"__import__('os').mkfifo({ANSWER})"), "no readable answer"),
    "answers with a device": (FORGE.format(f"__import__('os').symlink('/dev/zero', {ANSWER})"), "without an answer"),
}


QUICK = (
    "exits",
    "segmentation fault",
    "never ends",
    "prints a grader's table",
    "deletes its folder",
    "forges an answer",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in HOSTILE]
)
@pytest.mark.slow
def test_hostile_functions(name, boxes, tmp_path, monkeypatch, capsys):
    code, words = HOSTILE[name]
    monkeypatch.setattr(grade, "SECONDS", 3)
    submission = write(tmp_path, hw5_vae=edited("hw5_vae", (BERNOULLI, code + BERNOULLI)))
    results, _ = grade.grade(submission, boxes, ("2(b)i", "2(b)ii", "2(b)iv"))
    found = lost(results)
    if boxes[0].as_nobody:  # who may do neither
        words = {"kills the process above": "PermissionError", "deletes the folder above": ""}.get(name, words)
    assert set(found) == ({"2(b)ii"} if words else set())
    assert not words or any(words in why for why in found["2(b)ii"].values()), found
    assert capsys.readouterr().out == ""
    assert (tmp_path / "hw5_vae.py").is_file()


@pytest.mark.parametrize(
    "code, words",
    [
        ("while True: pass\n", "does not end within 3 s"),
        ("import sys; sys.exit(0)\n", "SystemExit"),
        ("import ctypes; ctypes.string_at(0)\n", "crashes"),
        ("GAN(DNet)\n", "fails"),
        ("vae = VAE(parse_args())\nvae.train()\n", "calls train() at import"),
        ("import seaborn_that_nobody_has\n", "ModuleNotFoundError"),
        ("'''Run main() and train().'''\nprint('x' * 10**7)\n", ""),
        ("import os, shutil; shutil.rmtree(os.getcwd())\n", ""),
    ],
)
@pytest.mark.slow
def test_hostile_imports(code, words, boxes, tmp_path, monkeypatch):
    """What runs at import, after the definitions or before, does not keep the definitions from being graded."""
    monkeypatch.setattr(grade, "IMPORT_SECONDS", 3)
    submission = write(tmp_path, hw5_vae=PLAIN["hw5_vae"] + code)
    results, remarks = grade.grade(submission, boxes, ("2(a)", "2(c)"))
    assert lost(results) == {}
    assert words in "".join(remarks) and bool(words) == bool(remarks)


@pytest.mark.parametrize("text, words", [("def broken(:\n", "SyntaxError"), ("\0", "null bytes"), ("", "there is no")])
def test_files_that_cannot_be_read(text, words, boxes, tmp_path):
    """All points of the one file are lost, none of the other."""
    results, _ = grade.grade(write(tmp_path, hw5_vae=text, hw5_gan=PLAIN["hw5_gan"]), boxes, ("2(a)", "2(c)", "4(d)"))
    found = lost(results)
    assert set(found) == {"2(a)", "2(c)"}
    assert all(words in why for parts in found.values() for why in parts.values()), found


def test_nothing_is_left_running(boxes, tmp_path):
    """A process that a student's code has started, and that has left its group, ends with the job."""
    mark = f"sleep-{tmp_path.name}"
    code = f"    __import__('subprocess').Popen(['bash', '-c', 'exec -a {mark} sleep 300'], start_new_session=True)\n"
    submission = write(tmp_path, hw5_vae=edited("hw5_vae", (BERNOULLI, code + BERNOULLI)))
    results, _ = grade.grade(submission, boxes, ("2(b)ii",))
    assert lost(results) == {}
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(mark.encode() in line for line in running)
    assert [path for box in boxes for path in box.folder.glob("tmp*")] == []


def test_the_child_knows_no_secrets(boxes, tmp_path):
    """Neither the environment nor the path of this project reaches a student's code."""
    look = (
        "    import os, sys\n    known = [each for each in sys.path if os.path.exists(f'{each}/hw5_lab')]\n"
        "    raise ValueError(f\"{'SECRET_TOKEN' in os.environ} {known} {os.environ.get('PYTHONPATH')}\")\n"
    )
    submission = write(tmp_path, hw5_vae=edited("hw5_vae", (BERNOULLI, look)))
    results, _ = grade.grade(submission, boxes, ("2(b)ii",))
    assert "False [] None" in lost(results)["2(b)ii"]["value"]


def test_for_root_the_code_is_nobody(boxes, tmp_path):
    """Where the grader is root, a student's code can neither write nor read what is root's alone."""
    grade.grade(find_submission([SUBMISSIONS / "plain"]), boxes, ("2(a)",))  # starts them
    if not boxes[0].as_nobody:
        pytest.skip("only root can become nobody, and only with packages that all may read")
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    look = (
        f"    import os\n    paths = [({str(secret)!r}, os.R_OK), ('/', os.W_OK)]\n"
        "    raise ValueError([os.getuid(), *(os.access(*each) for each in paths)])\n"
    )
    submission = write(tmp_path / "submission", hw5_vae=edited("hw5_vae", (BERNOULLI, look)))
    results, _ = grade.grade(submission, boxes, ("2(b)ii",))
    assert "[65534, False, False]" in lost(results)["2(b)ii"]["value"]


def test_answers_are_read_warily(tmp_path):
    path = tmp_path / "answer"
    for bad in (torch.ones(3), {"a": torch.ones(1).expand(10**8)}, {"a": object}, {1: 2}, {"a": {"b": "x" * 10**5}}):
        torch.save(bad, path)
        with pytest.raises(Failure):
            read_answer(path)
    torch.save({"a": torch.ones(3), "b": [None, True, 1.5, "x"]}, path)
    assert read_answer(path)["b"] == [None, True, 1.5, "x"]
    with pytest.raises(Failure):
        check({"a": torch.ones(3).to_sparse()})
    assert clean("\x1b[31m\n" + "x" * 1000) == "?[31m?" + "x" * 294


# ---- the command


def test_command(boxes, tmp_path, capsys, monkeypatch):
    running = iter(boxes)
    monkeypatch.setattr(grade, "Sandbox", lambda: nullcontext(next(running)))
    folder = tmp_path / "submission"
    write(folder, hw5_vae=edited("hw5_vae", ("(u < p)", "(u > p)")))
    report, results = tmp_path / "report.json", tmp_path / "results.json"
    assert grade.main([str(folder), "--json", str(report), "--gradescope", str(results), "--quiet"]) == 0
    output = capsys.readouterr().out
    assert "1 with probability 1 - p" in output and "there is no hw5_gan.py" in output
    content = json.loads(report.read_text())
    most = sum(sum(POINTS[number].values()) for number in numbers_of("hw5_vae"))
    assert content["points"] == most - 2 and content["out_of"] == sum(sum(parts.values()) for parts in POINTS.values())
    assert f"{most - 2}/{content['out_of']}" in output
    content = json.loads(results.read_text())
    assert content["score"] == most - 2 == sum(test["score"] for test in content["tests"])
    assert set(content) == {"score", "execution_time", "output", "visibility", "stdout_visibility", "tests"}
    for test in content["tests"]:
        assert set(test) == {"score", "max_score", "name", "number", "output", "status", "visibility"}
        assert 0 <= test["score"] <= test["max_score"] > 0
        assert test["status"] == ("passed" if test["score"] else "failed")
        assert bool(test["output"]) or test["status"] == "passed"
    assert (folder / "hw5_vae.py").read_text() == edited("hw5_vae", ("(u < p)", "(u > p)"))


def test_no_submission(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path, tmp_path / "nowhere"):
        assert grade.main([str(path)]) == 2
        assert "neither hw5_vae.py nor hw5_gan.py is there" in capsys.readouterr().err


def test_find_submission(tmp_path):
    """A folder, one in a folder, files of other names."""
    inner = tmp_path / "student_17"
    write(inner, **{"HW5-vae": "class VAE: pass", "final": "class GAN: pass", "other": "x = 1"})
    assert set(find_submission([inner]).files) == {"hw5_vae", "hw5_gan"} == set(find_submission([tmp_path]).files)
    assert find_submission([tmp_path]).folder == inner
    alone = find_submission([inner / "final.py"])
    assert alone.files == {"hw5_gan": inner / "final.py"} and alone.folder is None


def test_points_are_those_of_the_questions():
    assert [question.number for question in grade.QUESTIONS] == list(POINTS)
