// @ts-check
// Rows, thumbnails and Undo.

import {all, closest, fill, find, setAttribute} from "../shared/dom.mjs";
import {changeChoice} from "../shared/server.mjs";
import {checkpointOf} from "./badges.mjs";
import {useAnswer} from "./comparisons.mjs";

/** @type {(name: string) => void} */
let onOpen = () => {};

/** @type {Set<string | undefined>} */
let outdated = new Set(); // ids of Undo buttons that were not the last one's when the server was last asked

/** @param {(name: string) => void} callback called with the name of a page before it is opened */
export function start(callback) {
    onOpen = callback;
    document.addEventListener("keydown", onKey, true);
}

/**
 * A click on a row, a thumbnail, a badge or Undo.
 *
 * @param {MouseEvent} event
 */
export function onClick(event) {
    const row = closest(event, "#vae_lab_checkup tr[data-file]");
    if (row) pick("file", row.dataset.file ?? "");
    const thumbnail = closest(event, "#vae_lab_thumbnails [data-pick]");
    if (thumbnail) pick("latent", thumbnail.dataset.pick ?? "");
    const listed = closest(event, "#vae_lab_library_table .vae-lab-link[data-file]");
    if (listed) openInCheckup(listed.dataset.file ?? "");
    openVerdict(event);
    const undoButton = /** @type {HTMLButtonElement | null} */ (closest(event, ".vae-lab [data-undo]"));
    if (undoButton && !undoButton.disabled) undo(undoButton);
    const answer = /** @type {HTMLButtonElement | null} */ (closest(event, ".vae-lab-answer [data-use]"));
    if (answer && !answer.disabled) useAnswer(answer);
}

/** @param {MouseEvent} event */
function openVerdict(event) {
    const badge = closest(event, ".vae-lab-current-badge:not(:empty)");
    const checkpoint = badge && checkpointOf(badge);
    if (checkpoint) openInCheckup(checkpoint.name);
    const verdict = closest(event, ".vae-lab-open[data-file]");
    if (verdict) openInCheckup(verdict.dataset.file ?? "");
}

/** Called by the tab's clock: marks the row and the thumbnail whose card is shown. */
export function markPicks() {
    markRow();
    markThumbnail();
}

/**
 * Python learns of clicks in our HTML through one hidden text field; see vae_lab/ui/panels/picks.py.
 *
 * @param {"file" | "latent"} kind
 * @param {string} name
 */
export function pick(kind, name) {
    fill("vae_lab_picked", JSON.stringify({kind, name, time: Date.now()})); // the time makes the same pick a new one
}

/**
 * The answer replaces the text around the button.
 *
 * @param {HTMLButtonElement} button
 */
async function undo(button) {
    button.disabled = true; // a second click would undo the undoing
    const line = button.parentElement;
    const {message, undo_id: undoId, detail} = await changeChoice("undo", {undo_id: button.dataset.undo ?? ""});
    // Only inside the line: gradio removes the line itself when it has something new to show.
    line?.replaceChildren(message ?? detail ?? "");
    if (!undoId) return;
    button.dataset.undo = undoId;
    button.disabled = false;
    line?.append(" ", button);
}

/**
 * Remove what is said of choices that another one has replaced, here or on another page: only the last one can be
 * undone. A line must be outdated twice in a row, since an answer can be older than the line.
 *
 * @param {string | null} last id that undoes the last choice
 */
export function withdrawUndos(last) {
    const others = all(document, ".vae-lab [data-undo]").filter((button) => button.dataset.undo !== last);
    for (const button of others) {
        if (outdated.has(button.dataset.undo)) button.parentElement?.replaceChildren();
    }
    outdated = new Set(others.map((button) => button.dataset.undo));
}

/**
 * Show a file on the Checkup page.
 *
 * @param {string} file
 */
function openInCheckup(file) {
    if (document.fullscreenElement) document.exitFullscreen();
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    onOpen("vae_lab_checkup"); // it need not refresh itself: what is picked is shown fresh
    for (const id of ["tab_vae_lab", "vae_lab_page_checkup"]) switchTo(find(id)); // the first is the WebUI's
    pick("file", file);
}

/**
 * Switch to a tab, found by its place, since the texts on tabs may be translated.
 *
 * @param {HTMLElement | null} item
 */
export function switchTo(item) {
    const tabs = item?.parentElement;
    if (!item || !tabs) return;
    all(tabs, ":scope > .tab-nav button")[all(tabs, ":scope > .tabitem").indexOf(item)]?.click();
}

function markRow() {
    const file = all(document, "#vae_lab_checkup_verdict [data-file]")[0]?.dataset.file;
    for (const row of all(document, "#vae_lab_checkup tr[data-file]")) {
        if (row.dataset.file === file) row.setAttribute("aria-current", "true");
        else row.removeAttribute("aria-current");
    }
}

/** Of all thumbnails, one is in the order of the Tab key. */
function markThumbnail() {
    const buttons = all(document, "#vae_lab_thumbnails [data-pick]");
    const latent = all(document, "#vae_lab_latent [data-latent]")[0]?.dataset.latent;
    const chosen = buttons.find((button) => button.dataset.pick === latent);
    const first = buttons.find((button) => button === document.activeElement) ?? chosen ?? buttons[0];
    for (const button of buttons) {
        setAttribute(button, "aria-pressed", String(button === chosen));
        setAttribute(button, "tabindex", button === first ? "0" : "-1");
    }
}

/**
 * Arrow keys move between thumbnails.
 *
 * @param {KeyboardEvent} event
 */
function onKey(event) {
    const button = closest(event, "#vae_lab_thumbnails [data-pick]");
    if (!button?.parentElement || event.ctrlKey || event.metaKey || event.altKey) return;
    const buttons = all(button.parentElement, "[data-pick]");
    const here = buttons.indexOf(button);
    /** @type {Record<string, number>} */
    const targets = {ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: buttons.length - 1};
    const target = buttons[targets[event.key]];
    if (!target) return;
    event.preventDefault();
    event.stopPropagation();
    target.focus();
    markThumbnail();
}
