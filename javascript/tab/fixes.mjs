// @ts-check
// Fix all on the Library page: which checkpoints are ticked, and the buttons.

import {all, closest, fill, write} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import * as runs from "./runs.mjs";

const BOXES = "#vae_lab_library_fixes input[data-fix-checkpoint]";

export function start() {
    document.addEventListener("change", (event) => {
        if (closest(event, BOXES)) showCounts();
    });
}

/**
 * A click on one of the section's buttons: Python learns of it through a hidden text field, and shows the result.
 *
 * @param {MouseEvent} event
 */
export function onClick(event) {
    const button = /** @type {HTMLButtonElement | null} */ (closest(event, "#vae_lab_library_fixes [data-fix]"));
    if (!button || button.disabled) return;
    button.disabled = true;
    const action = button.dataset.fix ?? "";
    if (action === "bake") runs.startOn("vae_lab_library");
    // The time makes the same request a new one.
    const request = {action, checkpoints: ticked(action), time: Date.now()};
    fill("vae_lab_fix_asked", JSON.stringify(request));
}

/**
 * @param {string} action that is to be done with them; not every checkpoint can be baked
 */
const ticked = (action) =>
    boxes()
        .filter((box) => box.checked && (action !== "bake" || "fixBake" in box.dataset))
        .map((box) => box.dataset.fixCheckpoint ?? "");

const boxes = () => /** @type {HTMLInputElement[]} */ (all(document, BOXES));

function showCounts() {
    showCount("apply", (count) => t("Use these VAEs ({count})", {count}));
    showCount("bake", (count) => t("Bake new files ({count})", {count}));
}

/**
 * @param {string} action
 * @param {(count: number) => string} label
 */
function showCount(action, label) {
    const count = ticked(action).length;
    for (const element of all(document, `#vae_lab_library_fixes [data-fix=${action}]`)) {
        const button = /** @type {HTMLButtonElement} */ (element);
        write(button, label(count));
        button.disabled = count === 0;
    }
}
