"""Finds what was handed in: files, folders, zips and notebooks of one student, or a class's export from a platform.

Whatever is graded is first gathered, as plain files, into a folder of the grader's own. Links are never followed, and
no path, size or kind in a zip is trusted.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hw5_lab.teaching.child import without_magics
from hw5_lab.teaching.sandbox import ROOT

LARGEST_FILE, LARGEST_TOTAL, MOST_FILES, DEEPEST = 5 * 2**20, 20 * 2**20, 500, 8  # of one submission
DEFINES = {"hw5_vae": rb"class VAE\b", "hw5_gan": rb"class GAN\b", "hw5_diffusion": rb"def compute_denoising_loss\b"}
SKIPPED = re.compile(r"(?i)^(\..*|__macosx|__pycache__|.*\.(pt|pth|pkl|gz|png|jpg|pdf|gif))$")
SPARE = re.compile(r"(?i)backup|bak\b|copy|kopie|old\b|orig|starter|skeleton|template|draft")


@dataclass
class Submission:
    """What is graded: a gathered folder, and in it the files by what they answer, {"hw5_vae": relative path}."""

    folder: Path
    files: dict = field(default_factory=dict)
    others: list = field(default_factory=list)  # that might have been meant, but were not chosen
    left_out: list = field(default_factory=list)  # why, for what was not gathered

    def digest(self):
        """A number of the whole submission's content and names: the same whenever it is graded again."""
        sha = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                sha.update(f"{path.relative_to(self.folder)}\0{len(content)}\0".encode("utf-8", "replace") + content)
        return int.from_bytes(sha.digest()[:7], "big")

    def place(self, folder):
        """Write what a job runs on: the files under the course's names, beside the utils and, as data, the sample."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        places = {path.parent for path in self.files.values()}
        for near in places:  # a file may import what lies beside it
            if near != Path("."):
                shutil.copytree(self.folder / near, folder, dirs_exist_ok=True)
        for name, path in self.files.items():
            shutil.copyfile(self.folder / path, folder / f"{name}.py")
        shutil.copyfile(ROOT / "hw5_utils.py", folder / "course_utils.py")
        shutil.rmtree(folder / "data", ignore_errors=True)
        shutil.copytree(ROOT / "data" / "sample", folder / "data")
        return folder


class Gatherer:
    """Copies the plain files of one submission, until they are too many or too large."""

    def __init__(self, target, largest=LARGEST_FILE, total=LARGEST_TOTAL, count=MOST_FILES):
        self.target, self.largest, self.left, self.count, self.left_out = target, largest, total, count, []

    def add(self, parts, reader, size=None):
        """One file of these path components; `reader(n)` reads at most n bytes of it."""
        parts = [re.sub(r"[^\w .()+,=@~-]", "_", part)[:100] for part in parts]
        if any(SKIPPED.match(part) for part in parts) or len(parts) > DEEPEST:
            return
        name = "/".join(parts)
        most = min(self.largest, self.left)
        content = reader(most + 1) if size is None or size <= most else None
        if content is None or len(content) > most or self.count == 0:
            self.left_out.append(f"{name}: too large, or too much")
            return
        if name.lower().endswith(".zip"):
            return self.unzip(content, parts[:-1] + [parts[-1][:-4]])
        self.left -= len(content)
        self.count -= 1
        if name.lower().endswith(".ipynb"):
            content, name = code_of(content), name[:-6] + ".py"
        elif re.search(r"(?i)\.py(\.txt)?$", name):
            name = re.sub(r"(?i)\.py(\.txt)?$", ".py", name)
        path = self.target / name
        with suppress(OSError):  # a file where another has a folder
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(content)

    def unzip(self, content, parts, depth=2):
        import io

        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.infolist()[:5000]:
                    inner = [part for part in re.split(r"[/\\]", entry.filename) if part not in ("", ".", "..")]
                    kind = stat.S_IFMT(entry.external_attr >> 16)
                    if not inner or entry.is_dir() or kind not in (0, stat.S_IFREG) or len(parts) > DEEPEST:
                        continue
                    with archive.open(entry) as file:
                        self.add(parts + inner, file.read)
        except Exception as error:  # damaged, encrypted, of an unknown kind
            self.left_out.append(f"{'/'.join(parts)}.zip: cannot be read ({type(error).__name__})")

    def gather(self, source, parts=()):
        """A folder, a zip or a file, whose place in the target is `parts`."""
        if source.is_dir():
            for path in sorted(source.iterdir()):
                if path.is_symlink():
                    self.left_out.append(f"{path.name}: a link, which is not followed")
                elif not SKIPPED.match(path.name) and len(parts) < DEEPEST:
                    self.gather(path, (*parts, path.name))
            return
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            self.left_out.append(f"{source.name}: cannot be read ({error.strerror})")
            return
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self.add(list(parts) or [source.name], file.read, os.fstat(descriptor).st_size)


def code_of(content):
    """The code cells of a notebook as a script, without its magics."""
    try:
        cells = json.loads(content).get("cells", [])
        sources = ["".join(cell["source"]) for cell in cells if cell.get("cell_type") == "code"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return b"raise SyntaxError('this notebook cannot be read')\n"
    kept = ("%%time", "%%capture", "%%writefile", "%%file")
    sources = [each for each in sources if not each.lstrip().startswith("%%") or each.lstrip().startswith(kept)]
    return without_magics("\n".join(sources)).encode("utf-8", "replace") + b"\n"


def rank(path, name):
    """How well a file's name fits: the smallest is chosen. Platforms number a later copy: hw5_vae-1.py."""
    kind, stem = name.removeprefix("hw5_"), path.stem.lower()
    plain = re.sub(r"-\d+$|\(\d+\)|[-_ ]", "", stem)
    version = re.search(r"[-(](\d+)\)?$", stem)
    fits = 0 if re.fullmatch(rf"(hw\d*)?{kind}", plain) else 1 if re.search(rf"hw\d*[-_ ]*{kind}", stem) else 2
    return fits, bool(SPARE.search(str(path))), -int(version[1][:6]) if version else 0, len(path.parts), str(path)


