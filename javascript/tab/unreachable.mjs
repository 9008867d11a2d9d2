// @ts-check
// A click that needs the server says so if the server does not answer: gradio itself shows a line in a corner, and
// requests of ours would fail silently.

import {all, closest, make} from "../shared/dom.mjs";
import {address} from "../shared/server.mjs";
import {t} from "../shared/text.mjs";

const WAIT_MS = 30000; // while a VAE decodes, an answer can take seconds
// Gradio's buttons, and ours that press them or fetch a file. What choices say comes from changeChoice.
const BUTTONS = [
    "button[id^=vae_lab_]:not([role=tab])", "a[download]", ".vae-lab-link:not([data-undo])", ".vae-lab-open[data-file]",
    "[data-pick]", "[data-fix]",
].map((selector) => ":is(#vae_lab_pages, #vae_lab_txt2img, #vae_lab_img2img) " + selector).join();

/** @type {() => void} */
let onNoAnswer = () => {};

/** @param {() => void} callback called when the server did not answer after a click */
export function start(callback) {
    onNoAnswer = callback;
}

/** @param {MouseEvent} event */
export async function onClick(event) {
    const button = closest(event, BUTTONS);
    if (!button || !event.isTrusted) return; // scripts press Refresh by themselves
    withdraw();
    if (await answers()) return;
    withdraw(); // of another click
    const attributes = {class: "vae-lab-alert vae-lab-no-answer", role: "alert"};
    place(button).after(make("p", attributes, t("No response from VAE Lab.")));
    onNoAnswer();
}

function withdraw() {
    for (const note of all(document, ".vae-lab-no-answer")) note.remove();
}

async function answers() {
    try {
        const answer = await fetch(address("progress"), {cache: "no-store", signal: AbortSignal.timeout(WAIT_MS)});
        return answer.status < 500;
    } catch {
        return false;
    }
}

/**
 * What the message comes after: a row of buttons has no room for it.
 *
 * @param {HTMLElement} button
 */
function place(button) {
    const row = button.parentElement;
    if (!row) return button;
    const {display, flexDirection} = getComputedStyle(row);
    return display.endsWith("flex") && flexDirection.startsWith("row") ? row : button;
}
