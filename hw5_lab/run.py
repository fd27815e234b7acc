"""What main() of every script does around its model: train, stop, resume, keep, measure, draw, say."""

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

from hw5_lab.checkpoint import check, checksum, restore, snapshot
from hw5_lab.command_line import one_line
from hw5_lab.folder import RunFolder, as_json, load_tensors, save_history, save_tensors, write
from hw5_lab.page.explore import write_explore
from hw5_lab.streams import forgiving_streams
from hw5_utils import HERE, Fault

MEASURING = {"iwae_samples", "samples", "langevin_steps", "langevin_eps"}  # flags of what comes after training
NOT_SETTINGS = {
    "command",
    "named",
    "data_dir",
    "output_dir",
    "quiet",
    "resume_training",
    "evaluate",
    "e_path",
    "d_path",
    *MEASURING,
}  # flags that training does not depend on
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


def run(parse, build, argv=None):
    """A whole run. Returns the exit code: 0, 1 where training diverged, 2 for bad input, 130 and 143 for signals.

    `parse(argv)` gives the settings, `build(args)` the model (see hw5_lab/model.py).
    """
    with forgiving_streams():
        args = parse(argv)
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


def settings_of(args, model):
    """All that training depends on: flags, and the checksum of the data."""
    flags = {name: value for name, value in vars(args).items() if name not in NOT_SETTINGS}
    return {**flags, "data": checksum(model.data_tensors())}


def build_model(args, build):
    """The model, its data read: all that can be wrong with the input is said before a file is touched."""
    try:
        model = build(args)
        return model, settings_of(args, model), model.steps
    except ValueError as error:  # what the homework's own functions refuse
        raise Fault(error) from None


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


def train_and_measure(args, build, folder, stop, say):
    """A run, new or resumed; the exit code."""
    resumed = args.resume_training and folder.mark is not None
    if resumed and folder.finished and folder.mark["script"] == folder.script:
        for name, value in folder.mark["settings"].items():
            if name in args.named and getattr(args, name) != value:
                raise Fault(
                    f"{folder.path}: holds a finished run with --{name} {value}, not {getattr(args, name)}; "
                    "without --resume a new run starts"
                )
        say(f"The run in {shown(folder.path)} is finished: nothing to resume.")
        return 0
    state = folder.load_checkpoint() if resumed else None
    # Weights from --e_path and --d_path are where a run starts, not what its end has left there
    weights = args.resume_training and state is None and (not resumed or folder.mark.get("weights") is True)
    model, settings, _ = build_model(argparse.Namespace(**{**vars(args), "resume_training": weights}), build)
    if state is None:
        weights = weights and bool(getattr(args, "e_path", None))
        if args.resume_training:
            start = f"with the weights of {args.e_path} and {args.d_path}" if weights else "with epoch 1"
            say(f"{shown(folder.path)} holds no checkpoint: starting {start}.")
        mark = {
            "script": folder.script,
            "command": args.command,
            "settings": settings,
            "weights": weights,
            "measuring": {name: value for name, value in vars(args).items() if name in MEASURING},
        }
        if moved := folder.begin(mark, args.resume_training):
            say(f"{shown(folder.path)} held an earlier run, which is now {shown(moved)}.")
    else:
        folder.refuse_unwritable()
        check(model, state, settings, folder.path / "checkpoint.pt")
        restore(model, state)
    model.folder = folder.path
    kept = state["environment"] if state else environment(args)

    model.get_ready()
    if not model.record["history"]:
        model.before_first_epoch()
    try:
        train(model, settings, kept, folder.path, stop, args.quiet, say)
    except Stopped:
        if (folder.path / "checkpoint.pt").exists():
            restore(model, load_tensors(folder.path / "checkpoint.pt"))
            model.visualize()
        epochs = len(model.record["history"])
        again = args.command if args.resume_training else f"{args.command} --resume"
        say(f"Stopped: the first {epochs} of {model.epochs} epochs are kept. To go on: {again}")
        return 128 + stop.signum
    model.visualize()
    finish(model, kept, folder.path, say)
    return 0


