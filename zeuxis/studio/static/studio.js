// Runs before the page is drawn: the theme that was chosen in this browser.
const themes = ["auto", "light", "dark"];
const theme = () => localStorage.getItem("zeuxis-theme") || "auto";
function applyTheme() {
  const chosen = theme();
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  const button = document.getElementById("theme");
  if (button) {
    button.textContent = { auto: "◐", light: "☀", dark: "☾" }[chosen];
    button.setAttribute("aria-label", `Theme: ${chosen}. Press to change.`);
    button.title = `Theme: ${chosen}`;
  }
}
document.documentElement.lang = "en";
applyTheme();
document.addEventListener("click", (event) => {
  if (event.target.id !== "theme") return;
  localStorage.setItem("zeuxis-theme", themes[(themes.indexOf(theme()) + 1) % themes.length]);
  applyTheme();
});
new MutationObserver(() => { if (document.getElementById("theme")?.textContent === "") applyTheme(); })
  .observe(document.documentElement, { childList: true, subtree: true });
