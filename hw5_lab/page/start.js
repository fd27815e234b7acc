// Builds the page. The figures of the run, which show where no script runs, are hidden once all panels are there.
"use strict";

hw5.page = JSON.parse(document.getElementById("data").textContent);
if (hw5.page.model) {
  if (hw5.page.kind === "vae") vaePage(hw5.page.model);
  if (hw5.page.kind === "gan") ganPage(hw5.page.model, hw5.page.shares, hw5.page.measured);
  if (hw5.page.kind === "diffusion") diffusionPage(hw5.page.model);
}
curvesPanel(hw5.page);
document.getElementById("figures").hidden = Boolean(hw5.page.model);
document.getElementById("task").hidden = !hw5.page.model;
built = true;
