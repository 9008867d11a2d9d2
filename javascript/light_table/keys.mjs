// @ts-check
// The keyboard.

import {answerBlind, startBlind} from "./blind.mjs";
import {toggleAuto} from "./blink.mjs";
import {noteInput, wasByPointer} from "./controls.mjs";
import {leadingBox} from "./geometry.mjs";
import {all} from "../shared/dom.mjs";
import {
    choose, holdOther, moveCross, pan, setAxis, setImage, setMode, setSplit, setZoom, showOther, stepB, stepZoom,
    toggle, toggleCross, toggleFullScreen, turnMetric,
} from "./view.mjs";

/** @import {Answer, Table} from "./types" */

const HOLD_MS = 350; // L held for longer switches the loupe off when it is released
const TEXT_FIELDS = "input:not([type=range], [type=checkbox], [type=radio]), textarea, select, [contenteditable]";

/** @type {(grid: Element | null) => Table | null} */
let tableOf = () => null;
/** @type {EventTarget | null} */
let lastFocused = null;
let isFocusByPointer = true; // else the focused element keeps the keys, whatever is under the mouse
/** @type {{table: Table, since: number} | null} */
let loupePress = null; // while the key L is down

/**
 * Listen to the page.
 *
 * @param {(grid: Element | null) => Table | null} lookUp the table of a grid
 */
export function listenToKeys(lookUp) {
    tableOf = lookUp;
    document.addEventListener("keydown", onKeyDown, true);
    document.addEventListener("keyup", onKeyUp, true);
    document.addEventListener("focusin", onFocus, true);
    window.addEventListener("blur", releaseAll);
}

/**
 * The table that keys are for: it has the focus, fills the screen, or is under the pointer.
 *
 * @param {KeyboardEvent} event
 * @returns {Table | null}
 */
function targetTable(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return null;
    const focused = document.activeElement;
    if (isTextField(focused)) return null;
    const canHover = isFocusByPointer || focused === document.body;
    const hovered = canHover ? document.querySelector(".vae-lab-grid:hover") : null;
    const grid = document.fullscreenElement ?? focused?.closest(".vae-lab-grid") ?? hovered;
    const table = tableOf(grid);
    return table?.grid.getClientRects().length ? table : null; // none on a page that is hidden
}

/** @param {Element | null} element */
function isTextField(element) {
    return element instanceof HTMLElement && (element.matches(TEXT_FIELDS) || element.isContentEditable);
}

/**
 * A window that comes back gives the focus to what had it before, which is no choice of the user.
 *
 * @param {FocusEvent} event
 */
function onFocus(event) {
    if (event.target !== lastFocused) isFocusByPointer = wasByPointer();
    lastFocused = event.target;
}

/** @param {KeyboardEvent} event */
function onKeyDown(event) {
    noteInput(false);
    const table = targetTable(event);
    const action = table && actionOfKey(table, event);
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
}

/**
 * @param {Table} table
 * @param {KeyboardEvent} event
 * @returns {(() => unknown) | null | undefined}
 */
function actionOfKey(table, event) {
    const key = keyOf(event);
    if (key.startsWith("Arrow")) return actionOfArrow(table, key, event.shiftKey);
    if (table.isBlind && /^[0-9]$/.test(key)) return answerOfDigit(table, key, event.repeat || event.shiftKey);
    if (key === "0") return () => setZoom(table, 0);
    if (/^[1-9]$/.test(key)) {
        const name = table.names[Number(key) - 1];
        return name ? () => choose(table, event.shiftKey ? "a" : "b", name) : null;
    }
    const once = (/** @type {() => unknown} */ action) => (event.repeat ? () => {} : action);
    const under = figureUnderPointer(table);
    /** @type {Record<string, (() => unknown) | null | undefined | false>} */
    const actions = {
        "+": () => stepZoom(table, 1), "=": () => stepZoom(table, 1), "-": () => stepZoom(table, -1),
        ",": () => setImage(table, table.view.image - 1), ".": () => setImage(table, table.view.image + 1),
        n: () => stepB(table, 1), p: () => stepB(table, -1),
        f: once(() => toggleFullScreen(table)), l: once(() => pressLoupe(table)),
        h: once(() => toggle(table, "histogram")),
        "?": once(() => toggle(table, "help")), Escape: escape(table), x: once(() => toggleCross(table)),
        a: under && (() => choose(table, "a", under.name)), b: under && (() => choose(table, "b", under.name)),
        " ": takesSpace(table) && once(() => blink(table)),
    };
    const ofStage = stageAction(table, key);
    return (ofStage ? once(ofStage) : actions[key]) || null;
}

/**
 * What a key does with the stage.
 *
 * @param {Table} table
 * @param {string} key
 * @returns {(() => unknown) | undefined}
 */
