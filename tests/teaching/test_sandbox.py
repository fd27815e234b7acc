"""Hostile submissions: none ends the grading, none costs more than its own points, none leaves anything behind."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from graded import PLAIN, ROOT, edited, lost, of_file, raw_of, said

from hw5_lab.teaching import grade, judging, sandbox
from hw5_lab.teaching.sandbox import Failure, Refused, Sandbox, check, clean, read_answer

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
    "never ends": ("    while True: pass\n", "does not end within 2 s"),
    "sleeps": ("    __import__('time').sleep(1000)\n", "does not end within 2 s"),
    "exits": ("    __import__('sys').exit(0)\n", "SystemExit"),
    "ends its process": ("    __import__('os')._exit(0)\n", "ends without an answer"),
    "aborts": ("    __import__('os').abort()\n", "aborts"),
    "segmentation fault": ("    __import__('ctypes').string_at(0)\n", "crashes (segmentation fault)"),
    "takes all memory": ("    torch.ones(10**10)\n", "memory"),
    "takes all memory bit by bit": ("    a = []\n    while True: a.append(torch.empty(10**8))\n", "memory"),
    "returns too much": ("    return torch.ones(10**7)\n", "a tensor of shape [10000000] is returned"),
    "recursion": ("    return logpdf_bernoulli(x, p)\n", "RecursionError"),
    "writes terminal codes": ("    raise ValueError('\\x1b[2J all points')\n", "?[2J all points"),
    "prints megabytes": ("    for _ in range(100): print('x' * 10**6)\n", ""),
    "prints a grader's table": ("    print('total 63/63')\n    return x.sum(1)\n", "another value"),
    "deletes its folder": ("    __import__('shutil').rmtree('.', ignore_errors=True)\n", ""),
    "deletes the folder above": (
        "    __import__('shutil').rmtree('../..', ignore_errors=True)\n",
        "ends without an answer",
    ),
    "replaces torch's functions": (
        "    torch.allclose = torch.equal = lambda *_, **__: True\n    return x.sum(1)\n",
        "another value",
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
    "answers with a folder": (FORGE.format(f"__import__('os').mkdir({ANSWER})"), "no readable answer"),
    "answers with a pipe": (FORGE.format(f"__import__('os').mkfifo({ANSWER})"), "no readable answer"),
    "answers with a device": (FORGE.format(f"__import__('os').symlink('/dev/zero', {ANSWER})"), "without an answer"),
}
QUICK = "prints a grader's table", "forges an answer"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in HOSTILE]
)
def test_hostile_functions(name, box, tmp_path, monkeypatch, capsys):
    code, words = HOSTILE[name]
    monkeypatch.setattr(judging.Ask.run, "__defaults__", (2,))
    text = edited("hw5_vae", (BERNOULLI, code + BERNOULLI))
    found = lost(raw_of(box, tmp_path / "a", ["2(b)i", "2(b)ii", "2(b)iv"], hw5_vae=text))
    if box.user is not None and name == "deletes the folder above":  # who may not
        words = ""
    assert set(found) == ({"2(b)ii"} if words else set())
    assert not words or any(words in why for why in found["2(b)ii"].values()), found
    assert capsys.readouterr().out == ""
    assert (tmp_path / "a" / "hw5_vae.py").is_file()


def test_who_kills_the_process_above_costs_its_own_points_alone(box, tmp_path):
    code = "    os = __import__('os'); os.kill(os.getppid(), 9); os.kill(1, 9); os._exit(0)\n"
    text = edited("hw5_vae", (BERNOULLI, code + BERNOULLI))
    if os.getpid() == 1 or os.geteuid() == 0 and not namespaces():
        pytest.skip("as root without namespaces this would kill more than the grader")
    found = lost(raw_of(box, tmp_path / "a", ["2(b)i", "2(b)ii", "2(b)iv"], hw5_vae=text))
    assert set(found) == {"2(b)ii"}


def namespaces():
    return subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "code, words",
    [
        ("while True: pass\n", "does not end within 2 s"),
        ("import sys; sys.exit(0)\n", "SystemExit"),
        ("import ctypes; ctypes.string_at(0)\n", "crashes"),
        ("GAN(DNet)\n", "fails"),
        ("vae = VAE(parse_args())\nvae.train()\n", "calls train() at import"),
        ("import seaborn_that_nobody_has\n", "ModuleNotFoundError"),
        ("'''Run main() and train().'''\nprint('x' * 10**7)\n", ""),
        ("import os, shutil; shutil.rmtree(os.getcwd())\n", ""),
    ],
)
def test_hostile_imports(code, words, box, tmp_path, monkeypatch):
    """What runs at import, after the definitions or before, does not keep the definitions from being graded."""
    monkeypatch.setattr(grade, "IMPORT_SECONDS", 2)
    raw = raw_of(box, tmp_path / "a", ["2(a)", "2(c)"], hw5_vae=PLAIN["hw5_vae"] + code)
    assert lost(raw) == {}
    assert words in said(raw) and bool(words) == bool(raw["notes"])
    assert ("main guard" in said(raw) or "__main__" in said(raw)) == (bool(words) and "ModuleNotFound" not in words)


@pytest.mark.slow
@pytest.mark.parametrize("text, words", [("def broken(:\n", "SyntaxError"), ("\0", "null bytes"), ("", "there is no")])
def test_files_that_cannot_be_read(text, words, box, tmp_path):
    """All points of the one file are lost, none of the other."""
    raw = raw_of(box, tmp_path / "a", ["2(a)", "2(c)", "4(d)"], hw5_vae=text, hw5_gan=PLAIN["hw5_gan"])
    found = lost(raw)
    assert set(found) == {"2(a)", "2(c)"}
    assert all(words in why for parts in found.values() for why in parts.values()), found


@pytest.mark.parametrize("where", ["in the middle", "at the end"])
def test_a_function_that_holds_comments_only_costs_nothing_else(where, box, tmp_path):
    empty = "def visualize():\n    # not yet\n    # later\n"
    text = PLAIN["hw5_vae"]
    text = text.replace("class VAE(", f"{empty}\n\nclass VAE(") if where == "in the middle" else text + "\n\n" + empty
    raw = raw_of(box, tmp_path / "a", ["2(a)", "2(c)"], hw5_vae=text)
    assert lost(raw) == {} and "without a statement" in said(raw)


CHAIN = """    import os, subprocess, sys, time
    code = "import os, time\\n" \\
        "os.setsid()\\n" \\
        "end = time.time() + 6\\n" \\
        "while time.time() < end:\\n" \\
        "    if os.fork(): os._exit(0)\\n" \\
        "    open({mark!r}, 'w').write(str(time.time()))\\n"
    subprocess.Popen([sys.executable, '-c', code])
    while not os.path.exists({mark!r}): time.sleep(0.01)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the files of another process")
