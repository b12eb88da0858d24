// Presenter mode: large text for a projector. Alt+P or ?present=1, remembered.

import { keepPresenterMode, presenterMode } from "./memory.js";

/** @param {boolean} on */
export const present = (on) => {
  document.body.classList.toggle("presenter", on);
  keepPresenterMode(on);
};

export const watchPresenter = () => {
  const asked = new URLSearchParams(location.search).get("present");
  if (asked === "1" || (asked === null && presenterMode())) present(true);
  addEventListener("keydown", (event) => {
    if (!event.altKey || event.key.toLowerCase() !== "p") return;
    event.preventDefault();
    present(!document.body.classList.contains("presenter"));
  });
};