function stageAction(table, key) {
    /** @type {Record<string, (() => unknown) | undefined>} */
    const actions = {
        g: () => setMode(table, "grid"), s: () => setMode(table, "slider"), d: () => setMode(table, "difference"),
        e: () => turnMetric(table), v: () => setAxis(table, table.view.axis === "x" ? "y" : "x"),
        o: () => setAxis(table, "blend"), m: () => toggle(table, "follow"),
        t: table.isBlind ? undefined : () => startBlind(table), r: () => toggleAuto(table),
    };
    return actions[key];
}

/**
 * In a blind test.
 *
 * @param {Table} table
 * @param {string} digit
 * @param {boolean} isMistake with Shift, or the key is still down
 */
function answerOfDigit(table, digit, isMistake) {
    /** @type {Record<string, Answer | undefined>} */
    const answers = {0: "none", 1: "left", 2: "right"};
    const answer = answers[digit];
    return answer && !isMistake ? () => answerBlind(table, answer) : null;
}

/** @param {Table} table */
function escape(table) {
    if (table.view.help) return () => toggle(table, "help");
    return table.view.cross && (() => toggleCross(table));
}

/**
 * What a key means on any keyboard: digits by their position, since on some keyboards those keys have signs, and Shift
 * turns them into signs; letters by their position where the keyboard has no Latin letters.
 *
 * @param {KeyboardEvent} event
 * @returns {string}
 */
function keyOf({key = "", code = ""}) {
    const digit = /^Digit([0-9])$/.exec(code)?.[1] ?? (/^Numpad/.test(code) && /^[0-9]$/.test(key) ? key : null);
    if (digit !== null) return digit;
    const letter = /^Key([A-Z])$/.exec(code)?.[1];
    if (letter && /^\p{L}$/u.test(key) && !/^[a-z]$/i.test(key)) return letter.toLowerCase();
    return key.length === 1 ? key.toLowerCase() : key;
}

/** @type {Record<string, [number, number]>} */
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

/**
 * @param {Table} table
 * @param {string} key
 * @param {boolean} isFar
 */
function actionOfArrow(table, key, isFar) {
    const {view} = table;
    const focused = document.activeElement;
    const [dx, dy] = ARROWS[key];
    if (focused?.matches("input")) return null; // a range or a radio button, which arrows change
    if (view.cross && focused !== table.divider) {
        return () => moveCross(table, (isFar ? 10 : 1) * dx, (isFar ? 10 : 1) * dy);
    }
    const [along, across] = view.axis === "y" ? [dy, dx] : [dx, -dy];
    if (view.mode === "slider" && (focused === table.divider || (along && !view.zoom))) {
        const share = view.axis === "blend" ? view.blend : view.split;
        return () => setSplit(table, share + (along + across) * (isFar ? 0.1 : 0.01));
    }
    if (!view.zoom) return null;
    const box = leadingBox(table);
    const step = Math.min(box.clientWidth, box.clientHeight) / (isFar ? 2 : 8);
    return () => pan(table, box, -dx * step, -dy * step);
}

/** @param {Table} table */
function figureUnderPointer(table) {
    const figure = table.grid.querySelector("figure:hover") ?? document.activeElement?.closest("figure");
    return table.figures.find((other) => other.figure === figure);
}

/**
 * Space presses the button that has the focus, except those that it could only press without effect.
 *
 * @param {Table} table
 */
function takesSpace(table) {
    const focused = document.activeElement;
    if (!table.grid.contains(focused) || !(focused instanceof HTMLButtonElement)) return true;
    const {act, value} = focused.dataset;
    return act === "hold" || (act === "mode" && value === "blink" && table.view.mode === "blink");
}

/** @param {Table} table */
function blink(table) {
    if (table.view.mode !== "blink") setMode(table, "blink");
    if (table.view.mode === "blink") holdOther(table);
}

/** @param {Table} table */
function pressLoupe(table) {
    loupePress = table.view.loupe ? null : {table, since: Date.now()};
    toggle(table, "loupe");
}

/**
 * Wherever the key is released: the pointer may have left the table meanwhile.
 *
 * @param {KeyboardEvent} event
 */
function onKeyUp(event) {
    if (event.key === " ") {
        const table = targetTable(event);
        if (table && takesSpace(table)) event.preventDefault(); // some browsers press buttons only now
        releaseAll();
    }
    if (!loupePress || keyOf(event) !== "l") return;
    const {table, since} = loupePress;
    if (table.view.loupe && Date.now() - since > HOLD_MS) toggle(table, "loupe");
    loupePress = null;
}

function releaseAll() {
    for (const grid of all(document, ".vae-lab-grid")) {
        const table = tableOf(grid);
        if (table) showOther(table, false);
    }
}
