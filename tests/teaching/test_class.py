"""hw5_lab.grade --class, what it gathers from a platform's export, and the file of points that a teacher edits."""

import csv
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from helpers import ROOT
from graded import PLAIN, POINTS, SUBMISSIONS, edited

from hw5_lab import grade as command
from hw5_lab.teaching import classroom, grade, scheme
from hw5_lab.teaching.child import readable
from hw5_lab.teaching.judging import QUESTIONS
import hw5_lab.teaching.export as exports
from hw5_lab.teaching.export import students
from hw5_lab.teaching.submission import Gatherer, Submission, code_of, find, gather

# ---- what is gathered


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_files_are_known_by_name_or_by_what_they_define(tmp_path):
    folder = tmp_path / "a" / "student_17"
    folder.mkdir(parents=True)
    for name, text in (("HW5-vae.PY", "class VAE: pass"), ("final.py.txt", "class GAN: pass"), ("other.py", "x = 1")):
        (folder / name).write_text(text)
    found = gather([tmp_path / "a"], tmp_path / "g")
    assert {name: str(path) for name, path in found.files.items()} == {
        "hw5_vae": "student_17/HW5-vae.py",
        "hw5_gan": "student_17/final.py",
    }


@pytest.mark.parametrize(
    "names, chosen",
    [
        (["hw5_vae.py", "backup_hw5_vae.py", "hw5_vae (copy).py", "old/hw5_vae.py"], "hw5_vae.py"),
        (["hw5_vae.py", "hw5_vae-1.py", "hw5_vae-2.py"], "hw5_vae-2.py"),
        (["starter/hw5_vae.py", "solution/src/hw5_vae.py"], "solution/src/hw5_vae.py"),
        (["my_vae_notes.py", "hw5-vae.py"], "hw5-vae.py"),
        (["Version 1/hw5_vae.py", "Version 2/hw5_vae.py", "Version 10/hw5_vae.py"], "Version 10/hw5_vae.py"),
        (["hw5_vae_v1.py", "hw5_vae_v2.py"], "hw5_vae_v2.py"),
    ],
)
def test_the_submission_is_chosen_not_a_backup(names, chosen, tmp_path):
    for name in names:
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_text("class VAE: pass")
    found = gather([tmp_path / "a"], tmp_path / "g")
    assert str(found.files["hw5_vae"]) == chosen
    assert set(found.others) == set(names) - {chosen, "my_vae_notes.py"} or "my_vae_notes.py" in names


def test_a_notebook_is_its_code_cells_without_magics(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "!pip install x\n", "class VAE:\n", "    pass\n"]},
        {"cell_type": "code", "source": "%%bash\nrm -rf /"},
        {"cell_type": "code", "source": ["if True:\n", "    %time\n", "    x = 1"]},
        {
            "cell_type": "code",
            "source": ["dict?\n", "told = ('%d images'\n", "        % 3)\n", "assert (1\n", "   != 2)"],
        },
        {"cell_type": "code", "source": "%%writefile hw5_vae.py\nwritten = 1"},
        {"cell_type": "code", "source": "pip install torch==2.4\ncd /content\ngpu = !nvidia-smi\nafter = 2"},
        {"cell_type": "code", "source": "epoch = 3\nshown = ('epoch %d'\n      %epoch)"},
        {"cell_type": "code", "source": "vae.visualize_data_space("},
    ]
    (tmp_path / "hw5_vae.ipynb").write_text(json.dumps({"cells": cells}))
    found = gather([tmp_path / "hw5_vae.ipynb"], tmp_path / "g")
    text = (found.folder / found.files["hw5_vae"]).read_bytes()
    names = {}
    tree, remarks = readable(text, "hw5_vae.py")
    exec(compile(tree, "hw5_vae.py", "exec"), names)
    assert (names["x"], names["told"], names["written"], names["after"]) == (1, "3 images", 1, 2)
    assert names["shown"] == "epoch 3" and names["gpu"] is None
    assert "VAE" in names and b"rm -rf" not in text and b"Title" not in text
    scratch = text.decode().split("\n").index("vae.visualize_data_space(")  # the line above it, counted from 1
    assert remarks == [f"line {scratch}: a cell that is not Python and defines nothing: left out"]
    with pytest.raises(SyntaxError):
        readable(text + b"# In[99]:\ndef elbo(x:\n", "hw5_vae.py")  # an answer is not left out
    with pytest.raises(SyntaxError):
        readable(b"x = (", "hw5_vae.py")
    assert b"cannot be read" in code_of(b"[1, 2") and b"cannot be read" in code_of(
        b'{"cells": [{"cell_type": "code"}]}'
    )