def find(folder):
    """The Submission in a gathered folder. A file is known by its name, or else by what it defines."""
    submission = Submission(folder)
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.py"))
    for name, defines in DEFINES.items():
        ranked = sorted((rank(path, name), path) for path in paths)
        chosen = [path for (fits, *_), path in ranked if fits < 2 or re.search(defines, (folder / path).read_bytes())]
        if chosen:
            submission.files[name] = chosen[0]
            submission.others += [str(path) for path in chosen[1:]]
    return submission


def gather(sources, folder):
    """The Submission that these paths hold, gathered into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    gatherer = Gatherer(folder)
    for source in sources:
        gatherer.gather(Path(source))
    submission = find(folder)
    submission.left_out = gatherer.left_out
    return submission


# ------------------------------------------------------------------------------------------------------- a class


CANVAS = re.compile(r"(?i)^([^_]+)_(?:late_)?(\d+)_(\d+)_(.+)$")
HOMEWORK = re.compile(r"(?i)[-_ .]*(hw\d*[-_ ]*)?(vae|gan|diffusion)\b.*$")


def students(export, folder):
    """{student: [paths]} of a class's export: a folder or a zip of folders, of zips, or of files with names in front.

    A zip is unpacked into `folder`. Gradescope's folders get the names of its submission_metadata.yml.
    """
    export = Path(export)
    if not export.is_dir():
        Gatherer(folder, 500 * 2**20, 4 * 2**30, 100_000).gather(export)
        export = next(iter(visible(folder)), folder)
    entries = visible(export)
    while len(entries) == 1 and entries[0].is_dir() and any(each.is_dir() for each in visible(entries[0])):
        export, entries = entries[0], visible(entries[0])
    names = {}
    for path in export.glob("*.yml"):
        for block in re.split(r"(?m)^(?=\S)", path.read_text(errors="replace")):
            if who := re.findall(r"(?m)^\s*(?:- )?:name: (.+?)\s*$", block):
                who = [re.sub(r"""^(["'])(.*)\1$""", r"\2", name).replace('\\"', '"') for name in who]  # quoted in YAML
                names[block.split(":", 1)[0]] = f"{', '.join(who)} ({block.split(':', 1)[0]})"
    found = {}
    for path in entries:
        stem = re.sub(r"(?i)\.(py|py\.txt|ipynb|zip)$", "", path.name)
        if canvas := CANVAS.match(path.name):
            found.setdefault(f"{canvas[1]}_{canvas[2]}", []).append(path)
        elif path.is_dir():
            found.setdefault(names.get(path.name, path.name), []).append(path)
        elif stem != path.name:
            found.setdefault(HOMEWORK.sub("", stem) or export.name, []).append(path)
    return found


def visible(folder):
    return [path for path in sorted(folder.iterdir()) if not SKIPPED.match(path.name) and not path.is_symlink()]
