// @ts-check
// Extract and deduplicate on the Library page: which files are ticked, and the buttons.

import {all, closest, fill, write} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import * as runs from "./runs.mjs";

const SECTION = "#vae_lab_library_vae_files";

export function start() {
    document.addEventListener("change", (event) => {
        if (closest(event, SECTION + " input[data-files-name]")) showCounts();
    });
}

/**
 * A click on one of the section's buttons: Python learns of it through a hidden text field, and shows the result.
 *
 * @param {MouseEvent} event
 */
export function onClick(event) {
    const button = /** @type {HTMLButtonElement | null} */ (closest(event, SECTION + " [data-files]"));
    if (!button || button.disabled) return;
    button.disabled = true;
    const action = button.dataset.files ?? "";
    runs.startOn("vae_lab_library");
    // The time makes the same request a new one.
    fill("vae_lab_files_asked", JSON.stringify({action, names: ticked(action), time: Date.now()}));
}

/** @param {string} action */
const ticked = (action) =>
    boxes(action).filter((box) => box.checked).map((box) => box.dataset.filesName ?? "");

/** @param {string} action */
const boxes = (action) =>
    /** @type {HTMLInputElement[]} */ (all(document, `${SECTION} input[data-files-of=${action}]`));

function showCounts() {
    showCount("extract", (count) => t("Extract these VAEs ({count})", {count}));
    showCount("dedupe", (count) => t("Replace by links ({count})", {count}));
}

/**
 * @param {string} action
 * @param {(count: number) => string} label
 */
function showCount(action, label) {
    const count = ticked(action).length;
    for (const element of all(document, `${SECTION} [data-files=${action}]`)) {
        const button = /** @type {HTMLButtonElement} */ (element);
        write(button, label(count));
        button.disabled = count === 0;
    }
}