def test_nothing_in_a_zip_is_trusted(tmp_path, monkeypatch):
    """Paths that leave the folder, Windows' paths, links, sizes that lie, zips in zips, __MACOSX, damaged zips."""
    link = zipfile.ZipInfo("link.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../../../evil.py", "x = 1")
        archive.writestr("/etc/absolute.py", "x = 1")
        archive.writestr("C:\\Users\\me\\hw5_vae.py", "class VAE: pass")
        archive.writestr("__MACOSX/._hw5_gan.py", "class GAN: pass")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bomb.py", b"\0" * 50_000_000)
        archive.writestr("inner.zip", zipped({"deep/hw5_gan.py": "class GAN: pass"}))
        archive.writestr("broken.zip", b"PK\3\4 not a zip")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "work.zip").write_bytes(buffer.getvalue())
    found = gather([tmp_path / "in"], tmp_path / "g")
    files = {str(path.relative_to(tmp_path / "g")) for path in (tmp_path / "g").rglob("*") if path.is_file()}
    assert files == {
        "work/evil.py",
        "work/etc/absolute.py",
        "work/C_/Users/me/hw5_vae.py",
        "work/inner/deep/hw5_gan.py",
    }
    assert set(found.files) == {"hw5_vae", "hw5_gan"} and {path.name for path in tmp_path.iterdir()} == {"in", "g"}
    assert any("bomb.py: too large" in each for each in found.left_out)
    assert any("broken.zip: cannot be read" in each for each in found.left_out)


def test_too_many_files_are_left_out(tmp_path):
    gatherer = Gatherer(tmp_path, count=3)
    for number in range(5):
        gatherer.add([f"{number}.py"], lambda most: b"x")
    assert len(list(tmp_path.iterdir())) == 3 and len(gatherer.left_out) == 2


