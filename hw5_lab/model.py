"""What a run asks of a model. Each model of the laboratory is a homework's own class with this one before it."""

import io
import math
from pathlib import Path

from hw5_lab.checkpoint import Difference, check_number, compare
from hw5_lab.folder import write


class Model:
    """The part that is the same for all models.

    A model adds
      kind, edition     "vae", "gan" or "diffusion", and whose homework it is
      epochs, steps     how many epochs, and how many steps an epoch has
      columns           the names in a row of the history
      shown             what of it the progress bar shows
      parts             {name: network or optimizer}
      generators        {name: torch.Generator} that training draws from
      data_tensors()    all data that a result depends on
      data_in_words()   what the data are
      train_epoch(epoch, tick), look() -> dict, for a row of the history
      visualize(), measure() -> dict of plain values, summary(metrics) -> lines of text
      device            where it computes
    All other state is in `record`, as plain values and tensors.
    """

    folder = None  # where figures are written: nowhere, until a run says otherwise

    def get_ready(self):
        """What comes before the first epoch, of a new run and of a resumed one."""

    def before_first_epoch(self):
        """What only a new run draws."""

    def after_epoch(self, epoch):
        """Figures of the `epoch`-th epoch, counted from 1."""

    def run_epoch(self, epoch, tick):
        """Train one epoch, counted from 0; its row of the history, without number and time."""
        return {**self.train_epoch(epoch, tick), **self.look()}

    def check_record(self, record):
        """Difference where the record, but for its history, is not one of this model."""
        compare(
            {name: value for name, value in record.items() if name != "history"},
            {name: value for name, value in self.record.items() if name != "history"},
            "record",
        )

    def save(self, picture, name):
        """Write a figure to the run's folder, atomically."""
        if self.folder:
            buffer = io.BytesIO()
            if hasattr(picture, "savefig"):
                picture.savefig(buffer, format="png", dpi=120)
            else:
                self.render(picture, buffer)
            write(Path(self.folder) / name, buffer.getvalue())


def update_average(average, network, decay, done):
    """Move an average of a network's weights towards these, after `done` steps; `decay`: the share that a step keeps.

    The first steps keep less, to forget the first, random weights sooner.
    """
    decay = min(decay, done / (9 + done))
    for mean, weight in zip(average.parameters(), network.parameters()):
        mean.lerp_(weight.detach(), 1 - decay)


def check_pairs(pairs, name, most):
    """Difference unless `pairs` is a list of at most so many pairs of finite numbers."""
    if not isinstance(pairs, list) or len(pairs) > most:
        raise Difference(f"{name} is no list of at most {most} pairs")
    for pair in pairs:
        if type(pair) is not tuple or len(pair) != 2:
            raise Difference(f"{name} holds something else than pairs")
        for value in pair:
            check_number(value, name)


def standard_error(values):
    """Of the mean of [N] values; NaN for a single one."""
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
