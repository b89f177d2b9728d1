// Elements of the page, made in a line.

/** element("p", {class: "quiet"}, "text", otherElement) */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** A button that copies `text()`, and says that it did. */
export function copyButton(text) {
  const button = element("button", {type: "button"}, "Copy");
  button.addEventListener("click", async () => {
    await copy(text());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

/** Browsers lend the clipboard to pages of https and of this machine; others copy what is selected. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = element("textarea", {}, text);
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  focused?.focus();
}

/** A link that saves the Blob of `content()` as a file. */
export function saveLink(name, content) {
  const link = element("a", {href: "#", download: name}, `Save ${name}`);
  link.addEventListener("click", () => {
    const address = URL.createObjectURL(content());
    link.href = address;
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  });
  return link;
}
