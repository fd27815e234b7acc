"""What main() of every script does around an experiment: train, stop, resume, keep, measure, draw, say."""

import argparse
import hashlib
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import matplotlib
import torch
from tqdm import tqdm

from hw5_lab.page.explore import write_explore
from hw5_lab.runs.checkpoint import checksum, restore, snapshot
from hw5_lab.runs.flags import flag_of, one_line
from hw5_lab.runs.folder import RunFolder, as_json, load_tensors, save_history, save_tensors, write
from hw5_lab.runs.streams import forgiving_streams
from hw5_utils import HERE, Fault, find_mnist

MEASURING = {"iwae_samples", "samples", "langevin_steps", "langevin_eps", "measure"}  # of what comes after training
RECALLED = MEASURING | {"data_dir"}  # flags that run.json keeps beside the settings
NOT_SETTINGS = {  # flags that training does not depend on
    *RECALLED,
    "command",
    "named",
    "output_dir",
    "quiet",
    "resume_training",
    "evaluate",
    "rewrite",
    "e_path",
    "d_path",
}
EPOCHS = {"num_epoches", "n_epochs"}
WHERE = {"device", "deterministic", "threads"}  # must match for --resume, free for --evaluate


class Stopped(Exception):
    """Ctrl-C or SIGTERM came during an epoch."""


class StopRequest:
    """Ctrl-C and SIGTERM set `signum`, so that training ends after its step.

    Outside training, and the second time, they end the process at once, with the words of `advice` where there are any.
    """

    def __init__(self):
        self.signum, self.training, self.previous = None, False, {}
        self.advice = None

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
            if self.advice:
                with suppress(OSError):
                    os.write(2, f"\n{self.advice}\n".encode(errors="backslashreplace"))  # print() could be interrupted
            raise SystemExit(128 + signum)
        self.signum = signum


def run(parse, build):
    """A whole run. Returns the exit code: 0, 1 where training diverged, 2 for bad input, 130 and 143 for signals.

    `parse()` gives the settings, `build(args)` the experiment (see hw5_lab/experiments/experiment.py).
    """
    with forgiving_streams(), plain_figures():
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


