"""Known mistakes and right styles, as edits of the plain submission: what they cost, and words of the diagnosis.

A row: the file, (old text, new text, old text, new text, ...), {question: parts that lose their points}, words. A "*"
stands for all parts of the question.
"""

DECODER_LAYERS = "        self.fc2 = nn.Linear(hidden_units, data_dimension)\n\n    def forward(self, z):\n"
THREE_LAYERS = ("        self.fc2 = nn.Linear(hidden_units, hidden_units)\n"
                "        self.fc3 = nn.Linear(hidden_units, data_dimension)\n\n    def forward(self, z):\n")
D_ORDER = ("        self.conv2 = nn.Conv2d(2, 4, 3, 1, 1)\n", "", "        self.fc = nn.Linear(200, 1)\n",
           "        self.fc = nn.Linear(200, 1)\n        self.conv2 = nn.Conv2d(2, 4, 3, 1, 1)\n")
G_ORDER = ("        self.conv2 = nn.Conv2d(16, 8, 3, 1, 1)\n", "", "        self.sigmoid = nn.Sigmoid()\n",
           "        self.sigmoid = nn.Sigmoid()\n        self.conv2 = nn.Conv2d(16, 8, 3, 1, 1)\n")
KAIMING = "nn.init.kaiming_uniform_(layer.weight)"
WEIGHTS = {"4(c)": "DNet's weights, GNet's weights, seeded weights"}
REAL, FAKE = "real_loss = bce(real, torch.ones_like(real))", "fake_loss = bce(fake, torch.zeros_like(fake))"
HALF = "return 0.5 * (real_loss + fake_loss)"
SMOOTHED = REAL, "real_loss = bce(real, torch.full_like(real, 0.9))"
LOSS_G = "return bce(fake, torch.ones(batch_size, 1))"
ALL_G = "value, gradient"

