"""Finds what one student handed in: files, folders, zips and notebooks.

Whatever is graded is first gathered, as plain files, into a folder of the grader's own. Links are never followed, and
no path, size or kind in a zip is trusted.
"""

import hashlib
import io
import json
import os
import re
import shutil
import stat
import unicodedata
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hw5_lab.teaching.sandbox import ROOT, clean

LARGEST_FILE, LARGEST_TOTAL, MOST_FILES, DEEPEST = 5 * 2**20, 20 * 2**20, 500, 12  # of one submission
LARGEST_NOTEBOOK, LARGEST_ZIP, MOST_ZIPS = 25 * 2**20, 100 * 2**20, 20  # a notebook may hold figures, a zip data
LONGEST_NAME = 200  # bytes
DEFINES = {"hw5_vae": rb"class VAE\b", "hw5_gan": rb"class GAN\b", "hw5_diffusion": rb"def compute_denoising_loss\b"}
HIDDEN = re.compile(r"(?i)^(\..*|__macosx|__pycache__)$")
SKIPPED = re.compile(r"(?i)\.(pt|pth|pkl|gz|png|jpg|pdf|gif)$")
SCRIPT = re.compile(r"(?i)\.(py|py\.txt|ipynb|zip)$")
ARCHIVE = re.compile(r"(?i)\.(tar|tgz|tar\.\w+|7z|rar)$")
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

    def place(self, folder, name):
        """Write what a job on a file runs on: all under the course's names, the utils and, as data, the sample."""
        own = self.files[name].parent
        for near in (".", *sorted({path.parent for path in self.files.values()} - {own}), own):
            lay_over(self.folder / near, folder)  # a file may import what lies beside it
        for other, path in self.files.items():
            shutil.copyfile(self.folder / path, folder / f"{other}.py")
        shutil.copyfile(ROOT / "hw5_utils.py", folder / "course_utils.py")
        if not (folder / "data").is_dir():
            (folder / "data").unlink(missing_ok=True)
        shutil.copytree(ROOT / "data" / "sample", folder / "data", dirs_exist_ok=True)
        return folder


def lay_over(source, folder):
    """Copy all files below `source` into a folder; what is there gives way, be it a file or a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        target = folder / path.relative_to(source)
        if target.exists() and target.is_dir() != path.is_dir():
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, target)


def plain_name(part):
    """A name from a zip or a folder as one that every file system takes: never empty, never longer than 200 bytes."""
    part = re.sub(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:*?"<>|]', "_", unicodedata.normalize("NFC", part)) or "_"
    stem, suffix = re.fullmatch(r"(.*?)((?:\.\w{1,6}){0,2})", part, re.DOTALL).groups()
    while len(f"{stem}{suffix}".encode()) > LONGEST_NAME:
        stem = stem[:-1]
    return stem + suffix


def parts_of(entry):
    """A zip entry's path in its parts, without those that would lead out."""
    name = entry.filename
    if not entry.flag_bits & 0x800:  # many programs write UTF-8 and do not say so
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return tuple(part for part in re.split(r"[/\\]", name) if part not in ("", ".", ".."))


def is_plain(entry):
    """Whether a zip's entry is a file or a folder, no link and no device, and not hidden."""
    kind, parts = stat.S_IFMT(entry.external_attr >> 16), parts_of(entry)
    return bool(parts) and kind in (0, stat.S_IFREG, stat.S_IFDIR) and not any(map(HIDDEN.match, parts))


def is_folder(entry):
    return entry.is_dir() or stat.S_ISDIR(entry.external_attr >> 16)  # some programs write no slash behind its name


def scripts_first(parts):
    """What is gathered first, while there is room: scripts, and of these the ones that lie near the top."""
    return not SCRIPT.search(parts[-1]), len(parts), parts


