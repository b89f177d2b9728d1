// Keeps a key in a cookie, as a browser sends no header of ours with a page or a picture.
// SameSite=Strict: what another site has a browser send comes without it.

const form = document.getElementById("key-form");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `sluice_key=${encodeURIComponent(form.elements.key.value.trim())}; Path=/; SameSite=Strict${secure}`;
  location.reload();
});
