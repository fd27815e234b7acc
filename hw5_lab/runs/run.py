"""What main() of every script does around an experiment: train, stop, resume, keep, measure, draw, say."""

import argparse
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from tqdm import tqdm

from hw5_lab.page.explore import write_explore
from hw5_lab.runs.checkpoint import checksum, restore, snapshot
from hw5_lab.runs.flags import flag_of, one_line
from hw5_lab.runs.folder import RunFolder, as_json, load_tensors, save_history, save_tensors, write
from hw5_lab.runs.streams import forgiving_streams
from hw5_utils import HERE, Fault, find_mnist

MEASURING = {"iwae_samples", "samples", "langevin_steps", "langevin_eps"}  # flags of what comes after training
RECALLED = MEASURING | {"data_dir"}  # flags that run.json keeps beside the settings
NOT_SETTINGS = {  # flags that training does not depend on
    *RECALLED,
    "command",
    "named",
    "output_dir",
    "quiet",
    "resume_training",
    "evaluate",
    "e_path",
    "d_path",
}
EPOCHS = {"num_epoches", "n_epochs"}
WHERE = {"device", "deterministic"}  # must match for --resume, free for --evaluate


class Stopped(Exception):
    """Ctrl-C or SIGTERM came during an epoch."""


class StopRequest:
    """Ctrl-C and SIGTERM set `signum`, so that training ends after its step.

    Outside training, and the second time, they end the process at once.
    """

    def __init__(self):
        self.signum, self.training, self.previous = None, False, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # only there Python takes signals
            numbers = (signal.SIGINT, signal.SIGTERM)
            self.previous = {number: signal.signal(number, self.receive) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def receive(self, signum, frame):
        if self.signum or not self.training:
            raise SystemExit(128 + signum)
        self.signum = signum


def run(parse, build):
    """A whole run. Returns the exit code: 0, 1 where training diverged, 2 for bad input, 130 and 143 for signals.

    `parse()` gives the settings, `build(args)` the experiment (see hw5_lab/experiments/experiment.py).
    """
    with forgiving_streams():
        args = parse()
        script = args.command.split()[1]
        say = (lambda line: None) if args.quiet else lambda line: print(line, flush=True)
        complain = lambda text: print(one_line(f"{script}: {text}"), file=sys.stderr)
        try:
            with StopRequest() as stop, RunFolder(args.output_dir, script) as folder:
                if args.evaluate:
                    return evaluate(args, build, folder, say)
                return train_and_measure(args, build, folder, stop, say)
        except Fault as fault:
            complain(fault)
            return 2
        except OSError as error:  # a folder that vanished, became read-only, ...
            complain(f"{error.filename or args.output_dir}: {error.strerror or error}")
            return 2
        except FloatingPointError as error:
            complain(f"{error}; no checkpoint was written since the last good epoch")
            return 1
        except (MemoryError, RuntimeError) as error:
            if args.deterministic and "deterministic" in str(error):
                complain(f"--deterministic: {str(error).splitlines()[0]}")
                return 2
            if not isinstance(error, MemoryError) and "alloc" not in str(error).lower():
                raise
            complain(f"not enough memory on {args.device}; use smaller batches, networks or numbers of samples")
            return 2


# ---------------------------------------------------------------------------------------- a run, new or resumed


def train_and_measure(args, build, folder, stop, say):
    """A run, new or resumed; the exit code."""
    if args.resume_training and folder.finished and folder.mark["script"] == folder.script:
        if not wants_more_epochs(args, folder):
            say(f"The run in {shown(folder.path)} is finished: nothing to resume.")
            return 0
    state = folder.load_checkpoint() if args.resume_training else None
    if state is None:
        experiment, settings = start(args, build, folder, say)
        kept = environment(args)
    else:
        experiment, settings = resume(args, build, folder, state, say)
        kept = state["environment"]
    experiment.folder = folder.path
    experiment.get_ready()
    if state is None:
        experiment.after_epoch(0)
    try:
        train(experiment, settings, kept, folder.path, stop, args.quiet, say)
    except Stopped:
        checkpoint = folder.path / "checkpoint.pt"
        if checkpoint.exists():
            restore(experiment, load_tensors(checkpoint), settings, checkpoint)
            experiment.visualize()
        epochs = len(experiment.record["history"])
        again = args.command if args.resume_training else f"{args.command} --resume"
        say(f"Stopped: the first {epochs} of {experiment.epochs} epochs are kept. To go on: {again}")
        return 128 + stop.signum
    experiment.visualize()
    finish(experiment, kept, folder.path, say)
    return 0


def start(args, build, folder, say):
    """A new run in the folder: the experiment, and its settings."""
    experiment, settings = build_experiment(args, build)
    weights = False  # whether the run starts with those of --e_path and --d_path
    if args.resume_training:
        weights = starts_from_weights(args, folder.mark)
        with_what = f"the weights of {args.e_path} and {args.d_path}" if weights else "epoch 1"
        if weights:
            experiment.load_weights()
        say(f"{shown(folder.path)} holds no checkpoint: starting with {with_what}.")
    recalled = {name: value for name, value in vars(args).items() if name in RECALLED}
    if "data_dir" in recalled:
        recalled["data_dir"] = str(find_mnist(args.data_dir)[0].absolute())  # also where it is the sample
    mark = {"script": folder.script, "command": args.command, "settings": settings, "recalled": recalled}
    if moved := folder.begin({**mark, "weights": weights}, args.resume_training):
        say(f"{shown(folder.path)} held an earlier run, which is now {shown(moved)}.")
    return experiment, settings


def starts_from_weights(args, mark):
    """Whether a resumed run without a checkpoint starts from --e_path and --d_path: as it did when it was killed."""
    if mark is not None:
        return mark.get("weights") is True
    return bool(getattr(args, "e_path", None) or getattr(args, "d_path", None))


def wants_more_epochs(args, folder):
    """Whether the command names more epochs than the finished run in the folder has; Fault for other settings."""
    other = [
        (name, value)
        for name, value in folder.mark["settings"].items()
        if name in args.named and getattr(args, name) != value
    ]
    for name, value in other:
        if name not in EPOCHS or getattr(args, name) < value or len(other) > 1:
            raise Fault(
                f"{folder.path}: holds a finished run with {flag_of(name)} {value}, not {getattr(args, name)}; "
                "without --resume a new run starts"
            )
    return bool(other)


def resume(args, build, folder, state, say):
    """The experiment of the folder's run as its checkpoint has it, and its settings.

    The command may name more epochs than the run had.
    """
    path = folder.path / "checkpoint.pt"
    folder.refuse_unwritable()
    args = recall(args, state, folder)
    saved = state["settings"]
    more = {name for name in EPOCHS & args.named if type(saved[name]) is int and getattr(args, name) > saved[name]}
    if saved.get("refine_encoder"):
        more = set()  # its epochs come after those of the training
    experiment, settings = build_experiment(args, build)
    restore(experiment, state, settings, path, free=more)
    if more:
        done = len(experiment.record["history"])
        say(f"Going on from epoch {done} to {experiment.epochs}, at the learning rates of a run of so many epochs.")
        folder.begin_again({**folder.mark, "settings": settings})
    return experiment, settings


def build_experiment(args, build):
    """The experiment and its settings: all that can be wrong with the input is said before a file is touched."""
    try:
        experiment = build(args)
        data = checksum(experiment.data_tensors())
    except ValueError as error:  # what the homework's own functions refuse
        raise Fault(error) from None
    flags = {name: value for name, value in vars(args).items() if name not in NOT_SETTINGS}
    return experiment, {**flags, "data": data}


def recall(args, state, folder):
    """args with all that the command does not name as the run in the folder had it: no other flag is needed."""
    ours = {name for name in vars(args) if name not in NOT_SETTINGS}
    saved, recalled = state.get("settings"), folder.mark.get("recalled")
    path = folder.path / "checkpoint.pt"
    if not isinstance(saved, dict) or not isinstance(recalled, dict) or saved.keys() - {"data"} != ours:
        raise Fault(f"{path}: not a checkpoint of this version of the script; a new run keeps it, in another folder")
    typed = lambda settings: {name: (type(settings.get(name)), settings.get(name)) for name in saved.keys() - EPOCHS}
    if typed(saved) != typed(folder.mark["settings"]):
        raise Fault(f"{path}: not a checkpoint of the run in run.json; a new run keeps it, in another folder")
    kept = {**saved, **{name: value for name, value in recalled.items() if name in RECALLED}}
    same = {name: value for name, value in kept.items() if name in vars(args) and name not in args.named | WHERE}
    return argparse.Namespace(**{**vars(args), **same})


def environment(args):
    """What else a result depends on."""
    revision = None
    if shutil.which("git"):
        git = subprocess.run(["git", "-C", HERE, "rev-parse", "HEAD"], capture_output=True, text=True)
        revision = git.stdout.strip() or None
    return {
        "command": args.command,
        "seed": args.seed,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "revision": revision,
    }


def train(experiment, settings, kept, path, stop, quiet, say):
    """Run the epochs that are left, with a progress bar; checkpoint.pt and history.csv are written after each."""
    history = experiment.record["history"]
    stop.training = True
    with Progress(experiment, stop, quiet, say) as progress:
        begun = time.perf_counter()
        for row in experiment.rows(len(history)):
            history.append({**row, "seconds": time.perf_counter() - begun})
            check_finite(experiment, history[-1])
            experiment.after_epoch(len(history))
            save_tensors(snapshot(experiment, settings, kept), path / "checkpoint.pt")
            save_history(history, path / "history.csv")
            progress.epoch_done(row)
            if stop.signum:
                raise Stopped
            begun = time.perf_counter()
    stop.training = False
    save_history(history, path / "history.csv")  # a kill may have come between the two files


class Progress:
    """The bar, which moves at each step of an optimizer, and the run's first line, which waits for the pace."""

    def __init__(self, experiment, stop, quiet, say):
        self.experiment, self.stop, self.say = experiment, stop, say
        self.first = self.done = len(experiment.record["history"]) * experiment.steps
        self.total = experiment.epochs * experiment.steps
        self.bar = tqdm(
            total=self.total,
            initial=self.first,
            unit="step",
            dynamic_ncols=True,
            disable=quiet or not sys.stderr.works,
        )
        self.name_epoch()
        self.hooks = [optimizer.register_step_post_hook(self.tick) for optimizer in experiment.clocks]
        self.start, self.announced = time.perf_counter(), False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()
        for hook in self.hooks:
            hook.remove()

    def name_epoch(self):
        epoch = min(len(self.experiment.record["history"]) + 1, self.experiment.epochs)
        self.bar.set_description(f"epoch {epoch}/{self.experiment.epochs}")

    def epoch_done(self, row):
        self.name_epoch()
        self.bar.set_postfix({name: f"{row[name]:.4g}" for name in self.experiment.shown})

    def tick(self, *_):
        """A step is done."""
        self.bar.update()
        self.done += 1
        elapsed = time.perf_counter() - self.start
        if not self.announced and (elapsed > 2 or self.done == self.total):
            self.announced = True
            self.bar.clear()
            self.say(
                f"Training on {self.experiment.data_in_words()} with {device_in_words(self.experiment)}, "
                f"about {duration(elapsed * (self.total - self.first) / (self.done - self.first))}."
            )
        if self.stop.signum:
            raise Stopped


def check_finite(experiment, row):
    """FloatingPointError where an epoch's values or weights are not finite, so that no such checkpoint is written."""
    networks = {name: part for name, part in experiment.parts.items() if isinstance(part, torch.nn.Module)}
    weights = {
        f"{part}.{name}": value.sum().item()
        for part, network in networks.items()
        for name, value in network.state_dict().items()
    }
    for name, value in {**row, **weights}.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"after epoch {row['epoch']}: {name} is {value}; try a smaller --lr")


