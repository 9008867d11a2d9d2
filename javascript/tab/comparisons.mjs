// @ts-check
// What a comparison shows while it runs and afterwards: each image as it is decoded, verdicts, and the VAE in use.

import {all, find, make} from "../shared/dom.mjs";
import {changeChoice, undoButton} from "../shared/server.mjs";
import {t} from "../shared/text.mjs";

const ASK_MS = 1500; // between two requests for verdicts
const SHOW_MS = 700; // between two requests for images

let askedAt = 0;
let shownAt = 0;

/**
 * Called by the tab's clock.
 *
 * @param {boolean} isOwnRun whether this page has started the comparison that is running
 * @param {number} results how many of its VAEs are done
 */
export function followComparison(isOwnRun, results) {
    if (!find("vae_lab_panel")?.offsetParent) return;
    showImages(isOwnRun, results);
    hideOutdated();
    showVerdicts();
}

/** Numbers and an answer come after their images: until then, those of another comparison would stand beside them. */
function hideOutdated() {
    const [id] = shown();
    for (const place of ["vae_lab_numbers", "vae_lab_answer"]) {
        const about = all(document, `#${place} [data-of]`)[0]?.dataset.of;
        find(place)?.toggleAttribute("data-outdated", about !== undefined && about !== id);
    }
}

/** The comparison on the page: its id and, while it runs, how many results it has. */
const shown = () => (all(document, "#vae_lab_results .vae-lab-grid")[0]?.dataset.comparison ?? "").split(":");

/**
 * @param {boolean} isOwnRun
 * @param {number} results
 */
function showImages(isOwnRun, results) {
    const [id, count] = shown();
    const isPartial = count !== undefined;
    // Another page's comparison does not take the place of a finished one.
    const isFollowed = results > 0 ? isOwnRun || !id || isPartial : isPartial;
    if (!isFollowed || count === String(results) || Date.now() - shownAt < SHOW_MS) return;
    shownAt = Date.now();
    find("vae_lab_show")?.click();
}

function showVerdicts() {
    const answer = all(document, "#vae_lab_answer .vae-lab-answer")[0];
    if (!answer) return;
    for (const figure of all(document, "#vae_lab_results figure[data-vae]")) showVerdict(figure, answer);
    if (answer.dataset.waiting === undefined || Date.now() - askedAt < ASK_MS) return;
    askedAt = Date.now();
    find("vae_lab_judge")?.click();
}

/**
 * @param {HTMLElement} figure
 * @param {HTMLElement} answer
 */
function showVerdict(figure, answer) {
    const name = figure.dataset.vae ?? "";
    const badge = all(answer, "[data-verdict-of]").find((each) => each.dataset.verdictOf === name);
    /** @type {HTMLElement | null} */
    const box = figure.querySelector(".vae-lab-figure-verdict");
    if (!box) return; // in the blind test
    const isInUse = answer.dataset.now === name;
    const key = `${badge?.outerHTML ?? ""}${isInUse}`;
    if (box.dataset.shown === key) return;
    const used = make("span", {class: "vae-lab-badge vae-lab-in-use"}, t("In use now"));
    box.replaceChildren(...(badge ? [badge.cloneNode(true)] : []), ...(isInUse ? [" ", used] : []));
    box.dataset.shown = key;
}

/**
 * Do what the answer says.
 *
 * @param {HTMLButtonElement} button
 */
export async function useAnswer(button) {
    button.disabled = true;
    const {use: vae = "", reach = "", checkpoint = ""} = button.dataset;
    const answer = await changeChoice("choose", {reach, vae, checkpoint});
    button.disabled = false;
    // In the light table, since the answer itself changes with the choice.
    const message = all(document, "#vae_lab_results .vae-lab-tool-message")[0];
    const undo = answer.undo_id ? [" ", undoButton(answer.undo_id)] : [];
    message?.replaceChildren(answer.message ?? answer.detail ?? "", ...undo);
}