VAE = [
    # 2(a)
    ((DECODER_LAYERS, THREE_LAYERS, "self.fc2(hidden))", "self.fc3(torch.sigmoid(self.fc2(hidden))))"),
     {"2(a)": "layers"}, "three layers"),
    (("return torch.sigmoid(self.fc2(hidden))", "return self.fc2(hidden)"), {"2(a)": "value"}, "no sigmoid at the end"),
    (("hidden = torch.tanh(self.fc1(z))", "hidden = torch.relu(self.fc1(z))"),
     {"2(a)": "value"}, "tanh is asked, ReLU is there"),
    (("hidden = torch.tanh(self.fc1(z))", "hidden = torch.sigmoid(self.fc1(z))"),
     {"2(a)": "value"}, "tanh is asked, sigmoid is there"),
    (("hidden = torch.tanh(self.fc1(z))", "hidden = self.fc1(z)"), {"2(a)": "value"}, "tanh is asked, nothing is there"),
    (("torch.sigmoid(self.fc2(hidden))", "torch.softmax(self.fc2(hidden), dim=-1)"),
     {"2(a)": "value"}, "softmax at the end"),
    (("torch.sigmoid(self.fc2(hidden))", "torch.sigmoid(self.fc2(hidden)).detach()"),
     {"2(a)": "gradient"}, "no gradient reaches"),
    (("torch.sigmoid(self.fc2(hidden))", "torch.sigmoid(self.fc2(hidden)).reshape(-1, 28, 28)"),
     {"2(a)": "form, value"}, "[7, 28, 28]"),
    # 2(b)i
    (("torch.log(sigma_square) + (z - mu) ** 2 / sigma_square",
      "2 * torch.log(sigma_square) + (z - mu) ** 2 / sigma_square ** 2"),
     {"2(b)i": "value"}, "looks like sigma where sigma_square is given"),
    (("math.log(2 * math.pi) + ", ""), {"2(b)i": "value"}, "log 2 pi is missing"),
    (("return (-0.5 * terms).sum(dim=-1)",
      "return (-0.5 * (terms - math.log(2 * math.pi))).sum(dim=-1) - 0.5 * math.log(2 * math.pi)"),
     {"2(b)i": "value"}, "log 2 pi is counted once"),
    (("torch.log(sigma_square) + (z", "2 * torch.log(sigma_square) + (z"),
     {"2(b)i": "value"}, "0.5 is missing before log sigma_square"),
    (("+ (z - mu) ** 2 / sigma_square", "+ 2 * (z - mu) ** 2 / sigma_square"),
     {"2(b)i": "value"}, "0.5 is missing before the squared distance"),
    (("torch.log(sigma_square) + (z", "(z"), {"2(b)i": "value"}, "log sigma_square is missing"),
    (("return (-0.5 * terms).sum(dim=-1)", "return (-0.5 * terms).mean(dim=-1)"),
     {"2(b)i": "value"}, "mean over dimensions, not sum"),
    (("return (-0.5 * terms).sum(dim=-1)", "return -0.5 * terms"),
     {"2(b)i": "form, value"}, "not summed over dimensions"),
    (("return (-0.5 * terms).sum(dim=-1)", "return (-0.5 * terms).sum()"),
     {"2(b)i": "form, value"}, "summed over the examples as well"),
    (("return (-0.5 * terms).sum(dim=-1)", "return (0.5 * terms).sum(dim=-1)"),
     {"2(b)i": "value"}, "the sign is turned"),
    (("(z - mu) ** 2 / sigma_square", "(z - mu) ** 2 / sigma_square ** 2"),
     {"2(b)i": "value"}, "divided by sigma_square twice"),
    (("return (-0.5 * terms).sum(dim=-1)", "return (-0.5 * terms).sum(dim=-1).exp()"),
     {"2(b)i": "value"}, "a density, not its logarithm"),
    (("math.log(2 * math.pi) + torch.log(sigma_square)", "2 * torch.log(sigma_square)"), {"2(b)i": "value"},
     "log 2 pi is missing; and 0.5 is missing before log sigma_square"),
    (("torch.log(sigma_square) + (z", "torch.log(sigma_square.detach()) + (z"),
     {"2(b)i": "gradient"}, "a part of the gradient for sigma_square is missing"),
    (("return (-0.5 * terms).sum(dim=-1)", "z -= mu\n    return (-0.5 * terms).sum(dim=-1)"),
     {"2(b)i": "form"}, "changes its argument z in place"),
    (("torch.log(sigma_square) + (z", "3 * torch.log(sigma_square) + (z"),
     {"2(b)i": "value"}, "log sigma_square: its weight is -1.5, -0.5 is asked"),
    # 2(b)ii
    (("return terms.sum(dim=-1)", "return terms.mean(dim=-1)"), {"2(b)ii": "value"}, "mean over pixels, not sum"),
    (("return terms.sum(dim=-1)", "return terms"), {"2(b)ii": "form, value"}, "not summed over pixels"),
    (("return terms.sum(dim=-1)", "return -terms.sum(dim=-1)"), {"2(b)ii": "value"}, "the sign is turned: a loss"),
    (("return terms.sum(dim=-1)", "return terms.mean()"), {"2(b)ii": "form, value"}, "mean over everything"),
    ((" + (1 - x) * torch.log(1 - p)", ""), {"2(b)ii": "value"}, "(1 - x) log(1 - p) is missing"),
    (("terms = x * torch.log(p) + (1 - x) * torch.log(1 - p)",
      "terms = -nn.functional.binary_cross_entropy_with_logits(p.expand_as(x), x, reduction='none')"),
     {"2(b)ii": "value"},
     "p is taken for a logit"),
    (("x * torch.log(p) + (1 - x) * torch.log(1 - p)", "(1 - x) * torch.log(p) + x * torch.log(1 - p)"),
     {"2(b)ii": "value"},
     "p and 1 - p are swapped"),
    (("torch.log(p) + (1 - x) * torch.log(1 - p)", "torch.log(p.detach()) + (1 - x) * torch.log(1 - p.detach())"),
     {"2(b)ii": "gradient"}, "no gradient reaches p"),
    (("return terms.sum(dim=-1)", "return torch.where(x == 1, p, 1 - p).prod(dim=-1).log()"),
     {"2(b)ii": "value, gradient"}, "the product over the pixels before the logarithm"),
    (("torch.log(p) + (1 - x) * torch.log(1 - p)", "torch.log(p.clamp(0.1, 0.9)) + (1 - x) * torch.log(1 - p.clamp(0.1, 0.9))"),
     {"2(b)ii": "value"}, "not a known one"),
    (("torch.log(p) + (1 - x) * torch.log(1 - p)", "torch.log(p.clamp(0.015, 0.985)) + (1 - x) * torch.log(1 - p.clamp(0.015, 0.985))"),
     {"2(b)ii": "value"}, "kept away from 0 and 1, too far"),
    (("return terms.sum(dim=-1)", "return terms.sum(dim=-1) / math.log(2)"), {"2(b)ii": "value"}, "log2"),
    # 2(b)iii
    (("torch.sqrt(sigma_square) * eps", "sigma_square * eps"),
     {"2(b)iii": "distribution"}, "sigma_square is used where sigma"),
    (("torch.sqrt(sigma_square) * eps", "torch.exp(0.5 * sigma_square) * eps"),
     {"2(b)iii": "distribution"}, "looks like log sigma_square"),
    (("return mu + torch.sqrt(sigma_square) * eps",
      "return torch.distributions.Normal(mu, torch.sqrt(sigma_square)).sample()"),
     {"2(b)iii": "gradient"}, "no reparameterisation: no gradient reaches mu, sigma_square"),
    (("torch.sqrt(sigma_square) * eps", "torch.sqrt(sigma_square.detach()) * eps"),
     {"2(b)iii": "gradient"}, "no gradient reaches sigma_square"),
    (("torch.randn_like(mu)", "torch.rand_like(mu)"), {"2(b)iii": "distribution"}, "uniform noise"),
    (("torch.randn_like(mu)", "torch.randn(mu.shape[0], 1)"),
     {"2(b)iii": "independence"}, "one random number per example"),
    (("torch.randn_like(mu)", "torch.randn(mu.shape[1])"),
     {"2(b)iii": "distribution, independence"}, "one random number for all examples"),
    (("return mu + torch.sqrt", "return torch.sqrt"), {"2(b)iii": "distribution, gradient"}, "mu is not added"),
    (("return mu + torch.sqrt(sigma_square) * eps", "return mu"),
     {"2(b)iii": "*"}, "no noise"),
    (("    eps = torch.randn_like(mu)", "    torch.manual_seed(0)\n    eps = torch.randn_like(mu)"),
     {"2(b)iii": "independence"}, "a seed is set inside"),
    (("torch.randn_like(mu)", "torch.randn_like(mu).clamp(-2, 2)"), {"2(b)iii": "distribution"}, "the noise is cut off at 2"),
    (("return mu + torch.sqrt(sigma_square) * eps", "mu += torch.sqrt(sigma_square) * eps\n    return mu"),
     {"2(b)iii": "form"}, "changes its argument mu in place"),
    # 2(b)iv
    (("(u < p)", "(u > p)"), {"2(b)iv": "distribution"}, "1 with probability 1 - p"),
    (("(u < p)", "(p > 0.5)"), {"2(b)iv": "distribution, independence"}, "a threshold: nothing is random"),
    (("(u < p)", "(u < 0.5)"), {"2(b)iv": "*"}, "p is not used"),
    (("(u < p).float()", "u < p"), {"2(b)iv": "form"}, "bool is returned, float32 is asked"),
    (("(u < p).float()", "p"), {"2(b)iv": "*"}, "p itself is returned"),
    (("torch.rand_like(p)", "torch.rand(p.shape[0], 1)"), {"2(b)iv": "independence"}, "one random number per example"),
    (("torch.rand_like(p)", "torch.rand(p.shape[1])"), {"2(b)iv": "distribution, independence"}, "for all examples"),
    (("    u = torch.rand_like(p)\n    return (u < p).float()", "    return (p > torch.rand(1)).float()"),
     {"2(b)iv": "distribution, independence"}, "one random number for all examples"),
    (("    u = torch.rand_like(p)\n    return (u < p).float()", "    return p.bernoulli_(p)"),
     {"2(b)iv": "form"}, "changes its argument p in place"),
    # 2(c)
    (("(log_p + log_prior - log_q).mean()", "-(log_p + log_prior - log_q).mean()"),
     {"2(c)": "value"}, "the sign is turned"),
    (("(log_p + log_prior - log_q).mean()", "(log_p + log_prior - log_q).sum()"),
     {"2(c)": "value"}, "sum over the examples, not mean"),
    (("(log_p + log_prior - log_q).mean()", "log_p + log_prior - log_q"),
     {"2(c)": "form, value"}, "a scalar is asked"),
    (("log_p + log_prior - log_q", "log_p - log_q"), {"2(c)": "value"}, "log p(z) is missing"),
    (("log_p + log_prior - log_q", "log_p + log_prior"), {"2(c)": "value, gradient"}, "log q(z|x) is missing"),
    (("log_p + log_prior - log_q", "log_p + log_prior + log_q"), {"2(c)": "value"}, "log q(z|x) is added"),
    (("log_p + log_prior - log_q", "log_p - log_prior + log_q"), {"2(c)": "value"}, "the KL term has the wrong sign"),
    (("log_p + log_prior - log_q", "log_p - 0.5 * (sigma_square + mu ** 2 - 1 - torch.log(sigma_square)).sum(1)"),
     {"2(c)": "value, gradient"}, "the exact KL of Eq. 1"),
    (("log_p = logpdf_bernoulli(x, p)", "log_p = logpdf_bernoulli(x, p) / 784"),
     {"2(c)": "value"}, "mean over pixels, not sum, in log p(x|z)"),
    (("return terms.sum(dim=-1)", "return terms.mean(dim=-1)", "return (log_p +", "return -(log_p +"),
     {"2(c)": "value"}, "the sign is turned"),
    (("log_p + log_prior - log_q", "log_p + 2 * log_prior - 2 * log_q"), {"2(c)": "value"}, "the KL term is counted twice"),
    (("log_p + log_prior - log_q", "log_p + 3 * log_prior - log_q"), {"2(c)": "value"}, "log p(z): its weight is 3, 1 is asked"),
    (("log_q = logpdf_diagonal_gaussian(sampled_z, mu, sigma_square)",
      "log_q = logpdf_diagonal_gaussian(sampled_z, mu, sigma_square.detach())"),
     {"2(c)": "gradient"}, "no gradient reaches sigma_square"),
    (("torch.log(p)", "torch.log(0 * p)", "log_p + log_prior - log_q", "log_p + log_prior"), {"2(c)": "value, gradient"},
     "log q(z|x) is missing"),
    # 2(e)iii
    (("alpha * mua + (1 - alpha) * mub", "(1 - alpha) * mua + alpha * mub"),
     {"2(e)iii": "value"}, "alpha and 1 - alpha are swapped"),
    (("alpha * mua + (1 - alpha) * mub", "alpha * mua + 1 - alpha * mub"), {"2(e)iii": "*"}, "parentheses"),
    (("alpha * mua + (1 - alpha) * mub", "alpha * mua + mub"), {"2(e)iii": "*"}, "the weights do not add up to 1"),
    (("alpha * mua + (1 - alpha) * mub", "(mua + mub) / 2"), {"2(e)iii": "value"}, "alpha is not used"),
]

