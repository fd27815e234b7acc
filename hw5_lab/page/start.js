// Builds the page. Once all panels are there, the figures of the run are hidden, which show where no script runs, and the
// words about the panels are shown.
"use strict";

hw5.page = JSON.parse(document.getElementById("data").textContent);
if (hw5.page.model) {
  if (hw5.page.kind === "vae") vaePage(hw5.page.model);
  if (hw5.page.kind === "gan") ganPage(hw5.page.model, hw5.page.shares, hw5.page.measured);
  if (hw5.page.kind === "diffusion") diffusionPage(hw5.page.model);
}
curvesPanel(hw5.page);
document.getElementById("figures").hidden = Boolean(hw5.page.model);
for (const node of document.querySelectorAll(".live")) node.hidden = !hw5.page.model;
built = true;
