"""What main() of every script does around an experiment: train, stop, resume, keep, measure, draw, say."""

import argparse
import hashlib
import json
import math
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import matplotlib
import torch

from hw5_lab.page.explore import write_explore
from hw5_lab.runs.checkpoint import checksum, restore, snapshot
from hw5_lab.runs.flags import MEASURES, apply, contrast, count, devices, one_line
from hw5_lab.runs.folder import RunFolder, as_json, load_tensors, save_history, save_tensors, write
from hw5_lab.runs.progress import Progress, Stopped, StopRequest, measuring
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


def run(parse, build):
    """A whole run. Returns the exit code: 0, 1 where training diverged, 2 for bad input, 130 and 143 for signals.

    `parse()` gives the settings, `build(args)` the experiment (see hw5_lab/experiments/experiment.py).
    """
    with forgiving_streams(), plain_figures():
        args = parse()
        script = args.command.split()[1]
        complain = lambda text: print(one_line(f"{script}: {text}"), file=sys.stderr)
        try:
            with StopRequest() as stop, RunFolder(args.output_dir, script) as folder:
                this = Run(args, build, folder)
                return this.evaluate() if args.evaluate else this.train_and_measure(stop)
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
            where = "cpu" if isinstance(error, MemoryError) or "CPUAllocator" in str(error) else args.device
            complain(f"not enough memory on {where}; use smaller batches, networks or numbers of samples")
            return 2


