"""More mistakes and right solutions than the grader was made with: no false verdict, and most mistakes are named."""

import sys
from itertools import zip_longest

import pytest
from graded import PLAIN, edited, lost, raw_of, said
from submissions import fresh

from hw5_lab.teaching import judging
from hw5_lab.teaching.scheme import QUESTIONS

NAMELESS = "not a known one", "another value than the middle", "Error", "nan or inf"


def combined(cases):
    """Submissions that hold one case of each question: [([(question, edits)], {file: text})]."""
    by_question = {}
    for question, *edits in cases:
        by_question.setdefault(question, []).append(edits)
    for row in zip_longest(*by_question.values()):
        chosen = [(question, edits) for question, edits in zip(by_question, row) if edits]
        files = {}
        for question, edits in chosen:
            files.setdefault(QUESTIONS[question].file, []).extend(edits)
        yield chosen, {file: edited(file, edits) for file, edits in files.items()}


@pytest.mark.slow
def test_fresh_mistakes_lose_points_and_most_are_named(box, tmp_path):
    named = total = 0
    for number, (chosen, files) in enumerate(combined(fresh.MISTAKES)):
        found = lost(raw_of(box, tmp_path / f"{number}", [question for question, _ in chosen], **files))
        for question, edits in chosen:
            assert question in found, edits
            total += 1
            named += any(not any(words in why for words in NAMELESS) for why in found[question].values())
    assert total >= 40 and named >= 0.8 * total, (named, total)


@pytest.mark.slow
def test_fresh_right_solutions_lose_nothing(box, tmp_path):
    total = 0
    for number, (chosen, files) in enumerate(combined(fresh.RIGHT)):
        found = lost(raw_of(box, tmp_path / f"{number}", [question for question, _ in chosen], **files))
        assert found == {}, files
        total += len(chosen)
    assert total >= 20


LEVELS = "\n\nlevels_of = generate_noise_levels\ndef generate_noise_levels(*a):\n    return levels_of(*a).tolist()\n"


def plain_or_edited(file, edits):
    return edited(file, edits) if edits else PLAIN[file]


