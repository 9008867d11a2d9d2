// @ts-check
// Fix all on the Library page: which checkpoints are ticked, and the two buttons.

import {all, closest, fill, write} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";

const BOXES = "#vae_lab_library_fixes input[data-fix-checkpoint]";

export function start() {
    document.addEventListener("change", (event) => {
        if (closest(event, BOXES)) showCount();
    });
}

/**
 * A click on *Use these VAEs* or *Undo all*: Python learns of it through a hidden text field, and shows the result.
 *
 * @param {MouseEvent} event
 */
export function onClick(event) {
    const button = /** @type {HTMLButtonElement | null} */ (closest(event, "#vae_lab_library_fixes [data-fix]"));
    if (!button || button.disabled) return;
    button.disabled = true;
    // The time makes the same request a new one.
    const request = {action: button.dataset.fix, checkpoints: ticked(), time: Date.now()};
    fill("vae_lab_fix_asked", JSON.stringify(request));
}

const ticked = () => boxes().filter((box) => box.checked).map((box) => box.dataset.fixCheckpoint ?? "");

const boxes = () => /** @type {HTMLInputElement[]} */ (all(document, BOXES));

function showCount() {
    const count = ticked().length;
    for (const element of all(document, "#vae_lab_library_fixes [data-fix=apply]")) {
        const button = /** @type {HTMLButtonElement} */ (element);
        write(button, t("Use these VAEs ({count})", {count}));
        button.disabled = count === 0;
    }
}
