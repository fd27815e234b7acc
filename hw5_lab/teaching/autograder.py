"""Writes all of Gradescope's autograder as one zip, to be uploaded as it is.

    python -m hw5_lab.autograder OUT.zip

setup.sh runs once, when the platform builds its image; run_autograder runs for every submission, and writes
results.json. The project's own folder is readable for root alone, so that a student's code cannot read it.
"""

import argparse
import json
import sys
import zipfile
from pathlib import Path

from hw5_lab.teaching import grade
from hw5_lab.teaching import scheme as points
from hw5_lab.teaching.sandbox import NEEDED_MB, ROOT

SETUP = """#!/usr/bin/env bash
# Runs once, as root, when the platform builds its image.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
python=$(command -v python3.12 || command -v python3.11 || true)
if ! "${python:-false}" -c 'import ensurepip' 2> /dev/null; then
    name=$(basename "${python:-python3.11}")
    apt-get update
    apt-get install -y "$name" "$name-venv"
    python=$(command -v "$name")
fi
"$python" -m venv /opt/hw5
# PyTorch for CPUs is a tenth of the one for GPUs, and needs a third of the memory
/opt/hw5/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch torchvision ||
    /opt/hw5/bin/pip install --no-cache-dir torch torchvision
/opt/hw5/bin/pip install --no-cache-dir numpy matplotlib tqdm
chmod -R a+rX /opt/hw5
chmod -R go= /autograder/source
"""

RUN = """#!/usr/bin/env bash
# Runs for every submission. results.json is there before anything can go wrong.
mkdir -p /autograder/results
cp /autograder/source/first.json /autograder/results/results.json
cd /autograder/source/hw5 || exit 0
export OMP_NUM_THREADS=1
/opt/hw5/bin/python -m hw5_lab.grade /autograder/submission \\
    --points /autograder/source/points.toml --gradescope /autograder/results/results.json {flags}
code=$?
if [ "$code" -gt 3 ]; then
    /opt/hw5/bin/python - "$code" <<'END'
import json, sys
path = "/autograder/results/results.json"
results = json.load(open(path))
why = "The grader was ended (code %s), by its memory limit? It needs {needed} MB." % sys.argv[1]
results["output"] = why + " What was graded before counts. " + results.get("output", "")
json.dump(results, open(path, "w"))
END
fi
exit 0
"""


def files():
    """The project's files that grading needs, relative to its root."""
    yield from ("hw5_utils.py", "hw5_lab/__init__.py", "hw5_lab/grade.py")
    yield from ("hw5_lab/runs/__init__.py", "hw5_lab/runs/streams.py")
    teaching = ROOT / "hw5_lab" / "teaching"
    yield from (str(path.relative_to(ROOT)) for path in sorted(teaching.glob("*.py")) if path.stem in MODULES)
    yield from (str(path.relative_to(ROOT)) for path in sorted((ROOT / "data" / "sample").glob("*.gz")))


MODULES = {
    *("__init__", "grade", "scheme", "judging", "sandbox", "child", "submission", "diagnoses"),
    *("questions_vae", "questions_networks", "questions_losses", "questions_diffusion"),
}


def write(out, scheme_file=points.DEFAULT, as_root=False):
    """Write the zip. Fault for a file of points that cannot be used, OSError where the zip cannot be written."""
    scheme = points.read(scheme_file)
    why = "not graded: the grader did not start, or was ended at once, by a memory limit?"
    raw = grade.unfinished(list(scheme.questions), why)
    texts = {
        "setup.sh": SETUP,
        "run_autograder": RUN.replace("{flags}", "--as-root" if as_root else "").replace("{needed}", str(NEEDED_MB)),
        "first.json": json.dumps(grade.as_gradescope(scheme.results(raw), raw), indent=1),
        "points.toml": Path(scheme_file).read_text(encoding="utf-8"),
    }
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            runs = name in ("setup.sh", "run_autograder")
            entry.external_attr = (0o100755 if runs else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
        for name in files():
            archive.write(ROOT / name, f"hw5/{name}")


def main(argv=None):
    """The exit code: 0, or 2 where the zip cannot be written."""
    parser = argparse.ArgumentParser("hw5_lab.autograder", description="Write Gradescope's autograder as one zip.")
    parser.add_argument("out", type=Path, metavar="OUT.zip", help="the zip, to be uploaded as it is")
    parser.add_argument("--points", type=Path, metavar="FILE", default=points.DEFAULT, help="what it is worth")
    args = parser.parse_args(argv)
    try:
        write(args.out, args.points)
    except points.Fault as fault:
        print(f"hw5_lab.autograder: {fault}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"hw5_lab.autograder: {args.out}: {error.strerror or error}", file=sys.stderr)
        return 2
    print(f"{args.out}: upload it as the assignment's autograder")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