PRIOR = "torch.zeros_like(mu), torch.ones_like(mu))"
STEP = "noise = torch.randn_like(x)\n            x = x + alpha * scorenet(x, sigma) + torch.sqrt(2 * alpha) * noise"
PER_COLUMN = """columns = zip(z.unbind(1), mu.unbind(1), sigma_square.unbind(1), strict=True)
    return sum(-0.5 * (math.log(2 * math.pi) + torch.log(s) + (a - m) ** 2 / s) for a, m, s in columns)"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "question, edits, expected",
    [
        (
            "4(c) sampler",
            (STEP, STEP.replace("torch.randn_like(x)", "torch.randn(2)")),
            {"noise": "one noise for all samples: each needs its own"},
        ),
        (
            "4(c) sampler",
            ("    for sigma in sigmas:", "    x = torch.rand_like(x)\n    for sigma in sigmas:"),
            {"steps": "does not start from the x that is given"},
        ),
        (
            "4(c) sampler",
            (STEP, STEP.replace("* noise", "")),
            {"step": "no noise: sqrt(2 alpha) noise is asked", "noise": "no noise: sqrt(2 alpha) noise is asked"},
        ),
        (
            "4(c) sampler",
            (
                "    for sigma in sigmas:",
                "    drawn = torch.randn(iterations, *x.shape)\n    for sigma in sigmas:",
                "for _ in range(iterations):\n            noise = torch.randn_like(x)",
                "for step in range(iterations):\n            noise = drawn[step]",
            ),
            {"noise": "the same noise at several steps: each needs its own"},
        ),
        (
            "4(c) sampler",
            ("            yield x", "        yield x"),
            {"steps": "3 positions are given: x is asked after each of the 18 steps"},
        ),
        (
            "4(c) sampler",
            ("            yield x", "    yield x"),
            {"steps": "1 positions are given: x is asked after each of the 18 steps"},
        ),
        (
            "4(c) sampler",
            ("    for sigma in sigmas:", "    yield x\n    for sigma in sigmas:"),
            {"steps": "the start is given too: x is asked after each step"},
        ),
        (
            "4(c) sampler",
            ("            yield x\n", "", "            noise =", "            yield x\n            noise ="),
            {"steps": "x is given before each step: after it is asked"},
        ),
        (
            "4(c) sampler",
            ("    for sigma in sigmas:", "    start = x\n    for sigma in sigmas:\n        x = start"),
            {"steps": "each level starts anew from the x that is given: from where the last one ended"},
        ),
        (
            "2(c)",
            ("logpdf_bernoulli(x, p)\n    return", "logpdf_bernoulli(p, x)\n    return"),
            {
                "value": "nan or inf where the right value is finite",
                "gradient": "the gradient for p is not finite",
            },
        ),
        (
            "4(b) loss",
            ("sigmas[torch.randint(len(sigmas), (len(x), 1))]", "sigmas[torch.arange(len(x)) % len(sigmas), None]"),
            {"noise": "the same levels at every call: each point's is to be drawn"},
        ),
        (
            "2(c)",
            ("logpdf_diagonal_gaussian(sampled_z, " + PRIOR, "logpdf_diagonal_gaussian(mu, " + PRIOR),
            {"value": "log p(z) is taken at mu, not at the sample z"},
        ),
        (
            "4(d)",
            ("0.5 * (real_loss + fake_loss)", "fake_loss"),
            {
                "value": "the real images are missing: the loss of the fakes alone",
                "own networks": "the real images are missing: the loss of the fakes alone",
            },
        ),
    ],
)
def test_a_mistake_is_called_what_it_is(box, tmp_path, question, edits, expected):
    file = QUESTIONS[question].file
    assert lost(raw_of(box, tmp_path / "s", [question], **{file: edited(file, edits)})) == {question: expected}


OWN_WEIGHTS = (
    "        self.fc1 = nn.Linear(latent_dimension, hidden_units)\n        self.fc2 = nn.Linear(hidden_units, data_dimension)\n",
    "        self.W1 = nn.Parameter(0.1 * torch.randn(latent_dimension, hidden_units))\n"
    "        self.b1 = nn.Parameter(torch.zeros(hidden_units))\n"
    "        self.W2 = nn.Parameter(0.1 * torch.randn(hidden_units, data_dimension))\n"
    "        self.b2 = nn.Parameter(torch.zeros(data_dimension))\n",
    "torch.tanh(self.fc1(z))",
    "torch.tanh(z @ self.W1 + self.b1)",
    "self.fc2(hidden))\n\n\nclass VAE",
    "hidden @ self.W2 + self.b2)\n\n\nclass VAE",
)
ALIAS = "\n\nbound = elbo\nelbo = lambda z, mu, s, x, p: bound(z, mu, s, x, p)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "question, file, edits, more, remark",
    [
        ("2(a)", "hw5_vae", OWN_WEIGHTS, "", ""),
        ("2(c)", "hw5_vae", (), f"{ALIAS}main()\n", "calls main() at import: left out"),
        ("2(c)", "hw5_vae", (), f"{ALIAS}get_ipython().run_line_magic('matplotlib', 'inline')\n", ""),
        ("2(c)", "hw5_vae", ("logpdf_bernoulli(x, p)\n    return", "logpdf_bernoulli(p=p, x=x)\n    return"), "", ""),
        ("2(b)iii", "hw5_vae", ("torch.randn_like(mu)", "torch.randn(mu.shape, device='mps')"), "", "asks for a GPU"),
        ("2(b)ii", "hw5_vae", ("(x, p):\n    terms", "(x: Float[torch.Tensor, 'b d'], p):\n    terms"), "", ""),
        ("2(c)", "hw5_vae", (), "\n!pip install torch\n", ""),
        (
            "4(a)",
            "hw5_gan",
            ("        super().__init__()\n", "        super().__init__()\n        self.F = nn.functional\n"),
            "",
            "",
        ),
        ("4(c) sampler", "hw5_diffusion", ("            yield x", "            yield x.detach().numpy()"), "", ""),
        ("4(d)", "hw5_gan", ("DNet().to(self._dev)", "torch.compile(DNet().to(self._dev))"), "", ""),
        ("2(c)", "hw5_vae", ("def logpdf_bernoulli", "@torch.jit.script\ndef logpdf_bernoulli"), "", ""),
        ("4(b) levels", "hw5_diffusion", (), LEVELS, ""),
    ],
)
def test_other_right_forms(box, tmp_path, question, file, edits, more, remark):
    """Weights of one's own, names for one's own functions, keywords, a Mac's GPU, what a notebook leaves in a script."""
    raw = raw_of(box, tmp_path / "s", [question], **{file: plain_or_edited(file, edits) + more})
    assert lost(raw) == {} and remark in said(raw) and bool(remark) == bool(raw["notes"]), said(raw)


@pytest.mark.slow
def test_one_number_as_sigma_is_remarked_upon_and_costs_nothing(box, tmp_path):
    text = edited("hw5_diffusion", ("torch.as_tensor(sigma).reshape(-1, 1)", "sigma.view(len(x), 1)"))
    raw = raw_of(box, tmp_path / "s", ["4(b) network"], hw5_diffusion=text)
    assert lost(raw) == {} and "with one number as sigma for all points it fails: RuntimeError" in said(raw)


def test_a_syntax_error_says_which_python_reads(box, tmp_path):
    """A newer one may read it: quotes within an f-string, for instance."""
    raw = raw_of(box, tmp_path / "s", ["2(b)i"], hw5_vae=PLAIN["hw5_vae"] + "x = (")
    version = f"; read by Python {sys.version_info[0]}.{sys.version_info[1]}"
    assert all("SyntaxError" in why and why.endswith(version) for why in lost(raw)["2(b)i"].values())