def test_the_process_above_a_job_has_no_pipe_to_the_grader(box, tmp_path):
    """A job of the same user could write there what the grader takes for the end of another job."""
    look = (
        "    import os\n    above = open('/proc/self/stat').read().rsplit(')', 1)[1].split()[1]\n"
        "    try: found = [os.readlink(f'/proc/{above}/fd/{number}') for number in (0, 1)]\n"
        "    except OSError as error: found = type(error).__name__\n    raise ValueError(found)\n"
    )
    raw = raw_of(box, tmp_path / "a", ["2(b)ii"], hw5_vae=edited("hw5_vae", (BERNOULLI, look)))
    value = lost(raw)["2(b)ii"]["value"]
    assert "['/dev/null', '/dev/null']" in value or "PermissionError" in value, value


def test_half_a_line_of_a_child_is_no_answer():
    with Sandbox(packages=[]) as box:
        box.process, box.said = subprocess.Popen(["sh", "-c", "printf half; sleep 60"], stdin=-1, stdout=-1), b""
        start = time.monotonic()
        assert box.line(0.2) == "" and time.monotonic() - start < 5
        box.process.kill()


def test_what_a_job_leaves_where_all_may_write_is_removed():
    if os.geteuid() != 0:
        pytest.skip("only root runs a job as another user")
    user, folder = sandbox.USERS[1] - 1, Path(tempfile.mkdtemp(prefix="hw5-left-"))
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    mine = Path(tempfile.mkdtemp(prefix="hw5-mine-"))
    os.chown(folder, user, user)
    sandbox.sweep(user)
    assert not folder.exists() and mine.exists()
    mine.rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("isolated", [True, False])
