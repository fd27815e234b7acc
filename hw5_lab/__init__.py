"""The laboratory: everything that the homework does not ask for. The scripts hand over to it in main(), where it lies.

door          the one place that knows all models, editions and flags
runs          a run around an experiment: its folder, checkpoint, flags, progress, streams
experiments   a homework and what a run needs of it: its state, measures, more figures
measures      what a model is worth, as functions of a model and data
editions      other editions of the homework, as subclasses of the scripts' classes
fast          layers that compute the same in less time
page          explore.html, in which the model of a run works
teaching      the hand-out for students, the grader, and the text of the notebook
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


def load(folder):
    """The homework object of a run, with its trained weights, in evaluation mode: load("outputs/vae").decoder(z).

    Fault for a folder that holds no checkpoint of a run.
    """
    from hw5_lab.door import load as load_run  # here: the scripts import this module before they know what they need

    return load_run(folder)