def test_a_function_that_holds_comments_only_may_be_indented_with_tabs(box, tmp_path):
    text = edited(
        "hw5_vae",
        (
            "def interpolate_mu(mua, mub, alpha=0.5):\n    return alpha * mua + (1 - alpha) * mub",
            "def interpolate_mu(mua, mub, alpha=0.5):\n    pass",
        ),
    )
    text = text.replace("    ", "\t").replace("\tpass", "\t# my answer")
    assert set(lost(raw_of(box, tmp_path / "s", ["2(c)", "2(e)iii"], hw5_vae=text))) == {"2(e)iii"}


def test_an_error_that_is_no_missing_answer_is_shown(box, tmp_path):
    text = edited("hw5_gan", ("def forward(self, x)", "def foward(self, x)"))
    found = lost(raw_of(box, tmp_path / "s", ["4(a)"], hw5_gan=text))
    assert "the network has no forward(): is its name misspelt?" in found["4(a)"].values(), found
    text = edited("hw5_vae", ("    eps = ", "    torch.softmax(torch.arange(7), 0)\n    eps = "))
    found = lost(raw_of(box, tmp_path / "v", ["2(b)iii"], hw5_vae=text))
    assert not any("not answered" in why for why in found["2(b)iii"].values()), found


def test_a_bound_that_cannot_call_its_own_right_densities_loses_its_value(box, tmp_path):
    """And one that stops at a density which is not answered does not."""
    text = edited("hw5_vae", (PRIOR, "torch.zeros(1, 1), torch.ones(1, 1))"))
    terms = text[text.index("    terms = math.log(2 * math.pi)") : text.index("def logpdf_bernoulli")]
    raw = raw_of(box, tmp_path / "own", ["2(c)"], hw5_vae=text.replace(terms, f"    {PER_COLUMN}\n\n\n"))
    assert list(lost(raw)["2(c)"]) == ["value"] and "Error" in lost(raw)["2(c)"]["value"]
    assert "see 2(b)" not in said(raw)
    raw = raw_of(box, tmp_path / "none", ["2(c)"], hw5_vae=text.replace(terms, "    raise NotImplementedError\n\n\n"))
    assert lost(raw) == {} and "see 2(b)" in said(raw)


BIAS_FIRST = """

class Layer(nn.Module):
    def __init__(self, *shape, **options):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.weight = nn.Parameter(torch.empty(*shape))
        nn.init.kaiming_uniform_(self.weight)
        self.options = options

    def forward(self, x):
        if self.weight.dim() == 2:
            return x @ self.weight.T + self.bias
        return nn.functional.conv2d(x, self.weight, self.bias, **self.options)
"""


def test_a_bias_may_be_declared_before_its_weight(box, tmp_path):
    text = edited("hw5_vae", ("class Encoder(nn.Module)", f"{BIAS_FIRST}\n\nclass Encoder(nn.Module)"))
    text = text.replace(
        "self.fc1 = nn.Linear(latent_dimension, hidden_units)", "self.fc1 = Layer(hidden_units, latent_dimension)"
    )
    text = text.replace(
        "self.fc2 = nn.Linear(hidden_units, data_dimension)", "self.fc2 = Layer(data_dimension, hidden_units)"
    )
    assert "Layer(data_dimension" in text and lost(raw_of(box, tmp_path / "a", ["2(a)"], hw5_vae=text)) == {}


@pytest.mark.slow
def test_a_density_that_never_ends_costs_no_bound(box, tmp_path, monkeypatch):
    monkeypatch.setattr(judging.Ask.run, "__defaults__", (2,))  # seconds
    text = edited("hw5_vae", ("    terms = x * torch.log(p)", "    while True: pass\n    terms = x * torch.log(p)"))
    found = lost(raw_of(box, tmp_path / "a", ["2(b)ii", "2(c)"], hw5_vae=text))
    assert set(found) == {"2(b)ii"}, found


def test_the_exact_kl_is_named_also_beside_a_wrong_density(box, tmp_path):
    exact = "(log_p - 0.5 * (sigma_square + mu**2 - 1 - torch.log(sigma_square)).sum(-1)).mean()"
    text = edited(
        "hw5_vae",
        ("(log_p + log_prior - log_q).mean()", exact, "return terms.sum(dim=-1)", "return terms.mean(dim=-1)"),
    )
    found = lost(raw_of(box, tmp_path / "a", ["2(c)"], hw5_vae=text))
    assert "the exact KL of Eq. 1" in found["2(c)"]["value"] and "form" not in found["2(c)"], found


def test_sizes_that_are_swapped_are_no_layers_of_ones_own(box, tmp_path):
    text = edited(
        "hw5_vae",
        (
            "self.fc1 = nn.Linear(latent_dimension, hidden_units)",
            "self.fc1 = nn.Linear(hidden_units, latent_dimension)",
        ),
    )
    found = lost(raw_of(box, tmp_path / "s", ["2(a)"], hw5_vae=text))
    assert "2 layers with weights (Linear 500->2, " in found["2(a)"]["layers"], found
