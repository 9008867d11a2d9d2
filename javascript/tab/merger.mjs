// @ts-check
// The WebUI's Checkpoint Merger: says beforehand whether the VAE of the result would be healthy.

import {all, find, make} from "../shared/dom.mjs";
import {address} from "../shared/server.mjs";
import {t} from "../shared/text.mjs";

/**
 * What POST merge-preview takes and answers.
 *
 * @typedef {{checkpoints: string[], method: string, multiplier: number}} Merge
 * @typedef {{status: string, title: string, vae: string, reason: string}} Preview
 */

const REST_MS = 1200; // the choice must stay the same for so long
const BUSY_MS = 5000; // before the next try while another task is running
const FAULTS = ["broken", "suspect", "unreadable", "missing"];
/** @type {Record<string, string>} */
const METHODS = {"Weighted sum": "weighted-sum", "Add difference": "add-difference"};

let seen = ""; // the merge that is selected, as JSON
let askAt = 0; // when to ask about it; 0: it was answered
let isAsking = false;

/** Called by the tab's clock. */
export function checkMerger() {
    const button = find("modelmerger_merge");
    if (!button?.offsetParent || !find("vae_lab_panel")) return;
    const merge = selected();
    const key = JSON.stringify(merge);
    if (key !== seen) {
        seen = key;
        askAt = merge ? Date.now() + REST_MS : 0;
        say(null);
    }
    if (merge && askAt && Date.now() > askAt && !isAsking) ask(merge, key);
}

/** The merge that is selected; null if it is not complete, or a VAE is to be baked in. @returns {Merge | null} */
function selected() {
    const method = METHODS[/** @type {HTMLInputElement | null} */ (
        document.querySelector("#modelmerger_interp_method input:checked"))?.value ?? ""];
    const names = ["primary", "secondary", "tertiary"].map((which) => nameIn(`modelmerger_${which}_model_name`));
    const checkpoints = names.slice(0, method === "add-difference" ? 3 : 2);
    const isBaking = !["", "None"].includes(fieldIn("modelmerger_bake_in_vae")?.value ?? "");
    if (!method || isBaking || checkpoints.includes("")) return null;
    return {checkpoints, method, multiplier: Number(fieldIn("modelmerger_interp_amount")?.value)};
}

/** The field of a gradio component. */
const fieldIn = (/** @type {string} */ id) =>
    /** @type {HTMLInputElement | null} */ (document.querySelector(`#${id} input:not([type=range])`));

/** Name of the checkpoint that is selected in a menu, whose entries end with a hash. */
const nameIn = (/** @type {string} */ id) => (fieldIn(id)?.value ?? "").replace(/ \[[0-9a-f]+\]$/, "");

/**
 * @param {Merge} merge
 * @param {string} key
 */
async function ask(merge, key) {
    isAsking = true;
    askAt = 0;
    say(make("span", {class: "vae-lab-quiet"}, t("Checking the VAE that this merge would have…")));
    try {
        const headers = {"Content-Type": "application/json"};
        const answer = await fetch(address("merge-preview"), {method: "POST", headers, body: JSON.stringify(merge)});
        const preview = await answer.json();
        if (key !== seen) return;
        const isBusy = answer.status === 409 && preview.detail.includes("another task is running");
        if (isBusy) askAt = Date.now() + BUSY_MS;
        else show(answer.ok ? preview : null, preview.detail);
    } catch {
        if (key === seen) say(null); // the server has stopped
    } finally {
        isAsking = false;
    }
}

/**
 * @param {Preview | null} preview
 * @param {string} [reason] why there is none
 */
function show(preview, reason = "") {
    if (!preview) return say(make("span", {class: "vae-lab-quiet"}, reason));
    const status = preview.title ? t(preview.title) : "";
    if (!FAULTS.includes(preview.status)) {
        return say(make("span", {class: "vae-lab-quiet"}, t("The VAE of this merge would be healthy.")));
    }
    const sentence = t("The VAE of this merge would be broken: {title}.", {title: status.toLowerCase()});
    const bake = make("button", {type: "button", class: "vae-lab-primary"}, t("Bake in {vae}", {vae: preview.vae}));
    bake.addEventListener("click", () => choose("modelmerger_bake_in_vae", preview.vae));
    say(make("b", {}, sentence), ...(preview.vae ? [" ", bake] : [" ", t("Bake in a healthy VAE.")]));
}

/** @param {...(Node | string | null)} content below the button Merge; null: nothing */
function say(...content) {
    const row = find("modelmerger_merge")?.parentElement;
    if (!row) return;
    const place = all(document, ".vae-lab-merger")[0] ?? make("div", {class: "vae-lab vae-lab-merger", role: "status"});
    if (place.previousElementSibling !== row) row.after(place);
    place.replaceChildren(...content.filter((each) => each !== null));
}

/**
 * Choose an entry of one of gradio's menus, as a user does.
 *
 * @param {string} id
 * @param {string} value
 */
async function choose(id, value) {
    const field = fieldIn(id);
    if (!field) return;
    field.focus();
    field.click();
    await new Promise((resolve) => setTimeout(resolve, 100));
    const entry = all(document, `#${id} [role=option], #${id} li`).find((each) =>
        (each.getAttribute("aria-label") ?? each.textContent ?? "").replace("✓", "").trim() === value);
    entry?.dispatchEvent(new MouseEvent("mousedown", {bubbles: true, cancelable: true}));
    field.blur();
}