@pytest.mark.parametrize("as_zip", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_scripts_are_gathered_before_a_limit_is_reached(as_zip, tmp_path):
    """A folder of packages that sorts first, a notebook with figures, a zip with data, names that are too long."""
    long, figures = (
        "hw5_diffusion " + "很" * 100,
        [{"cell_type": "code", "outputs": "i" * 6 * 2**20, "source": "class GAN: 0"}],
    )
    files = {f"env/lib/{number}.py": "x = 1" for number in range(600)} | {"readme.md": "x"}
    files |= {"src/hw5_vae.py": "class VAE: 0", "hw5_gan.ipynb": json.dumps({"cells": figures})}
    files["work.zip"] = zipped(
        {"data/train.bin": os.urandom(6 * 2**20), f"{long}.py": "def compute_denoising_loss(): 0"}
    )
    if as_zip:
        (tmp_path / "a.zip").write_bytes(zipped(files))
    else:
        for name, content in files.items():
            (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = gather([tmp_path / ("a.zip" if as_zip else "a")], tmp_path / "g")
    assert set(found.files) == {"hw5_vae", "hw5_gan", "hw5_diffusion"}, found.left_out
    assert any("train.bin: too large" in each for each in found.left_out) and any(
        "env/lib" in each for each in found.left_out
    )


def test_what_is_not_read_is_said(tmp_path):
    deep = tmp_path / "a" / "/".join("abcdefghijkl") / "hw5_vae.py"
    deep.parent.mkdir(parents=True)
    deep.write_text("class VAE: 0")
    for name in ("hw5.tar.gz", "hw5.rar", "photo.png"):
        (tmp_path / "a" / name).write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "a" / "z.zip", "w", zipfile.ZIP_BZIP2) as archive:  # unpacked as a whole, or not
        archive.writestr("hw5_vae.py", "class VAE: 0")
    assert sorted(gather([tmp_path / "a"], tmp_path / "g").left_out) == [
        "a/b/c/d/e/f/g/h/i/j/k/l/hw5_vae.py: lies in more than 11 folders",
        "hw5.rar: an archive that is not read; a zip is",
        "hw5.tar.gz: an archive that is not read; a zip is",
        "z.zip: hw5_vae.py is packed in a way that is not read",
    ]


def test_a_notebook_makes_room_for_a_script_of_its_name(tmp_path):
    """In whatever order they come; the notebook is named among those that were not chosen."""
    notebook = json.dumps({"cells": [{"cell_type": "code", "source": "!python hw5_vae.py"}]})
    for order in ((".py", ".ipynb"), (".ipynb", ".py")):
        texts = {".py": "class VAE: pass", ".ipynb": notebook}
        gatherer = Gatherer(tmp_path / order[0])
        for suffix in order:
            gatherer.add([f"hw5_vae{suffix}"], lambda most, suffix=suffix: texts[suffix].encode())
        found = find(tmp_path / order[0])
        assert str(found.files["hw5_vae"]) == "hw5_vae.py" and found.others == ["hw5_vae (notebook).py"]
        assert (tmp_path / order[0] / "hw5_vae.py").read_text() == texts[".py"]


def test_a_helper_is_not_taken_for_the_script(tmp_path):
    (tmp_path / "hw5_vae_helpers.py").write_text("x = 1")
    (tmp_path / "model_vae.py").write_text("class VAE: pass")
    assert str(find(tmp_path).files["hw5_vae"]) == "model_vae.py"


def test_each_script_has_the_helpers_that_lie_beside_it(tmp_path):
    for kind in ("vae", "gan"):
        (tmp_path / "a" / kind).mkdir(parents=True)
        (tmp_path / "a" / kind / "helpers.py").write_text(f"of = '{kind}'")
        (tmp_path / "a" / kind / f"hw5_{kind}.py").write_text(f"class {kind.upper()}: 0")
    (tmp_path / "a" / "vae" / "data").mkdir()
    (tmp_path / "a" / "vae" / "data" / "loader.py").write_text("x = 1")
    found = gather([tmp_path / "a"], tmp_path / "g")
    for kind in ("vae", "gan"):
        place = found.place(tmp_path / f"place-{kind}", f"hw5_{kind}")
        assert (place / "helpers.py").read_text() == f"of = '{kind}'"
        assert (place / "data" / "loader.py").exists() and (place / "data" / "train-labels-idx1-ubyte.gz").exists()


def test_pipes_and_devices_are_not_read(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "hw5_vae.py")
    assert find(gather([tmp_path / "a"], tmp_path / "g").folder).files == {}


GRADESCOPE = """---
submission_101:
  :submitters:
  - :name: Anna Smith
    :sid: '1'
submission_102:
  :submitters:
  - :name: Ben Jones
"""


def test_exports_of_platforms(tmp_path):
    """Gradescope's folders with names, Canvas's flat files, a folder of folders, zips, loose files with names."""
    code = "class VAE: pass"
    platforms = {
        "gradescope.zip": {
            "assignment_1_export/submission_metadata.yml": GRADESCOPE,
            "assignment_1_export/submission_101/hw5_vae.py": code,
            "assignment_1_export/submission_102/code/hw5_vae.py": code,
        },
        "canvas.zip": {
            "smithanna_12_345_hw5_vae.py": code,
            "smithanna_12_346_hw5_gan-1.py": "class GAN: pass",
            "jonesben_LATE_13_347_work.zip": zipped({"hw5_vae.py": code}),
        },
        "moodle.zip": {"Anna Smith_12_assignsubmission_file_/hw5_vae.py": code, "Ben_13_file/a/b/hw5_vae.py": code},
        "zips.zip": {"anna.zip": zipped({"hw5_vae.py": code}), "ben.zip": zipped({"x/hw5_vae.py.txt": code})},
        "loose.zip": {
            "anna_hw5_vae.py": code,
            "anna_hw5_gan.py": "class GAN: pass",
            "ben-hw5-vae.ipynb": '{"cells": []}',
        },
    }
    platforms["moodle.zip"] |= {
        "Ben_14_assignsubmission_onlinetext/text.html": "x",
        "Ben_14_assignsubmission_file/hw5_vae.py": code,
    }
    expected = {
        "gradescope.zip": ["Anna Smith (submission_101)", "Ben Jones (submission_102)"],
        "canvas.zip": ["jonesben_13", "smithanna_12"],
        "moodle.zip": ["Anna Smith_12_assignsubmission_file_", "Ben_13_file", "Ben_14_assignsubmission_file_"],
        "zips.zip": ["anna", "ben"],
        "loose.zip": ["anna", "ben"],
    }
    for name, files in platforms.items():
        (tmp_path / name).write_bytes(zipped(files))
        for unpacked in (False, True):
            export, work = tmp_path / name, tmp_path / f"work-{name}-{unpacked}"
            if unpacked:
                export = tmp_path / name.removesuffix(".zip")
                zipfile.ZipFile(tmp_path / name).extractall(export)
            found = students(export, work)
            assert sorted(found) == expected[name], (name, unpacked)
            for student, paths in found.items():
                submission = gather(paths, tmp_path / f"g-{name}-{unpacked}-{student}")
                assert "hw5_vae" in submission.files, (name, student)
                assert ("hw5_gan" in submission.files) == (
                    student in ("smithanna_12",) or (name, student) == ("loose.zip", "anna")
                )


@pytest.mark.parametrize(
    "names, expected",
    [  # Canvas: names hidden; a group's name; late
        (["anon_aB3x9_67890_hw5_vae.py", "anon_aB3x9_67891_hw5_gan.py"], ["anon_aB3x9"]),
        (["LATE_anon_Zz1q3_67892_hw5_vae.py", "LATE_anon_Zz1q3_67893_hw5_gan.py"], ["anon_Zz1q3"]),
        (["project_group_a_17_345_hw5_vae.py", "project_group_a_17_346_hw5_gan.py"], ["project_group_a_17"]),
        (["parkdo_16_349_hw5.tar.gz", "choyu_17_350_written.pdf"], ["choyu_17", "parkdo_16"]),  # no file to grade
        (["Li.zip", "Li Gan.zip", "Sam Morgan.zip", "Kim.7z"], ["Kim", "Li", "Li Gan", "Sam Morgan"]),
        (["megan-hw5.zip", "logan hw5_vae.py"], ["logan", "megan-hw5"]),
        (["anna_hw5_vae_final.py", "anna_hw5_gan_final.py", "anna_hw5_utils.py"], ["anna"]),
        (["hw5_vae_carl.py", "hw5_gan_carl.py", "hw5-vae-ben.py", "hw5-vae-anna (2).py"], ["anna", "ben", "carl"]),
        (["hw5_vae-1.py", "hw5_gan.py"], ["class"]),
        (["anna_hw5_vae.zip", "anna_hw5_gan.zip", "ben_hw5_vae.py", "ben_hw5_gan.zip"], ["anna", "ben"]),
        (  # Moodle, without folders; one without a script
            ["Ann_12_assignsubmission_file_my_vae.py", "Ben_13_assignsubmission_file_written.pdf"],
            ["Ann_12_assignsubmission_file_", "Ben_13_assignsubmission_file_"],
        ),
        (["Zoë Müller_vae.py", "Zoë Müller_gan.py"], ["Zoë Müller"]),
    ],
)
def test_whose_files_they_are(names, expected, tmp_path):
    (tmp_path / "class.zip").write_bytes(zipped(dict.fromkeys(names, "class VAE: pass")))
    found = students(tmp_path / "class.zip", tmp_path / "work")
    assert sorted(found) == expected
    assert sorted(path.name for paths in found.values() for path, _ in paths) == sorted(names)


def test_what_lies_beside_a_script_keeps_its_students_name_for_it(tmp_path):
    """Without what the platform puts in front: a script imports it. Of two attempts at one file both are kept."""
    names = ["hw5_vae.py", "helpers-1.py", "hw5_gan.py", "hw5_gan-2.py"]
    files = {
        "canvas.zip": [f"smithanna_12_{345 + number}_{name}" for number, name in enumerate(names)],
        "moodle.zip": [f"Anna Smith_12_assignsubmission_file_{name}" for name in names],
    }
    for export, names in files.items():
        (tmp_path / export).write_bytes(zipped(dict.fromkeys(names, "")))
        (paths,) = students(tmp_path / export, tmp_path / f"work-{export}").values()
        folder = gather(paths, tmp_path / f"gathered-{export}").folder
        assert {path.name for path in folder.iterdir()} == {"hw5_vae.py", "helpers.py", "hw5_gan.py", "hw5_gan-2.py"}


def test_a_file_where_another_folder_has_a_folder_costs_nothing(tmp_path):
    for name, text in (("utils", "x"), ("hw5/hw5_vae.py", "class VAE: pass"), ("hw5/utils/x.py", "y = 1")):
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_text(text)
    place = gather([tmp_path / "a"], tmp_path / "g").place(tmp_path / "job", "hw5_vae")
    assert (place / "hw5_vae.py").is_file() and (place / "utils" / "x.py").read_text() == "y = 1"


def test_a_folder_with_a_scripts_name(tmp_path):
    """A Mac's "Compress" makes hw5_vae.py.zip; others make a folder of that name."""
    text = b"class VAE: pass"
    for files in (
        {"anna/hw5_vae.py.zip": zipped({"hw5_vae.py": text}), "ben/hw5_vae.py/hw5_vae.py": text},
        {
            "anna/hw5_vae.ipynb.zip": zipped({"hw5_vae.py": text}),
            "ben/hw5_vae.py.zip": zipped({"x.py/HW5_vae.py": text}),
        },
    ):
        work = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        (work / "class.zip").write_bytes(zipped(files))
        found = students(work / "class.zip", work / "export")
        assert sorted(found) == ["anna", "ben"]
        for student, paths in found.items():
            submission = gather(paths, work / student)
            place = submission.place(work / f"job-{student}", "hw5_vae")
            assert (place / "hw5_vae.py").read_bytes() == text


def test_names_in_a_zip_that_does_not_say_how_they_are_written(tmp_path):
    """UTF-8 without the flag for it; another coding, whose names cannot be known; composed letters. None is lost."""
    names = ["José Peña", "张伟", "李娜", "Zoe\u0308"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in (*names, "王芳", "赵敏"):
            archive.writestr(f"{name}/hw5_vae.py", "class VAE: pass")
    raw = buffer.getvalue()
    for name in ("王芳", "赵敏"):  # as Windows writes them, in as many bytes
        raw = raw.replace(name.encode(), name.encode("gbk").ljust(6, b"_"))
    (tmp_path / "class.zip").write_bytes(unflagged(raw))
    found = students(tmp_path / "class.zip", tmp_path / "work")
    assert {"José Peña", "张伟", "李娜", "Zoë"} < set(found) and len(found) == 6
    assert all(gather(paths, tmp_path / f"g{number}").files for number, paths in enumerate(found.values()))


def test_two_names_of_a_zip_never_become_one(tmp_path):
    names = ["A:B/hw5_vae.py", "A?B/hw5_vae.py", "anna/hw5_vae.py", "Anna/hw5_vae.py"]
    (tmp_path / "class.zip").write_bytes(zipped(dict.fromkeys(names, "class VAE: pass")))
    assert sorted(students(tmp_path / "class.zip", tmp_path / "work")) == ["A_B", "A_B (2)", "Anna (2)", "anna"]


def unflagged(raw):
    """A zip whose names are not said to be UTF-8."""
    raw = bytearray(raw)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = raw.find(mark)
        while start >= 0:
            raw[start + offset + 1] &= ~0x08
            start = raw.find(mark, start + 1)
    return bytes(raw)


def test_bytes_that_are_no_text_name_a_student_all_the_same(tmp_path):
    folder = os.fsencode(tmp_path / "class")
    for name in (b"Ann", b"Jos\xe9"):
        try:
            os.makedirs(os.path.join(folder, name))
        except OSError:
            pytest.skip("this file system takes no such names")
    found = students(tmp_path / "class", tmp_path / "work")
    assert sorted(found) == ["Ann", "José"]
    assert classroom.clean("\udce9 𠮷") == "? 𠮷"


def test_who_handed_in_no_script_has_a_row(tmp_path):
    """A folder of pictures, an empty one, and within a folder a PDF that Canvas named: no file to grade, but a student."""
    platforms = {
        "folders": ["anna/hw5_vae.py", "ben/photo.png", "carl/written.pdf", "dora/"],
        "canvas": ["submissions/annas_1_2_hw5_vae.py", "submissions/benz_3_4_written.pdf"],
    }
    for name, files in platforms.items():
        (tmp_path / f"{name}.zip").write_bytes(zipped(dict.fromkeys(files, "")))
    assert sorted(students(tmp_path / "folders.zip", tmp_path / "a")) == ["anna", "ben", "carl", "dora"]
    assert not (tmp_path / "a" / "ben" / "photo.png").exists()
    assert sorted(students(tmp_path / "canvas.zip", tmp_path / "b")) == ["annas_1", "benz_3"]


@pytest.mark.parametrize(
    "files, expected",
    [
        (["anna.zip", "ben.zip"], ["anna", "ben"]),
        (["anna_hw5_vae.py", "ben_hw5_vae.py"], ["anna", "ben"]),
        (["anna/hw5_vae.py", "ben/hw5_vae.py"], ["anna", "ben"]),
        (["hw5_vae.py", "hw5_gan.py", "helpers.py", "layers.py"], ["only"]),
        (["anna.ipynb", "ben.ipynb"], ["anna", "ben"]),
        (["hw5_vae.ipynb", "hw5_gan.ipynb"], ["only"]),
        (["../roster.csv", "../Thumbs.db", "anna/hw5_vae.py", "ben/hw5_vae.py"], ["anna", "ben"]),
    ],
)
def test_an_exports_only_folder_is_a_class_or_a_student(files, expected, tmp_path):
    names = [name.removeprefix("../") if name.startswith("../") else f"only/{name}" for name in files]
    (tmp_path / "class.zip").write_bytes(zipped(dict.fromkeys(names, "")))
    assert sorted(students(tmp_path / "class.zip", tmp_path / "a")) == expected


@pytest.mark.slow
def test_no_student_of_a_large_export_is_left_out(tmp_path):
    files = {f"student {number}/{each}.py": "" for number in range(301) for each in range(19)}
    files |= {f"student {number}/hw5_vae.py": "class VAE: pass" for number in range(301)}
    (tmp_path / "class.zip").write_bytes(zipped(files))
    assert len(students(tmp_path / "class.zip", tmp_path / "work")) == 301


def test_an_export_that_cannot_be_read_is_refused(tmp_path, capsys, monkeypatch):
    raw = zipped({"anna/hw5_vae.py": "class VAE: pass" * 100})
    (tmp_path / "damaged.zip").write_bytes(raw[:40] + b"\0\0\0\0" + raw[44:])
    (tmp_path / "large").write_bytes(zipped({"anna/hw5_vae.py": "#" * 2000}))  # a zip without the suffix
    monkeypatch.setattr(exports, "LARGEST_EXPORT", 1999)
    for name, words in (("damaged.zip", "cannot be read as a zip"), ("large", "too large: unpack it")):
        assert command.main(["--class", str(tmp_path / name), "--report", str(tmp_path / "report")]) == 2
        error = capsys.readouterr().err
        assert words in error and str(tmp_path / name) in error and error.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_file_names_fit_every_system():
    taken = set()
    names = [classroom.file_name(name, taken) for name in ("A/B:C", "a_b_c", "CON", "con.txt", "  . ", "é" * 200)]
    assert len({name.lower() for name in names}) == 6 and names[2] == "_CON" and len(names[5]) == 80
    assert not any(set(name) & set('/\\:*?"<>|') for name in names)


# ---- the class command


def make_class(folder):
    wrong = edited("hw5_vae", ("(u < p)", "(u > p)"))
    renamed = PLAIN["hw5_vae"].replace("terms", "parts").replace("hidden", "h").replace("log_prior", "lp") + "# mine\n"
    texts = {
        "anna": {"hw5_vae.py": PLAIN["hw5_vae"]},
        "ben": {"work/hw5_vae.py": renamed, "hw5_gan.rar": "Rar!"},
        "carla": {"hw5_vae.py": wrong, "hw5_gan.py": PLAIN["hw5_gan"]},
        "=dora": {"notes.txt": "sorry"},
        "eve": {"hw5_vae.py": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n"},
        "frank": {"hw5_vae.py": (SUBMISSIONS / "other_style" / "hw5_vae.py").read_text()},
    }
    for student, files in texts.items():
        for name, text in files.items():
            path = folder / student / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return list(texts)


@pytest.mark.slow
def test_a_class_in_one_command(tmp_path, capsys, monkeypatch):
    """One row and one file each; a bad submission stops nothing; a second run grades nothing again."""
    torch.rand(2**20).exp()  # starts PyTorch's threads, which a forked worker must not wait for
    export, report = tmp_path / "export", tmp_path / "report"
    names = make_class(export)
    line = ["--class", str(export), "--report", str(report), "--as-root", "--workers", "2"]
    assert command.main(line) == 0
    assert "6 students, 5 graded now" in capsys.readouterr().out
    rows = {row["student"]: row for row in csv.DictReader((report / "class.csv").open())}
    assert sorted(rows) == sorted(["'=dora" if name == "=dora" else name for name in names])
    assert [rows[name]["status"] for name in ("anna", "'=dora", "eve")] == ["graded", "no file", "graded"]
    full = sum(sum(POINTS[number].values()) for number in POINTS if QUESTIONS[number].file == "hw5_vae")
    assert float(rows["anna"]["total"]) == float(rows["ben"]["total"]) == full == float(rows["frank"]["total"])
    assert float(rows["carla"]["2(b)iv"]) == 2 and float(rows["eve"]["total"]) == 0
    assert "1 with probability 1 - p" in (report / "feedback" / "carla.txt").read_text()
    assert (
        "(remark) hw5_gan.rar: an archive that is not read; a zip is" in (report / "feedback" / "ben.txt").read_text()
    )
    page = (report / "class.html").read_text()
    assert "not the distribution that is asked: 1 with probability 1 - p<td class=n>1" in page
    assert "<td class=n>100%<td>anna<td>ben" in page and "<td>frank" not in page and "<td>eve" not in page
    assert "<b>hw5_gan.py</b> (5)" in page
    # Again, under other points: no new run
    mine = tmp_path / "points.toml"
    mine.write_text(
        'files = ["hw5_vae"]\n[words]\n"1 with probability 1 - p" = "See lecture 3"\n["2(b)iv"]\ndistribution = 7\n'
    )
    monkeypatch.setattr(classroom, "grade_student", lambda *_: pytest.fail("graded again"))
    assert command.main([*line, "--points", str(mine)]) == 0
    rows = {row["student"]: row for row in csv.DictReader((report / "class.csv").open())}
    assert (rows["anna"]["total"], rows["carla"]["total"], rows["anna"]["out of"]) == ("7", "0", "7")
    assert "See lecture 3" in (report / "feedback" / "carla.txt").read_text()


def test_what_is_graded_is_not_graded_again(tmp_path):
    """It resumes where it was stopped: raw results of the same submission count, others do not."""
    path, checks = tmp_path / "a.json", {number: {} for number in QUESTIONS}
    grade.write(path, {"digest": 5, "faults": [], "checks": checks})
    assert classroom.known(path, 5) and not classroom.known(path, 6)
    grade.write(path, {"digest": 5, "faults": ["KeyError"], "checks": checks})
    assert not classroom.known(path, 5)
    path.write_text("{")
    assert not classroom.known(path, 5) and not classroom.known(tmp_path / "b.json", 5)


def die(submission, path, digest):
    if submission.folder.name == "bad":
        os._exit(1)
    if submission.folder.name == "worse":
        raise ValueError("x")
    grade.write(path, {"digest": digest, **grade.unfinished(list(QUESTIONS), "fine")})


def test_a_worker_that_dies_costs_one_student(tmp_path, monkeypatch):
    monkeypatch.setattr(classroom, "start_worker", lambda as_root: None)
    monkeypatch.setattr(classroom, "grade_student", die)
    todo = {}
    for name in ("a", "bad", "b", "worse", "c"):
        (tmp_path / name).mkdir()
        todo[name] = Submission(tmp_path / name), tmp_path / f"{name}.json", 1
    args = grade.make_parser().parse_args(["x", "--workers", "1"])
    classroom.run_all(dict(todo), args, 5)
    said = {name: json.loads(path.read_text()) for name, (_, path, _) in todo.items()}
    assert [bool(said[name]["faults"]) for name in todo] == [False, True, False, True, False]
    assert set(said["bad"]["checks"]["2(a)"].values()) == {grade.OURS}


@pytest.mark.slow
def test_ctrl_c_loses_no_verdict(tmp_path):
    """What is graded is kept, the answer of a job that was cut off is not read as another's, nothing is left behind."""
    for student in "abcd":
        (tmp_path / "export" / student).mkdir(parents=True)
        (tmp_path / "export" / student / "hw5_vae.py").write_text(PLAIN["hw5_vae"] + f"# {student}\n")
    (tmp_path / "temporary").mkdir()
    report, raw = tmp_path / "report", tmp_path / "report" / "raw"
    line = [sys.executable, "-m", "hw5_lab.grade", "--class", tmp_path / "export", "--report", report, "--as-root"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    process = subprocess.Popen(
        [*map(str, line), "--workers", "2"],
        cwd=ROOT,
        text=True,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a background job is started without
    )
    while not (raw.is_dir() and list(raw.glob("*.json"))):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    time.sleep(0.1)  # in the middle of the next ones
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, twice
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in errors and "run the same command again" in errors, errors
    assert os.listdir(tmp_path / "temporary") == []
    assert subprocess.run([*map(str, line), "--workers", "1"], cwd=ROOT, env=environment).returncode == 0
    rows = list(csv.DictReader((report / "class.csv").open()))
    full = sum(sum(POINTS[number].values()) for number in POINTS if QUESTIONS[number].file == "hw5_vae")
    assert [float(row["total"]) for row in rows] == [full] * 4


def test_a_report_touches_nothing_of_others_and_is_no_student(tmp_path, capsys):
    (tmp_path / "export" / "a").mkdir(parents=True)
    (tmp_path / "export" / "a" / "hw5_vae.py").write_text("class VAE: pass")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "class.csv").write_text("mine")
    (tmp_path / "points.toml").write_text("x")
    for export, report, words in (
        ("export", "mine", "holds other things"),
        ("export", "export/report", "lies in the export"),
        ("points.toml", "new", "no such folder or zip"),
        ("nowhere", "new", "no such folder or zip"),
    ):
        assert command.main(["--class", str(tmp_path / export), "--report", str(tmp_path / report)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert (tmp_path / "mine" / "class.csv").read_text() == "mine" and not (tmp_path / "new").exists()
    with pytest.raises(SystemExit, match="2"):
        command.main(["--class", str(tmp_path / "export"), "--report", str(tmp_path / "new"), "--workers", "0"])
    assert "--workers: 0 is below 1" in capsys.readouterr().err


def test_a_file_that_cannot_be_imported_is_one_row_of_the_page():
    numbers = [number for number in QUESTIONS if QUESTIONS[number].file == "hw5_vae"]
    broken = grade.unfinished(numbers, "importing hw5_vae.py fails, SyntaxError: x (hw5_vae.py, line 3)")
    raws = {name: {**broken, "files": {"hw5_vae": "hw5_vae.py"}} for name in ("a", "b")}
    text = classroom.page({name: scheme.read().results(raw) for name, raw in raws.items()}, raws, [])
    assert text.count("<td>importing hw5_vae.py fails, SyntaxError: x (a line)<td class=n>2") == 1
    assert text.count("SyntaxError") == 1


def test_names_that_yaml_quotes(tmp_path):
    export = tmp_path / "export"
    for number in (1, 2):
        (export / f"submission_{number}").mkdir(parents=True)
        (export / f"submission_{number}" / "hw5_vae.py").write_text("class VAE: pass")
    text = 'submission_1:\n  :submitters:\n  - :name: "A \\"B\\" C"\nsubmission_2:\n  :submitters:\n  - :name: \'D\'\n'
    (export / "submission_metadata.yml").write_text(text)
    assert sorted(students(export, tmp_path / "work")) == ['A "B" C (submission_1)', "D (submission_2)"]


def test_likeness_leaves_names_comments_and_given_text_out():
    one = PLAIN["hw5_vae"].encode()
    other = one.replace(b"terms", b"q").replace(b"hidden", b"hh") + b"\n# nothing of this is copied\n"
    third = (SUBMISSIONS / "other_style" / "hw5_vae.py").read_bytes()
    starter = [
        classroom.starter.make((classroom.ROOT / f"{name}.py").read_text(), f"{name}.py").encode() for name in PLAIN
    ]
    pairs = classroom.likeness({"a": [one], "b": [other], "c": [third], "d": starter, "e": starter})
    assert [each[1:] for each in pairs] == [("a", "b")] and pairs[0][0] > 0.99


def test_a_script_in_a_coding_that_is_none_of_texts_is_like_no_other():
    assert classroom.sequences([b"# coding: hex\nx = 1\n"]) == set()


def test_no_cell_of_the_table_is_a_formula():
    for text in ("=1+1", "+1", "-1", "@x", "=cmd.py"):
        assert classroom.cell(text) == f"'{text}"
    assert classroom.cell("hw5_vae.py") == "hw5_vae.py"


def test_no_export_and_no_student(tmp_path, capsys):
    assert command.main(["--class", str(tmp_path / "nowhere"), "--report", str(tmp_path / "r")]) == 2
    assert "nowhere: no such folder or zip" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert command.main(["--class", str(tmp_path / "empty"), "--report", str(tmp_path / "r")]) == 2
    assert "holds no folder, zip or script of a student" in capsys.readouterr().err


# ---- points.toml


@pytest.mark.parametrize(
    "text, words",
    [
        ("x = [", "Invalid value"),
        ('["2(z)"]\nvalue = 1\n', "2(z): no such question; there are 2(a), 2(b)i"),
        ('["2(a)"]\nvalues = 1\n', "2(a), values: no such check; there are layers, form"),
        ('["2(a)"]\nvalue = -1\n', "2(a), value: expected points from 0 to 1000"),
        ('["2(a)"]\nvalue = true\n', "expected points from 0 to 1000"),
        ('["2(a)"]\nvalue = "2"\n', "expected points from 0 to 1000"),
        ('["2(a)"]\nvalue = {points = 1, word = "x"}\n', "no such key word; there are points, fails, visibility"),
        ('["2(a)"]\nvalue = {points = 1, fails = 3}\n', "expected a text for fails"),
        ('["2(a)"]\nvalue = {points = 1, visibility = "never"}\n', "expected a visibility of visible, after_due_date"),
        ('visibility = "never"\n["2(a)"]\nvalue = 1\n', "visibility: expected one of visible"),
        ('files = ["hw5"]\n', "files: expected some of hw5_vae"),
        ('files = ["hw5_gan"]\n["2(a)"]\nvalue = 1\n', "files: no question of these files is there"),
        ("[words]\nx = 1\n", "words: expected lines"),
        ('[words]\nx = " "\n', "words: expected lines"),
        ('"2(a)" = 3\n', '2(a): expected a table ["2(a)"]'),
        ('["2(a)"]\ntitle = 3\n', "2(a), title: expected a text"),
        ("", "questions: none is there"),
    ],
)
def test_faults_in_the_points_are_said_in_a_line(text, words, tmp_path, capsys):
    path = tmp_path / "points.toml"
    path.write_text(text)
    assert command.main(["x", "--points", str(path)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and str(path) in error


def test_a_missing_file_of_points(tmp_path, capsys):
    assert command.main(["x", "--points", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: No such file" in capsys.readouterr().err


def test_older_pythons_are_told_what_is_needed(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "tomllib", None)
    assert command.main(["x"]) == 2
    assert "needs Python 3.11 or later" in capsys.readouterr().err


def test_visibility_and_words_per_part(tmp_path):
    path = tmp_path / "points.toml"
    path.write_text(
        'visibility = "hidden"\n["2(a)"]\ntitle = "T"\nvalue = {points = 1.5, fails = "oh", visibility = "after_due_date"}\nform = 2\n'
    )
    made = scheme.read(path)
    raw = {**grade.EMPTY, "checks": {"2(a)": {"value": "wrong", "form": "", "layers": "odd"}}}
    tests = grade.as_gradescope(made.results(raw), raw)["tests"]
    assert [(test["score"], test["max_score"], test["visibility"], test["output"]) for test in tests] == [
        (0, 1.5, "after_due_date", "oh: wrong\n(remark) odd"),
        (2, 2, "hidden", ""),
    ]
    assert sum(map(len, POINTS.values())) == sum(len(checks) for _, checks in scheme.read().questions.values())


def test_the_points_that_come_along_are_those_of_the_homework():
    later = [number for number in POINTS if QUESTIONS[number].file == "hw5_diffusion"]
    assert [
        sum(sum(POINTS[number].values()) for number in later if number.startswith(part)) for part in ("4(b)", "4(c)")
    ] == [12, 12]
    assert list(POINTS) == scheme.ORDER and set(scheme.ORDER) == set(QUESTIONS)
