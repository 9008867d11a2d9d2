// @ts-check
// Lists of VAEs to tick: search, groups by family, and files with the same weights folded under the first one.
//
// Gradio's own boxes stay, since they hold what is ticked, and their order is that of the server. Only headings and
// buttons are put between them, and what is not wanted is hidden.

import {all, closest, find, make, part, setAttribute, writeQuietly} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";

const BOXES = "[data-testid=checkbox-group]";
const SEARCH = ".vae-lab-vae-search";
const FOLD = "vae-lab-vae-fold";
const HEADING = "vae-lab-vae-heading";

/**
 * From vae_lab/ui/views/vae_list.py.
 *
 * @typedef {{groups: {title: string, sizes: number[]}[], misfits: number[]}} Groups
 */

/** @type {WeakMap<HTMLElement, boolean>} */
const onlyTicked = new WeakMap(); // field to search in -> whether the others are hidden
/** @type {WeakMap<HTMLElement, string>} */
const arranged = new WeakMap(); // list -> how it looked when it was arranged last
/** @type {Map<string, boolean>} */
const folds = new Map(); // list and first file of a VAE -> whether its other files are shown

export function start() {
    document.addEventListener("input", arrangeListOf);
    document.addEventListener("change", arrangeListOf);
}

/** @param {Event} event */
function arrangeListOf(event) {
    const list = closest(event, ".vae-lab-vaes");
    if (list) arrange(list);
}

/** @param {MouseEvent} event */
export function onClick(event) {
    const tickAll = closest(event, "#vae_lab_all, #vae_lab_roundtrip_all");
    if (tickAll) tickFound(tickAll, event);
    const list = closest(event, ".vae-lab-vaes");
    if (!list) return;
    const pressed = closest(event, SEARCH + " button");
    if (pressed) onlyTicked.set(fieldOf(pressed), !onlyTicked.get(fieldOf(pressed)));
    const fold = closest(event, "." + FOLD);
    if (fold) folds.set(fold.dataset.of ?? "", fold.getAttribute("aria-expanded") !== "true");
    if (pressed || fold) arrange(list);
}

/** Called by the tab's clock: gradio may have put other VAEs into a list, or ticked others. */
export function arrangeLists() {
    for (const list of all(document, ".vae-lab-vaes")) {
        if (list.offsetParent && lookOf(list) !== arranged.get(list)) arrange(list);
    }
}

/**
 * What a list shows; the same until something has changed.
 *
 * @param {HTMLElement} list
 */
function lookOf(list) {
    const ticked = all(list, BOXES + " input").map((box) => Number(/** @type {HTMLInputElement} */ (box).checked));
    return [list.textContent, dataOf(list), ...ticked].join();
}

/**
 * All, while the user searches: tick what is found and fits, in addition to what is ticked. Of files with the same
 * weights, one.
 *
 * @param {HTMLElement} button
 * @param {Event} event
 */
function tickFound(button, event) {
    const list = /** @type {HTMLElement | null} */ (button.closest(".vae-lab-choices")?.querySelector(".vae-lab-vaes"));
    const tools = list && toolsOf(list);
    const boxes = list && boxesOf(list);
    if (!tools || !boxes || !wordsOf(tools).length) return;
    event.stopPropagation(); // gradio's handler would tick all there are
    const labels = all(boxes, ":scope > label");
    const {groups, misfits} = groupsOf(list, labels.length);
    const usable = labels.map((label, i) => !label.hidden && !misfits.includes(i));
    for (const [from, to] of rangesOf(groups)) {
        const same = labels.slice(from, to);
        if (!same.some(isTicked)) same.find((_, i) => usable[from + i])?.click();
    }
    arrange(list);
}

/** @param {HTMLElement} list */
function arrange(list) {
    const boxes = boxesOf(list);
    if (boxes) arrangeBoxes(list, boxes);
    arranged.set(list, lookOf(list));
}

/**
 * @param {HTMLElement} list
 * @param {HTMLElement} boxes
 */
function arrangeBoxes(list, boxes) {
    const labels = all(boxes, ":scope > label");
    const {groups} = groupsOf(list, labels.length);
    const isLong = groups.some(({title}) => title !== "");
    const tools = toolsOf(list) ?? (isLong ? makeTools(boxes) : null);
    if (tools) setHidden(tools, !isLong);
    const isWanted = isLong && tools ? filterOf(tools) : null;
    for (const label of labels) setHidden(label, isWanted !== null && !isWanted(label));
    arrangeFolds(list, boxes, labels, groups, isWanted !== null);
    arrangeHeadings(boxes, labels, isLong ? groups : []);
    if (!tools) return;
    const count = isWanted ? labels.filter(isWanted).length : labels.length;
    writeQuietly(part(tools, "output"), t("{count} of {total}", {count, total: labels.length}));
    writeQuietly(part(tools, "button"), t("{count} ticked", {count: labels.filter(isTicked).length}));
    setAttribute(part(tools, "button"), "aria-pressed", String(onlyTicked.get(fieldOf(tools)) === true));
}

