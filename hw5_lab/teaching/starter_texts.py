"""The words of the hand-out: the questions, and the code that is given in place of ours. README.md is in handout/."""

# By file and question. "title" is for the README's table. "functions" are those whose bodies are the answer, with their
# docstrings. "class" is the docstring of a class whose __init__ and forward are the answer. "given" are functions of
# the question's number that are handed out as they are.
QUESTIONS = {
    "hw5_vae.py": {
        "2(a)": {
            "title": "`Decoder` in `hw5_vae.py`: layers and `forward`",
            "class": """
The decoder, a multi-layer perceptron: z [B,latent] -> p [B,data], each pixel's probability to be 1.

Define the layers in __init__ and implement forward. A fully connected layer to the hidden units (500) is followed
by tanh, a second one to the pixels by sigmoid.
""",
        },
        "2(b)i": {
            "title": "`logpdf_diagonal_gaussian`",
            "functions": {
                "logpdf_diagonal_gaussian": """
The log-likelihood, [B], of z [B,D] under a normal distribution with a diagonal covariance matrix.

mu is the mean, sigma_square holds the variances; both are [B,D].
"""
            },
        },
        "2(b)ii": {
            "title": "`logpdf_bernoulli`",
            "functions": {
                "logpdf_bernoulli": """
The log-likelihood, [B], of images x [B,D] whose pixels are independent and 1 with probability p.

x holds 0 and 1; p is [B,D], between 0 and 1.
"""
            },
        },
        "2(b)iii": {
            "title": "`sample_diagonal_gaussian`",
            "functions": {
                "sample_diagonal_gaussian": """
A sample z, of mu's shape, from a normal distribution with mean mu and variances sigma_square.

Both are [B,D]. Use the reparametrization trick. A random `generator` may be given, for torch's functions that take
one.
"""
            },
        },
        "2(b)iv": {
            "title": "`sample_Bernoulli`",
            "functions": {
                "sample_Bernoulli": """
A sample, float32 and of p's shape, whose entries are 1 with probability p, else 0.

A random `generator` may be given, for torch's functions that take one.
"""
            },
        },
        "2(c)": {
            "title": "`elbo`",
            "functions": {
                "elbo": """
The evidence lower bound (README.md, Eq. 2), a scalar: the mean over the batch, to be maximised.

sampled_z [B,latent] is drawn from q(z|x), whose mean and variances are mu and sigma_square [B,latent]. x [B,D]
holds the images, p [B,D] the decoder's output for sampled_z.
"""
            },
        },
        "2(d)": {"title": "`python hw5_vae.py` trains for 200 epochs: nothing to write"},
        "2(e)i": {
            "title": "`VAE.visualize_data_space`",
            "functions": {
                "visualize_data_space": """
Samples from the model: a figure of 10x2 images, data_space.png. Return the grid.

Sample 10 z from the prior. Column 1 shows p(x|z), column 2 a sample of x from it; every row is another z.
Use self.decoder, the functions of 2(b), and tile, draw_grid and self.save.
"""
            },
        },
        "2(e)ii": {
            "title": "`VAE.visualize_latent_space`",
            "functions": {
                "visualize_latent_space": """
Latent space: a scatter plot, latent_space.png, of the training images. Return the means.

Encode self.train_images with self.encoder; each point is the mean of q(z|x) of another image. Colour the points
by class; self.train_labels are one-hot. Use new_figure and self.save.
"""
            },
        },
        "2(e)iii": {
            "title": "`interpolate_mu` and `VAE.visualize_inter_class_interpolation`",
            "functions": {
                "interpolate_mu": """
The point on the line between two means mua and mub, of their shape.

alpha is the share of mua: 1 gives mua, 0 gives mub, 0.5 the middle.
""",
                "visualize_inter_class_interpolation": """
Interpolation between classes: 3x11 images, inter_class_interpolation.png. Return the grid.

Sample 3 pairs of images of different classes, encode them and take the means. Show p(x|z) between the means of
each pair for alpha = 0, 0.1, ..., 1. A row is a pair; tile takes the images column by column.
Use interpolate_mu, tile, draw_grid and self.save.
""",
            },
        },
    },
    "hw5_gan.py": {
        "4(a)": {
            "title": "`DNet` in `hw5_gan.py`: Table 1",
            "class": """
The discriminator of Table 1 (README.md): images [B,1,28,28] -> logits [B,1].

Define the layers in __init__ in the order of the table, and end it with self._weight_init(). Implement forward.
Flatten every example between layers 8 and 9.
""",
        },
        "4(b)": {
            "title": "`GNet` in `hw5_gan.py`: Table 2",
            "class": """
The generator of Table 2 (README.md): noise z [B,zdim] -> images [B,1,28,28].

Define the layers in __init__ in the order of the table, and end it with self._weight_init(). Implement forward.
Reshape every example to (32, 7, 7), CHW, between layers 2 and 3.
""",
        },
        "4(c)": {
            "title": "`_weight_init` of `DNet` and of `GNet`",
            "functions": {
                "_weight_init": """
Initialise all layers: kaiming_uniform, with its defaults, for the weights, 0 for the biases.

The layers are self.children(). A layer without weights, such as ReLU, is left alone.
"""
            },
        },
        "4(d)": {
            "title": "`GAN._get_loss_d`",
            "functions": {
                "_get_loss_d": """
The discriminator's loss, a scalar, for real images batch_data [B,1,28,28] and noise z [B,zdim].

self.disc is the discriminator, self.gen the generator. torch.nn.BCEWithLogitsLoss may be useful.
"""
            },
        },
        "4(e)": {
            "title": "`GAN._get_loss_g`",
            "functions": {
                "_get_loss_g": """
The generator's loss, a scalar, for noise z [B,zdim]: -log D(G(z)).

Not log(1 - D(G(z))), whose gradient vanishes where D recognises the images of G.

self.disc is the discriminator, self.gen the generator. torch.nn.BCEWithLogitsLoss may be useful.
"""
            },
        },
        "4(f)": {"title": "`python hw5_gan.py` trains and saves samples: nothing to write"},
    },
    "hw5_diffusion.py": {
        "4(b)": {
            "title": "`generate_noise_levels`, `DiffusionModel`, `compute_denoising_loss` in `hw5_diffusion.py`",
            "class": """
The score network: points x [N,2] and the noise's deviation sigma -> score [N,2].

Define the layers in __init__: fully connected, from the 26 features to 200, 400, 200 and 2 units. In forward apply
them to self.features(x), with ReLU between, and divide the output by sigma. sigma is [N,1], or a number;
column(sigma, x) makes [N,1] of it.
""",
            "functions": {
                "generate_noise_levels": """
The deviations of the noise, [levels]: a geometric sequence from begin to end, both included.
""",
                "compute_denoising_loss": """
The loss of denoising score matching (README.md, Eq. 5), a scalar to be minimised.

training_data x [N,2], sigmas [L]. Draw for each point one of the sigmas, all equally likely, and standard normal
noise [N,2]. Ask the network once, as scorenet(x~, sigma) with x~ = x + sigma noise [N,2] and sigma [N,1].
A random `generator` may be given, for torch's functions that take one.
""",
            },
            "given": ["step", "epochs", "plot_score"],
        },
        "4(c)": {
            "title": "`langevin_dynamics` in `hw5_diffusion.py`",
            "functions": {
                "langevin_dynamics": """
Annealed Langevin dynamics (README.md, Eq. 6) from x [n,2]; yields x after each step.

Take `iterations` steps for each level of sigmas, from the first to the last. Ask the network as scorenet(x, sigma).
Leave the x that is given as it is. A random `generator` may be given, for torch's functions that take one.
""",
            },
            "given": ["plot_samples"],
        },
    },
}

