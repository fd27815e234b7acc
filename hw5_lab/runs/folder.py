"""Run folders and their files. A folder is one run: a new run renames it as a whole, and refuses any other folder.

A run's mark is run.json. It is written first, and names the script and its settings. metrics.json is written last.
"""

import csv
import errno
import io
import json
import os
import pickle
import re
import zipfile
from contextlib import suppress
from pathlib import Path

import filelock  # comes with torch
import numpy as np
import torch

from hw5_utils import Fault, write_atomically

# The figures that runs of all editions write
FIGURE = re.compile(
    r"(data|data_space|elbo|gap|goal|inter_class_interpolation|interpolation|latent_space|losses|"
    r"manifold|quality|reconstructions|samples|samples_epoch_\d+(?:\.\d+)?|score_field|trajectories|"
    r"updates)\.png"
)
OWN = {"run.json", "checkpoint.pt", "metrics.json", "history.csv", "explore.html", "best.pt", "classifier.pt"}


def write(path, content):
    """Write bytes atomically. One name serves all unfinished files of a folder, which is locked for one process."""
    write_atomically(path, content, Path(path).with_name(".partial"))


def tensor_bytes(content):
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def save_tensors(content, path):
    """torch.save into a run's folder, atomically."""
    write(path, tensor_bytes(content))


def load_tensors(path):
    """What save_tensors wrote, on the CPU. Runs no code from the file; Fault for a damaged or foreign one."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums that it writes
            # Torch does not read a content that is marked as a folder: its tensor would be whatever lay in memory
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & 0x10]
            damaged = archive.testzip() or next(iter(folders), None)
        if damaged:
            raise Fault(f"{damaged} is not as it was written")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose words advise to run what the file holds
        raise Fault(f"{path}: holds something else than tensors and plain values, so it is not read") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Fault(f"{path}: damaged, or no file of tensors ({reason})") from None


def save_history(history, path):
    """Write a list of rows (dicts with the same keys) as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write(path, text.getvalue().encode())


def save_gif(frames, path, seconds=8, scale=2):
    """Write uint8 frames [H,W] as a looping GIF of about `seconds`, enlarged; the last frame stays longer."""
    from PIL import Image  # comes with matplotlib

    images = [Image.fromarray(np.asarray(frame).repeat(scale, 0).repeat(scale, 1)) for frame in frames]
    pause = max(20, 1000 * seconds // len(images))  # milliseconds
    buffer = io.BytesIO()
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], loop=0, duration=[pause] * (len(images) - 1) + [2000]
    )
    write(path, buffer.getvalue())


def as_json(values):
    """Bytes of a JSON object; a number that JSON does not have, such as NaN, is null."""
    finite = {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in values.items()
    }
    return json.dumps(finite, indent=2).encode() + b"\n"


NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


