"""More mistakes and right solutions, written without a look at what the grader knows: edits of the plain submission.

A mistake: the question, and what is edited. All must lose points, of this question alone. A right one loses none.
"""

TERMS = "terms = math.log(2 * math.pi) + torch.log(sigma_square) + (z - mu) ** 2 / sigma_square"
SUM = "return (-0.5 * terms).sum(dim=-1)"
PIXELS = "terms = x * torch.log(p) + (1 - x) * torch.log(1 - p)"
DRAW = "return mu + torch.sqrt(sigma_square) * eps"
BITS = "    u = torch.rand_like(p)\n    return (u < p).float()"
BOUND = "return (log_p + log_prior - log_q).mean()"
BETWEEN = "return alpha * mua + (1 - alpha) * mub"
LAST = "return torch.sigmoid(self.fc2(hidden))"
KAIMING = "nn.init.kaiming_uniform_(layer.weight)"
HALF = "return 0.5 * (real_loss + fake_loss)"
LOSS_G = "return bce(fake, torch.ones(batch_size, 1))"
LEVELS = "return torch.exp(torch.linspace(math.log(begin), math.log(end), levels))"
STEP = "x = x + alpha * scorenet(x, sigma) + torch.sqrt(2 * alpha) * noise"
SCORE = "(sigma ** 2 / 2 * error).sum(dim=1).mean()"