# ------------------------------------------------------------------------------------------------ its end


def evaluate(args, build, folder, say):
    """--evaluate: what the model in the folder is worth; the exit code. Only a finished run's results are rewritten."""
    path = folder.path / "checkpoint.pt"
    state = folder.load_checkpoint()
    if state is None:
        raise Fault(f"{path}: no such file; --evaluate needs the checkpoint of a run")
    args = recall(args, state, folder)
    experiment, settings = build_experiment(args, build)
    restore(experiment, state, settings, path, training=False, free=WHERE)
    rewrite = folder.finished and folder.writable
    if rewrite:
        experiment.folder = folder.path
    finish(experiment, state["environment"], folder.path if rewrite else None, say, evaluation=environment(args))
    return 0


def finish(experiment, kept, path, say, **more):
    """Measure the model, write explore.html and metrics.json, the mark of a finished run, and say the results."""
    metrics, findings = experiment.measure()
    experiment.visualize_findings(findings)
    seconds = sum(row["seconds"] for row in experiment.record["history"])
    if path:
        write_explore(experiment, metrics, kept, path, findings)
        write(path / "metrics.json", as_json({**metrics, "seconds": seconds, **kept, **more}))
    for line in experiment.summary(metrics):
        say(line)
    if path:
        say(f"To try the model, open {shown(path / 'explore.html')} in a browser.")
        say(f"All numbers are in {shown(path / 'metrics.json')}, the figures beside it.")


# ---------------------------------------------------------------------------------------------------- words


def shown(path):
    """A path as the user would write it: relative to where they stand, if it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path


def device_in_words(experiment):
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}" if experiment.device.type == "cpu" else experiment.device


def duration(seconds):
    """About how long, in words."""
    for unit, size in (("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= 1.5 * size or size == 1:
            count = max(1, round(seconds / size))
            return f"{count} {unit}{'s' if count > 1 else ''}"
