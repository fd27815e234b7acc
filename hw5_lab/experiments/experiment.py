"""What a run asks of an experiment. An experiment holds a homework, and adds what the homework does not ask for."""

import hashlib
import io
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from hw5_lab.runs.folder import write
from hw5_utils import TEST, TRAIN, find_mnist, read_idx


class Experiment(ABC):
    """A homework in the laboratory. `homework` is an object of a script's class or of an edition.

    A subclass sets
      kind              "vae", "gan" or "diffusion"
      epochs, steps     how many epochs, and how many steps an epoch has
      columns           the names in a row of the history
      shown             what of it the progress bar shows
    and has the abstract methods below. All state of training is in the homework's own networks, optimizers and random
    generators, in `more_parts`, and in `record`, which holds plain values and tensors.
    """

    folder = None  # where figures are written: nowhere, until a run says otherwise

    def __init__(self, homework, args):
        self.homework, self.args = homework, args
        self.device = torch.device(args.device)
        self.record = {"history": []}
        self.more_parts = {}
        homework.save = self.save

    # ---- state

    @property
    def parts(self):
        """{name: network, optimizer, or what else has a state_dict}: all that the homework has, and more_parts."""
        found = {**getattr(self.homework, "_modules", {}), **vars(self.homework)}
        for name, value in list(found.items()):
            if isinstance(value, (list, tuple, dict)):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                found |= {f"{name}_{key}": each for key, each in items}
        if getattr(self.homework, "_parameters", None) or getattr(self.homework, "_buffers", None):
            found["own"] = OwnTensors(self.homework)
        parts, seen = {}, []
        for name, value in [*self.more_parts.items(), *found.items()]:
            if hasattr(value, "state_dict") and not any(value is each for each in seen):
                parts[name] = value
                seen += value.modules() if isinstance(value, torch.nn.Module) else [value]
        return parts

    @property
    def generators(self):
        """{name: torch.Generator} from which training draws: the homework's, and PyTorch's, for a student's dropout."""
        own = {name: value for name, value in vars(self.homework).items() if isinstance(value, torch.Generator)}
        if self.device.type == "cuda":
            own["cuda"] = torch.cuda.default_generators[self.device.index or 0]
        return {**own, "torch": torch.default_generator}

    @property
    def optimizers(self):
        return [part for part in self.parts.values() if isinstance(part, torch.optim.Optimizer)]

    def check_record(self, record):  # noqa: B027, most hold a history only, which is checked
        """An error where the record of a checkpoint is not one of this experiment."""

    @abstractmethod
    def data_tensors(self):
        """All data that a result depends on."""

    @abstractmethod
    def data_in_words(self):
        """What the data are."""

    # ---- training

    def get_ready(self):  # noqa: B027, most have nothing to do
        """What comes before the first epoch, of a new run and of a resumed one."""

    def rows(self, first):
        """Train from epoch `first` on, counted from 0; yields a row of the history after each epoch."""
        for row in self.homework.epochs(first):
            yield {**row, **self.watch()}

    @property
    @abstractmethod
    def clocks(self):
        """The optimizers whose steps are counted."""

    @abstractmethod
    def watch(self):
        """What a row of the history says besides the homework's own numbers."""

    def after_epoch(self, epoch):
        """What is drawn and kept after the `epoch`-th epoch, counted from 1; 0 is before the first of a new run."""
        self.homework.draw_epoch(epoch)

    def write_weights(self):  # noqa: B027, most have no such flags
        """Write weights to files of their own, where the flags name any."""

    # ---- what comes out

    @abstractmethod
    def measure(self, how="usual", progress=iter):
        """(metrics, findings): plain values for metrics.json, and tensors for figures and the page.

        `how` is "quick", "usual" or "full"; `progress` wraps the loops that take long.
        """

    @abstractmethod
    def summary(self, metrics):
        """The results in words, as lines."""

    def visualize(self):
        """The figures of the end, but for those of visualize_findings()."""
        self.homework.visualize()

    def visualize_findings(self, findings):  # noqa: B027, most have none
        """Figures of what measure() has found."""

    def save(self, figure, name):
        """Write a figure to the run's folder, atomically."""
        if self.folder:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=120)
            write(Path(self.folder) / name, buffer.getvalue())


class OwnTensors:
    """The parameters and buffers of a module that stand in no module of its own."""

    def __init__(self, module):
        self.tensors = {**module._parameters, **module._buffers}

    def state_dict(self):
        return {name: value.detach() for name, value in self.tensors.items() if value is not None}

    @torch.no_grad()
    def load_state_dict(self, state):
        for name, value in self.state_dict().items():
            value.copy_(state[name])


def name_of_data(data_dir=None):
    """What the files are: "MNIST", "the digits of data/sample", or "the images of" their folder. Told by a checksum."""
    folder, found = find_mnist(data_dir)
    content = hashlib.sha256()
    for name in (TRAIN[1], *TEST):
        content.update(read_idx(found[name]).tobytes())
    known = {"e870d7a74cf7ddea": "MNIST", "8047bb315915be29": "the digits of data/sample"}
    return known.get(content.hexdigest()[:16], f"the images of {folder}")


def images_in_words(images, data_dir):
    """How many of which: "10,000 images of MNIST"."""
    name = name_of_data(data_dir)
    return f"{len(images):,} of {name}" if name.startswith("the ") else f"{len(images):,} images of {name}"


def plot_epochs(axes, epochs, values, label):
    """A curve over the epochs; that of a single epoch is a dot."""
    axes.plot(epochs, values, "o" if len(epochs) == 1 else "-", label=label)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_xlabel("epoch")


def averaged(network, decay):
    """An average of a network's weights over training, to which update_parameters() adds; `decay`: what a step keeps.

    The first steps keep less, to forget the first, random weights sooner.
    """

    @torch.no_grad()
    def update(means, weights, done):
        share = min(decay, int(done) / (9 + int(done)))
        for mean, weight in zip(means, weights):
            mean.lerp_(weight, 1 - share)

    average = AveragedModel(network, multi_avg_fn=update).requires_grad_(False)
    average.n_averaged += 1  # the first weights: else the first update would replace them
    return average