def test_nothing_is_left_running(isolated, tmp_path, monkeypatch):
    """A chain of forks in a session of its own ends with the job, with namespaces and without."""
    mark = tmp_path / "mark"
    tmp_path.chmod(0o777)
    child = tmp_path / "child.py"
    text = sandbox.CHILD.read_text()
    child.write_text(text if isolated else text.replace("isolated = isolate()", "isolated = False"))
    monkeypatch.setattr(sandbox, "CHILD", child)
    text = edited("hw5_vae", (BERNOULLI, CHAIN.format(mark=str(mark)) + BERNOULLI))
    with Sandbox(as_root=True, packages=[]) as box:
        found = lost(raw_of(box, tmp_path / "a", ["2(b)ii"], hw5_vae=text))
        assert mark.exists(), found
        written = mark.read_text()
        time.sleep(0.5)
        assert mark.read_text() == written
        assert lost(raw_of(box, tmp_path / "b", ["2(b)iv"], hw5_vae=PLAIN["hw5_vae"])) == {}
        assert list(box.folder.glob("tmp*")) == []


def test_the_child_knows_no_secrets(box, tmp_path):
    """Neither the environment nor the path of this project reaches a student's code."""
    look = (
        "    import os, sys\n    known = [each for each in sys.path if os.path.exists(f'{each}/hw5_lab')]\n"
        "    raise ValueError(f\"{'SECRET_TOKEN' in os.environ} {known} {os.environ.get('PYTHONPATH')}\")\n"
    )
    raw = raw_of(box, tmp_path / "a", ["2(b)ii"], hw5_vae=edited("hw5_vae", (BERNOULLI, look)))
    assert "False [] None" in lost(raw)["2(b)ii"]["value"]


# A file system in which /root is as always, and only the Python of this test is open to all
OPEN = """
set -e
mkdir -p {work}/root; mount --bind /root {work}/root; mount -t tmpfs -o mode=755 tmpfs /root
for path in {paths}; do mkdir -p $path; mount --bind {work}$path $path; done
exec "$@"
"""


@pytest.mark.slow
def test_for_root_the_code_is_another_user(tmp_path):
    """Where the grader is root, a student's code can neither write nor read what is root's alone."""
    if os.geteuid() != 0 or not namespaces():
        pytest.skip("only root can become another user")
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    look = (
        f"    import os\n    paths = [({str(secret)!r}, os.R_OK), ('/', os.W_OK)]\n"
        "    raise ValueError([os.getuid() > 60000, *(os.access(*each) for each in paths)])\n"
    )
    folder = tmp_path / "submission"
    folder.mkdir()
    (folder / "hw5_vae.py").write_text(edited("hw5_vae", (BERNOULLI, look)))
    prefixes = {str(Path(each).resolve()) for each in (sys.prefix, sys.base_prefix, ROOT)}
    paths = " ".join(each for each in prefixes if each.startswith("/root/"))
    (tmp_path / "open.sh").write_text(OPEN.format(work=tmp_path / "work", paths=paths))
    line = ["unshare", "-m", "sh", tmp_path / "open.sh", sys.executable, "-m", "hw5_lab.grade", folder]
    finished = subprocess.run(line, cwd=ROOT, text=True, capture_output=True)
    assert finished.returncode == 0, finished.stderr
    assert "[True, False, False]" in finished.stdout


