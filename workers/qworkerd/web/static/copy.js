// Offers to copy the code that pages of single things show. It works without HTTPS as well, where browsers have no clipboard.
"use strict";
(() => {
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.body.appendChild(document.createElement("textarea"));
      area.value = text;
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  const labels = new WeakMap();
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    await copy(button.closest(".code").querySelector("code").textContent);
    if (!labels.has(button)) labels.set(button, button.textContent);
    button.textContent = button.dataset.copy;
    setTimeout(() => (button.textContent = labels.get(button)), 1500);
  });
  const offer = () => document.querySelectorAll("[data-copy]").forEach((button) => (button.hidden = false));
  document.addEventListener("htmx:after:swap", offer);
  offer();
})();
