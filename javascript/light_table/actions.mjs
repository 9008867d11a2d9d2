// @ts-check
// What can be done with the image of a VAE: use its VAE from now on, or send it to an image of the WebUI.

import {fill, find, until} from "../shared/dom.mjs";
import {changeChoice, undoButton} from "../shared/server.mjs";
import {t} from "../shared/text.mjs";
import {fileName} from "./draw.mjs";
import {imageIn, sizeOf} from "./geometry.mjs";
import {showMessage} from "./view.mjs";

/** @import {Figure, Table} from "./types" */

const WAIT_MS = 10000; // for the page to answer

// --- use -------------------------------------------------------------------------------------------------------------

/**
 * Whether a figure's VAE can be used from now on.
 *
 * @param {Figure} figure
 */
export function canUse(figure) {
    return find("vae_lab_panel") !== null && !figure.isReference && !figure.isMap;
}

/**
 * Use a VAE from now on.
 *
 * @param {Table} table
 * @param {string} reach "checkpoint" or "always"
 * @param {string} vae its name
 */
export async function use(table, reach, vae) {
    showMessage(table, "");
    const waiting = setTimeout(() => showMessage(table, t("Waiting for the current generation…")), WAIT_MS);
    const checkpoint = table.grid.dataset.checkpoint ?? "";
    const {message, undo_id: undoId, detail} = await changeChoice("choose", {reach, vae, checkpoint});
    clearTimeout(waiting);
    showMessage(table, message ?? detail ?? "", ...(undoId ? [" ", undoButton(undoId)] : []));
}

// --- send ------------------------------------------------------------------------------------------------------------

/**
 * Images of the WebUI, and its own functions that switch to them.
 *
 * @typedef {{id: string, label: string, switchTo: "switch_to_img2img" | "switch_to_inpaint" | "switch_to_extras",
 *   hasSize: boolean}} SendTarget
 */

/** @type {SendTarget[]} */
export const SEND_TARGETS = [
    {id: "img2img_image", label: "img2img", switchTo: "switch_to_img2img", hasSize: true},
    {id: "img2maskimg", label: t("inpaint"), switchTo: "switch_to_inpaint", hasSize: true},
    {id: "extras_image", label: t("extras"), switchTo: "switch_to_extras", hasSize: false},
];
const CLEAR_BUTTONS =
    ".modify-upload button + button, .touch-none + div button + button, button[aria-label='Clear']";

/**
 * @param {Table} table
 * @param {string} id of the target
 * @param {Figure} figure
 */
export async function send(table, id, figure) {
    const target = SEND_TARGETS.find((each) => each.id === id);
    if (!target) return;
    const label = target.label;
    showMessage(table, t("Sending to {target}…", {target: label}));
    try {
        const answer = await fetch(figure.save.href);
        if (!answer.ok) throw new Error(t("the image cannot be read ({status})", {status: answer.status}));
        const file = new File([await answer.blob()], fileName(table, figure), {type: "image/png"});
        await put(file, target.id);
        showMessage(table, t("{name}: sent to {target}.", {name: figure.name, target: label}));
        if (document.fullscreenElement) await document.exitFullscreen();
        if (document.activeElement instanceof HTMLElement) document.activeElement.blur(); // hiding does not always
        window[target.switchTo]?.();
        if (target.hasSize && window.opts?.send_size) sendSize(figure);
        find(target.id)?.scrollIntoView({block: "center"});
    } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        showMessage(table, t("Could not send to {target}: {reason}.", {target: label, reason}));
    }
}

/**
 * Into an image component of gradio, which takes a file only when it is empty.
 *
 * @param {File} file
 * @param {string} id
 */
async function put(file, id) {
    const component = find(id);
    /** @type {HTMLElement | null | undefined} */ (component?.querySelector(CLEAR_BUTTONS))?.click();
    /** @type {() => HTMLInputElement | null | undefined} */
    const field = () => component?.querySelector("input[type=file]");
    const input = await until(field, WAIT_MS);
    if (!input) throw new Error(t("it has no place for a file"));
    const transfer = new DataTransfer();
    transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change"));
}

/**
 * As the WebUI's own "Send to" does, if its settings say so.
 *
 * @param {Figure} figure
 */
function sendSize(figure) {
    const [columns, rows] = sizeOf(imageIn(figure.boxes[0]));
    fill("img2img_width", columns);
    fill("img2img_height", rows);
}