HEADERS = {
    "hw5_diffusion.py": """Homework 5, score matching and Langevin dynamics on points of the plane that spell a word.

    python hw5_diffusion.py    # trains and draws the figures, into outputs/figures/

Answer where NotImplementedError names a question. What is not named is given.""",
    "hw5_vae.py": """Homework 5, question 2: a variational autoencoder (VAE) on binarised MNIST.

    python hw5_vae.py          # trains and draws the figures, into outputs/figures/

Answer where NotImplementedError names a question. What is not named is given.""",
    "hw5_gan.py": """Homework 5, question 4: a generative adversarial network (GAN) on MNIST.

    python hw5_gan.py          # trains and saves samples, into outputs/figures/

Answer where NotImplementedError names a question. What is not named is given.""",
}


def main_of(script, what, built, ready, train, stopped, end):
    """The main() of a script: what builds answers, gets it ready, trains, comes after Ctrl-C, at the end; as lines."""
    indented = lambda lines, by: "\n".join(" " * by + line for line in lines)
    return f'''
def main(argv=None):
    """{what} as the flags say. Ctrl-C ends the training early.

    Returns the exit code: 0, 1 where training diverged, 2 for bad input, 130 for Ctrl-C.
    """
    args, code = parse_args(argv), 0
    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from now on Ctrl-C only ends the training
    # Built here first: a fault in an answer has its traceback
{indented(built, 4)}
    try:  # what is wrong with the input is one line
{indented(ready, 8)}
    except (ValueError, OSError) as error:
        print(f"{script}: {{error}}", file=sys.stderr)
        return 2
    try:
        {train}
    except FloatingPointError as error:
        print(f"{script}: {{error}}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
{indented(stopped, 8)}
        code = 130
{indented(end, 4)}
    return code
'''