class RunFolder:
    """An output folder, new or of an earlier run, locked while the context lasts if it is there.

    `mark` is what run.json of an earlier run says, else None. `writable` is False where nothing can be written.
    """

    def __init__(self, path, script):
        self.path, self.script = Path(os.path.abspath(path)), script
        self.lock, self.mark, self.writable = None, None, True

    def __enter__(self):
        self.mark = self.look()
        self.had_lock = (self.path / ".lock").exists()
        if self.mark:
            self.take_lock()
        return self

    def __exit__(self, kind, error, _):
        if self.lock:
            # A refused command leaves nothing behind; nor does it take the lock of a run that is here meanwhile
            leaves_nothing = isinstance(error, Fault) and not self.had_lock
            on_windows = os.name == "nt"  # which removes no open file
            if leaves_nothing and not on_windows:
                self.remove_lock()
            self.lock.release()
            if leaves_nothing and on_windows:
                self.remove_lock()

    def remove_lock(self):
        with suppress(OSError):  # the folder is gone
            if self.is_here():
                (self.path / ".lock").unlink(missing_ok=True)

    def look(self):
        """The mark of the run in the folder, None where there is no folder or an empty one; else Fault."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Fault(f"--output_dir {self.path}: {error.strerror}; name a folder that can be written") from None
        try:
            mark = json.loads((self.path / "run.json").read_text())
            dicts = isinstance(mark["settings"], dict) and isinstance(mark.get("recalled", {}), dict)
            if dicts and mark["script"].startswith("hw5_"):
                return mark
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # none, or not of a run
            pass
        ours = {".lock"} if self.lock else set()  # without flock a lock is not empty
        others = [name for name in names if name not in ours and not self.left_by_a_run(self.path / name)]
        if others:
            raise Fault(f"--output_dir {self.path}: holds {others[0]}, which is not of a run; name another folder")
        return None

    @staticmethod
    def left_by_a_run(path):
        """Whether this is what a process leaves that is killed right at its start: a lock, a half mark."""
        if path.name not in (".lock", ".partial") or not path.is_file():
            return False
        mark = b'{\n  "script": "hw5_'  # as as_json() begins it
        with path.open("rb") as file:
            start = file.read(len(mark))
        return not start if path.name == ".lock" else mark.startswith(start)

    def take_lock(self):
        self.identity = self.path.stat()
        try:
            self.lock = filelock.FileLock(self.path / ".lock")
            self.lock.acquire(blocking=False)
        except filelock.Timeout:
            self.lock = None
            raise Fault(
                f"--output_dir {self.path}: another run is writing there; wait for it or name another folder"
            ) from None
        except (OSError, NotImplementedError) as error:
            without = isinstance(error, NotImplementedError) or error.errno in NO_LOCKS  # of some file systems
            self.lock, self.writable = None, without
            self.reason = getattr(error, "strerror", None) or str(error)

    @property
    def finished(self):
        return self.mark is not None and (self.path / "metrics.json").exists()

    def load_checkpoint(self):
        """The checkpoint of the run in the folder, or None."""
        path = self.path / "checkpoint.pt"
        if self.mark is None or not path.exists():
            return None
        if self.mark["script"] != self.script:
            raise Fault(f"{path}: belongs to a run of {self.mark['script']}; name the folder of a run of {self.script}")
        try:
            state = load_tensors(path)
            if not isinstance(state, dict):
                raise Fault(f"{path}: not a checkpoint, but a {type(state).__name__}")
        except Fault as fault:
            raise Fault(f"{fault}; a new run keeps this file, in a folder of another name") from None
        return state

    def begin(self, mark, resumed=False):
        """Make the folder ready for a new run and write its mark. A run that it holds is renamed as a whole.

        It stays where it holds nothing but its mark, or where it is `resumed` with the same settings before its first
        checkpoint.
        Returns the path to which a run was renamed, or None.
        """
        self.refuse_unwritable()
        moved, here = None, self.mark
        same = resumed and here and all(here[name] == mark[name] for name in ("script", "settings"))
        try:
            empty = here and {entry.name for entry in os.scandir(self.path)} <= {"run.json", ".lock", ".partial"}
            if here and not empty and not (same and not (self.path / "checkpoint.pt").exists()):
                if os.name == "nt":  # where a folder with an open file cannot be renamed
                    self.lock.release()
                moved = next(
                    path
                    for number in range(1, 10**6)
                    if not os.path.lexists(path := self.path.with_name(f"{self.path.name}.{number}"))
                )
                os.rename(self.path, moved)
                if self.lock:
                    self.lock.release()  # that of the renamed folder
                self.lock = None
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = "name a folder that can be written"
            if error.errno == errno.EBUSY:  # a mount point cannot be renamed
                remedy = f"it holds an earlier run, which cannot be renamed; name a folder inside it, {self.path / '2'}"
            raise Fault(f"--output_dir {self.path}: {error.strerror}; {remedy}") from None
        if not self.lock:
            self.take_lock()
            self.refuse_unwritable()
            if self.look():  # another process was faster
                raise Fault(f"--output_dir {self.path}: another run has just written there; run again")
        write(self.path / "run.json", as_json(mark))
        self.mark = mark
        return moved

    def remember(self, mark, unfinished):
        """Write the run's mark again, with other flags. With other settings the run is no longer finished."""
        if unfinished:
            (self.path / "metrics.json").unlink(missing_ok=True)
        write(self.path / "run.json", as_json(mark))
        self.mark = mark

    def is_here(self):
        """Whether this path still is the folder in which the run began."""
        return os.path.samestat(self.identity, self.path.stat())

    def refuse_another(self):
        """Fault where this path no longer is the folder in which the run began: it holds what others do."""
        if not self.is_here():
            raise Fault(
                f"{self.path}: the run's folder was moved away and another one is here; go on with --resume and "
                "--output_dir with its new name"
            )

    def refuse_unwritable(self):
        if not self.writable:
            raise Fault(f"--output_dir {self.path}: {self.reason}; name a folder that can be written")


def check_weight_paths(paths, folder, names):
    """Refuse paths for weights that could not be written after the training, or would destroy something.

    names are those of the weights, {flag: set}: only a file that holds these is overwritten.
    """
    paths = {flag: Path(os.path.abspath(path)) for flag, path in paths.items() if path is not None}
    folder = Path(os.path.abspath(folder))
    for flag, path in paths.items():
        if path.is_dir() or path == folder:
            raise Fault(f"{flag} {path}: is a folder; name a file")
        if path.parent == folder:
            if path.name in OWN or path.suffix in (".png", ".gif") or path.name.startswith("."):
                raise Fault(f"{flag} {path}: the run itself writes a file of this name; name another")
        elif not path.parent.is_dir() or folder in path.parents:  # a run's folder has no folders
            raise Fault(f"{flag} {path}: cannot be written, there is no such folder; make it, or name another")
        elif not os.access(path.parent, os.W_OK):
            raise Fault(f"{flag} {path}: cannot be written (permission denied); name another")
        if path.exists() and not path.is_file():
            raise Fault(f"{flag} {path}: is no file that can be replaced; name another")
        if path.exists():
            try:
                content = load_tensors(path)
            except Fault:
                content = None
            if not isinstance(content, dict) or content.keys() != names[flag]:
                raise Fault(f"{flag} {path}: holds no such weights, so it is not overwritten; name another file")
    if len(set(paths.values())) < len(paths):
        raise Fault(f"{' and '.join(paths)}: name the same file; name two")
