"""Answers to the starter's questions, as a student might write them: (class, function) -> the lines of its body."""

ANSWERS = {
    "hw5_vae": {
        ("", "logpdf_diagonal_gaussian"): """
normal = torch.distributions.Normal(mu, sigma_square.sqrt())
return normal.log_prob(z).sum(-1)""",
        ("", "logpdf_bernoulli"): "return -F.binary_cross_entropy(p.expand_as(x), x, reduction='none').sum(dim=1)",
        ("", "sample_diagonal_gaussian"): """
eps = torch.randn(mu.shape, generator=generator)
return mu + eps * sigma_square.sqrt()""",
        ("", "sample_Bernoulli"): "return torch.bernoulli(p, generator=generator)",
        ("", "elbo"): """
log_q = logpdf_diagonal_gaussian(sampled_z, mu, sigma_square)
log_p_z = logpdf_diagonal_gaussian(sampled_z, torch.zeros(2), torch.ones(2))
return torch.mean(logpdf_bernoulli(x, p) + log_p_z - log_q)""",
        ("", "interpolate_mu"): "return alpha * mua + (1 - alpha) * mub",
        ("Decoder", "__init__"): """
super().__init__()
self.hidden = nn.Linear(latent_dimension, hidden_units)
self.pixels = nn.Linear(hidden_units, data_dimension)""",
        ("Decoder", "forward"): "return torch.sigmoid(self.pixels(torch.tanh(self.hidden(z))))",
        ("VAE", "visualize_data_space"): """
z = sample_diagonal_gaussian(torch.zeros(10, 2), torch.ones(10, 2))
p = self.decoder(z)
grid = tile(torch.cat([p, sample_Bernoulli(p)]), 10, 2)
self.save(draw_grid(grid, "samples"), "data_space.png")
return grid""",
        ("VAE", "visualize_latent_space"): """
mu, _ = self.encoder(self.train_images)
figure = new_figure(6, 6)
figure.subplots().scatter(mu[:, 0], mu[:, 1], c=self.train_labels.argmax(1))
self.save(figure, "latent_space.png")
return mu""",
        ("VAE", "visualize_inter_class_interpolation"): """
mu, _ = self.encoder(self.train_images)
digits = self.train_labels.argmax(1)
ends = [(mu[digits == a][0], mu[digits == b][0]) for a, b in ((0, 1), (3, 8), (4, 9))]
z = [interpolate_mu(*pair, alpha / 10) for alpha in range(11) for pair in ends]
grid = tile(self.decoder(torch.stack(z)), 3, 11)
self.save(draw_grid(grid, "interpolation"), "inter_class_interpolation.png")
return grid""",
    },
    "hw5_gan": {
        ("DNet", "__init__"): """
super().__init__()
self.conv1 = nn.Conv2d(1, 2, 3, padding=1)
self.conv2 = nn.Conv2d(2, 4, 3, padding=1)
self.conv3 = nn.Conv2d(4, 8, 3)
self.pool = nn.MaxPool2d(2)
self.last = nn.Linear(200, 1)
self._weight_init()""",
        ("DNet", "forward"): """
x = self.pool(F.relu(self.conv1(x)))
x = self.pool(F.relu(self.conv2(x)))
return self.last(F.relu(self.conv3(x)).flatten(1))""",
        ("GNet", "__init__"): """
super().__init__()
self.first = nn.Linear(zdim, 1568)
self.conv1 = nn.Conv2d(32, 16, 3, padding=1)
self.conv2 = nn.Conv2d(16, 8, 3, padding=1)
self.conv3 = nn.Conv2d(8, 1, 3, padding=1)
self.up = nn.Upsample(scale_factor=2)
self._weight_init()""",
        ("GNet", "forward"): """
x = F.leaky_relu(self.first(z), 0.2).view(-1, 32, 7, 7)
x = F.leaky_relu(self.conv1(self.up(x)), 0.2)
x = F.leaky_relu(self.conv2(self.up(x)), 0.2)
return torch.sigmoid(self.conv3(x))""",
        ("DNet", "_weight_init"): "for layer in self.children():\n    if hasattr(layer, 'weight'):\n"
                                  "        nn.init.kaiming_uniform_(layer.weight)\n        nn.init.zeros_(layer.bias)",
        ("GNet", "_weight_init"): "for layer in self.children():\n    if isinstance(layer, (nn.Conv2d, nn.Linear)):\n"
                                  "        nn.init.kaiming_uniform_(layer.weight)\n        layer.bias.data.fill_(0)",
        ("GAN", "_get_loss_d"): """
bce = nn.BCEWithLogitsLoss()
real_loss = bce(self.disc(batch_data), torch.ones(batch_size, 1))
return real_loss + bce(self.disc(self.gen(z).detach()), torch.zeros(batch_size, 1))""",
        ("GAN", "_get_loss_g"): "return nn.BCEWithLogitsLoss()(self.disc(self.gen(z)), torch.ones(batch_size, 1))",
    },
    "hw5_diffusion": {
        ("", "generate_noise_levels"): "return torch.logspace(math.log10(begin), math.log10(end), levels)",
        ("", "compute_denoising_loss"): """
chosen = torch.randint(len(sigmas), (len(training_data), 1), generator=generator)
sigma = sigmas[chosen]
noise = torch.randn(training_data.shape, generator=generator)
score = scorenet(training_data + sigma * noise, sigma)
return 0.5 * ((sigma * score + noise) ** 2).sum(1).mean()""",
        ("", "langevin_dynamics"): """
for sigma in sigmas:
    alpha = eps * (sigma / sigmas[-1]) ** 2
    for _ in range(iterations):
        with torch.no_grad():
            x = x + alpha * scorenet(x, sigma) + (2 * alpha).sqrt() * torch.randn(x.shape, generator=generator)
        yield x""",
        ("DiffusionModel", "__init__"): """
super().__init__()
self.layers = nn.Sequential(
    nn.Linear(26, 200), nn.ReLU(), nn.Linear(200, 400), nn.ReLU(), nn.Linear(400, 200), nn.ReLU(), nn.Linear(200, 2)
)""",
        ("DiffusionModel", "forward"): "return self.layers(self.features(x)) / column(sigma, x)",
    },
}