MISTAKES = [
    ("2(a)", "torch.tanh(self.fc1(z))", "torch.sigmoid(self.fc1(z))", LAST, "return torch.tanh(self.fc2(hidden))"),
    ("2(a)", LAST, "return torch.sigmoid(torch.sigmoid(self.fc2(hidden)))"),
    ("2(a)", LAST, "return torch.sigmoid(torch.tanh(self.fc2(hidden)))"),
    ("2(a)", "nn.Linear(latent_dimension, hidden_units)", "nn.Linear(latent_dimension, 400)",
     "self.fc2 = nn.Linear(hidden_units, data", "self.fc2 = nn.Linear(400, data"),
    ("2(a)", "nn.Linear(hidden_units, data_dimension)", "nn.Linear(hidden_units, data_dimension, bias=False)"),
    ("2(b)i", SUM, "return (-0.5 * (terms - 2 * math.log(2 * math.pi))).sum(dim=-1)"),
    ("2(b)i", "math.log(2 * math.pi)", "math.sqrt(2 * math.pi)"),
    ("2(b)i", "math.log(2 * math.pi)", "2 * math.pi"),
    ("2(b)i", "torch.log(sigma_square) + (z", "torch.log10(sigma_square) + (z"),
    ("2(b)i", "(z - mu) ** 2 / sigma_square", "(z - mu) ** 2 / (2 * sigma_square)"),
    ("2(b)i", "(z - mu) ** 2 / sigma_square", "(z - mu) / sigma_square"),
    ("2(b)i", "torch.log(sigma_square) + (z", "sigma_square + (z"),
    ("2(b)ii", PIXELS, "terms = x * torch.log(p) - (1 - x) * torch.log(1 - p)"),
    ("2(b)ii", PIXELS, "terms = x * p + (1 - x) * (1 - p)"),
    ("2(b)ii", PIXELS, "terms = torch.log(x * p + (1 - x) * p)"),
    ("2(b)ii", "return terms.sum(dim=-1)", "return -nn.functional.binary_cross_entropy(p, x)"),
    ("2(b)ii", PIXELS, "terms = x * torch.log10(p) + (1 - x) * torch.log10(1 - p)"),
    ("2(b)iii", DRAW, "return mu + sigma_square ** 2 * eps"),
    ("2(b)iii", DRAW, "return torch.normal(mu, sigma_square)"),
    ("2(b)iii", DRAW, "return mu * eps + torch.sqrt(sigma_square)"),
    ("2(b)iii", "torch.randn_like(mu)", "torch.randn(1)"),
    ("2(b)iii", DRAW, "return mu + torch.log(sigma_square) * eps"),
    ("2(b)iii", DRAW, "return mu - 1 + torch.sqrt(sigma_square) * eps"),
    ("2(b)iv", BITS, "    return torch.round(p)"),
    ("2(b)iv", BITS, "    return (torch.rand_like(p) < p).long()"),
    ("2(b)iv", BITS, "    return 2 * torch.bernoulli(p) - 1"),
    ("2(b)iv", BITS, "    return (torch.randn_like(p) < p).float()"),
    ("2(c)", "torch.zeros_like(mu), torch.ones_like(mu))", "mu, torch.ones_like(mu))"),
    ("2(c)", "logpdf_bernoulli(x, p)\n    return", "logpdf_bernoulli(p, x)\n    return"),
    ("2(c)", BOUND, "return (log_p + 0.1 * (log_prior - log_q)).mean()"),
    ("2(c)", BOUND, "return (log_p + log_prior - log_q).mean() / 784"),
    ("2(c)", BOUND, "return (log_p - abs(log_prior - log_q)).mean()"),
    ("2(e)iii", "alpha=0.5", "alpha=0.1"),
    ("2(e)iii", BETWEEN, "return mua + alpha * (mub - mua)"),
    ("2(e)iii", BETWEEN, "return (alpha * mua + (1 - alpha) * mub) / 2"),
    ("4(a)", "self.relu3(self.conv3(x))", "torch.tanh(self.conv3(x))"),
    ("4(a)", "self.relu3(self.conv3(x))", "nn.functional.dropout(self.relu3(self.conv3(x)), 0.5)"),
    ("4(a)", "return self.fc(x.flatten(1))", "return torch.relu(self.fc(x.flatten(1)))"),
    ("4(a)", "return self.fc(x.flatten(1))", "return self.fc(x.flatten(1)) * 0.5"),
    ("4(b)", "nn.LeakyReLU(0.2)", "nn.LeakyReLU(0.02)"),
    ("4(b)", "self.leaky1(self.fc(z))", "torch.tanh(self.fc(z))"),
    ("4(b)", "self.sigmoid(self.conv3(z))", "(torch.tanh(self.conv3(z)) + 1) / 2"),
    ("4(b)", "z.reshape(-1, 32, 7, 7)", "z.reshape(-1, 7, 7, 32).transpose(1, 3)"),
    ("4(c)", KAIMING, "nn.init.kaiming_uniform_(layer.weight, a=1)"),
    ("4(c)", KAIMING, "nn.init.kaiming_uniform_(layer.weight, nonlinearity='tanh')"),
    ("4(c)", "nn.init.zeros_(layer.bias)", "pass"),
    ("4(c)", "nn.init.zeros_(layer.bias)", "nn.init.ones_(layer.bias)"),
    ("4(d)", HALF, "return bce(real.mean(), torch.tensor(1.)) / 2 + bce(fake.mean(), torch.tensor(0.)) / 2"),
    ("4(d)", HALF, "return (torch.log(torch.sigmoid(real)) + torch.log(1 - torch.sigmoid(fake))).mean()"),
    ("4(d)", HALF, "return real_loss + 0.5 * fake_loss"),
    ("4(d)", HALF, "return real_loss * fake_loss"),
    ("4(d)", "torch.ones_like(real)", "0.75 * torch.ones_like(real)"),
    ("4(e)", LOSS_G, "return torch.log(1 - torch.sigmoid(fake)).mean()"),
    ("4(e)", LOSS_G, "return -fake.mean()"),
    ("4(e)", LOSS_G, "return ((fake - 1) ** 2).mean()"),
    ("4(e)", "fake = self.disc(self.gen(z))\n        return", "fake = self.disc(self.gen(torch.randn_like(z)))\n        return"),
    ("4(e)", LOSS_G, "return bce(fake, 0.9 * torch.ones(batch_size, 1))"),
    ("4(b) levels", LEVELS, "return begin * 0.5 ** torch.arange(levels)"),
    ("4(b) levels", LEVELS, "return torch.logspace(math.log(begin), math.log(end), levels)"),
    ("4(b) network", "/ torch.as_tensor(sigma).reshape(-1, 1)", "/ torch.as_tensor(sigma).reshape(-1, 1).sqrt()"),
    ("4(b) network", "h = torch.relu(self.fc2(h))", "h = self.fc2(h)"),
    ("4(b) loss", "error = (scorenet(noisy, sigma) - target) ** 2", "error = (scorenet(noisy, sigma) - target).abs()"),
    ("4(b) loss", SCORE, "(sigma ** 2 / 2 * error).sum()"),
    ("4(b) loss", "(len(x), 1))]", "(len(x), 2))]"),
    ("4(b) loss", "noisy = x + sigma * noise", "noisy = x + sigma ** 2 * noise"),
    ("4(b) loss", "scorenet(noisy, sigma) - target", "scorenet(x, sigma) - target"),
    ("4(c) sampler", STEP, "x = x + alpha * scorenet(x, sigma) + 2 ** 0.5 * alpha * noise"),
    ("4(c) sampler", "sigma ** 2 / sigmas[-1] ** 2", "sigma / sigmas[-1] ** 2"),
    ("4(c) sampler", STEP, "x = x + scorenet(x, sigma) + torch.sqrt(2 * alpha) * noise"),
    ("4(c) sampler", "noise = torch.randn_like(x)\n            x", "noise = torch.rand_like(x)\n            x"),
]