GAN = [
    # 4(a)
    (D_ORDER, {"4(a)": "order"}, "layers in another order than asked"),
    (("return self.fc(x.flatten(1))", "return torch.sigmoid(self.fc(x.flatten(1)))"),
     {"4(a)": "value"}, "sigmoid at the end"),
    (("self.relu3(self.conv3(x))", "self.conv3(x)"), {"4(a)": "value"}, "after the third convolution (layer 8): ReLU is asked, nothing is there"),
    (("nn.MaxPool2d", "nn.AvgPool2d"), {"4(a)": "value"}, "average pooling"),
    (("nn.ReLU()", "nn.LeakyReLU(0.2)"), {"4(a)": "value"}, "ReLU is asked, LeakyReLU(0.2) is there"),
    (("nn.Conv2d(4, 8, 3, 1, 0)", "nn.Conv2d(4, 8, 3, 1, 1)", "nn.Linear(200, 1)", "nn.Linear(392, 1)"),
     {"4(a)": "layers, order, value"}, "padding 1 in the third convolution"),
    (("self.relu1 = nn.ReLU()", "self.relu1 = nn.Sequential(nn.ReLU(), nn.Dropout())"),
     {"4(a)": "value"}, "Dropout is no layer that is asked"),
    (("self.fc(x.flatten(1))", "self.fc(x.flatten(1)).mean()"), {"4(a)": "form, value"}, "shape []"),
    (("self.fc = nn.Linear(200, 1)\n", "self.layers = [nn.Linear(200, 1)]\n", "self.fc(x", "self.layers[0](x"),
     {"4(a)": "layers, order, value"}, "3 layers with weights"),
    (("self.fc = nn.Linear(200, 1)\n", "self.fc = nn.Linear(200, 1)\n        self.__dict__.update(self._modules)\n"
      "        self._modules.clear()\n"), {"4(a)": "*"}, "layers in a plain list or dictionary"),
    (("return self.fc(x.flatten(1))", "return torch.softmax(self.fc(x.flatten(1)), 1)"), {"4(a)": "value, gradient"}, "softmax at the end"),
    (("nn.ReLU()", "nn.Identity()"), {"4(a)": "value"}, "ReLU is asked, nothing is there"),
    # 4(b)
    (G_ORDER, {"4(b)": "order"}, "layers in another order than asked"),
    (("nn.LeakyReLU(0.2)", "nn.LeakyReLU()"), {"4(b)": "value"}, "LeakyReLU(0.2) is asked, LeakyReLU(0.01) is there"),
    (("nn.LeakyReLU(0.2)", "nn.ReLU()"), {"4(b)": "value"}, "LeakyReLU(0.2) is asked, ReLU is there"),
    (("self.sigmoid(self.conv3(z))", "self.conv3(z)"), {"4(b)": "value"}, "sigmoid is asked, nothing is there"),
    (("nn.Sigmoid()", "nn.Tanh()"), {"4(b)": "value"}, "sigmoid is asked, tanh is there"),
    (("scale_factor=2", "scale_factor=2, mode='bilinear'"), {"4(b)": "value"}, "bilinear upsampling"),
    (("z.reshape(-1, 32, 7, 7)", "z.reshape(-1, 7, 7, 32).permute(0, 3, 1, 2)"),
     {"4(b)": "value"}, "(32, 7, 7), CHW, is asked"),
    (("self.leaky1(self.fc(z))", "self.fc(z)"), {"4(b)": "value"}, "after Linear (layer 2): LeakyReLU(0.2) is asked, nothing is there"),
    (("self.sigmoid(self.conv3(z))", "self.sigmoid(self.leaky3(self.conv3(z)))"),
     {"4(b)": "value"}, "an activation between"),
    (("self.conv1(self.up1(z))", "self.up1(self.conv1(z))"), {"4(b)": "value"}, "not a known one"),
    (("self.leaky2(self.conv1(self.up1(z)))", "self.up1(self.leaky2(self.conv1(z)))",
      "self.leaky3(self.conv2(self.up2(z)))", "self.up2(self.leaky3(self.conv2(z)))"),
     {"4(b)": "value"}, "upsampling after the convolution"),
    (("nn.LeakyReLU(0.2)", "nn.LeakyReLU(0.3)"), {"4(b)": "value"}, "LeakyReLU(0.3) is there"),
    # 4(c)
    ((KAIMING, "nn.init.kaiming_uniform_(layer.weight, mode='fan_out')"), WEIGHTS, "fan_out instead of fan_in"),
    ((KAIMING, "nn.init.kaiming_normal_(layer.weight)"), WEIGHTS, "kaiming_normal_"),
    ((KAIMING, "nn.init.xavier_uniform_(layer.weight)"), WEIGHTS, "xavier_uniform_"),
    ((KAIMING, "nn.init.kaiming_uniform_(layer.weight, a=0.2)"), WEIGHTS, "slope of 0.2"),
    ((KAIMING, "layer.weight.data.uniform_(-0.01, 0.01)"), WEIGHTS, "weights of standard deviation"),
    ((KAIMING, "layer.weight.data.copy_(nn.init.kaiming_uniform_(torch.empty_like(layer.weight)).flip(0))"),
     {"4(c)": "seeded weights"},
     "of the right distribution"),
    (("(nn.Conv2d, nn.Linear)", "nn.Conv2d"), {"4(c)": "*"}, "Linear is left out"),
    (("nn.init.zeros_(layer.bias)", "nn.init.constant_(layer.bias, 0.01)"), {"4(c)": "biases"}, "not 0"),
    (("        self._weight_init()\n", ""), {"4(c)": "seeded weights"}, "__init__ does not call _weight_init"),
    ((KAIMING, "nn.init.normal_(layer.weight, 0, 0.02)"), WEIGHTS, "normal_ with a standard deviation of 0.02"),
    # 4(d)
    (("nn.BCEWithLogitsLoss()", "nn.BCELoss()"), {"4(d)": "*", "4(e)": "*"}, "BCELoss on logits"),
    (("real = self.disc(batch_data)", "real = torch.sigmoid(self.disc(batch_data))", ".detach())",
      ".detach()).sigmoid()"),
     {"4(d)": "value, own networks"}, "sigmoid before BCEWithLogitsLoss"),
    (("torch.ones_like(real)", "torch.zeros_like(real)", "torch.zeros_like(fake)", "torch.ones_like(fake)"),
     {"4(d)": "value, own networks"},
     "the labels are swapped"),
    (("torch.zeros_like(fake)", "torch.ones_like(fake)"), {"4(d)": "value, own networks"}, "both labels are 1"),
    ((HALF, "return 0.5 * real_loss"), {"4(d)": "value, own networks"}, "the fakes are missing"),
    ((HALF, "return 0.5 * fake_loss"), {"4(d)": "value, own networks"}, "the real images are missing"),
    ((HALF, "return -0.5 * (real_loss + fake_loss)"), {"4(d)": "value, own networks"}, "the sign is turned"),
    (SMOOTHED, {"4(d)": "value, own networks"}, "smoothed labels"),
    ((HALF, "loss = 0.5 * (real_loss + bce(self.disc(self.gen(z)), torch.zeros_like(fake)))\n"
      "        loss.backward()\n        return loss"),
     {"4(d)": "gradient"}, "the discriminator's loss trains the generator"),
    (("self.disc(batch_data)", "self.disc(batch_data).detach()"), {"4(d)": "gradient"}, "something is detached"),
    (("self.gen(z).detach()", "self.gen(torch.rand_like(z)).detach()"), {"4(d)": "value, own networks"}, "draws numbers of its own"),
    (("fake = self.disc(self.gen(z).detach())", "fake = self.disc(self.gen(z).squeeze().detach()).reshape(-1, 1)"),
     {"4(d)": "own networks, batch of one"}, "one example alone"),
    (("self.fc(x.flatten(1))", "torch.sigmoid(self.fc(x.flatten(1)))", "BCEWithLogitsLoss", "BCELoss", *SMOOTHED),
     {"4(d)": "value, own networks"}, "smoothed labels"),
    # 4(e)
    ((LOSS_G, "return -bce(fake, torch.zeros(batch_size, 1))"), {"4(e)": "value, own networks"}, "the saturating form"),
    ((LOSS_G, "return bce(fake, torch.zeros(batch_size, 1))"), {"4(e)": "value, own networks"}, "the label is 0"),
    ((LOSS_G, "return -bce(fake, torch.ones(batch_size, 1))"), {"4(e)": "value, own networks"}, "the sign is turned"),
    ((LOSS_G, "return 0.5 * bce(fake, torch.ones(batch_size, 1))"), {"4(e)": "value, own networks"}, "half of the loss"),
    (("fake = self.disc(self.gen(z))\n", "fake = self.disc(self.gen(z).detach())\n"),
     {"4(e)": "gradient"}, "no gradient reaches G"),
    (("self.fc(x.flatten(1))", "torch.sigmoid(self.fc(x.flatten(1)))", LOSS_G, "return torch.log(1 - fake).mean()"),
     {"4(e)": "value, own networks"}, "the saturating form"),
    # What counts is a student's own networks with their own losses
    (("return self.fc(x.flatten(1))", "return self.fc(x.flatten(1)).squeeze()", "torch.ones_like(real)", "torch.ones(batch_size, 1)"),
     {"4(d)": "own networks, batch of one"}, "with the networks of this file"),
    (("nn.BCEWithLogitsLoss()", "nn.MSELoss()"), {"4(d)": "value, own networks", "4(e)": "value, own networks"}, "the least-squares loss"),
    ((HALF, "return -(torch.log(real) + torch.log(1 - fake)).mean() / 2"), {"4(d)": "value, own networks"}, "the logarithm of logits"),
    ((HALF, "return fake.mean() - real.mean()"), {"4(d)": "value, own networks"}, "Wasserstein"),
    (("torch.ones_like(real)", "torch.full_like(real, 0.85)"), {"4(d)": "value, own networks"}, "the label of real images is 0.85: 1 is asked"),
    (("torch.ones_like(real)", "torch.rand_like(real)"), {"4(d)": "value, own networks"}, "draws numbers of its own"),
]

