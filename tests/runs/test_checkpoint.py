"""hw5_lab/runs/checkpoint: what is damaged, hostile, odd, or of another run is refused by name before it is used."""

import copy
import gzip
import math
import random
import shutil

import pytest
import torch
from children import contents, same
from helpers import MODULES, blank, first_quickly, one_quickly, small, small_sample

import hw5_utils as utils
import hw5_vae
from hw5_lab.runs.folder import load_tensors, save_tensors

FEWER_DIGITS = "34 images of some classes where 1000 were asked for: using all there are.\n"  # of the small sample

pytestmark = blank


def refused(name, folder, capsys, *words, flags=("--resume",), more=()):
    """The run in the folder is not resumed (or evaluated), for a reason of one line, and stays as it is."""
    before = contents(folder)
    for flag in flags:
        capsys.readouterr()
        assert MODULES[name].main(small(name, folder, "--device", "cpu", flag, *more)) == 2
        message = capsys.readouterr().err.removeprefix(FEWER_DIGITS)
        assert message.count("\n") == 1 and all(word in message for word in words), message
        assert contents(folder) == before


# ---- another run's


@pytest.fixture(scope="module")
def cut_run(tmp_path_factory):
    """A folder of each script's run, as if it had been killed right before its end; made once, copied by tests."""
    made = {}

    def make(name, target, *more):
        if (name, more) not in made:
            folder = tmp_path_factory.mktemp(name) / "out"
            assert MODULES[name].main(small(name, folder, "--device", "cpu", *more)) == 0
            (folder / "metrics.json").unlink()
            made[name, more] = folder
        shutil.copytree(made[name, more], target)
        return target

    return make


@pytest.mark.parametrize(
    "more, words",
    [
        (["--epochs", 1], "--epochs 2, not 1"),
        (["--seed", 5], "--seed 1234, not 5"),
        (["--hidden_units", 51], "--hidden_units 50, not 51"),
        (["--limit", 300], "without --limit, not with --limit 300"),
        (["--lr", 0.01], "--lr 0.001, not 0.01"),
        (["--edition", "hw8"], "--edition cs446, not hw8"),
    ],
)
def test_resume_with_other_settings_is_refused(more, words, cut_run, tmp_path, capsys):
    refused("hw5_vae", cut_run("hw5_vae", tmp_path / "out"), capsys, words, more=more)


