"""hw5_lab.starter: the hand-out runs until a question, holds nothing of a solution, and can be answered."""

import ast
import errno
import gzip
import os
import re
import shutil
import struct
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, one_quickly, run_sooner

from submissions.answers import ANSWERS
from graded import POINTS, SCHEME, earned, lost, raw_of, said

import hw5_vae
from hw5_lab.teaching import starter
from hw5_lab.teaching.judging import QUESTIONS as GRADED
from hw5_lab.teaching.starter_texts import QUESTIONS

NAMES = ("hw5_vae", "hw5_gan", "hw5_diffusion")


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starter")
    assert starter.main([str(folder)]) == 0
    return folder


def unanswered(text):
    """[(class, function node, question)] that the hand-out leaves to the student."""
    found = []
    for owner, node in starter.every_function(ast.parse(text)):
        last = node.body[-1]
        if isinstance(last, ast.Raise) and last.exc.func.id == "NotImplementedError":
            found.append((owner, node, last.exc.args[0].value))
    return found


def fill(text, answers):
    """The hand-out with these answers: each stands in place of its error."""
    lines = text.split("\n")
    for owner, node, _ in reversed(unanswered(text)):
        if (owner, node.name) in answers:
            last = node.body[-1]
            inits = [each.lineno for each in node.body if "super()" in ast.unparse(each)]
            body = [" " * last.col_offset + line for line in answers[owner, node.name].strip("\n").split("\n")]
            lines[(inits or [last.lineno])[0] - 1 : last.end_lineno] = body
    return "\n".join(lines)


def run(folder, name, *args):
    return run_sooner(f"{name}.py", *args, cwd=folder)


def test_what_is_handed_out(handed_out):
    assert sorted(path.name for path in handed_out.iterdir()) == [
        "README.md",
        "data",
        "hw5_diffusion.py",
        "hw5_gan.py",
        "hw5_utils.py",
        "hw5_vae.py",
        "requirements.txt",
        "test_hw5.py",
    ]
    assert len(list((handed_out / "data" / "sample").glob("*.gz"))) == 4
    readme = (handed_out / "README.md").read_text()
    assert all(f"| {number} |" in readme for file in QUESTIONS.values() for number in file) and "{" not in readme
    whole = " ".join(path.read_text() for path in handed_out.glob("*.*") if path.suffix in (".py", ".md"))
    for named in sorted(set(re.findall(r"Table \d|Eq\. \d", whole))):  # the hand-out needs no other paper
        assert re.search(rf"{named}[,)]", readme), named
    for name in NAMES:
        text = (handed_out / f"{name}.py").read_text()
        assert max(map(len, text.split("\n"))) <= 120 and "hw5_lab" not in text and "\n\n\n\n" not in text


def test_every_question_is_asked_once(handed_out):
    """Those of the grader, and the figures; a docstring with the number stands at each."""
    graded = {(GRADED[number].file, number.split()[0]) for number in POINTS}
    for name in NAMES:
        text = (handed_out / f"{name}.py").read_text()
        asked = {number for _, _, number in unanswered(text)}
        assert asked == set(QUESTIONS[f"{name}.py"]) - {"2(d)", "4(f)"}
        assert asked - {"2(e)i", "2(e)ii"} == {number for file, number in graded if file == name}
        assert all(f'"""{number}. ' in text for number in asked)
        functions = [node.name for _, node, _ in unanswered(text)]
        assert sorted(set(functions) - {"__init__", "forward"}) == sorted(
            {each for question in QUESTIONS[f"{name}.py"].values() for each in question.get("functions", {})}
        )


@one_quickly("hw5_gan", "hw5_diffusion")
def test_runs_until_the_first_question(name, handed_out):
    first = {"hw5_vae": "2(a)", "hw5_gan": "4(a)", "hw5_diffusion": "4(b)"}[name]
    finished = run(handed_out, name, "--epochs", "1")
    assert finished.returncode == 1 and finished.stderr.rstrip().endswith(f"NotImplementedError: {first}")