LEVELS = "return torch.exp(torch.linspace(math.log(begin), math.log(end), levels))"
STEP = "x = x + alpha * scorenet(x, sigma) + torch.sqrt(2 * alpha) * noise"
DIFFUSION = [
    ((LEVELS, "return torch.linspace(begin, end, levels)"), {"4(b) levels": "value"}, "linear, not geometric"),
    ((LEVELS, "return torch.exp(torch.linspace(math.log(end), math.log(begin), levels))"), {"4(b) levels": "value"}, "from end to begin"),
    ((LEVELS, "return torch.logspace(begin, end, levels)"), {"4(b) levels": "value"}, "exponents of 10"),
    ((" / torch.as_tensor(sigma).reshape(-1, 1)", ""), {"4(b) network": "value, division by sigma"}, "not divided by sigma"),
    (("h = torch.relu(self.fc1(self.features(x)))", "h = self.fc1(self.features(x))"), {"4(b) network": "value"}, "after the first layer: ReLU is asked"),
    (("torch.relu(", "torch.tanh("), {"4(b) network": "value"}, "ReLU is asked, tanh is there"),
    (("nn.Linear(400, 200)", "nn.Linear(400, 100)", "nn.Linear(200, 2)", "nn.Linear(100, 2)"), {"4(b) network": "layers, value"}, "Linear 400->100"),
    (("target = -(noisy", "target = (noisy"), {"4(b) loss": "value"}, "the sign of the noise is turned"),
    (("/ sigma ** 2\n    error", "/ sigma\n    error"), {"4(b) loss": "value"}, "divided by sigma, not by sigma^2"),
    (("sigma ** 2 / 2 * error", "error"), {"4(b) loss": "weighting"}, "no weight"),
    (("sigma ** 2 / 2 * error", "sigma ** 2 * error"), {"4(b) loss": "weighting"}, "the weight is sigma^2"),
    (("sum(dim=1).mean()", "mean()"), {"4(b) loss": "value"}, "mean over both coordinates"),
    (("(len(x), 1))", "(1, 1)).expand(len(x), 1)"), {"4(b) loss": "noise"}, "one sigma for all points"),
    (("noise = torch.randn_like(x)\n    noisy", "noise = torch.randn(2)\n    noisy"), {"4(b) loss": "noise"}, "one noise for all points"),
    (("noise = torch.randn_like(x)\n    noisy", "noise = torch.rand_like(x)\n    noisy"), {"4(b) loss": "noise"}, "uniform noise"),
    (("x + sigma * noise", "x + noise"), {"4(b) loss": "noise"}, "without sigma"),
    (("scorenet(noisy, sigma)", "scorenet(noisy, sigma).detach()"), {"4(b) loss": "gradient"}, "no gradient reaches"),
    ((STEP, "x = x + alpha * scorenet(x, sigma) + torch.sqrt(alpha) * noise"), {"4(c) sampler": "step"}, "sqrt(alpha) noise"),
    ((STEP, "x = x + alpha / 2 * scorenet(x, sigma) + torch.sqrt(alpha) * noise"), {"4(c) sampler": "step"}, "half of alpha before the score"),
    ((STEP, "x = x - alpha * scorenet(x, sigma) + torch.sqrt(2 * alpha) * noise"), {"4(c) sampler": "step"}, "the sign of the score"),
    ((STEP, "x = x + alpha * scorenet(x, sigma)"), {"4(c) sampler": "step, noise"}, "no noise"),
    (("sigma ** 2 / sigmas[-1] ** 2", "sigma / sigmas[-1]"), {"4(c) sampler": "step"}, "the ratio is to be squared"),
    (("sigmas[-1] ** 2", "sigmas[0] ** 2"), {"4(c) sampler": "step"}, "sigma_L is the last"),
    (("for sigma in sigmas:", "for sigma in sigmas.flip(0):"), {"4(c) sampler": "schedule"}, "from the smallest sigma"),
    (("for _ in range(iterations):", "for _ in range(iterations + 1):"), {"4(c) sampler": "steps, schedule"}, "steps:"),
    (("            noise = torch.randn_like(x)", "            torch.manual_seed(0)\n            noise = torch.randn_like(x)"),
     {"4(c) sampler": "noise"}, "the same noise at several steps"),
]
CASES = {"hw5_vae": VAE, "hw5_gan": GAN, "hw5_diffusion": DIFFUSION}