# What stands where our code needs a part of an answer: the loops of the course, with the graded functions alone.
# (class, function): its text, or "" to leave it out where it is. What mentions something that is left out is left out
# as well.
GIVEN = {
    "hw5_vae.py": {
        ("VAE", "step"): '''
    def step(self, x):
        """One update of all weights with a minibatch x [B,data]; returns its ELBO, a number."""
        mu, sigma_square = self.encoder(x)
        z = sample_diagonal_gaussian(mu, sigma_square)
        loss = -elbo(z, mu, sigma_square, x, self.decoder(z))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return -loss.item()
''',
        ("VAE", "epochs"): '''
    def epochs(self, first=0):
        """The training. Yields a row after each epoch: its number, and the mean ELBO of its minibatches in nats."""
        size = self.args.batch_size
        batches = math.ceil(len(self.train_images) / size)
        for epoch in range(first, self.args.num_epoches):
            values = []
            for i in range(batches):
                values.append(self.step(self.train_images[utils.batch_indices(i, batches, size)]))
                if not math.isfinite(values[-1]):
                    raise FloatingPointError(
                        f"epoch {epoch + 1}, step {i + 1}: the ELBO is {values[-1]}: a log of 0, or too large a --lr?"
                    )
            yield {"epoch": epoch + 1, "elbo": sum(values) / batches}
''',
        ("VAE", "fresh_rng"): '''
    def fresh_rng(self):
        """Random numbers for figures, the same at every call: a `generator` for torch's functions that take one."""
        return torch.Generator(self.device).manual_seed(self.args.seed)
''',
        ("VAE", "learning_rate"): "",
        ("VAE", "held_out_images"): "",
        ("", "as_tensor"): "",
        ("", "check_unit"): "",
        ("", "cosine_decay"): "",
        ("", "main"): main_of(
            "hw5_vae.py",
            "Train and draw",
            built=("Decoder(args.latent_dimension, args.hidden_units, args.data_dimension)",),
            ready=(
                "torch.manual_seed(args.seed)",
                "vae = VAE(args)",
                "vae.check_paths()",
                "first = [weight.clone() for weight in vae.parameters()]",
                'print(f"{len(vae.train_images):,} training images")',
            ),
            train="vae.train()",
            stopped=(
                "if all(map(torch.equal, first, vae.parameters())):",
                "    return 130  # no update yet: weights in --e_path and --d_path stay",
                'say("Stopped: figures, and weights in --e_path and --d_path, are those of the training so far.")',
                "vae.save_weights()",
            ),
            end=("vae.visualize()", 'say(f"Figures: {vae.folder}")'),
        ),
    },
    "hw5_gan.py": {
        ("GAN", "step"): '''
    def step(self, real, z):
        """Update D iter_d times, then G iter_g times, all with the same noise z.

        Returns both last losses, and the means of D(x) and of D(G(z)).
        """
        for _ in range(self.iter_d):
            loss_d = self._get_loss_d(len(real), real, z)
            self.optim_d.zero_grad()
            loss_d.backward()
            self.optim_d.step()
        for _ in range(self.iter_g):
            loss_g = self._get_loss_g(len(real), z)
            self.optim_g.zero_grad()
            loss_g.backward()
            self.optim_g.step()
        with torch.no_grad():
            d_real, d_fake = (self.disc(x).sigmoid().mean() for x in (real, self.gen(z)))
        return loss_d.detach(), loss_g.detach(), d_real, d_fake
''',
        ("", "main"): main_of(
            "hw5_gan.py",
            "Train and draw",
            built=("DNet()", "GNet(args.zdim)"),
            ready=(
                "gan = GAN(args.zdim, args.seed)",
                "gan.set_up(args.iter_d, args.iter_g, args.n_epochs, args.batch_size, args.lr)",
                "gan.check_data()",
            ),
            train="gan.train(args.iter_d, args.iter_g, args.n_epochs, args.batch_size, args.lr)",
            stopped=(
                'say("Stopped: samples_epoch_stopped.png is what G draws now.")',
                'gan.visualize_samples("stopped")',
            ),
            end=('say(f"Figures: {gan.folder}")',),
        ),
    },
    "hw5_diffusion.py": {
        ("", "perturb"): "",
        ("", "weighted_error"): "",
        ("DiffusionModel", "features"): '''
    def features(self, x):
        """cos and sin of pi f x for six frequencies f, of both coordinates, and x itself, [N,26]."""
        frequencies = math.pi * 2 ** torch.linspace(0, 5, 6, device=x.device)
        waves = x[:, :, None] * frequencies  # [N,2,6]
        return torch.cat([torch.cat([waves.cos(), waves.sin()], 2).flatten(1), x], 1)
''',
        ("", "main"): main_of(
            "hw5_diffusion.py",
            "Train, sample and draw",
            built=("DiffusionModel()", "generate_noise_levels(0.1, 0.01, LEVELS)"),
            ready=("model = ScoreMatching(args)", 'print(f"{len(model.train_data):,} points")'),
            train="model.train()",
            stopped=('say("Stopped: the figures are those of the training so far.")',),
            end=("model.visualize()", 'say(f"Figures: {model.folder}")'),
        ),
    },
}
