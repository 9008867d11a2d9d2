// @ts-check
// Lists of VAEs to tick: a search above the list. Gradio's own boxes stay, since they hold what is ticked.

import {all, closest, make, part, setAttribute, writeQuietly} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";

const SHORT = 8; // VAEs; a list that is not longer needs no search
const BOXES = "[data-testid=checkbox-group]";

/** @type {WeakMap<HTMLElement, boolean>} */
const onlyTicked = new WeakMap(); // field to search in -> whether the others are hidden

export function start() {
    document.addEventListener("input", (event) => {
        const list = closest(event, ".vae-lab-vae-search")?.closest(".vae-lab-vaes");
        if (list) arrange(/** @type {HTMLElement} */ (list));
    });
    document.addEventListener("change", (event) => {
        const list = /** @type {HTMLElement | null} */ (closest(event, `${BOXES} input`)?.closest(".vae-lab-vaes"));
        if (list) arrange(list);
    });
}

/**
 * A click on the number of ticked VAEs shows only these, or all again.
 *
 * @param {MouseEvent} event
 */
export function onClick(event) {
    const button = closest(event, ".vae-lab-vae-search button");
    const list = /** @type {HTMLElement | null} */ (button?.closest(".vae-lab-vaes"));
    if (!button || !list) return;
    const field = part(list, ".vae-lab-vae-search input");
    onlyTicked.set(field, !onlyTicked.get(field));
    arrange(list);
}

/** Called by the tab's clock: gradio may have put other VAEs into a list. */
export function arrangeLists() {
    for (const list of all(document, ".vae-lab-vaes")) if (list.offsetParent) arrange(list);
}

/** @param {HTMLElement} list */
function arrange(list) {
    const boxes = /** @type {HTMLElement | null} */ (list.querySelector(BOXES));
    if (!boxes) return;
    const labels = all(boxes, ":scope > label");
    const tools = toolsOf(list, boxes, labels.length > SHORT);
    const isWanted = filterOf(tools);
    for (const label of labels) {
        const isHidden = !isWanted(label);
        if (label.hidden !== isHidden) label.hidden = isHidden;
    }
    if (!tools) return;
    const count = labels.filter((label) => !label.hidden).length;
    writeQuietly(part(tools, "output"), t("{count} of {total}", {count, total: labels.length}));
    writeQuietly(part(tools, "button"), t("{count} ticked", {count: labels.filter(isTicked).length}));
    setAttribute(part(tools, "button"), "aria-pressed", String(isPressed(tools)));
}

/** @param {HTMLElement} label */
const isTicked = (label) => /** @type {HTMLInputElement} */ (part(label, "input")).checked;

/** @param {HTMLElement} tools */
const isPressed = (tools) => onlyTicked.get(part(tools, "input")) === true;

/**
 * Which labels the user wants to see.
 *
 * @param {HTMLElement | null} tools
 * @returns {(label: HTMLElement) => boolean}
 */
function filterOf(tools) {
    if (!tools) return () => true;
    const field = /** @type {HTMLInputElement} */ (part(tools, "input"));
    const words = field.value.toLowerCase().split(/\s+/);
    const hasAll = (/** @type {string} */ text) => words.every((word) => text.includes(word));
    return (label) => hasAll((label.textContent ?? "").toLowerCase()) && (isTicked(label) || !isPressed(tools));
}

/**
 * The search above a long list.
 *
 * @param {HTMLElement} list
 * @param {HTMLElement} boxes
 * @param {boolean} isLong
 * @returns {HTMLElement | null}
 */
function toolsOf(list, boxes, isLong) {
    const tools = /** @type {HTMLElement | null} */ (list.querySelector(".vae-lab-vae-search"));
    if (!isLong) tools?.remove();
    if (!isLong || tools) return isLong ? tools : null;
    const label = t("Search the VAEs");
    const made = make(
        "div", {class: "vae-lab-vae-search"},
        make("input", {type: "search", placeholder: t("Search"), "aria-label": label, autocomplete: "off"}),
        make("output", {"aria-live": "polite"}),
        make("button", {type: "button", title: t("Show only what is ticked")}),
    );
    boxes.before(made);
    return made;
}