TWO_LAYERS = (
    "nn.Linear(latent_dimension, hidden_units)\n        self.fc2 = nn.Linear(hidden_units, data_dimension)",
    "nn.Linear(2, 500)\n        self.fc2 = nn.Linear(500, 784)",
)
FREEZE = "[p.requires_grad_({}) for p in self.{}.parameters()]"
STYLES = {  # right, each in its own way: the file, the edits, the questions that these touch, words of the remark
    "methods": (
        "hw5_vae",
        (
            "def elbo(", "def formula(", "-elbo(", "-formula(",
            "class VAE(nn.Module):\n",
            "class VAE(nn.Module):\n"
            "    def elbo_loss(self, z, mu, sigma_square, x, p):\n"
            "        return formula(z, mu, sigma_square, x, p)\n\n",
        ),
        ("2(c)",), "",
    ),
    "for a plane": (  # the homework's latent space
        "hw5_vae",
        ("return (-0.5 * terms).sum(dim=-1)",
         "return -0.5 * (math.log(2 * math.pi) * 2 + (terms - math.log(2 * math.pi)).sum(1))"),
        ("2(b)i", "2(c)"), "right for 2 dimensions alone",
    ),
    "a small epsilon in the bound": (
        "hw5_vae",
        ("log_p = logpdf_bernoulli(x, p)",
         "log_p = (x * torch.log(p + 1e-5) + (1 - x) * torch.log(1 - p + 1e-5)).sum(1)"),
        ("2(c)",), "",
    ),
    "without self": (
        "hw5_vae",
        (
            "def sample_Bernoulli(p):\n    u = torch.rand_like(p)\n    return (u < p).float()\n", "",
            "class VAE(nn.Module):\n",
            "class VAE(nn.Module):\n    def sample_Bernoulli(p):\n        return torch.bernoulli(p)\n\n",
        ),
        ("2(b)iv",), "",
    ),
    "sizes written into the code": ("hw5_vae", TWO_LAYERS, ("2(a)",), "sizes are written into the code"),
    "other random numbers": (
        "hw5_vae", ("torch.randn_like(mu)", "torch.randn(mu.T.shape).T"), ("2(b)iii",), "other numbers than one",
    ),
    "epsilon": (
        "hw5_vae", ("torch.log(p)", "torch.log(p + 1e-5)", "torch.log(1 - p)", "torch.log(1 - p + 1e-5)"),
        ("2(b)ii",), "-inf are exact",
    ),
    "a wrong density below": (
        "hw5_vae", ("return terms.sum(dim=-1)", "return terms.mean(dim=-1)"), ("2(c)",), "the formula is right",
    ),
    "a density that is not answered below": (
        "hw5_vae", ("    terms = x * torch", "    raise NotImplementedError('2(b)ii')\n    terms = x * torch"),
        ("2(c)",), "the formula is right",
    ),
    "infinities below": ("hw5_vae", ("torch.log(p)", "torch.log(0 * p)"), ("2(c)",), "the formula is right"),
    "division by the batch size of the arguments": (
        "hw5_vae",
        ("def elbo(sampled_z", "def unused(sampled_z", "-elbo(", "-self.elbo_loss(", "class VAE(nn.Module):\n",
         "class VAE(nn.Module):\n    def elbo_loss(self, z, mu, sigma_square, x, p):\n"
         "        return unused(z, mu, sigma_square, x, p) * len(x) / self.args.batch_size\n\n"),
        ("2(c)",), "",
    ),
    "binary cross entropy": (
        "hw5_vae",
        ("return terms.sum(dim=-1)", "return -nn.functional.binary_cross_entropy(p, x, reduction='none').sum(1)"),
        ("2(b)ii", "2(c)"), "",
    ),
    "cuda": (
        "hw5_vae", ("torch.randn_like(mu)", "torch.randn(mu.shape, device='cuda')", "log_p = ", "x, p = x.cuda(), p.to('cuda')\n    log_p = "),
        ("2(b)iii", "2(c)"), "asks for a GPU",
    ),
    "networks on a GPU": ("hw5_gan", ("torch.device(\"cuda\" if torch.cuda.is_available() else \"cpu\")", "torch.device('cuda')"),
                          ("4(d)", "4(e)"), "asks for a GPU"),
    "main at import": (
        "hw5_vae", ('if __name__ == "__main__":\n    main()', "main()"), ("2(b)i",), "calls main() at import",
    ),
    "a module that nobody has": (
        "hw5_vae", ("import argparse\n", "import argparse\nimport seaborn_that_nobody_has\n"), ("2(b)i",),
        "No module named 'seaborn_that_nobody_has'",
    ),
    "a figure that holds comments only": (
        "hw5_vae",
        ("        p = self.decoder(torch.randn(10, 2)).detach()\n        images = [array_to_image(each) for each in "
         "torch.cat([p, sample_Bernoulli(p)])]\n        plt.imshow(concat_images(images, 10, 2), cmap=\"gray\")\n",
         "        pass\n"), ("2(b)i",), "",
    ),
    "the other player frozen": (
        "hw5_gan",
        ("        bce = nn.BCEWithLogitsLoss()\n        real =", "        bce = nn.BCEWithLogitsLoss()\n        "
         + FREEZE.format(False, "gen") + "\n        " + FREEZE.format(True, "disc") + "\n        real =",
         "        bce = nn.BCEWithLogitsLoss()\n        fake =", "        bce = nn.BCEWithLogitsLoss()\n        "
         + FREEZE.format(True, "gen") + "\n        " + FREEZE.format(False, "disc") + "\n        fake ="),
        ("4(d)", "4(e)"), "",
    ),
    "logits and labels [B]": (
        "hw5_gan",
        ("return self.fc(x.flatten(1))", "return self.fc(x.flatten(1)).flatten()", "torch.ones_like(real)",
         "torch.ones(batch_size)", "torch.ones(batch_size, 1)", "torch.ones(batch_size)"), ("4(a)", "4(d)", "4(e)"), "",
    ),
    "sigmoid and BCELoss": (
        "hw5_gan",
        ("self.fc(x.flatten(1))", "torch.sigmoid(self.fc(x.flatten(1)))", "BCEWithLogitsLoss", "BCELoss"),
        ("4(d)", "4(e)"), "right for a D that ends with a sigmoid",
    ),
    "layers in another order": ("hw5_gan", D_ORDER, ("4(c)",), ""),
    "the last samples alone": (
        "hw5_diffusion", ("            yield x\n", "            pass\n    return x\n"), ("4(c) sampler",), "",
    ),
}
QUICK_STYLES = ("cuda", "the other player frozen", "a density that is not answered below")