@contextmanager
def plain_figures():
    """Matplotlib's own defaults: a user's matplotlibrc might turn images around, or want a TeX that is not there."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


class Run:
    """A run in its folder: new, resumed, or there to be evaluated.

    args        the flags; where a run is resumed or evaluated, those of its checkpoint that the command does not name
    experiment  see hw5_lab/experiments/experiment.py; with `settings`, all that its training depends on
    origin      what else its results depend on, kept from its first day: command, data, revision, ...
    """

    def __init__(self, args, build, folder):
        self.args, self.build, self.folder = args, build, folder
        self.checkpoint = folder.path / "checkpoint.pt"
        self.experiment = self.settings = self.origin = None

    def say(self, line):
        if not self.args.quiet:
            print(line, flush=True)

    def build_experiment(self):
        """Build the experiment: all that can be wrong with the input is said before a file is touched."""
        try:
            self.experiment = self.build(self.args)
            data = checksum(self.experiment.data_tensors())
        except ValueError as error:  # what the homework's own functions refuse
            raise Fault(error) from None
        flags = {name: value for name, value in vars(self.args).items() if name not in NOT_SETTINGS}
        self.settings = {**flags, "data": data}

    def flags_to_recall(self):
        """What run.json keeps of the flags that are no settings."""
        kept = {name: value for name, value in vars(self.args).items() if name in RECALLED}
        if "data_dir" in kept:
            kept["data_dir"] = str(find_mnist(kept["data_dir"])[0].absolute())  # also where it is the sample
        return kept

    # ------------------------------------------------------------------------------------ training

    def train_and_measure(self, stop):
        """The whole of a run, new or resumed; the exit code."""
        if self.args.resume_training and self.is_over():
            changed = " The script has changed since: without --resume a new run starts." if self.is_outdated() else ""
            self.say(f"The run in {shown(self.folder.path)} is finished: nothing to resume.{changed}")
            if self.args.named & {"e_path", "d_path"}:
                raise Fault(
                    f"{shown(self.folder.path)}: a finished run writes no weights; copy them from its checkpoint.pt"
                )
            return 0
        state = self.folder.load_checkpoint() if self.args.resume_training else None
        if state is None:
            self.start()
        else:
            self.resume(state)
        stop.advice = None if self.args.quiet else f"Stopped. To go on: {self.again()}"
        self.experiment.folder = self.folder.path
        self.experiment.get_ready()
        if state is None:
            self.experiment.after_epoch(0)
        try:
            self.train(stop)
        except Stopped:
            self.leave()
            return 128 + stop.signum
        self.experiment.write_weights()
        self.experiment.visualize()
        self.finish(self.folder.path)
        return 0

    def start(self):
        """A new run, or one that was stopped before its first checkpoint, with all settings that it had."""
        begun = self.args.resume_training and self.folder.mark
        if begun and begun["script"] == self.folder.script:
            self.take(begun["settings"], begun.get("recalled", {}))
        self.build_experiment()
        self.origin = self.surroundings()
        weights = self.args.resume_training and self.starts_from_weights()
        if self.args.resume_training:
            with_what = f"the weights of {self.args.e_path} and {self.args.d_path}" if weights else "epoch 1"
            if weights:
                self.experiment.load_weights()
            what = "checkpoint" if self.folder.mark else "run yet: a new one begins, with the flags of this command"
            self.say(f"{shown(self.folder.path)} holds no {what}: starting with {with_what}.")
        moved = self.folder.begin(
            {
                "script": self.folder.script,
                "command": self.args.command,
                "settings": self.settings,
                "recalled": self.flags_to_recall(),
                "weights": weights,
            },
            self.args.resume_training,
        )
        if moved:
            self.say(f"{shown(self.folder.path)} held an earlier run, which is now {shown(moved)}.")

    def starts_from_weights(self):
        """Whether a resumed run without a checkpoint starts from --e_path and --d_path: as when it was killed."""
        if self.folder.mark is not None:
            return self.folder.mark.get("weights") is True
        return bool(getattr(self.args, "e_path", None) or getattr(self.args, "d_path", None))

    def is_over(self):
        """Whether the folder's run is finished and the command names no more epochs; Fault for other settings."""
        if not self.folder.finished or self.folder.mark["script"] != self.folder.script:
            return False
        other = {
            name: value
            for name, value in self.folder.mark["settings"].items()
            if name in self.args.named and getattr(self.args, name) != value
        }
        for name, value in sorted(other.items(), key=lambda each: each[0] in EPOCHS):  # what is refused anyhow, first
            if name not in EPOCHS or getattr(self.args, name) < value or len(other) > 1:
                raise Fault(
                    f"{self.folder.path}: holds a finished run {contrast(name, value, getattr(self.args, name))}; "
                    "without --resume a new run starts"
                )
        if not other:
            self.refuse_what_a_finished_run_ignores()
        return not other

    def refuse_what_a_finished_run_ignores(self):
        """Fault for flags of this command that would change nothing: other measures, other data."""
        recalled = self.folder.mark.get("recalled", {})
        for name in sorted(self.args.named & MEASURING & recalled.keys()):
            now = getattr(self.args, name)
            if now != recalled[name]:
                other = contrast(name, recalled[name], now)
                raise Fault(f"{self.folder.path}: holds a finished run {other}; --evaluate measures it again")
        folder = self.args.data_dir if "data_dir" in self.args.named else None
        if folder and Path(folder).is_dir() and str(Path(folder).absolute()) != recalled.get("data_dir"):
            self.take(self.folder.mark["settings"], recalled)
            self.build_experiment()
            if self.settings["data"] != self.folder.mark["settings"].get("data"):
                raise Fault(
                    f"{self.folder.path}: holds a finished run with other data; without --resume a new run starts"
                )

    def is_outdated(self):
        """Whether the script has changed since the finished run in the folder; False where that cannot be found out."""
        try:
            self.take(self.folder.mark["settings"], self.folder.mark["recalled"])
            kept = json.loads((self.folder.path / "metrics.json").read_text())["source"]
            return kept != source_of(self.build(self.args).homework)
        except (Fault, OSError, ValueError, LookupError, TypeError):
            return False

    def resume(self, state):
        """Go on where the checkpoint's `state` ends. The command may name more epochs than the run had."""
        self.folder.refuse_unwritable()
        self.recall(state)
        saved, more = state["settings"], set()
        if not saved.get("refine_encoder"):  # its epochs come after those of the training
            for name in EPOCHS & saved.keys() - self.args.named:  # of a run that was stopped before the first new epoch
                if is_more(self.folder.mark["settings"][name], saved[name]):
                    setattr(self.args, name, self.folder.mark["settings"][name])
            more = {name for name in EPOCHS & saved.keys() if is_more(getattr(self.args, name), saved[name])}
        self.build_experiment()
        restore(self.experiment, state, self.settings, self.checkpoint, free=more)
        now = self.surroundings()
        changed = self.origin.get("source") != now["source"]
        if changed and not self.args.rewrite:
            raise Fault(
                f"{self.checkpoint}: the script or its edition has changed since this run began; without --resume a "
                "new run starts, with --rewrite the old weights go on in the changed script"
            )
        if more:
            done, epochs = len(self.experiment.record["history"]), self.experiment.epochs
            self.say(f"Going on from epoch {done} to {epochs}, at the learning rates of a run of {epochs} epochs.")
        if more or changed:
            self.origin["command"] = f"{self.origin.get('command')}; {self.args.command}"
        if changed:  # from now on the run is that of the changed script
            self.origin |= {name: now[name] for name in ("source", "revision")}
        if more or changed or self.args.named & MEASURING:
            mark = {
                **self.folder.mark,
                "command": self.origin.get("command"),
                "settings": self.settings,
                "recalled": self.flags_to_recall(),
            }
            self.folder.remember(mark, unfinished=bool(more))
        if more or changed:
            save_tensors(snapshot(self.experiment, self.settings, self.origin), self.checkpoint)

    def recall(self, state):
        """Take all flags that the command does not name from the run in the folder."""
        ours = {name for name in vars(self.args) if name not in NOT_SETTINGS}
        saved, flags, origin = state.get("settings"), self.folder.mark.get("recalled"), state.get("environment")
        plain = all(isinstance(each, dict) for each in (saved, flags, origin))
        if not plain or saved.keys() - {"data"} != ours:
            refusal = "not a checkpoint of this version of the script; a new run keeps it, in another folder"
            raise Fault(f"{self.checkpoint}: {refusal}")
        typed = lambda settings: {
            name: (type(settings.get(name)), settings.get(name)) for name in saved.keys() - EPOCHS
        }
        if typed(saved) != typed(self.folder.mark["settings"]):
            refusal = "not a checkpoint of the run in run.json; a new run keeps it, in another folder"
            raise Fault(f"{self.checkpoint}: {refusal}")
        self.origin = origin
        self.take(saved, flags)

    def take(self, settings, flags):
        """Take the settings of a run, and its recalled flags, where the command does not name others.

        Where to compute is taken for training only, and a device only where it is there.
        """
        kept = {**settings, **{name: value for name, value in flags.items() if name in RECALLED}}
        left = self.args.named | (WHERE if self.args.evaluate else set())
        if kept.get("device") not in devices():
            left |= {"device"}
        if not Path(kept.get("data_dir") or "").is_dir():  # of another machine; that the data are the same is checked
            left |= {"data_dir"}
        same = {name: kept[name] for name in kept.keys() & vars(self.args).keys() - left}
        self.args = argparse.Namespace(**{**vars(self.args), **same})
        apply(self.args)

    def train(self, stop):
        """Run the epochs that are left; checkpoint.pt and history.csv are written after each."""
        history, path = self.experiment.record["history"], self.folder.path
        stop.training = True
        with Progress(self.experiment, stop, self.args.quiet, self.say) as progress:
            begun = time.perf_counter()
            for row in self.experiment.rows(len(history)):
                row = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
                history.append({**row, "seconds": time.perf_counter() - begun})
                check_finite(self.experiment, history[-1])
                self.folder.refuse_another()
                self.experiment.after_epoch(len(history))
                save_tensors(snapshot(self.experiment, self.settings, self.origin), self.checkpoint)
                save_history(history, path / "history.csv")
                progress.epoch_done(row)
                if stop.signum:
                    raise Stopped
                begun = time.perf_counter()
        stop.training = False
        save_history(history, path / "history.csv")  # a kill may have come between the two files

    def leave(self):
        """The end of a run that was stopped: figures of what is kept, and how to go on."""
        self.folder.refuse_another()
        if self.checkpoint.exists():
            self.say("Stopping: the figures of the epochs so far are drawn first.")
            restore(self.experiment, load_tensors(self.checkpoint), self.settings, self.checkpoint)
            self.experiment.visualize()
        done, epochs = len(self.experiment.record["history"]), self.experiment.epochs
        kept = f"the first {done} of {epochs} epochs are kept" if done else f"none of {count(epochs, 'epoch')} is kept"
        self.say(f"Stopped: {kept}. To go on: {self.again()}")

    def again(self):
        """The command that goes on with this run, from where the user stands."""
        python, script, *rest = shlex.split(self.args.command)
        script = script if Path.cwd() == HERE else str(HERE / script)
        return shlex.join([python, script, *rest, *([] if self.args.resume_training else ["--resume"])])

    def surroundings(self):
        """What else a result depends on. A revision is "dirty" where files differ from it."""
        revision = None
        if shutil.which("git"):
            describe = ["git", "-C", HERE, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
            revision = subprocess.run(describe, capture_output=True, text=True).stdout.strip() or None
        return {
            "command": self.args.command,
            "data": self.experiment.data_in_words(),
            "seed": self.args.seed,
            "device": self.args.device,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "revision": revision,
            "source": source_of(self.experiment.homework),
        }

    # ----------------------------------------------------------------------------------- measuring

    def load(self):
        """Take the experiment, with its trained weights, from the checkpoint in the folder."""
        state = self.folder.load_checkpoint()
        if state is None:
            raise Fault(f"{self.checkpoint}: no such file; a model is loaded from the checkpoint of a run")
        self.recall(state)
        self.build_experiment()
        restore(self.experiment, state, self.settings, self.checkpoint, training=False, free=WHERE)

    def evaluate(self):
        """--evaluate: what the model is worth; the exit code. Only a finished run's results are rewritten."""
        if self.args.named & {"e_path", "d_path"}:
            raise Fault("--evaluate measures the weights in checkpoint.pt; leave --e_path and --d_path out")
        self.load()
        now = self.surroundings()
        unchanged = self.origin.get("source") == now["source"]
        if not unchanged:
            written = "" if self.args.rewrite else ": nothing is written"
            self.say(f"The script or its edition has changed since this run{written}.")
        if not self.folder.finished:
            self.say("This run is not finished: nothing is written.")
        measured = self.folder.mark["recalled"].get("measure")
        less = measured in MEASURES and MEASURES.index(self.args.measure) < MEASURES.index(measured)
        if less and self.folder.finished:
            self.say(f"The run was measured with --measure {measured}: nothing is written.")
        rewrite = self.folder.finished and self.folder.writable and (unchanged or self.args.rewrite) and not less
        if rewrite:
            self.experiment.folder = self.folder.path
        self.finish(self.folder.path if rewrite else None, evaluation=now)
        return 0

    def finish(self, path, **more):
        """Measure the model, write explore.html and metrics.json, the mark of a finished run, and say the results.

        The page of a new run comes before what takes long, and once more after it. Without a path nothing is written.
        """
        if path:
            self.folder.refuse_another()
        if path and self.args.measure != "quick" and not self.folder.finished:
            self.write_page({}, {})
        progress = partial(measuring, quiet=self.args.quiet, say=self.say)
        metrics, findings = self.experiment.measure(self.args.measure, progress)
        seconds = sum(row["seconds"] for row in self.experiment.record["history"])
        self.experiment.visualize_findings(findings)
        paged = path and self.write_page(metrics, findings)
        if path:  # the last file: with it a run is finished
            write(path / "metrics.json", as_json({**metrics, "seconds": seconds, **self.origin, **more}))
        for line in self.experiment.summary(metrics):
            self.say(line)
        if paged:
            self.say(f"To try the model, open {shown(path / 'explore.html')} in a browser.")
        if path:
            self.say(f"All numbers are in {shown(path / 'metrics.json')}, the figures beside it.")

    def write_page(self, metrics, findings):
        """Whether explore.html could be written. A page that cannot be written keeps no number back."""
        try:
            write_explore(self.experiment, metrics, self.origin, self.folder.path, findings)
        except (OSError, Fault):  # a full disk is a fault of the run
            raise
        except Exception as error:  # a student's network may be one that no page can show
            self.say(f"explore.html cannot be written: {one_line(error) or type(error).__name__}")
            return False
        return True


def is_more(value, saved):
    """Whether a flag's number is above the checkpoint's, which may be damaged."""
    return type(saved) is int and value > saved


def source_of(homework):
    """A checksum of the files that define a homework: its script's, and its edition's."""
    content = hashlib.sha256()
    for each in type(homework).__mro__:
        path = getattr(sys.modules.get(each.__module__), "__file__", None)
        # PyTorch's own classes lie below HERE too, where a virtual environment does
        if path and each.__module__.startswith("hw5_") and Path(path).resolve().is_relative_to(HERE):
            content.update(Path(path).read_bytes())
    return content.hexdigest()[:16]


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


def shown(path):
    """A path as the user would write it: relative to where they stand, if it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path
