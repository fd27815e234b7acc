"""hw5_lab.grade: right solutions get all points, known mistakes their diagnosis, and what was not shown earns nothing."""

import json

import pytest
import torch
from graded import PLAIN, POINTS, ROOT, SCHEME, SUBMISSIONS, earned, edited, lost, of_file, raw_of, said
from submissions import mistakes

from hw5_lab.teaching import grade, judging, scheme
from hw5_lab.teaching.diagnoses import diagnose, other_sum, same

VAE_AND_GAN = of_file("hw5_vae") + of_file("hw5_gan")


def parts_of(question, names):
    return {part for part, points in POINTS[question].items() if points} if names == "*" else set(names.split(", "))


# ---- right solutions


@pytest.mark.parametrize("place", ["plain", pytest.param("other_style", marks=pytest.mark.slow)])
def test_right_solutions_get_all_points(place, box, tmp_path):
    raw = raw_of(box, tmp_path / "a", VAE_AND_GAN, **texts_in(SUBMISSIONS / place))
    assert lost(raw) == {} and raw["notes"] == []
    assert earned(raw) == sum(sum(POINTS[number].values()) for number in VAE_AND_GAN)
    if place == "other_style":
        for words in ("[B,1] is returned", "-inf are exact", "the sum of both losses", "the fakes are not detached"):
            assert words in said(raw)


def texts_in(folder):
    return {path.stem: path.read_text() for path in folder.glob("hw5_*.py") if path.stem != "hw5_utils"}


@pytest.mark.slow
def test_our_scripts_get_all_points_and_need_no_remark(box, tmp_path):
    raw = raw_of(box, tmp_path / "a", **texts_in(ROOT))
    assert lost(raw) == {} and said(raw) == ""
    assert earned(raw) == sum(sum(parts.values()) for parts in POINTS.values())


@pytest.mark.parametrize(
    "style",
    [
        pytest.param(style, marks=() if style in mistakes.QUICK_STYLES else pytest.mark.slow)
        for style in mistakes.STYLES
    ],
)
def test_other_right_styles(style, box, tmp_path):
    file, edits, questions, remark = mistakes.STYLES[style]
    raw = raw_of(box, tmp_path / "a", questions, **{file: edited(file, edits)})
    assert lost(raw) == {}
    assert remark.lower() in said(raw).lower()


@pytest.mark.parametrize("name", ["hw3_utils", "HW5_utils", "hw_utils"])
def test_the_utils_under_another_name(name, box, tmp_path):
    raw = raw_of(box, tmp_path / "a", ["2(c)"], hw5_vae=PLAIN["hw5_vae"].replace("hw5_utils", name))
    assert lost(raw) == {} and said(raw) == ""


def test_own_packages_and_additions_to_the_utils_count(box, tmp_path):
    text = edited(
        "hw5_vae",
        (
            "import math\n",
            "import math\nfrom mine.deep import log\nfrom hw5_utils import half\n",
            "return (log_p +",
            "return half * 2 * (log_p +",
            "torch.log(p)",
            "log(p)",
        ),
    )
    inner = tmp_path / "a" / "mine" / "deep"
    inner.mkdir(parents=True)
    (inner / "__init__.py").write_text("from torch import log\n")
    raw = raw_of(box, tmp_path / "a", ["2(b)ii", "2(c)"], hw5_vae=text, hw5_utils="half = 0.5\n")
    assert lost(raw) == {} and raw["notes"] == []


# ---- mistakes


CASES = [(file, *case) for file, cases in mistakes.CASES.items() for case in cases]


def marked(cases):
    """The cases with names; the first of some questions is quick."""
    seen, params = {"2(b)ii", "2(b)iv", "2(e)iii", "4(b)", "4(e)", "4(b) levels", "4(b) network"}, []
    for case in cases:
        question = next(iter(case[2]))
        slow = pytest.mark.slow if question in seen else ()
        params.append(pytest.param(*case, id=f"{question} {case[3]}", marks=slow))
        seen.add(question)
    return params


@pytest.mark.parametrize("file, edits, cost, words", marked(CASES))
def test_mistakes(file, edits, cost, words, box, tmp_path):
    """Only the question's own points are lost, for the right reason."""
    found = lost(raw_of(box, tmp_path / "a", tuple(cost), **{file: edited(file, edits)}))
    assert {question: set(parts) for question, parts in found.items()} == {
        question: parts_of(question, parts) for question, parts in cost.items()
    }, found
    for question in cost:
        assert any(words in why for why in found[question].values()), found


