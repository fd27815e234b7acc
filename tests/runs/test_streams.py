"""hw5_lab/runs/streams: a run ends as finished, whoever listens; and Ctrl-C leaves no traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT
from helpers import small

SCRIPT = f"{sys.executable} {ROOT / 'hw5_vae.py'}"


def shell(command, folder, **environment):
    """Run a shell command; returns the finished process, with the exit codes of the pipe's parts on its last line."""
    line = " ".join(word for word in small("hw5_vae", folder, "--epochs", 1) if word != "--quiet")
    command = command.replace("RUN", f"{SCRIPT} {line}")
    return subprocess.run(
        ["bash", "-c", command + '; echo "codes: ${PIPESTATUS[@]}"'],
        text=True,
        capture_output=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def assert_finished(done, folder, codes="codes: 0"):
    assert done.stdout.splitlines()[-1].startswith(codes), (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr and "rror" not in done.stderr, done.stderr
    assert json.loads((folder / "metrics.json").read_text())["test_elbo"] < 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "command, unbuffered",
    [("RUN | head -1", ""), ("RUN | head -1", "1"), ("RUN > /dev/full", ""), ("RUN >&-", "")],
)
def test_nobody_listens_to_stdout(command, unbuffered, tmp_path):
    done = shell(command, tmp_path / "out", **({"PYTHONUNBUFFERED": unbuffered} if unbuffered else {}))
    assert_finished(done, tmp_path / "out")


@pytest.mark.parametrize(
    "command",
    [pytest.param(line, marks=pytest.mark.slow) for line in ("RUN 2>&-", "RUN 2> /dev/full", "RUN 2>&1 | true")],
)
def test_stderr_is_closed_full_or_a_closed_pipe(command, tmp_path):
    done = shell(command, tmp_path / "out")
    assert_finished(done, tmp_path / "out")
    assert "true" in command or "ELBO" in done.stdout, "it trains without a bar"


@pytest.mark.slow
def test_a_path_that_stdout_cannot_encode(tmp_path):
    folder = tmp_path / "caf\u00e9"
    done = shell("RUN", folder, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert_finished(done, folder)
    assert "caf\\xe9" in done.stdout


@pytest.mark.slow
def test_help_to_a_closed_pipe(tmp_path):
    done = shell("RUN --help | true", tmp_path / "out", PYTHONUNBUFFERED="1")
    assert "Traceback" not in done.stderr and "rror" not in done.stderr and done.stdout.startswith("codes: 0")


@pytest.mark.parametrize(
    "script",
    [
        "hw5_vae.py",
        pytest.param("hw5_gan.py", marks=pytest.mark.slow),
        pytest.param("hw5_diffusion.py", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("seconds", [0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_ctrl_c_during_the_imports(script, seconds, tmp_path):
    """As PyTorch begins to load, or in the middle of it."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script), "--output_dir", str(tmp_path / "out")],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    maps = Path(f"/proc/{process.pid}/maps")  # of Linux: the libraries that are loaded
    while maps.exists() and "libtorch" not in maps.read_text():
        time.sleep(0.01)
    time.sleep(seconds if maps.exists() else 0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, err