NOTHING = {
    "hw5_vae": """
import torch
from torch import nn
def logpdf_diagonal_gaussian(z, mu, sigma_square): return {0}
def logpdf_bernoulli(x, p): return {1}
def sample_diagonal_gaussian(mu, sigma_square): return {2}
def sample_Bernoulli(p): return {3}
def elbo(sampled_z, mu, sigma_square, x, p): return {4}
def interpolate_mu(mua, mub, alpha=0.5): return {5}
class Decoder(nn.Module):
    def __init__(self, latent_dimension, hidden_units, data_dimension): super().__init__()
    def forward(self, z): return {6}
class VAE(nn.Module): pass
""",
    "hw5_gan": """
import torch
from torch import nn
class DNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(784, 1)]
        self._weight_init()
    def _weight_init(self): pass
    def forward(self, x): return {0}
class GNet(nn.Module):
    def __init__(self, zdim):
        super().__init__()
        self._weight_init()
    def _weight_init(self): pass
    def forward(self, z): return {1}
class GAN:
    def __init__(self, zdim=64):
        self.disc, self.gen = DNet(), GNet(zdim)
    def _get_loss_d(self, batch_size, batch_data, z): return {2}
    def _get_loss_g(self, batch_size, z): return {2}
""",
    "hw5_diffusion": """
import torch
from torch import nn
def generate_noise_levels(begin, end, levels): return {0}
class DiffusionModel(nn.Module):
    def forward(self, x, sigma): return {1}
def compute_denoising_loss(scorenet, training_data, sigmas): return {2}
def langevin_dynamics(scorenet, x, sigmas, iterations, eps): return {3}
""",
}