@contextmanager
def plain_figures():
    """Matplotlib's own defaults: a user's matplotlibrc might turn images around, or want a TeX that is not there."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


# ---------------------------------------------------------------------------------------- a run, new or resumed


def train_and_measure(args, build, folder, stop, say):
    """A run, new or resumed; the exit code."""
    if args.resume_training and folder.finished and folder.mark["script"] == folder.script:
        if not wants_more_epochs(args, folder):
            say(f"The run in {shown(folder.path)} is finished: nothing to resume.")
            if args.named & {"e_path", "d_path"}:
                raise Fault(f"{shown(folder.path)}: a finished run writes no weights; copy them from its checkpoint.pt")
            return 0
    state = folder.load_checkpoint() if args.resume_training else None
    if state is None:
        experiment, settings = start(args, build, folder, say)
        kept = environment(args, experiment)
    else:
        experiment, settings = resume(args, build, folder, state, say)
        kept = state["environment"]
    stop.advice = None if args.quiet else f"Stopped. To go on: {again(args)}"
    experiment.folder = folder.path
    experiment.get_ready()
    if state is None:
        experiment.after_epoch(0)
    try:
        train(experiment, settings, kept, folder.path, stop, args.quiet, say)
    except Stopped:
        checkpoint = folder.path / "checkpoint.pt"
        if checkpoint.exists():
            say("Stopping: the figures of the epochs so far are drawn first.")
            restore(experiment, load_tensors(checkpoint), settings, checkpoint)
            experiment.visualize()
        epochs = len(experiment.record["history"])
        say(f"Stopped: the first {epochs} of {experiment.epochs} epochs are kept. To go on: {again(args)}")
        return 128 + stop.signum
    experiment.visualize()
    finish(experiment, kept, folder.path, say)
    return 0


def again(args):
    """The command that goes on with a run, from where the user stands."""
    python, script, *rest = shlex.split(args.command)
    script = script if Path.cwd() == HERE else str(HERE / script)
    return shlex.join([python, script, *rest, *([] if args.resume_training else ["--resume"])])


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
    mark = {"script": folder.script, "command": args.command, "settings": settings, "recalled": recalled(args)}
    if moved := folder.begin({**mark, "weights": weights}, args.resume_training):
        say(f"{shown(folder.path)} held an earlier run, which is now {shown(moved)}.")
    return experiment, settings


def recalled(args):
    """What run.json keeps of the flags that are no settings."""
    kept = {name: value for name, value in vars(args).items() if name in RECALLED}
    if "data_dir" in kept:
        kept["data_dir"] = str(find_mnist(args.data_dir)[0].absolute())  # also where it is the sample
    return kept


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
        folder.begin_again({**folder.mark, "settings": settings, "recalled": recalled(args)})
    elif args.named & MEASURING:
        folder.remember({**folder.mark, "recalled": recalled(args)})
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
    saved, flags = state.get("settings"), folder.mark.get("recalled")
    path = folder.path / "checkpoint.pt"
    if not isinstance(saved, dict) or not isinstance(flags, dict) or saved.keys() - {"data"} != ours:
        raise Fault(f"{path}: not a checkpoint of this version of the script; a new run keeps it, in another folder")
    typed = lambda settings: {name: (type(settings.get(name)), settings.get(name)) for name in saved.keys() - EPOCHS}
    if typed(saved) != typed(folder.mark["settings"]):
        raise Fault(f"{path}: not a checkpoint of the run in run.json; a new run keeps it, in another folder")
    kept = {**saved, **{name: value for name, value in flags.items() if name in RECALLED}}
    same = {name: value for name, value in kept.items() if name in vars(args) and name not in args.named | WHERE}
    return argparse.Namespace(**{**vars(args), **same})


def environment(args, experiment):
    """What else a result depends on. A revision is "dirty" where files differ from it."""
    revision = None
    if shutil.which("git"):
        describe = ["git", "-C", HERE, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        revision = subprocess.run(describe, capture_output=True, text=True).stdout.strip() or None
    return {
        "command": args.command,
        "data": experiment.data_in_words(),
        "seed": args.seed,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "revision": revision,
        "source": source_of(experiment.homework),
    }


def source_of(homework):
    """A checksum of the files that define a homework: its script's, and its edition's."""
    content = hashlib.sha256()
    for each in type(homework).__mro__:
        path = getattr(sys.modules.get(each.__module__), "__file__", None)
        if path and Path(path).resolve().is_relative_to(HERE):
            content.update(Path(path).read_bytes())
    return content.hexdigest()[:16]


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
            disable=quiet or not sys.stderr.works or not sys.stderr.isatty(),
        )
        self.lines = not quiet and not sys.stderr.isatty()  # a file or a log gets a line for each epoch
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
        numbers = {name: f"{row[name]:.4g}" for name in self.experiment.shown}
        self.bar.set_postfix(numbers)
        if self.lines:
            words = ", ".join(f"{name} {value}" for name, value in numbers.items())
            print(f"epoch {row['epoch']}/{self.experiment.epochs}: {words}", file=sys.stderr, flush=True)

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


def trained(args, build, folder):
    """(experiment, args, state) of the run in the folder, with its weights, as its checkpoint has them."""
    path = folder.path / "checkpoint.pt"
    state = folder.load_checkpoint()
    if state is None:
        raise Fault(f"{path}: no such file; --evaluate needs the checkpoint of a run")
    args = recall(args, state, folder)
    experiment, settings = build_experiment(args, build)
    restore(experiment, state, settings, path, training=False, free=WHERE)
    return experiment, args, state


def evaluate(args, build, folder, say):
    """--evaluate: what the model in the folder is worth; the exit code. Only a finished run's results are rewritten."""
    experiment, args, state = trained(args, build, folder)
    kept, now = state["environment"], environment(args, experiment)
    unchanged = kept.get("source") == now["source"]
    if not unchanged:
        say(f"The script or its edition has changed since this run{'' if args.rewrite else ': nothing is written'}.")
    if not folder.finished:
        say("This run is not finished: nothing is written.")
    rewrite = folder.finished and folder.writable and (unchanged or args.rewrite)
    if rewrite:
        experiment.folder = folder.path
    finish(experiment, kept, folder.path if rewrite else None, say, evaluation=now)
    return 0


def finish(experiment, kept, path, say, **more):
    """Measure the model, write explore.html and metrics.json, the mark of a finished run, and say the results.

    The page comes before what takes long, and once more after it. A page that cannot be written keeps no number back.
    """
    args = experiment.args
    if path and args.measure != "quick":
        write_page(experiment, {}, kept, path, {}, say)
    waits = args.quiet or not sys.stderr.isatty()
    progress = lambda items: tqdm(items, desc="measuring", disable=waits, leave=False, dynamic_ncols=True)
    metrics, findings = experiment.measure(args.measure, progress)
    seconds = sum(row["seconds"] for row in experiment.record["history"])
    experiment.visualize_findings(findings)
    paged = path and write_page(experiment, metrics, kept, path, findings, say)
    if path:  # the last file: with it a run is finished
        write(path / "metrics.json", as_json({**metrics, "seconds": seconds, **kept, **more}))
    for line in experiment.summary(metrics):
        say(line)
    if paged:
        say(f"To try the model, open {shown(path / 'explore.html')} in a browser.")
    if path:
        say(f"All numbers are in {shown(path / 'metrics.json')}, the figures beside it.")


def write_page(experiment, metrics, kept, path, findings, say):
    """Whether explore.html could be written. A student's network may be one that no page can show."""
    try:
        write_explore(experiment, metrics, kept, path, findings)
    except (OSError, Fault):  # a full disk is a fault of the run
        raise
    except Exception as error:
        say(f"explore.html cannot be written: {one_line(error) or type(error).__name__}")
        return False
    return True


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