# ---- what was not shown earns nothing


@pytest.mark.parametrize("number", POINTS)
def test_an_empty_or_forged_answer_earns_nothing(number, tmp_path):
    """Whatever a child sends back that shows nothing: the sheet stays empty, and the grading goes on."""

    class Forger:
        def run(self, folder, file, request, seconds, definitions_only=False):
            return json.loads(answer)

    for answer in (
        "{}",
        '{"calls": []}',
        '{"calls": [{}, {}]}',
        '{"forward": []}',
        '{"parameters": [], "kinds": [], "init_error": null, "forward": []}',
        '{"calls": null, "own": 3, "says": {}}',
        '{"error": 7}',
        '{"own": [], "column": [], "flat": [], "says": {"error": "x"}}',
    ):
        ask, sheet, faults = (
            judging.Ask(Forger(), tmp_path, "hw5_vae", "x.py"),
            judging.Sheet(scheme.QUESTIONS[number].checks),
            [],
        )
        grade.judge(scheme.QUESTIONS[number], ask, 1, sheet, faults)
        assert all(sheet.values()) and set(sheet) == set(scheme.QUESTIONS[number].checks), (answer, sheet)
        assert faults == [], answer


def test_an_empty_answer_at_import_costs_the_file_alone(tmp_path):
    class Empty:
        def run(self, *_):
            return {}

    (tmp_path / "hw5_vae.py").write_text("class VAE: pass\n")
    raw = grade.grade(grade.gather([tmp_path], tmp_path / "gathered"), Empty(), ["2(a)", "4(a)"])
    assert earned(raw) == 0 and raw["faults"] == []


def test_a_check_of_which_nothing_is_said_earns_nothing():
    raw = {"checks": {"2(a)": {"layers": ""}}, "remarks": {}}
    results = {result.question: result for result in SCHEME.results(raw)}
    assert results["2(a)"].points == POINTS["2(a)"]["layers"] and results["2(b)i"].points == 0
    assert {part.wrong for part in results["2(b)i"].parts} == {"not shown"}


def test_a_judges_own_fault_is_said_to_be_ours():
    def broken(ask, draw, sheet):
        sheet["value"] = ""
        raise KeyError("x")

    question, faults = judging.Question("2(a)", "hw5_vae", ["value", "form"], broken), []
    sheet = judging.Sheet(question.checks)
    grade.judge(question, None, 1, sheet, faults)
    assert set(sheet.values()) == {grade.OURS} and "KeyError" in faults[0]


def test_every_check_of_the_points_is_one_of_a_question_and_earned_by_nobody_who_says_nothing():
    for number, checks in POINTS.items():
        assert set(checks) <= set(scheme.QUESTIONS[number].checks)
        assert all(judging.Sheet(checks).values())


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) for name in mistakes.PLACEHOLDERS],
)
def test_placeholders_earn_nothing(name, box, tmp_path):
    raw = raw_of(box, tmp_path / "a", **mistakes.PLACEHOLDERS[name])
    assert earned(raw) == 0, [result.lines() for result in SCHEME.results(raw) if result.points]


def test_infinities_are_never_right():
    infinite = torch.full((3,), float("inf"))
    assert not same(infinite, infinite)
    assert diagnose(infinite, lambda: torch.ones(3), []) == "nan or inf where the right value is finite"


def test_another_weighted_sum_is_named():
    one, two = torch.rand(20), torch.rand(20)
    terms = [("log q", -1, one), ("log p", 1, two)]
    assert other_sum(two - one, terms) == ""
    assert other_sum(two - 3 * one, terms) == "log q: its weight is -3, -1 is asked"
    assert other_sum(two, terms) == "log q is missing"
    assert other_sum(torch.rand(20), terms) == ""


def test_no_right_value_of_a_hidden_input_is_printed(box, tmp_path):
    """A wrong answer's feedback holds no number that the formula gives for the hidden inputs."""
    raw = raw_of(
        box, tmp_path / "a", ["2(b)i", "2(c)"], hw5_vae=edited("hw5_vae", ("(z - mu) ** 2 /", "(z - mu).abs() ** 3 /"))
    )
    found = lost(raw)
    assert "another value than the definition gives" in found["2(b)i"]["value"]
    assert not any("is right" in why for parts in found.values() for why in parts.values())


