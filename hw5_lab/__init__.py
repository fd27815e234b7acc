"""The laboratory: everything that the homework does not ask for. The scripts hand over to it in main(), where it lies.

runs       command_line (shared flags), run (train, stop, resume, evaluate), folder, checkpoint, streams, model
models     vae with likelihood and refine, gan with evaluator, diffusion; editions/ has a file per other course
pages      explore and its template: the page in which a trained model runs
teaching   starter writes the hand-out, grade judges submissions
"""

import sys

import hw5_utils

if not hasattr(hw5_utils, "Fault"):
    print(
        f"hw5_lab: needs this project's own hw5_utils.py, found {hw5_utils.__file__}; "
        "put it back, or move hw5_lab away",
        file=sys.stderr,
    )
    raise SystemExit(2)