def train(model, settings, kept, path, stop, quiet, say):
    """Run the epochs that are left, with a progress bar; checkpoint.pt and history.csv are written after each."""
    history = model.record["history"]
    stop.training = True
    with Progress(model, stop, quiet, say) as progress:
        while (epoch := len(history)) < model.epochs:
            progress.bar.set_description(f"epoch {epoch + 1}/{model.epochs}")
            start = time.perf_counter()
            try:
                row = model.run_epoch(epoch, progress.tick)
            except FloatingPointError as error:
                step = min(progress.done - epoch * model.steps + 1, model.steps)
                raise FloatingPointError(f"epoch {epoch + 1}, step {step}: {error}") from None
            history.append({"epoch": epoch + 1, **row, "seconds": time.perf_counter() - start})
            check_finite(model, history[-1])
            model.after_epoch(epoch + 1)
            save_tensors(snapshot(model, settings, kept), path / "checkpoint.pt")
            save_history(history, path / "history.csv")
            progress.bar.set_postfix({name: f"{row[name]:.4g}" for name in model.shown})
            if stop.signum:
                raise Stopped
    stop.training = False
    save_history(history, path / "history.csv")  # a kill may have come between the two files


class Progress:
    """The bar, which moves at each step, and the run's first line, which waits until the pace is known."""

    def __init__(self, model, stop, quiet, say):
        self.model, self.stop, self.say = model, stop, say
        self.first = self.done = len(model.record["history"]) * model.steps
        self.total = model.epochs * model.steps
        self.bar = tqdm(
            total=self.total, initial=self.first, unit="step", dynamic_ncols=True, disable=quiet or not sys.stderr.works
        )
        self.start, self.announced = time.perf_counter(), False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def tick(self):
        """A step is done."""
        self.bar.update()
        self.done += 1
        elapsed = time.perf_counter() - self.start
        if not self.announced and (elapsed > 2 or self.done == self.total):
            self.announced = True
            self.bar.clear()
            self.say(
                f"Training on {self.model.data_in_words()} with {device_in_words(self.model)}, "
                f"about {duration(elapsed * (self.total - self.first) / (self.done - self.first))}."
            )
        if self.stop.signum:
            raise Stopped


def check_finite(model, row):
    """FloatingPointError where an epoch's values or weights are not finite, so that no such checkpoint is written."""
    numbers = {
        **row,
        **{
            f"{part}.{name}": value.sum().item()
            for part, network in model.parts.items()
            if isinstance(network, torch.nn.Module)
            for name, value in network.state_dict().items()
        },
    }
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"after epoch {row['epoch']}: {name} is {value}; try a smaller --lr")


def evaluate(args, build, folder, say):
    """--evaluate: what the model in the folder is worth; the exit code. Only a finished run's results are rewritten."""
    path = folder.path / "checkpoint.pt"
    state = folder.load_checkpoint()
    if state is None:
        raise Fault(f"{path}: no such file; --evaluate needs the checkpoint of a run")
    args = recall(args, state, folder.mark, path)
    model, settings, _ = build_model(argparse.Namespace(**{**vars(args), "resume_training": False}), build)
    check(model, state, settings, path, WHERE)
    restore(model, state, training=False)
    rewrite = folder.finished and folder.writable
    if rewrite:
        model.folder = folder.path
    finish(model, state["environment"], folder.path if rewrite else None, say, evaluation=environment(args))
    return 0


def recall(args, state, mark, path):
    """args with all that the command does not name as the run had it: no other flag is needed."""
    ours = {name for name in vars(args) if name not in NOT_SETTINGS}
    saved = state.get("settings") if isinstance(state, dict) else None
    if not isinstance(saved, dict) or saved.keys() - {"data"} != ours:
        raise Fault(f"{path}: not a checkpoint of this version of the script")
    measured = mark.get("measuring") if isinstance(mark.get("measuring"), dict) else {}
    measured = {name: value for name, value in measured.items() if type(value) is type(getattr(args, name, None))}
    same = {name: {**saved, **measured}[name] for name in (ours | measured.keys()) - args.named - WHERE}
    return argparse.Namespace(**{**vars(args), **same})


def finish(model, kept, path, say, **more):
    """Measure the model, write explore.html and metrics.json, the mark of a finished run, and say the results."""
    metrics = model.measure()
    seconds = sum(row["seconds"] for row in model.record["history"])
    if path:
        write_explore(model, metrics, kept, path)
        write(path / "metrics.json", as_json({**metrics, "seconds": seconds, **kept, **more}))
    for line in model.summary(metrics):
        say(line)
    if path:
        say(f"To try the model, open {shown(path / 'explore.html')} in a browser.")
        say(f"All numbers are in {shown(path / 'metrics.json')}, the figures beside it.")


# ---------------------------------------------------------------------------------------------------- words


def shown(path):
    """A path as the user would write it: relative to where they stand, if it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path


def device_in_words(model):
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}" if model.device.type == "cpu" else f"the {model.device}"


def duration(seconds):
    """About how long, in words."""
    for unit, size in (("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= 1.5 * size or size == 1:
            count = max(1, round(seconds / size))
            return f"{count} {unit}{'s' if count > 1 else ''}"