@pytest.mark.parametrize("changed", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"])
@pytest.mark.parametrize("name", ["hw5_vae", pytest.param("hw5_gan", marks=pytest.mark.slow)])
def test_other_data_are_refused_training_and_test_images_and_labels(name, changed, cut_run, tmp_path, capsys):
    """One byte of one file is another."""
    data = shutil.copytree(small_sample(), tmp_path / "data")
    path = data / f"{changed}-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-400 if "images" in changed else -1] = 255 if "images" in changed else (content[-1] + 1) % 10
    path.write_bytes(gzip.compress(content))
    folder = cut_run(name, tmp_path / "out")
    refused(
        name,
        folder,
        capsys,
        "belongs to a run with other data",
        flags=("--resume", "--evaluate"),
        more=["--data_dir", data],
    )


# ---- hostile and damaged


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_that_runs_code_is_refused(cut_run, tmp_path, capsys):
    target, folder = tmp_path / "created", cut_run("hw5_vae", tmp_path / "out")
    for zipped in (True, False):
        torch.save({"settings": Evil(target)}, folder / "checkpoint.pt", _use_new_zipfile_serialization=zipped)
        refused("hw5_vae", folder, capsys, str(folder / "checkpoint.pt"), flags=("--resume", "--evaluate"))
        paths = ["--e_path", folder / "checkpoint.pt", "--d_path", tmp_path / "d.pt"]
        assert hw5_vae.main(small("hw5_vae", tmp_path / "new", "--resume", *paths)) == 2
        assert not target.exists(), "the pickle ran"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "out"
    assert hw5_vae.main(small("hw5_vae", folder, "--hidden_units", 2)) == 0
    return folder / "checkpoint.pt"


def test_every_truncation_of_a_checkpoint_is_refused(checkpoint, tmp_path):
    good, path = checkpoint.read_bytes(), tmp_path / "checkpoint.pt"
    for length in [*range(10), *range(10, len(good), len(good) // 150), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(utils.Fault, match="checkpoint.pt: damaged"):
            load_tensors(path)


def test_flipped_bits_in_a_checkpoint_change_nothing_or_are_refused(checkpoint, tmp_path):
    good, path, refused = checkpoint.read_bytes(), tmp_path / "checkpoint.pt", 0
    expected = load_tensors(checkpoint)
    positions = random.Random(0).sample(range(len(good)), 400)
    for position in positions:
        path.write_bytes(good[:position] + bytes([good[position] ^ 1 << position % 8]) + good[position + 1 :])
        try:
            assert same(load_tensors(path), expected), f"byte {position}: other content was believed"
        except utils.Fault:
            refused += 1
    assert refused > len(positions) / 2


def test_a_content_marked_as_a_folder_is_refused(checkpoint, tmp_path):
    """One flipped bit in the list of contents: torch would then hand out uninitialised memory as weights."""
    good, path, start = checkpoint.read_bytes(), tmp_path / "checkpoint.pt", 0
    while (start := good.find(b"PK\x01\x02", start + 1)) > 0:
        position = start + 38  # the lowest byte of its external attributes
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        with pytest.raises(utils.Fault, match="not as it was written"):
            load_tensors(path)


def test_a_damaged_checkpoint_is_named_and_kept(cut_run, tmp_path, capsys):
    folder = cut_run("hw5_vae", tmp_path / "out")
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    refused(
        "hw5_vae",
        folder,
        capsys,
        "checkpoint.pt: damaged",
        "a new run keeps this file",
        flags=("--resume", "--evaluate"),
    )


# ---- odd contents: each is a change of a good checkpoint


def put(*keys, value):
    """A change that sets state[key][key]... to a value, or to value(old)."""

    def change(state):
        *path, last = keys
        for key in path:
            state = state[key]
        state[last] = value(state[last]) if callable(value) else value

    return change


def drop(*keys):
    def change(state):
        *path, last = keys
        for key in path:
            state = state[key]
        del state[last]

    return change


NAN = lambda weight: torch.full_like(weight, math.nan)
# None may end in a traceback or a crash. What does no harm may go on.
ODD = [
    *[put("record", "history", value=value) for value in ("rows", None, [], {}, 3, [1, 2], [None, None])],
    *[put("record", "history", 0, "epoch", value=value) for value in ("1", None, 10**30, -1, math.nan, True, 2, 1.5)],
    put("record", "history", value=lambda rows: rows * 2),
    put("record", "history", 1, "train_elbo", value=math.nan),
    put("record", "history", 1, "train_elbo", value="-200"),
    drop("record", "history", 1, "seconds"),
    put("record", value=[]),
    put("record", "more", value=1),
    drop("parts"),
    put("parts", value={}),
    put("parts", "encoder", value=torch.zeros(3)),
    drop("parts", "encoder", "fc1.weight"),
    put("parts", "encoder", "fc1.weight", value=NAN),
    put("parts", "encoder", "fc1.weight", value=lambda weight: weight[:3]),
    put("parts", "decoder", "fc2.bias", value=1.0),
    drop("parts", "optimizer", "param_groups"),
    put("parts", "optimizer", "param_groups", value=[]),
    put("parts", "optimizer", "param_groups", 0, "params", value=[0]),
    put("parts", "optimizer", "param_groups", 0, "lr", value=math.nan),
    put("parts", "optimizer", "param_groups", 0, "lr", value="fast"),
    # This one would crash fused Adam
    put("parts", "optimizer", "state", 0, "exp_avg", value=lambda moment: moment[:1]),
    put("generators", "noise_rng", value=torch.zeros(3, dtype=torch.uint8)),
    put("generators", "noise_rng", value="seed"),
    drop("generators", "shuffle_rng"),
    put("settings", value={}),
    put("settings", "lr", value="0.001"),
    put("settings", "seed", value=1234.0),
    put("settings", "batch_size", value=None),
    put("environment", value=None),
]


@pytest.mark.parametrize("number", first_quickly(range(len(ODD)), 14))
def test_odd_contents_of_a_checkpoint_are_refused(number, cut_run, tmp_path, capsys):
    folder = cut_run("hw5_vae", tmp_path / "out", "--hidden_units", 5)
    state = load_tensors(folder / "checkpoint.pt")
    ODD[number](state)
    save_tensors(state, folder / "checkpoint.pt")
    refused("hw5_vae", folder, capsys, "checkpoint.pt: ", more=["--hidden_units", 5])


@pytest.mark.parametrize("content", [torch.zeros(3), [], None, 5, "text", {}, {"settings": {}}])
@one_quickly("hw5_gan", "hw5_diffusion")
def test_a_file_that_holds_something_else_is_refused(name, content, cut_run, tmp_path, capsys):
    folder = cut_run(name, tmp_path / "out")
    save_tensors(content, folder / "checkpoint.pt")
    refused(name, folder, capsys, "checkpoint.pt: not a checkpoint", flags=("--resume", "--evaluate"))


GAN_ODD = [
    put("record", "frames", value=[]),
    put("record", "frames", 0, value=torch.zeros(3, dtype=torch.uint8)),
    put("record", "best", value=None),
    put("record", "best", "epoch", value="1"),
    drop("record", "best", "gen", "conv1.weight"),
    put("record", "best", "gen", "conv1.weight", value=NAN),
    put("record", "snapshots", value=[(1, {})]),
    put("parts", "optim_g", "state", 0, "exp_avg", value=lambda moment: moment[:1]),
]


@pytest.mark.parametrize("number", first_quickly(range(len(GAN_ODD))))
def test_odd_contents_of_a_gans_checkpoint_are_refused(number, cut_run, tmp_path, capsys):
    folder = cut_run("hw5_gan", tmp_path / "out")
    state = load_tensors(folder / "checkpoint.pt")
    GAN_ODD[number](state)
    save_tensors(state, folder / "checkpoint.pt")
    refused("hw5_gan", folder, capsys, "checkpoint.pt: ")


@pytest.mark.parametrize("value", ["updates", [1, 2], [(1.0,)], [("a", "b")]])
@pytest.mark.parametrize("part", ["updates", "checks"])
def test_odd_curves_of_ese546_are_refused(part, value, cut_run, tmp_path, capsys):
    folder = cut_run("hw5_vae", tmp_path / "out", "--edition", "ese546")
    state = load_tensors(folder / "checkpoint.pt")
    state["parts"]["curves"][part] = value
    save_tensors(state, folder / "checkpoint.pt")
    refused("hw5_vae", folder, capsys, "checkpoint.pt: ", more=["--edition", "ese546"])


ODD_CLASSIFIERS = [torch.zeros(3), {}, {"checksum": 1}, {"checksum": None, "classifier": 3}, "nan", "another"]


@pytest.mark.parametrize("content", ODD_CLASSIFIERS)
def test_an_odd_classifier_is_trained_again(content, cut_run, tmp_path):
    folder = cut_run("hw5_gan", tmp_path / "out")
    good = load_tensors(folder / "classifier.pt")
    bad = content
    if content == "nan":
        bad = copy.deepcopy(good)
        bad["classifier"]["linear.weight"].fill_(math.nan)
    if content == "another":  # of its layers some would fit
        bad = copy.deepcopy(good)
        first, *_, last = bad["classifier"].values()
        first.add_(1)
        bad["classifier"] |= {list(bad["classifier"])[-1]: last[:1]}
    save_tensors(bad, folder / "classifier.pt")
    assert MODULES["hw5_gan"].main(small("hw5_gan", folder, "--device", "cpu", "--resume")) == 0
    assert same(load_tensors(folder / "classifier.pt"), good)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {},
        lambda w: torch.zeros(3),
        lambda w: {**w, "fc1.weight": w["fc1.weight"][:2]},
        lambda w: {**w, "fc1.weight": w["fc1.weight"] * math.nan},
    ],
)
def test_odd_weights_from_e_path_are_refused(change, cut_run, tmp_path, capsys):
    folder = cut_run("hw5_vae", tmp_path / "out")
    parts = load_tensors(folder / "checkpoint.pt")["parts"]
    save_tensors(parts["decoder"], tmp_path / "d.pt")
    save_tensors(change(parts["encoder"]), tmp_path / "e.pt")
    paths = ["--e_path", tmp_path / "e.pt", "--d_path", tmp_path / "d.pt"]
    capsys.readouterr()
    assert hw5_vae.main(small("hw5_vae", tmp_path / "new", "--resume", *paths)) == 2
    message = capsys.readouterr().err
    assert "e.pt: holds" in message and message.count("\n") == 1 and not (tmp_path / "new").exists()
