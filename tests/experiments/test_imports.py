"""Who imports whom: no circle but for the scripts' hand-over, and a run loads its own experiment only."""

import ast

import pytest
from helpers import ROOT, run_sooner, small

from hw5_lab import door

SCRIPTS = {"hw5_vae", "hw5_gan", "hw5_diffusion"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*ROOT.glob("hw5_*.py"), *(ROOT / "hw5_lab").rglob("*.py")]
}


def imported(tree):
    """Names of all that a syntax tree imports, anywhere in it; packages on the way to a module are imported too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the project names its modules in full"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in names]
    return {".".join(each[:count]) for each in parts for count in range(1, len(each) + 1)}


@pytest.fixture(scope="module")
def graph():
    """{module: those of the project that it imports}; the door's are also those that it names as text."""
    found = {}
    for name, path in MODULES.items():
        found[name] = imported(ast.parse(path.read_text(encoding="utf-8"))) & MODULES.keys() - {name}
    for script, of_script in door.SCRIPTS.items():
        found["hw5_lab.door"] |= {script, of_script.experiment.split(":")[0], *of_script.editions.values()}
    return found


def test_all_modules_are_seen(graph):
    assert SCRIPTS | {"hw5_utils", "hw5_lab", "hw5_lab.door", "hw5_lab.experiments.vae"} <= graph.keys()
    assert "hw5_lab.fast.layers" in graph["hw5_lab.experiments.gan"], "else these tests show nothing"


def circle(graph):
    """Modules that import each other in a circle, or nothing."""
    left = {name: set(others) for name, others in graph.items()}
    while free := [name for name, others in left.items() if not others]:
        for name in free:
            del left[name]
        for others in left.values():
            others.difference_update(free)
    return left


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set(), "e": {"d"}}).keys() == {"a", "b", "c"}


def test_nothing_is_imported_in_a_circle_but_by_the_hand_over(graph):
    """`hw5_lab.load()` is for users, who have imported all by then: no module of the project calls it."""
    without = {
        name: others - {"hw5_lab.door"} if name in {*SCRIPTS, "hw5_lab"} else others for name, others in graph.items()
    }
    assert not circle(without), "these import each other in a circle"
    assert all(circle(graph).keys() >= {script} for script in SCRIPTS), "the scripts do hand over"
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "hw5_lab"
            for alias in node.names
        }
        assert "load" not in names, name


def test_scripts_stand_on_the_helpers_alone(graph):
    """The hand-over stands in main(), after a look whether the laboratory is there."""
    assert not graph["hw5_utils"]
    for script in SCRIPTS:
        assert graph[script] <= {"hw5_utils", "hw5_lab", "hw5_lab.door"}
        tree = ast.parse(MODULES[script].read_text(encoding="utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        handing = [node.name for node in functions if "hw5_lab" in imported(node)]
        assert handing == ["main"]
        outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
        assert not any("hw5_lab" in imported(node) for node in outside)


def test_measures_neither_draw_nor_print_and_experiments_do_not_run(graph):
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if name.startswith("hw5_lab.measures."):
            assert not {"matplotlib", "PIL", "tqdm"} & imported(tree), name
            called = {
                node.func.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert "print" not in called, name
            assert not any(other.startswith(("hw5_lab.experiments", "hw5_lab.page")) for other in graph[name]), name
        if name.startswith("hw5_lab.experiments."):
            assert not {"hw5_lab.runs.run", "hw5_lab.door"} & graph[name], name
        if name.startswith("hw5_lab.fast."):
            assert not graph[name], "layers know no project"


# ---- what a run loads

RUN = """
import sys
import {script}
assert {script}.main({arguments}) == 0
"""
BEGINNING = """
import sys
import {script}
from hw5_lab import door
from hw5_lab.runs import run
experiment = door.build("{script}", door.parse_args("{script}", {arguments}))
experiment.get_ready()
next(experiment.rows(0))
"""
TELL = 'print(*sorted(name for name in sys.modules if name.startswith("hw5_")))'
OWN = {"hw5_vae": "vae", "hw5_gan": "gan", "hw5_diffusion": "diffusion"}
FOREIGN = {
    "hw5_vae": {"hw5_lab.measures.images", "hw5_lab.measures.scores"},
    "hw5_gan": {"hw5_lab.measures.likelihood", "hw5_lab.measures.scores"},
    "hw5_diffusion": {"hw5_lab.measures.likelihood", "hw5_lab.measures.images"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, edition, code",
    [
        ("hw5_vae", "cs446", RUN),
        ("hw5_vae", "uva", BEGINNING),
        ("hw5_gan", "cs446", BEGINNING),
        ("hw5_gan", "uva", BEGINNING),
        ("hw5_diffusion", "cs446", BEGINNING),
    ],
    ids=lambda value: {BEGINNING: "beginning", RUN: "run"}.get(value, value),
)
def test_a_run_loads_no_other_homework(script, edition, code, tmp_path):
    arguments = small(script, tmp_path / "run", "--edition", edition)
    code = code.format(script=script, arguments=arguments) + TELL
    result = run_sooner("-c", code)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert loaded & SCRIPTS == {script}
    experiments = {name for name in loaded if name.startswith("hw5_lab.experiments.")}
    others = {f"hw5_lab.experiments.{kind}" for kind in OWN.values()} - {f"hw5_lab.experiments.{OWN[script]}"}
    assert f"hw5_lab.experiments.{OWN[script]}" in experiments and not experiments & others
    assert not loaded & FOREIGN[script]
    editions = {name for name in loaded if name.startswith("hw5_lab.editions.")}
    expected = {
        ("hw5_vae", "uva"): {"hw5_lab.editions.uva_vae", "hw5_lab.editions.hw8"},
        ("hw5_gan", "uva"): {"hw5_lab.editions.uva_gan"},
    }
    assert editions == expected.get((script, edition), set())