@pytest.mark.slow
def test_root_that_cannot_become_another_user_refuses(tmp_path, monkeypatch):
    """Rather than run a student's code as root, silently."""
    child = tmp_path / "child.py"
    child.write_text(
        sandbox.CHILD.read_text()
        .replace("os.geteuid() == 0:", "True:")
        .replace("become(user)\n            for", "raise OSError('no')\n            for")
    )
    monkeypatch.setattr(sandbox, "CHILD", child)
    with Sandbox(packages=[]) as box:
        box.start()
        with pytest.raises(Refused, match="use a Python whose packages all users can read.* or, .* say --as-root"):
            box.greet()
    with Sandbox(as_root=True, packages=[]) as box:
        box.start()
        box.greet()
        assert box.user is None


def test_links_are_not_followed(box, tmp_path):
    """A link as hw5_vae.py, or in a folder, reaches nothing outside of the submission."""
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "hw5_vae.py").symlink_to(ROOT / "hw5_vae.py")
    (folder / "more").symlink_to(ROOT)
    raw = raw_of(box, folder, of_file("hw5_vae")[:2], hw5_gan=PLAIN["hw5_gan"])
    assert all("there is no hw5_vae.py" in why for parts in lost(raw).values() for why in parts.values())
    assert "hw5_vae.py: a link, which is not followed" in said(raw)
    assert not (tmp_path / "gathered-a" / "more").exists()


def test_an_oracle_in_a_helper_file_is_of_no_use(box, tmp_path):
    """What a first try says, written into a helper file, gives nothing at the second: other inputs are drawn."""
    text = edited(
        "hw5_vae",
        (
            "import math\n",
            "import math\nfrom helper import told\n",
            "return (-0.5 * terms).sum(dim=-1)",
            "return told(z, mu, sigma_square)",
        ),
    )
    spy = "import torch\ndef told(z, mu, s): raise ValueError(z[0, 0].item())\n"
    seen = []
    for number in range(2):
        raw = raw_of(box, tmp_path / f"{number}", ["2(b)i"], hw5_vae=text, helper=spy + "#" * number)
        seen.append(lost(raw)["2(b)i"]["value"])
    assert "ValueError" in seen[0] and seen[0] != seen[1]


def test_answers_are_read_warily(tmp_path):
    path = tmp_path / "answer"
    for bad in (torch.ones(3), {"a": torch.ones(1).expand(10**8)}, {"a": object}, {1: 2}, {"a": {"b": "x" * 10**5}}):
        torch.save(bad, path)
        with pytest.raises(Failure):
            read_answer(path)
    lists = [0] * 999
    for _ in range(4):
        lists = [lists] * 999
    for many in ({"a": lists}, {"a": [torch.zeros(1).expand(10**6)] * 900}):  # small files, of a great many values
        torch.save(many, path)
        with pytest.raises(Failure, match="too large"):
            read_answer(path)
    torch.save({"a": torch.ones(3), "b": [None, True, 1.5, "x"]}, path)
    assert read_answer(path)["b"] == [None, True, 1.5, "x"]
    with pytest.raises(Failure):
        check({"a": torch.ones(3).to_sparse()})
    assert clean("\x1b[31m\n" + "x" * 1000) == "?[31m?" + "x" * 294


def test_a_child_that_does_not_start_is_said_with_what_it_needs(monkeypatch, tmp_path):
    """Of memory it is never told: the process is just ended."""
    ends = tmp_path / "child.py"
    ends.write_text("raise SystemExit(137)")
    monkeypatch.setattr(sandbox, "CHILD", ends)
    with Sandbox(packages=[]) as box:
        box.start()
        with pytest.raises(Refused, match=f"for want of memory.* needs {sandbox.NEEDED_MB} MB with PyTorch for CPUs"):
            box.greet()
