// @ts-check
// What can be done to the view of a table; each change draws it again.

import {draw, redraw} from "./draw.mjs";
import {clamp, geometry, leadingBox, limitCentre, placeAt, ratio} from "./geometry.mjs";
import {t} from "../shared/text.mjs";

/** @import {Mode, Point, Side, Table, View} from "./types" */

export const MAX_ZOOM = 16;
const ZOOM_STEPS = [1, 2, 3, 4, 5, 6, 8, 12, MAX_ZOOM];

export const isFullScreen = (/** @type {Table} */ table) => document.fullscreenElement === table.grid;

/**
 * @param {Table} table
 * @param {Mode} mode
 */
export function setMode(table, mode) {
    if (table.figures.length < 2) return;
    table.view.mode = mode;
    table.view.other = table.view.auto = false;
    draw(table);
    if (mode !== "grid" && !isFullScreen(table)) table.grid.scrollIntoView({block: "start"}); // the stage fits below it
}

/**
 * @param {Table} table
 * @param {Side} side
 * @param {string} name
 */
export function choose(table, side, name) {
    if (!table.names.includes(name)) return;
    const {view} = table;
    const other = side === "a" ? "b" : "a";
    if (view[other] === name) view[other] = view[side]; // A and B change places
    view[side] = name;
    draw(table);
}

/**
 * The next image that is not A becomes B.
 *
 * @param {Table} table
 * @param {number} step
 */
export function stepB(table, step) {
    const others = table.names.filter((name) => name !== table.view.a);
    if (!others.length) return;
    choose(table, "b", others[(others.indexOf(table.view.b) + step + others.length) % others.length]);
}

/**
 * To another image of the batch.
 *
 * @param {Table} table
 * @param {number} index limited to what there is
 */
export function setImage(table, index) {
    table.view.image = clamp(index, 0, table.batch - 1);
    draw(table);
}

/**
 * The place under the pointer stays where it is; without a pointer, the middle does.
 *
 * @param {Table} table
 * @param {number} zoom s, or 0 to fit
 * @param {HTMLElement} [box] that the pointer is in
 * @param {Point | null} [pointer] CSS pixels
 */
export function setZoom(table, zoom, box = leadingBox(table), pointer = null) {
    const {view} = table;
    const g = geometry(box, view);
    const place = pointer && placeAt(box, view, pointer);
    view.zoom = zoom;
    if (g && place && pointer) {
        const s = zoom || g.fit;
        view.x = place[0] - ((pointer[0] - g.x) * ratio() - g.wide / 2) / (g.columns * s);
        view.y = place[1] - ((pointer[1] - g.y) * ratio() - g.high / 2) / (g.rows * s);
    }
    limitView(table, box);
    draw(table);
}

/**
 * The next zoom step, among which "fit" has its place.
 *
 * @param {Table} table
 * @param {number} step 1 or -1
 * @param {HTMLElement} [box]
 * @param {Point | null} [pointer]
 * @returns {boolean} false if there is no further step
 */
export function stepZoom(table, step, box = leadingBox(table), pointer = null) {
    const g = geometry(box, table.view);
    if (!g) return false;
    const steps = [...ZOOM_STEPS, g.fit].sort((a, b) => a - b);
    const up = steps.find((zoom) => zoom > g.s * 1.001);
    const down = steps.filter((zoom) => zoom < g.s / 1.001).pop();
    const zoom = step > 0 ? up : down;
    if (zoom === undefined) return false;
    setZoom(table, zoom === g.fit ? 0 : zoom, box, pointer);
    return true;
}

/**
 * @param {Table} table
 * @param {HTMLElement} box
 */
function limitView({view}, box) {
    const g = geometry(box, view);
    if (!g) return;
    view.x = limitCentre(g.wide, g.columns * g.s, view.x);
    view.y = limitCentre(g.high, g.rows * g.s, view.y);
}

/**
 * @param {Table} table
 * @param {HTMLElement} box
 * @param {number} dx CSS pixels
 * @param {number} dy
 */