def test_the_hidden_inputs_depend_on_the_whole_submission(tmp_path):
    (tmp_path / "hw5_vae.py").write_text("class VAE: pass\n")
    numbers = []
    for text in ("x = 1", "x = 2"):
        (tmp_path / "helper.py").write_text(text)
        numbers.append(grade.gather([tmp_path], tmp_path.parent / f"{tmp_path.name}-{text}").digest())
        assert grade.gather([tmp_path], tmp_path.parent / f"{tmp_path.name}-{text}-again").digest() == numbers[-1]
    assert numbers[0] != numbers[1]


# ---- the command


@pytest.mark.slow
def test_command(tmp_path, capsys):
    folder = tmp_path / "submission"
    folder.mkdir()
    (folder / "My-hw5 VAE.py").write_text(
        edited("hw5_vae", ("(u < p)", "(u > p)", "return alpha *", "return 1 / 0 * alpha *"))
    )
    report, results = tmp_path / "report.json", tmp_path / "results.json"
    assert grade.main([str(folder), "--json", str(report), "--gradescope", str(results), "--as-root"]) == 0
    output = capsys.readouterr().out
    assert "1 with probability 1 - p" in output and "there is no hw5_gan.py" in output
    assert "graded: My-hw5 VAE.py" in output and "ZeroDivisionError: division by zero (My-hw5 VAE.py, line " in output
    content = json.loads(report.read_text())
    most = sum(sum(POINTS[number].values()) for number in of_file("hw5_vae"))
    assert content["points"] == most - 5 and content["out_of"] == sum(sum(parts.values()) for parts in POINTS.values())
    assert f"{most - 5}/{content['out_of']}" in output
    content = json.loads(results.read_text())
    assert content["score"] == most - 5 == sum(test["score"] for test in content["tests"])
    assert set(content) == {"score", "execution_time", "output", "visibility", "stdout_visibility", "tests"}
    for test in content["tests"]:
        assert set(test) == {"score", "max_score", "name", "number", "output", "status", "visibility"}
        assert 0 <= test["score"] <= test["max_score"] > 0
        assert test["status"] == ("passed" if test["score"] else "failed")
        assert bool(test["output"]) or test["status"] == "passed"


def test_no_submission(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    results = tmp_path / "out" / "results.json"
    results.parent.mkdir()
    for path in (tmp_path, tmp_path / "nowhere"):
        assert grade.main([str(path), "--gradescope", str(results)]) == 2
        assert "none of hw5_vae.py, hw5_gan.py, hw5_diffusion.py is there" in capsys.readouterr().err
        content = json.loads(results.read_text())
        assert content["score"] == 0 and "there is no file to grade" in content["tests"][0]["output"]


def test_an_unwritable_report_is_known_before_grading(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grade, "grade", lambda *_: pytest.fail("it was graded"))
    (tmp_path / "hw5_vae.py").write_text("class VAE: pass\n")
    assert grade.main([str(tmp_path), "--json", str(tmp_path / "nowhere" / "report.json")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_a_system_without_fork_is_told_so(monkeypatch, capsys):
    monkeypatch.delattr(grade.os, "fork")
    assert grade.main(["somewhere"]) == 2
    assert "cannot fork processes; grade on Linux or macOS, on Windows in WSL" in capsys.readouterr().err


@pytest.mark.slow
def test_results_exist_from_the_first_second_and_after_every_question(tmp_path, monkeypatch):
    """A grader that is killed leaves 0 with the reason for what it had not come to."""
    results, seen = tmp_path / "results.json", []
    (tmp_path / "hw5_vae.py").write_text(PLAIN["hw5_vae"])

    def gather_then_look(*arguments):
        seen.append(json.loads(results.read_text()))
        return real(*arguments)

    def put(path, content):
        write(path, content)
        seen.append(json.loads(results.read_text()))

    real, write = grade.gather, grade.write
    monkeypatch.setattr(grade, "gather", gather_then_look)
    monkeypatch.setattr(grade, "write", put)
    monkeypatch.setattr(grade, "judge", lambda question, ask, seed, sheet, faults: sheet.all(""))
    grade.main([str(tmp_path), "--gradescope", str(results), "--as-root"])
    assert seen[0]["score"] == 0 and all("was stopped before" in test["output"] for test in seen[0]["tests"])
    scores = [content["score"] for content in seen]
    assert scores == sorted(scores) and len(set(scores)) > 6
    assert all(len(content["tests"]) == len(seen[0]["tests"]) for content in seen)
