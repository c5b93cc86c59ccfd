document.body.append(tip);
for (const root of document.querySelectorAll(".widget")) {
  const data = JSON.parse(document.getElementById(root.dataset.source).textContent);
  WIDGETS[root.dataset.kind](root, data);
}
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) {
    part.dataset.printed = "";
    part.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("details[data-printed]")) part.open = false;
});