/**
 * Below the first file of a VAE a button that shows the others.
 *
 * @param {HTMLElement} list
 * @param {HTMLElement} boxes
 * @param {HTMLElement[]} labels
 * @param {Groups["groups"]} groups
 * @param {boolean} isSearched what is found is shown, folded or not
 */
function arrangeFolds(list, boxes, labels, groups, isSearched) {
    const buttons = all(boxes, ":scope > ." + FOLD);
    for (const [from, to] of rangesOf(groups)) {
        const [first, ...copies] = labels.slice(from, to);
        for (const label of [first, ...copies]) setAttribute(label, "data-copy", String(label !== first));
        if (!copies.length || isSearched) continue;
        const key = list.id + first.textContent;
        // What is ticked is never hidden by itself.
        if (!folds.has(key) && copies.some(isTicked)) folds.set(key, true);
        const isOpen = folds.get(key) === true;
        const button = buttons.shift() ?? make("button", {type: "button", class: FOLD});
        if (first.nextElementSibling !== button) first.after(button);
        button.dataset.of = key;
        setAttribute(button, "aria-expanded", String(isOpen));
        writeQuietly(button, t("{count} files, the same VAE", {count: to - from}));
        for (const label of copies) setHidden(label, !isOpen);
    }
    for (const button of buttons) button.remove();
}

/**
 * @param {HTMLElement} boxes
 * @param {HTMLElement[]} labels
 * @param {Groups["groups"]} groups
 */
function arrangeHeadings(boxes, labels, groups) {
    const headings = all(boxes, ":scope > ." + HEADING);
    let from = 0;
    for (const {title, sizes} of groups) {
        const ofGroup = labels.slice(from, from += sum(sizes));
        const heading = headings.shift() ?? make("p", {class: HEADING});
        if (ofGroup[0].previousElementSibling !== heading) ofGroup[0].before(heading);
        writeQuietly(heading, `${title} · ${ofGroup.length}`);
        setHidden(heading, ofGroup.every((label) => label.hidden));
    }
    for (const heading of headings) heading.remove();
}

/**
 * Which labels the user wants to see; null for all.
 *
 * @param {HTMLElement} tools
 * @returns {((label: HTMLElement) => boolean) | null}
 */
function filterOf(tools) {
    const words = wordsOf(tools);
    const isOnlyTicked = onlyTicked.get(fieldOf(tools)) === true;
    if (!words.length && !isOnlyTicked) return null;
    const hasAll = (/** @type {string} */ text) => words.every((word) => text.includes(word));
    return (label) => hasAll((label.textContent ?? "").toLowerCase()) && (isTicked(label) || !isOnlyTicked);
}

/**
 * How the server groups a list; one group of different VAEs while the list and this do not match.
 *
 * @param {HTMLElement} list
 * @param {number} count VAEs in the list
 * @returns {Groups}
 */
function groupsOf(list, count) {
    const found = /** @type {Groups} */ (JSON.parse(dataOf(list)));
    const isWhole = sum(found.groups.map(({sizes}) => sum(sizes))) === count;
    return isWhole ? found : {groups: [{title: "", sizes: Array(count).fill(1)}], misfits: []};
}

/** @param {HTMLElement} list */
function dataOf(list) {
    const data = /** @type {HTMLElement | null} */ (find(list.id + "_groups")?.querySelector("[data-vae-groups]"));
    return data?.dataset.vaeGroups ?? '{"groups": [], "misfits": []}';
}

/**
 * Where the files of each VAE are in the list: the first one, and behind the last one.
 *
 * @param {Groups["groups"]} groups
 */
function rangesOf(groups) {
    let from = 0;
    return groups.flatMap(({sizes}) => sizes).map((size) => [from, from += size]);
}

/** @param {HTMLElement} boxes */
function makeTools(boxes) {
    const label = t("Search the VAEs");
    const tools = make(
        "div", {class: SEARCH.slice(1)},
        make("input", {type: "search", placeholder: t("Search"), "aria-label": label, autocomplete: "off"}),
        make("output", {"aria-live": "polite"}),
        make("button", {type: "button", title: t("Show only what is ticked")}),
    );
    boxes.before(tools);
    return tools;
}

const boxesOf = (/** @type {HTMLElement} */ list) => /** @type {HTMLElement | null} */ (list.querySelector(BOXES));
const toolsOf = (/** @type {HTMLElement} */ list) => /** @type {HTMLElement | null} */ (list.querySelector(SEARCH));
const isTicked = (/** @type {HTMLElement} */ label) =>
    /** @type {HTMLInputElement} */ (part(label, "input")).checked;
const sum = (/** @type {number[]} */ numbers) => numbers.reduce((total, number) => total + number, 0);

/** @param {HTMLElement} within the search */
const fieldOf = (within) =>
    /** @type {HTMLInputElement} */ (part(/** @type {HTMLElement} */ (within.closest(SEARCH)), "input"));

const wordsOf = (/** @type {HTMLElement} */ tools) => fieldOf(tools).value.toLowerCase().split(/\s+/).filter(Boolean);

/**
 * @param {HTMLElement} element
 * @param {boolean} isHidden
 */
function setHidden(element, isHidden) {
    if (element.hidden !== isHidden) element.hidden = isHidden;
}
