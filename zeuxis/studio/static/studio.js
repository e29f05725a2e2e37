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

// Files that are dropped or chosen: one after the other, so that the studio can refuse.
async function zeuxisUpload(files, zone) {
  const status = zone.querySelector("[role=status]");
  const listed = [...files].map((file) => (file.file ? file : { file, path: file.webkitRelativePath || file.name }));
  if (!listed.length) return;
  const { name } = await (await fetch("/upload", { method: "POST" })).json();
  let done = 0, last = "";
  for (const { file, path } of listed) {
    const answer = await fetch(`/upload/${name}/${path.split("/").map(encodeURIComponent).join("/")}`, { method: "PUT", body: file });
    if (answer.ok) done++;
    else last = (await answer.json().catch(() => ({}))).error || "The studio refused a file.";
    status.textContent = `${done} of ${listed.length} files${last ? `. ${last}` : ""}`;
  }
  if (done) zone.dispatchEvent(new CustomEvent("uploaded", { detail: name }));
}
async function zeuxisDropped(transfer, zone) {
  const found = [];
  const walk = async (entry, path) => {
    if (entry.isFile) found.push({ file: await new Promise((ok, no) => entry.file(ok, no)), path: path + entry.name });
    else {
      const reader = entry.createReader();
      for (;;) {
        const part = await new Promise((ok, no) => reader.readEntries(ok, no));
        if (!part.length) break;
        for (const one of part) await walk(one, `${path}${entry.name}/`);
      }
    }
  };
  for (const entry of [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean)) await walk(entry, "");
  await zeuxisUpload(found, zone);
}
