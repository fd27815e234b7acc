"""While a run trains: Ctrl-C that waits for the step's end, the bar, a line for each epoch in a log."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

import torch
from tqdm import tqdm


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
        numbers = {name: f"{row[name]:#.4g}" for name in self.experiment.shown}
        self.bar.set_postfix(numbers)
        if self.lines:
            words = ", ".join(f"{name} {value}" for name, value in numbers.items())
            print(f"epoch {row['epoch']}/{self.experiment.epochs}: {words}", file=sys.stderr, flush=True)

    def tick(self, *_):
        """A step is done."""
        self.bar.update()
        self.done += 1
        elapsed = time.perf_counter() - self.start
        # A log gets this line before that of the first epoch
        if not self.announced and (
            elapsed > 2 or self.done == self.total or self.lines and self.done % self.experiment.steps == 0
        ):
            self.announced = True
            self.bar.clear()
            self.say(
                f"Training on {self.experiment.data_in_words()} with {device_in_words(self.experiment)}, "
                f"about {duration(elapsed * (self.total - self.first) / (self.done - self.first))}."
            )
        if self.stop.signum:
            raise Stopped


def measuring(items, quiet, say):
    """The items of a loop that measures, with a bar; a line says how long, where that is more than seconds."""
    items, start, announced = list(items), time.perf_counter(), False
    hidden = quiet or not sys.stderr.isatty()
    with tqdm(total=len(items), desc="measuring", disable=hidden, leave=False, dynamic_ncols=True) as bar:
        for done, item in enumerate(items, 1):
            yield item
            bar.update()
            elapsed = time.perf_counter() - start
            if not announced and elapsed > 2:
                announced = True
                bar.clear()
                say(f"Measuring, about {duration(elapsed * len(items) / done)}.")


def device_in_words(experiment):
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}" if experiment.device.type == "cpu" else experiment.device


def duration(seconds):
    """About how long, in words."""
    for unit, size in (("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= 1.5 * size or size == 1:
            count = max(1, round(seconds / size))
            return f"{count} {unit}{'s' if count > 1 else ''}"