def nothing(vae, gan, diffusion):
    return {name: NOTHING[name].format(*words) for name, words in (("hw5_vae", vae), ("hw5_gan", gan), ("hw5_diffusion", diffusion))}


PLACEHOLDERS = {
    "return 0": nothing(["0"] * 7, ["0"] * 3, ["0"] * 4),
    "None": nothing(["None"] * 7, ["None"] * 3, ["None"] * 4),
    "an argument": nothing(["z", "p", "mu", "p", "x", "mua", "z"], ["x", "z", "z.sum()"], ["begin", "x", "training_data.mean()", "x"]),
    "zeros of the right shape": nothing(
        ["torch.zeros(len(z))", "torch.zeros(len(x))", "torch.zeros_like(mu)", "torch.zeros_like(p)", "torch.zeros(())",
         "torch.zeros_like(mua)", "torch.zeros(len(z), 784)"],
        ["torch.zeros(len(x), 1)", "torch.zeros(len(z), 1, 28, 28)", "torch.zeros((), requires_grad=True)"],
        ["torch.zeros(levels)", "torch.zeros_like(x)", "torch.zeros(())", "[x] * len(sigmas) * iterations"]),
    "sums of an argument": nothing(
        ["z.sum(1)", "p.sum(1)", "mu.clone()", "p.clone()", "p.mean()", "mub.clone()", "z.repeat(1, 392)"],
        ["x.flatten(1).sum(1, keepdim=True)", "z[:, :1].repeat(1, 784).reshape(-1, 1, 28, 28)", "z.sum()"],
        ["torch.full((levels,), begin)", "x.clone()", "scorenet(training_data, sigmas[0]).sum() * 0", "scorenet(x, sigmas[0])"]),
    "NaN, and noise that uses nothing": nothing(
        ["z.sum(1) * float('nan')", "p.sum(1) * float('nan')", "torch.randn_like(mu) + 1e-30 * (mu + sigma_square)",
         "torch.randint(0, 2, p.shape).float()", "p.mean() * float('nan')", "torch.randn_like(mua)", "torch.rand(len(z), 784)"],
        ["x.flatten(1).sum(1, keepdim=True) * float('nan')", "torch.rand(len(z), 1, 28, 28)", "z.sum() * float('nan')"],
        ["torch.full((levels,), float('nan'))", "torch.randn_like(x)", "scorenet(training_data, sigmas[0]).sum() * float('nan')",
         "[(scorenet(x, s * torch.ones(len(x), 1)), x * float('nan'))[1] for s in sigmas for _ in range(iterations)]"]),
    "networks with a patched torch": {"hw5_gan": """
import torch
from torch import nn
torch.randn = lambda *shape, **_: torch.zeros(*shape)
def network(names):
    class Net(nn.Module):
        def __init__(self, *_):
            super().__init__()
            for name, layer in names: setattr(self, name, layer)
            for each in self.parameters(): each.data.zero_()
        def _weight_init(self): pass
    return Net
class DNet(network([("a", nn.Conv2d(4, 1, 3))])):
    def forward(self, x): return sum(each.sum() for each in self.parameters()) * 0 + x.sum() * 0 + torch.full((len(x), 1), 0.5)
class GNet(network([("a", nn.Conv2d(4, 1, 3))])):
    def forward(self, z): return sum(each.sum() for each in self.parameters()) * 0 + z.sum() * 0 + torch.full((len(z), 1, 28, 28), 0.5)
class GAN: pass
"""},
}