def test_the_starter_earns_nothing(handed_out, box, tmp_path):
    raw = raw_of(box, tmp_path / "a", **texts(handed_out))
    assert earned(raw) == 0 and raw["notes"] == []
    for result in SCHEME.results(raw):
        assert "not answered yet (" in result.lines()[0] and len(result.lines()) == 1, result.lines()


def texts(folder):
    return {name: (folder / f"{name}.py").read_text() for name in NAMES}


@pytest.mark.slow
def test_the_self_check_skips_what_is_not_answered(handed_out):
    finished = check_oneself(handed_out)
    assert finished.returncode == 0 and "20 skipped" in finished.stdout, finished.stdout


def check_oneself(folder):
    return run_sooner("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", cwd=folder)


def test_the_self_check_holds_no_answer_and_names_no_points():
    text = (starter.HANDOUT / "test_hw5.py").read_text()
    for words in (
        "nn.Linear",
        "nn.Conv2d",
        "relu",
        "sigmoid(",
        "tanh",
        "math.pi",
        "bernoulli(",
        "randn_like",
        "hw5_lab",
    ):
        assert words not in text, words
    assert "not a promise" in text


MISTAKES = [
    (("", "logpdf_diagonal_gaussian"), "return ((z - mu) ** 2 + sigma_square).sum()", "promised the shape [5], [] came back"),
    (("", "logpdf_bernoulli"), "return (x * p.log()).sum(1)", "x = 0 for p = 0.25"),
    (("", "sample_diagonal_gaussian"), "return mu + sigma_square * torch.randn(mu.shape)", "deviation 0.5 was asked"),
    (("", "sample_Bernoulli"), "return torch.rand(p.shape) < p", "promised float32, torch.bool came back"),
    (("", "elbo"), "return -torch.mean(logpdf_bernoulli(x, p))", "below 0"),
    (("", "interpolate_mu"), "return (1 - alpha) * mua + alpha * mub", "alpha = 1.0"),
    (("Decoder", "forward"), "return self.pixels(self.hidden(z))", "promised probabilities"),
    (("DNet", "forward"), "x = self.pool(F.relu(self.conv1(x)))\nx = self.pool(F.relu(self.conv2(x)))\n"
     "return torch.sigmoid(self.last(F.relu(self.conv3(x)).flatten(1)))", "promised logits"),
    (("GNet", "_weight_init"), "pass", "is not 0"),
    (("GAN", "_get_loss_d"), "return nn.BCEWithLogitsLoss()(self.disc(batch_data), torch.ones(batch_size))", "_get_loss_d"),
    (("GAN", "_get_loss_g"), "return -self.disc(self.gen(z)).mean()", "_get_loss_g"),
    (("", "generate_noise_levels"), "return torch.linspace(begin, end, levels)", "geometric sequence"),
    (("", "compute_denoising_loss"), "sigma = sigmas[0]\nnoise = torch.randn(training_data.shape)\n"
     "return ((scorenet(training_data + sigma * noise, sigma) * sigma + noise) ** 2).sum(1).mean()", "is 1; 2"),
    (("DiffusionModel", "forward"), "return self.layers(self.features(x))", "the score halves"),
]  # fmt: skip
MORE_MISTAKES = [
    [
        (("", "logpdf_diagonal_gaussian"), "return torch.distributions.Normal(mu, sigma_square.sqrt()).log_prob(z).mean(1)",
         "the same in three dimensions"),
        (("", "sample_diagonal_gaussian"), "return mu + sigma_square.sqrt() * torch.randn(1, mu.shape[1])", "the same noise"),
        (("GAN", "_get_loss_d"), "bce = nn.BCEWithLogitsLoss()\nreal = bce(self.disc(batch_data), torch.zeros(batch_size, 1))\n"
         "return real + bce(self.disc(self.gen(z).detach()), torch.ones(batch_size, 1))", "where D's logit is 2.0 for real"),
        (("GAN", "_get_loss_g"), "return nn.BCEWithLogitsLoss()(self.disc(self.gen(z)), torch.zeros(batch_size, 1))",
         "where D's logit is 2.0"),
        (("", "compute_denoising_loss"), "sigma = sigmas[torch.randint(len(sigmas), (len(training_data), 1))]\n"
         "noise = torch.randn(training_data.shape)\n"
         "return ((scorenet(training_data + sigma * noise, sigma) * sigma - noise) ** 2).sum(1).mean() / 2", "has the loss 0"),
        (("", "langevin_dynamics"), "for sigma in sigmas:\n    alpha = eps * sigma ** 2 / sigmas[-1] ** 2\n"
         "    for _ in range(iterations):\n        noise = torch.randn(x.shape)\n"
         "        x = x - alpha * scorenet(x, sigma) + torch.sqrt(2 * alpha) * noise\n        yield x", "0.9 is the mean by hand"),
    ],
    [
        (("DNet", "forward"), "x = self.pool(self.conv1(x))\nx = self.pool(F.relu(self.conv2(x)))\n"
         "return self.last(F.relu(self.conv3(x)).flatten(1))", "the logit where all pixels are -1"),
        (("DiffusionModel", "forward"), "h = self.features(x)\nfor layer in self.layers:\n    if not isinstance(layer, nn.ReLU):\n"
         "        h = layer(h)\nreturn h / column(sigma, x)", "the score at (0, 0)"),
        (("", "elbo"), "log_q = logpdf_diagonal_gaussian(sampled_z, mu, sigma_square)\n"
         "log_p_z = logpdf_diagonal_gaussian(sampled_z, 0 * mu, 1 + 0 * mu)\n"
         "return torch.mean(logpdf_bernoulli(x, p) - log_p_z + log_q)", "z two deviations from mu = 1"),
        (("GNet", "forward"), "return torch.sigmoid(self.conv3(self.up(self.first(z))))", "NotImplementedError: Input Error"),  # no reshape
        (("VAE", "visualize_inter_class_interpolation"), "return tile(self.train_images[:30], 3, 10)", "was not written"),
        (("", "langevin_dynamics"), "return x", "is a yield missing"),
    ],
    [
        (("DNet", "forward"), "pass", "returns nothing"),
        (("VAE", "visualize_inter_class_interpolation"), "mu, _ = self.encoder(self.train_images)\n"
         "z = [interpolate_mu(mu[k], mu[k + 20], alpha / 10) for k in range(3) for alpha in range(11)]\n"
         "grid = tile(self.decoder(torch.stack(z)), 3, 11)\nself.save(draw_grid(grid, ''), 'inter_class_interpolation.png')\n"
         "return grid", "within a row the images do not change"),
        (("", "compute_denoising_loss"), "sigma = sigmas[torch.randint(len(sigmas), (1,))].expand(len(training_data), 1)\n"
         "noise = torch.randn(training_data.shape)\n"
         "return ((scorenet(training_data + sigma * noise, sigma) * sigma + noise) ** 2).sum(1).mean() / 2",
         "each point has a sigma of its own"),
        (("", "langevin_dynamics"), "noise = torch.randn(x.shape)\nfor sigma in sigmas:\n"
         "    alpha = eps * sigma ** 2 / sigmas[-1] ** 2\n    for _ in range(iterations):\n"
         "        x = x + alpha * scorenet(x, sigma) + torch.sqrt(2 * alpha) * noise\n        yield x.detach()",
         "two steps get the same noise"),
    ],
    [
        (("GAN", "_get_loss_g"), "loss = nn.BCEWithLogitsLoss()(self.disc(self.gen(z)), torch.ones(batch_size, 1))\n"
         "loss.backward(retain_graph=True)\nreturn loss", "backward() is for train()"),
        (("GAN", "_get_loss_d"), "return nn.BCEWithLogitsLoss()(self.disc(batch_data), torch.ones(batch_size, 1)).item()",
         "a float came back"),
    ],
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("made", [*(MISTAKES[first::4] for first in range(4)), *MORE_MISTAKES])
def test_the_self_check_notices_mistakes(made, handed_out, tmp_path):
    """Some at once, each in a question of its own; every one of them is told."""
    answers = {
        name: {**every, **{key: body for key, body, _ in made if key in every}} for name, every in ANSWERS.items()
    }
    answer(tmp_path, handed_out, **answers)
    copy_rest(handed_out, tmp_path)
    finished = check_oneself(tmp_path)
    assert finished.returncode == 1
    for _, _, promised in made:
        assert promised in finished.stdout, finished.stdout


def copy_rest(handed_out, folder):
    for name in ("hw5_utils.py", "test_hw5.py"):
        (folder / name).write_text((handed_out / name).read_text())


def statements(node):
    """All statements of a function as text, docstrings aside."""
    return {
        ast.unparse(part)
        for part in ast.walk(node)
        if isinstance(part, ast.stmt)
        and part is not node
        and not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
    }


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_solution_is_left(name, handed_out):
    """No statement of an answer, nor of the functions that are a part of one."""
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    text = (handed_out / f"{name}.py").read_text()
    left = set().union(*(statements(node) for _, node in starter.every_function(ast.parse(text))))
    given = {function for (_, function), body in starter.GIVEN[f"{name}.py"].items() if body}
    answered = [node for _, node, _ in starter.answered(tree, f"{name}.py") if node.name not in given]
    assert len(answered) >= 5
    trivial = {
        "axes = figure.subplots()",
        "return grid",
        "super().__init__()",
        "mu, sigma_square = self.encoder(x)",
        "loss_d.backward()",
        "self.optim_d.zero_grad()",
        "self.optim_d.step()",
        "self.optim_g.zero_grad()",
        "self.optim_g.step()",
    }
    for node in answered:
        assert not (statements(node) - trivial) & left, node.name
    for words in (
        "kaiming_uniform_",
        "nn.Conv2d",
        "cross_entropy",
        "LeakyReLU",
        "gen(z).detach",
        "math.pi)",
        "torch.randn(" if name != "hw5_diffusion" else "torch.randn_like(",
        "torch.bernoulli",
        "alpha) *",
        "log_q",
        "log_p",
        "0.9189",
        "0.6931",
        "593",
        "107777",
        "107,777",
        "sigma**2 / 2",
        "2 * alpha",
    ):
        assert words not in text, words


@pytest.mark.parametrize(
    "edit, words",
    [
        (("def step(", "def stride("), "GIVEN replaces step, which is not there"),
        (('"""4(e).', '"""4(g).'), "4(g), which starter_texts.py does not ask"),
        (("def _get_loss_g(", "def _loss_of_g("), "no function _get_loss_g whose docstring begins with"),
        (("self.visualize_goal()", "generator_loss(0)"), "needs a part of an answer"),
    ],
)
def test_changed_scripts_are_noticed(edit, words):
    """What the texts of the starter no longer fit is said, rather than handed out."""
    source = (ROOT / "hw5_gan.py").read_text().replace(*edit)
    with pytest.raises(starter.Stale, match=re.escape(words)):
        starter.make(source, "hw5_gan.py")


def test_a_folder_with_something_in_it_is_refused(handed_out, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file"):
        assert starter.main([str(path)]) == 2
        assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "x"


def answer(folder, handed_out, **answers):
    for name in NAMES:
        text = (handed_out / f"{name}.py").read_text()
        (folder / f"{name}.py").write_text(fill(text, answers.get(name, {})))


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        assert starter.main([str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert "No space left" in error and error.count("\n") == 1 and os.listdir(tmp_path) == []
    assert starter.main([str(tmp_path / "new")]) == 0


def test_names_that_no_system_takes_are_one_line(tmp_path, capsys):
    assert starter.main([str(tmp_path / ("x" * 300))]) == 2
    error = capsys.readouterr().err
    assert "File name too long" in error and error.count("\n") == 1
    (tmp_path / "link").symlink_to("nowhere")
    assert starter.main([str(tmp_path / "link")]) == 2 and "is not an empty folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("line", ["-m hw5_lab.starter FOLDER", "-m hw5_lab runs", "-m hw5_lab.grade --help"])
def test_commands_into_a_closed_pipe(line, tmp_path):
    line = line.replace("FOLDER", str(tmp_path / "new"))
    done = subprocess.run(f"{sys.executable} {line} | true", shell=True, cwd=ROOT, text=True, capture_output=True)
    assert done.stderr == ""


@pytest.mark.slow
def test_answers_earn_all_points_and_pass_the_self_check(handed_out, box, tmp_path):
    answer(tmp_path, handed_out, **ANSWERS)
    raw = raw_of(box, tmp_path / "a", **texts(tmp_path))
    assert lost(raw) == {} and raw["notes"] == [] and "right" not in said(raw)
    copy_rest(handed_out, tmp_path)
    finished = check_oneself(tmp_path)
    assert finished.returncode == 0 and "21 passed" in finished.stdout, finished.stdout


@pytest.mark.slow
def test_each_answer_earns_its_points_alone(handed_out, box, tmp_path):
    """A student who has answered one question only: no other is needed."""
    alone = {
        "2(a)": ("Decoder",),
        "2(b)i": ("logpdf_diagonal_gaussian",),
        "2(b)iv": ("sample_Bernoulli",),
        "2(c)": ("elbo",),
        "2(e)iii": ("interpolate_mu",),
        "4(a)": ("DNet",),
        "4(b)": ("GNet",),
        "4(c)": ("_weight_init",),
        "4(d)": ("_get_loss_d",),
        "4(e)": ("_get_loss_g",),
        "4(b) levels": ("generate_noise_levels",),
        "4(b) network": ("DiffusionModel",),
        "4(b) loss": ("compute_denoising_loss",),
        "4(c) sampler": ("langevin_dynamics",),
    }
    for question, names in alone.items():
        wanted = lambda key: set(key) & set(names) and (key[1] == "_weight_init") == (question == "4(c)")  # noqa: E731
        chosen = {
            name: {key: body for key, body in answers.items() if wanted(key)} for name, answers in ANSWERS.items()
        }
        answer(tmp_path, handed_out, **chosen)
        raw = raw_of(box, tmp_path / f"alone {question}", [question], **texts(tmp_path))
        assert lost(raw) == {}, question


def of_student(folder, handed_out, answers):
    """The hand-out with answers and 300 images, where nothing is downloaded."""
    assert starter.main([str(folder)]) == 0
    answer(folder, handed_out, **answers)
    for path in (folder / "data" / "sample").iterdir():
        content = gzip.decompress(path.read_bytes())
        head, size = (16, 784) if "images" in path.name else (8, 1)
        short = content[:4] + struct.pack(">I", 300) + content[8 : head + 300 * size]
        (folder / "data" / path.name).write_bytes(gzip.compress(short))
    return folder


FAULTS = [
    ("hw5_vae", "elbo", "raise ValueError('mine')", [], 1, "Traceback", "in elbo"),
    ("hw5_gan", "_get_loss_d", "raise ValueError('mine')", [], 1, "Traceback", "in _get_loss_d"),
    ("hw5_diffusion", "compute_denoising_loss", "raise OSError('mine')", [], 1, "Traceback", "in compute_denoising_loss"),
    ("hw5_gan", "_weight_init", "[nn.init.kaiming_uniform_(p) for p in self.parameters()]", [], 1, "Traceback",
     "in _weight_init"),
    ("hw5_vae", "elbo", "return math.nan * p.mean()", [], 1, "", "step 1: the ELBO is nan"),
    ("hw5_vae", "elbo", "elbo.calls = getattr(elbo, 'calls', 0) + 1\nif elbo.calls > 1: raise KeyboardInterrupt\n"
     "return logpdf_bernoulli(x, p).mean()", [], 130, "", ""),
    ("hw5_vae", "elbo", "pass", ["--e_path", "nowhere/e.pt"], 2, "", "cannot be written"),
    ("hw5_gan", "_get_loss_d", "pass", ["--batch_size", "301"], 2, "", "more than the 300 training images"),
    ("hw5_diffusion", "compute_denoising_loss", "pass", ["--word", "日"], 2, "", "DejaVu Sans has no"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name, function, body, flags, code, begins, words", FAULTS)
def test_a_students_fault_has_a_traceback_and_bad_input_a_line(
    name, function, body, flags, code, begins, words, handed_out, tmp_path
):
    changed = {key: body if key[1] == function else text for key, text in ANSWERS[name].items()}
    folder = of_student(tmp_path / "student", handed_out, {**ANSWERS, name: changed})
    finished = run(folder, name, "--epochs", "1", *flags)
    told = finished.stderr.replace("MNIST could not be downloaded", "")
    assert finished.returncode == code and words in told and begins in told, told
    if not begins:
        assert "Traceback" not in told and told.count("\n") == bool(words), told
    if code == 130:
        assert "Stopped: figures" in finished.stdout and (folder / "outputs/figures/data_space.png").exists()


@pytest.mark.slow
def test_ctrl_c_before_the_first_update_keeps_a_students_weights(handed_out, tmp_path):
    changed = {key: "raise KeyboardInterrupt" if key[1] == "elbo" else text for key, text in ANSWERS["hw5_vae"].items()}
    folder = of_student(tmp_path / "student", handed_out, {**ANSWERS, "hw5_vae": changed})
    torch.save(hw5_vae.Encoder(2, 5, 784).state_dict(), folder / "e.pt")
    before = (folder / "e.pt").read_bytes()
    finished = run(folder, "hw5_vae", "--e_path", "e.pt")
    assert finished.returncode == 130 and "Stopped" not in finished.stdout, finished.stderr
    assert (folder / "e.pt").read_bytes() == before


@pytest.mark.slow
def test_the_score_field_is_drawn_before_4c_is_answered(handed_out, tmp_path):
    changed = {key: text for key, text in ANSWERS["hw5_diffusion"].items() if key[1] != "langevin_dynamics"}
    folder = of_student(tmp_path / "student", handed_out, {**ANSWERS, "hw5_diffusion": changed})
    finished = run(folder, "hw5_diffusion", "--epochs", "1")
    assert finished.returncode == 1 and finished.stderr.rstrip().endswith("NotImplementedError: 4(c)")
    assert {path.name for path in (folder / "outputs/figures").iterdir()} == {"data.png", "score_field.png"}


def test_the_hand_out_says_nothing_of_a_rate_that_its_vae_does_not_have(handed_out):
    text = (handed_out / "hw5_vae.py").read_text()
    assert "cosine" not in text and "decay" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_answers_train_and_draw(name, handed_out, tmp_path):
    """From the hand-out alone, with the answers written in, the scripts run to their end."""
    folder = of_student(tmp_path / "student", handed_out, ANSWERS)
    fewer = ["--samples", "100", "--langevin_steps", "5"] if name == "hw5_diffusion" else []
    finished = run(folder, name, "--epochs", "2", *fewer)
    assert finished.returncode == 0, finished.stderr
    assert "epoch 2: " in finished.stdout
    if name == "hw5_vae":
        first, second = map(float, re.findall(r"^epoch \d: elbo (-?[\d.]+)", finished.stdout, re.MULTILINE))
        assert first < second < 0, "the bound rises"
    drawn = {path.name for path in (folder / "outputs").rglob("*.png")}
    assert (
        drawn
        == {
            "hw5_vae": {"data_space.png", "latent_space.png", "inter_class_interpolation.png"},
            "hw5_gan": {"goal.png", *(f"samples_epoch_{epoch}.png" for epoch in range(3))},
            "hw5_diffusion": {"data.png", "samples.png", "score_field.png", "trajectories.png"},
        }[name]
    )
