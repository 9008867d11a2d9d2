// @ts-check
// Tables that a click on a heading sorts, and that can be copied as tab-separated text.
//
// Gradio may replace elements at any time, so one listener on the document does it all. A cell's data-value is what it
// is sorted by, and data-copy what is copied if that differs.

import {toClipboard} from "../shared/clipboard.mjs";
import {all, closest} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";

const MESSAGE_MS = 2500;

const collator = new Intl.Collator(undefined, {numeric: true, sensitivity: "base"});

export function start() {
    document.addEventListener("click", onClick);
}

/** @param {MouseEvent} event */
function onClick(event) {
    const heading = closest(event, ".vae-lab-sortable thead .vae-lab-sort")?.closest("th");
    if (heading) sort(heading);
    const box = closest(event, ".vae-lab-tabular .vae-lab-copy")?.closest(".vae-lab-tabular");
    if (box) copy(box);
}

// --- sorting ---------------------------------------------------------------------------------------------------------

/**
 * Numbers begin with the largest, names with A; a second click reverses that, a third restores the first order.
 *
 * @param {HTMLElement} heading
 * @param {boolean} isText
 * @returns {string}
 */
function nextOrder(heading, isText) {
    const first = isText ? "ascending" : "descending";
    const second = isText ? "descending" : "ascending";
    return {none: first, [first]: second, [second]: "none"}[heading.getAttribute("aria-sort") ?? "none"] ?? first;
}

/** @param {HTMLTableCellElement} heading */
function sort(heading) {
    const table = heading.closest("table");
    const body = table?.tBodies[0];
    if (!table?.tHead || !body) return;
    const values = new Map([...body.rows].map((row) => [row, row.cells[heading.cellIndex]?.dataset.value]));
    const isText = [...values.values()].some((value) => value !== undefined && Number.isNaN(Number(value)));
    const order = nextOrder(heading, isText);
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    /** @type {(a: HTMLTableRowElement, b: HTMLTableRowElement) => number} */
    const byFirstOrder = (a, b) => Number(a.dataset.order) - Number(b.dataset.order);
    /** @type {(a: HTMLTableRowElement, b: HTMLTableRowElement) => number} */
    const byValue = (a, b) => {
        const [x, y] = [values.get(a), values.get(b)];
        if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined); // those last
        if (x === y) return 0;
        return sign * (isText ? collator.compare(x, y) : Number(x) < Number(y) ? -1 : 1);
    };
    body.append(...[...body.rows].sort((a, b) => (order !== "none" && byValue(a, b)) || byFirstOrder(a, b)));
}

// --- copying ---------------------------------------------------------------------------------------------------------

/** @param {Element} box around a table */
async function copy(box) {
    const table = box.querySelector("table");
    const isDone = table !== null && (await toClipboard(asText(table)));
    const message = box.querySelector(".vae-lab-copied");
    if (!message) return;
    message.textContent = isDone ? t("Copied") : t("The browser does not allow it");
    setTimeout(() => { message.textContent = ""; }, MESSAGE_MS);
}

/** @param {HTMLTableElement} table */
function asText(table) {
    const headings = all(table, "thead tr:first-child > *");
    const head = headings.map((cell) => (cell.querySelector("button") ?? cell).textContent ?? "");
    const rows = [...table.tBodies[0].rows].map((row) =>
        [...row.cells].map((cell) => cell.dataset.copy ?? cell.dataset.value ?? ""));
    return [head, ...rows].map((cells) => cells.map(escapeCell).join("\t")).join("\n") + "\n";
}

/**
 * One cell stays one cell, and no name becomes a formula.
 *
 * @param {string} text
 */
function escapeCell(text) {
    const line = text.replace(/\s+/g, " ").trim();
    return /^[=+@-]/.test(line) && Number.isNaN(Number(line)) ? `'${line}` : line;
}
