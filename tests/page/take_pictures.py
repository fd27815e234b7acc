"""The pictures of explore.html in outputs/reference, taken from finished runs in a headless Chromium.

    python tests/page/take_pictures.py VAE_FOLDER GAN_FOLDER DIFFUSION_FOLDER [--to outputs/reference]

Each folder holds the explore.html of a run. The pictures are explore_vae.png, explore_gan.png and
explore_diffusion.png, 1280 pixels wide and in all their colours. Needs the package playwright and a Chromium.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FOUR = (
    "ink=84,56,77,105,70,154,133,154,210,154;182,56,182,147,182,252"  # strokes of a 4, as the page's address keeps them
)


def take(browser, folder, view, height, ready, path, scheme="light"):
    """A picture of the first `height` pixels of a run's page at `view`, once the expression `ready` is true."""
    page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme=scheme)
    page.goto((Path(folder).resolve() / "explore.html").as_uri() + view)
    for _ in range(1200):  # two minutes; wait_for_function() needs eval, which the page's policy forbids
        if page.evaluate(ready):
            break
        page.wait_for_timeout(100)
    else:
        raise SystemExit(f"{folder}: its page was not ready in two minutes")
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    page.close()
    print(path)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in ("vae", "gan", "diffusion"):
        parser.add_argument(kind, help=f"the folder of a finished run of hw5_{kind}.py")
    parser.add_argument("--to", type=Path, default=ROOT / "outputs" / "reference")
    args = parser.parse_args(argv)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        built = "hw5.vae.grid.built === hw5.vae.grid.points ** 2"
        take(browser, args.vae, f"#{FOUR}", 1180, built, args.to / "explore_vae.png")
        take(browser, args.gan, "", 1060, "Boolean(hw5.logits)", args.to / "explore_gan.png", scheme="dark")
        ended = "hw5.chain.at === 241 && !document.body.innerText.includes('computing')"
        take(browser, args.diffusion, "#step=241", 1000, ended, args.to / "explore_diffusion.png")
        browser.close()


if __name__ == "__main__":
    main()