class Gatherer:
    """Copies the plain files of one submission, until they are too many or too large."""

    def __init__(self, target, count=MOST_FILES):
        self.target, self.left, self.count, self.zips, self.left_out = target, LARGEST_TOTAL, count, MOST_ZIPS, []
        self.notebooks = set()

    def add(self, parts, reader, size=None):
        """One file of these path components; `reader(n)` reads at most n bytes of it."""
        hidden = any(map(HIDDEN.match, parts))
        *folders, last = map(plain_name, parts)
        # No folder has a script's name: find() and place() would take it for one
        parts = [*(re.sub(r"(?i)(\.(py|ipynb))+$", "", each) or "_" for each in folders), last]
        name = "/".join(parts)
        if ARCHIVE.search(name):
            self.left_out.append(f"{name}: an archive that is not read; a zip is")
        if hidden or SKIPPED.search(name) or ARCHIVE.search(name):
            return
        if len(parts) > DEEPEST:
            self.left_out.append(f"{name}: lies in more than {DEEPEST - 1} folders")
            return
        kind = name.lower().rpartition(".")[2]
        most = {"zip": LARGEST_ZIP, "ipynb": LARGEST_NOTEBOOK}.get(kind, min(LARGEST_FILE, self.left))
        content = reader(most + 1) if size is None or size <= most else None
        if content is None or len(content) > most or self.count == 0 or self.zips == 0:
            self.left_out.append(f"{name}: too large, or too much")
            return
        if kind == "zip":
            self.zips -= 1
            return self.unzip(content, parts[:-1] + [parts[-1][:-4]])
        if kind == "ipynb":
            content, name = code_of(content), name[:-6] + ".py"
        elif re.search(r"(?i)\.py(\.txt)?$", name):
            name = re.sub(r"(?i)\.py(\.txt)?$", ".py", name)
        if len(content) > self.left:
            self.left_out.append(f"{name}: too large, or too much")
            return
        self.left -= len(content)
        self.count -= 1
        with suppress(OSError):  # a file where another has a folder
            self.write(self.target / name, content, kind == "ipynb")

    def write(self, path, content, of_notebook):
        """Write a file. Of two with one name both are kept, and a notebook makes room for a script."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path in self.notebooks and not of_notebook:
            path.rename(path.with_stem(f"{path.stem} (notebook)"))
            self.notebooks.discard(path)
        while path.exists():
            path = path.with_stem(f"{path.stem} ({'notebook' if of_notebook else 'another'})")
        path.write_bytes(content)
        if of_notebook:
            self.notebooks.add(path)

    def unzip(self, content, parts):
        name = f"{'/'.join(parts)}.zip"
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = [entry for entry in archive.infolist() if is_plain(entry) and not is_folder(entry)]
                entries.sort(key=lambda entry: scripts_first(parts_of(entry)))
                if len(entries) > 5000:
                    self.left_out.append(f"{name}: holds {len(entries)} files, of which 5000 were read")
                for entry in entries[:5000]:
                    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        # Python unpacks the others whole, however large they are
                        self.left_out.append(
                            f"{name}: {clean(entry.filename, 100)} is packed in a way that is not read"
                        )
                        continue
                    with archive.open(entry) as file:
                        self.add([*parts, *parts_of(entry)], file.read)
        except Exception as error:  # damaged, encrypted, of an unknown kind
            self.left_out.append(f"{name}: cannot be read ({type(error).__name__})")

    def gather(self, source, name=None):
        """A folder, a zip or a file, which may get another name."""
        if not source.is_dir():
            return self.gather_file(source, [name or source.name])
        found = []
        for base, folders, files in os.walk(source):
            parts = Path(base).relative_to(source).parts
            links = {each for each in (*folders, *files) if Path(base, each).is_symlink()}
            self.left_out += [f"{each}: a link, which is not followed" for each in sorted(links)]
            deep = len(parts) > DEEPEST
            folders[:] = [each for each in folders if not (deep or each in links or HIDDEN.match(each))]
            found += [(*parts, each) for each in files if each not in links]
        for parts in sorted(found, key=scripts_first):
            self.gather_file(source.joinpath(*parts), parts)

    def gather_file(self, source, parts):
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            self.left_out.append(f"{source.name}: cannot be read ({error.strerror})")
            return
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self.add(parts, file.read, os.fstat(descriptor).st_size)


def code_of(content):
    """The code cells of a notebook as a script, each below its mark; child.py reads what is not Python in them."""
    try:
        cells = json.loads(content).get("cells", [])
        sources = ["".join(cell["source"]) for cell in cells if cell.get("cell_type") == "code"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return b"raise SyntaxError('this notebook cannot be read')\n"
    kept = ("%%time", "%%capture", "%%writefile", "%%file")
    sources = [each for each in sources if not each.lstrip().startswith("%%") or each.lstrip().startswith(kept)]
    return "".join(f"# In[{number}]:\n{each}\n" for number, each in enumerate(sources, 1)).encode("utf-8", "replace")


def rank(path, name):
    """How well a file's name fits: the smallest is chosen. A later copy has a number: hw5_vae-1.py, Version 2/."""
    kind, stem = name.removeprefix("hw5_"), path.stem.lower()
    plain = re.sub(r"-\d+$|\(\d+\)|[-_ ]", "", stem)
    versions = re.findall(r"(?:^|[-_ /])v(?:ersion)?[-_ ]?(\d+)", path.with_suffix("").as_posix().lower())
    copy = re.search(r"[-(](\d+)\)?$", stem)
    version = copy[1] if copy else versions[-1] if versions else "0"
    fits = 0 if re.fullmatch(rf"(hw\d*)?{kind}", plain) else 1 if re.search(rf"hw\d*[-_ ]*{kind}", stem) else 2
    return fits, bool(SPARE.search(str(path))), -int(version[:6]), len(path.parts), str(path)


def find(folder):
    """The Submission in a gathered folder. A file is known by its name, or else by what it defines."""
    submission = Submission(folder)
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.py"))
    for name, defines in DEFINES.items():
        ranked = []
        for path in paths:
            (fits, *more), defined = rank(path, name), bool(re.search(defines, (folder / path).read_bytes()))
            if fits < 2 or defined:  # of names that do not fit exactly, one that defines what is asked is no helper
                ranked.append(((fits > 0 and not defined, fits, *more), path))
        chosen = [path for _, path in sorted(ranked)]
        if chosen:
            submission.files[name] = chosen[0]
            submission.others += [str(path) for path in chosen[1:]]
    return submission


def gather(sources, folder):
    """The Submission that these paths hold, gathered into `folder`; of a file also (path, the name that it gets)."""
    folder.mkdir(parents=True, exist_ok=True)
    gatherer = Gatherer(folder)
    for source in sources:
        path, name = source if isinstance(source, tuple) else (source, None)
        gatherer.gather(Path(path), name)
    submission = find(folder)
    submission.left_out = gatherer.left_out
    return submission
