"""Finds the students of a class in a platform's export: who handed in which files."""

import os
import re
import shutil
import zipfile
from pathlib import Path

from hw5_lab.teaching.submission import ARCHIVE, HIDDEN, SCRIPT, SKIPPED, is_folder, is_plain, parts_of, plain_name

LARGEST_EXPORT, MOST_ENTRIES = 20 * 2**30, 1_000_000
# NAME_ID_NUMBER_FILE, NAME_LATE_ID_NUMBER_FILE; where names are hidden, anon_KEY_NUMBER_FILE. A group's name may hold _
CANVAS = re.compile(r"(?i)^(?:late_)?(?:(anon_\w{5})|(.+?)_(?:late_)?(\d+))_\d+_(.+)$")
# "anna_hw5_vae", "anna-gan (2)", "hw5_vae_anna": what is around the homework's name is the student's
HOMEWORK = re.compile(
    r"(?i)(?:^|[-_ .]+)(?:hw[-_ ]?\d*[-_ ]*(?:vae|gan|diffusion|utils)(?![a-z])(.*)|(?:vae|gan|diffusion)[-\d() ]*)$"
)
MOODLE = re.compile(r"^(.+)_assignsubmission_(?:file|onlinetext)_?(.*)$")  # a folder for each, or a file


def students(export, folder):
    """{student: [(path, file name)]} of a class's export, a folder or a zip.

    It holds folders, zips, or files with the students' names in front, which the platform put there. A zip is unpacked
    into `folder`. Gradescope's folders get the names of its submission_metadata.yml.
    """
    export = Path(export)
    name = export.name
    if not export.is_dir():
        unpack(export, folder)
        name, export = export.stem, folder
    while not names_of(export) and len(only := handed_in(export)) == 1 and only[0].is_dir() and holds_students(only[0]):
        export, name = only[0], only[0].name
    names, found = names_of(export), {}
    for path in handed_in(export):
        file = path.name
        if moodle := MOODLE.match(names.get(path.name, path.name)):
            key, file = f"{moodle[1]}_assignsubmission_file_", moodle[2]
        elif path.is_dir():
            key = names.get(path.name, path.name)
        elif canvas := CANVAS.match(path.name):
            key, file = canvas[1] or f"{canvas[2]}_{canvas[3]}", canvas[4]
        else:
            key = owner(path.name) or name
        found.setdefault(in_utf8(key), []).append((path, in_utf8(file)))
    return {student: numbered_once(files) for student, files in found.items()}


def numbered_once(files):
    """[(path, file name)] without the numbers of later attempts, helpers-1.py, where no earlier one is beside them."""
    plain = [re.sub(r"-\d+(\.\w+)$", r"\1", name) for _, name in files]
    return [(path, short if plain.count(short) == 1 else name) for (path, name), short in zip(files, plain)]


def handed_in(folder):
    """What in an export's folder is of a student: no list of the class, no note."""
    patterns = CANVAS, MOODLE, SCRIPT, ARCHIVE
    return [path for path in visible(folder) if path.is_dir() or any(each.search(path.name) for each in patterns)]


def holds_students(folder):
    """Whether an export's only folder is that of a class, not that of one student."""
    entries = visible(folder)
    if any(path.is_dir() or CANVAS.match(path.name) or MOODLE.match(path.name) for path in entries):
        return True
    said = lambda file: is_archive(file) or file.lower().endswith(".ipynb") or HOMEWORK.search(SCRIPT.sub("", file))
    named = [path.name for path in entries if said(path.name)]
    return len(set(map(owner, named)) - {""}) > 1


def is_archive(file):
    return bool(ARCHIVE.search(file)) or file.lower().endswith(".zip")


def owner(file):
    """The student in a file's name, "" where there is none. An archive may be named after a student called Gan."""
    stem = ARCHIVE.sub("", SCRIPT.sub("", file))
    homework = HOMEWORK.search(stem)
    if not homework or (is_archive(file) and homework[1] is None):
        return stem
    behind = re.sub(r"(?i)\(\d+\)|^[-_ .]*\d*$", "", homework[1] or "")
    return stem[: homework.start()] or behind.strip("-_ .")


def names_of(export):
    """{folder: students' names and the folder} of Gradescope's submission_metadata.yml, where there is one."""
    names = {}
    for path in export.glob("*.yml"):
        for block in re.split(r"(?m)^(?=\S)", path.read_text(errors="replace")):
            if who := re.findall(r"(?m)^\s*(?:- )?:name: (.+?)\s*$", block):
                who = [re.sub(r"""^(["'])(.*)\1$""", r"\2", name).replace('\\"', '"') for name in who]  # quoted in YAML
                names[block.split(":", 1)[0]] = f"{', '.join(who)} ({block.split(':', 1)[0]})"
    return names


def in_utf8(name):
    """A name that can be written: bytes that are no UTF-8, from an old unzip, are read as Latin-1."""
    try:
        return os.fsencode(name).decode()
    except UnicodeError:
        return os.fsencode(name).decode("latin-1")


def visible(folder):
    return [path for path in sorted(folder.iterdir()) if not HIDDEN.match(path.name) and not path.is_symlink()]


def unpack(export, folder):
    """Write an export's files below `folder`; zips in it stay zips. No two of its names become one.

    OSError for an export that is too large, or cannot be read: nobody is left out without a word.
    """
    places = {(): folder}
    folder.mkdir(parents=True, exist_ok=True)
    taken = set()
    try:
        with zipfile.ZipFile(export) as archive:
            entries = [entry for entry in archive.infolist() if is_plain(entry)]
            if (
                len(entries) > MOST_ENTRIES
                or sum(entry.file_size for entry in entries if wanted(entry)) > LARGEST_EXPORT
            ):
                raise OSError(27, "too large: unpack it, and name the folder", str(export))
            for entry in entries:
                parts = parts_of(entry)
                for depth in range(1, len(parts) + 1):
                    if parts[:depth] not in places:
                        places[parts[:depth]] = free(places[parts[: depth - 1]] / plain_name(parts[depth - 1]), taken)
                path = places[parts]
                (path if is_folder(entry) else path.parent).mkdir(parents=True, exist_ok=True)
                if wanted(entry):
                    with archive.open(entry) as source, path.open("wb") as target:
                        shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise OSError(5, f"cannot be read as a zip ({error}): unpack it, and name the folder", str(export)) from None


def wanted(entry):
    """Whether a file is unpacked: not weights and pictures in a student's folder, which are not gathered anyway."""
    *folders, name = parts_of(entry)
    known = not SKIPPED.search(name) or any(each.search(name) for each in (ARCHIVE, CANVAS, MOODLE))
    return not is_folder(entry) and (known or not folders)


def free(path, taken):
    """The path, or one with a number where another entry has it."""
    made, number = path, 2
    while str(made).casefold() in taken:
        made, number = path.with_stem(f"{path.stem} ({number})"), number + 1
    taken.add(str(made).casefold())
    return made