RIGHT = [
    ("2(a)", "torch.tanh(self.fc1(z))", "2 * torch.sigmoid(2 * self.fc1(z)) - 1"),
    ("2(a)", LAST, "return 1 / (1 + torch.exp(-self.fc2(hidden)))"),
    ("2(b)i", TERMS + "\n    " + SUM, "d = torch.distributions.MultivariateNormal(mu, torch.diag_embed(sigma_square))\n    return d.log_prob(z)"),
    ("2(b)i", TERMS + "\n    " + SUM, "s = sigma_square ** 0.5\n    return torch.log(torch.prod(torch.exp(-(z - mu) ** 2 / "
     "(2 * s ** 2)) / (s * (2 * math.pi) ** 0.5) + 1e-30, 1))" if False else "s = sigma_square ** 0.5\n    return "
     "-torch.sum(((z - mu) / s) ** 2 / 2 + torch.log(s * (2 * math.pi) ** 0.5), 1)"),
    ("2(b)i", TERMS + "\n    " + SUM, "return -nn.functional.gaussian_nll_loss(mu, z, sigma_square, full=True, eps=0, "
     "reduction='none').sum(1)"),
    ("2(b)ii", PIXELS, "terms = torch.log(torch.where(x == 1, p, 1 - p))"),
    ("2(b)ii", PIXELS, "terms = torch.log(p ** x * (1 - p) ** (1 - x))"),
    ("2(b)ii", PIXELS, "terms = x * torch.log(torch.clamp(p, 1e-7, 1 - 1e-7)) + (1 - x) * torch.log1p(-p.clamp(1e-7, 1 - 1e-7))"),
    ("2(b)iii", DRAW, "return torch.distributions.MultivariateNormal(mu, torch.diag_embed(sigma_square)).rsample()"),
    ("2(b)iii", DRAW, "return torch.addcmul(mu, sigma_square.sqrt(), eps)"),
    ("2(b)iv", BITS, "    return torch.where(torch.rand(p.size()) <= p, 1.0, 0.0)"),
    ("2(b)iv", BITS, "    with torch.no_grad():\n        return torch.distributions.Bernoulli(probs=p).sample()"),
    ("2(b)iv", BITS, "    return torch.ceil(p - torch.rand_like(p))"),
    ("2(c)", BOUND, "total = 0\n    for i in range(len(x)):\n        total = total + log_p[i] + log_prior[i] - log_q[i]\n    return total / len(x)"),
    ("2(c)", BOUND, "return torch.stack([log_p.mean(), log_prior.mean(), -log_q.mean()]).sum()"),
    ("2(e)iii", BETWEEN, "return torch.lerp(mub, mua, alpha)"),
    ("4(a)", "self.relu3(self.conv3(x))", "self.conv3(x).clamp(min=0)"),
    ("4(a)", "x = self.pool1(self.relu1(self.conv1(x)))", "x = self.relu1(self.pool1(self.conv1(x)))"),
    ("4(b)", "self.leaky1(self.fc(z))", "torch.where((h := self.fc(z)) > 0, h, 0.2 * h)"),
    ("4(b)", "self.up1(z)", "z.repeat_interleave(2, 2).repeat_interleave(2, 3)"),
    ("4(c)", "isinstance(layer, (nn.Conv2d, nn.Linear))", "getattr(layer, 'weight', None) is not None"),
    ("4(c)", KAIMING, "nn.init.kaiming_uniform_(layer.weight, a=0, mode='fan_in', nonlinearity='leaky_relu')"),
    ("4(d)", HALF, "return (nn.functional.softplus(-real) + nn.functional.softplus(fake)).mean() / 2"),
    ("4(d)", HALF, "return -(nn.functional.logsigmoid(real).mean() + nn.functional.logsigmoid(-fake).mean()) / 2"),
    ("4(e)", LOSS_G, "return -torch.log(torch.sigmoid(fake)).mean()"),
    ("4(b) levels", LEVELS, "q = (end / begin) ** (1 / (levels - 1))\n    return torch.tensor([begin * q ** i for i in range(levels)])"),
    ("4(b) loss", "return " + SCORE, "return 0.5 * torch.mean(torch.norm(sigma * scorenet(noisy, sigma) + noise, dim=1) ** 2)"),
    ("4(c) sampler", STEP, "x = torch.distributions.Normal(x + alpha * scorenet(x, sigma), (2 * alpha) ** 0.5).sample()"),
]
