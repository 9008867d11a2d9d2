// @ts-check
// A and B in turn, by themselves. Never starts unless the user starts it, and ends when Blink is left.

import {draw} from "./draw.mjs";
import {clamp} from "./geometry.mjs";
import {setMode, showOther} from "./view.mjs";

/** @import {Table} from "./types" */

export const MIN_RATE = 0.5; // changes per second
export const MAX_RATE = 4; // two flashes per second; more than three may harm

/** @type {WeakMap<Table, ReturnType<typeof setInterval>>} */
const timers = new WeakMap();

/**
 * Start or stop.
 *
 * @param {Table} table
 */
export function toggleAuto(table) {
    const isOn = !table.view.auto;
    if (isOn && table.view.mode !== "blink") setMode(table, "blink");
    table.view.auto = isOn && table.view.mode === "blink";
    run(table);
    draw(table);
}

/**
 * @param {Table} table
 * @param {number} rate changes per second
 */
export function setRate(table, rate) {
    table.view.rate = clamp(rate, MIN_RATE, MAX_RATE);
    run(table);
    draw(table);
}

/** @param {Table} table */
function run(table) {
    clearInterval(timers.get(table));
    if (!table.view.auto) return;
    timers.set(table, setInterval(() => turn(table), 1000 / table.view.rate));
}

/** @param {Table} table */
function turn(table) {
    if (!table.view.auto || !table.grid.isConnected) clearInterval(timers.get(table));
    else if (!document.hidden) showOther(table, !table.view.other);
}