export function pan(table, box, dx, dy) {
    const {view} = table;
    const g = geometry(box, view);
    if (!g) return;
    view.x -= (dx * ratio()) / (g.columns * g.s);
    view.y -= (dy * ratio()) / (g.rows * g.s);
    limitView(table, box);
    redraw(table);
}

/**
 * Move the divider, or change the opacity.
 *
 * @param {Table} table
 * @param {number} share from 0 to 1 of the stage; of the opacity, that of B
 */
export function setSplit(table, share) {
    table.view[table.view.axis === "blend" ? "blend" : "split"] = clamp(share, 0, 1);
    redraw(table);
}

/**
 * What the slider moves.
 *
 * @param {Table} table
 * @param {View["axis"]} axis
 */
export function setAxis(table, axis) {
    table.view.axis = axis;
    if (table.view.mode === "slider") draw(table);
    else setMode(table, "slider");
}

/**
 * What the difference map shows.
 *
 * @param {Table} table
 * @param {View["metric"]} metric
 */
export function setMetric(table, metric) {
    table.view.metric = metric;
    draw(table);
}

/**
 * The map of ΔE; if it is shown already, that of RGB.
 *
 * @param {Table} table
 */
export function turnMetric(table) {
    const isShown = table.view.mode === "difference" && table.view.metric === "lab";
    table.view.metric = isShown ? "rgb" : "lab";
    setMode(table, "difference");
}

/**
 * Show the crosshair, at the pointer or in the middle of the view; or hide it.
 *
 * @param {Table} table
 */
export function toggleCross(table) {
    const {view} = table;
    view.cross = !view.cross;
    view.at = view.cross ? view.at ?? [view.x, view.y] : null;
    draw(table);
}

/**
 * Move the crosshair; the view follows where it leaves it.
 *
 * @param {Table} table
 * @param {number} dx image pixels
 * @param {number} dy
 */
export function moveCross(table, dx, dy) {
    const {view} = table;
    const box = leadingBox(table);
    const g = geometry(box, view);
    if (!g || !view.at) return;
    const step = (/** @type {number} */ place, /** @type {number} */ pixels, /** @type {number} */ by) =>
        (clamp(Math.floor(place * pixels) + by, 0, pixels - 1) + 0.5) / pixels;
    view.at = [step(view.at[0], g.columns, dx), step(view.at[1], g.rows, dy)];
    const isInView = [g.left + view.at[0] * g.columns * g.s, g.top + view.at[1] * g.rows * g.s].every(
        (place, i) => place >= 0 && place < [g.wide, g.high][i]);
    if (!isInView) [view.x, view.y] = view.at;
    limitView(table, box);
    redraw(table);
}

/**
 * Show B in Blink, or A again.
 *
 * @param {Table} table
 * @param {boolean} other
 */
export function showOther(table, other) {
    if (table.view.other === other) return;
    table.view.other = other;
    draw(table);
}

/**
 * Show B in Blink until `showOther` ends it; this also stops the automatic change.
 *
 * @param {Table} table
 */
export function holdOther(table) {
    table.view.auto = false;
    table.view.other = true;
    draw(table);
}

/**
 * @param {Table} table
 * @param {"loupe" | "help" | "follow" | "histogram"} what
 */
export function toggle(table, what) {
    table.view[what] = !table.view[what];
    draw(table);
}

/** @param {Table} table */
export function toggleFullScreen(table) {
    const done = document.fullscreenElement ? document.exitFullscreen() : table.grid.requestFullscreen?.();
    if (!done) showMessage(table, t("This browser does not support full screen."));
    done?.catch((error) => showMessage(table, t("Full screen failed: {reason}", {reason: error.message})));
}

/**
 * A message next to the tools.
 *
 * @param {Table} table
 * @param {...(string | Node)} content
 */
export function showMessage(table, ...content) {
    table.message.replaceChildren(...content);
}
