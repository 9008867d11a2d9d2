// @ts-check
// Where images lie in their windows. One unit is used everywhere: s, device pixels per image pixel. At whole numbers
// every image pixel is a square of s x s device pixels.

import {part} from "../shared/dom.mjs";

/** @import {Figure, Geometry, Point, Table, View} from "./types" */

export const clamp = (/** @type {number} */ value, /** @type {number} */ low, /** @type {number} */ high) =>
    Math.min(Math.max(value, low), high);
export const ratio = () => window.devicePixelRatio || 1;

export const imageIn = (/** @type {HTMLElement} */ box) => /** @type {HTMLImageElement} */ (part(box, "img"));
export const isStage = (/** @type {HTMLElement} */ box) => box.classList.contains("vae-lab-stage");
export const isLoaded = (/** @type {HTMLImageElement} */ image) => image.complete && image.naturalWidth > 0;

/**
 * The window of a figure that shows the chosen image of its batch.
 *
 * @param {Figure} figure
 * @param {View} view
 */
export const visibleBox = (figure, view) => figure.boxes[Math.min(view.image, figure.boxes.length - 1)];

/**
 * [width, height] of an image in pixels, before and after it has loaded.
 *
 * @param {HTMLImageElement} image
 * @returns {[number, number]}
 */
export function sizeOf(image) {
    const width = image.naturalWidth || Number(image.getAttribute("width")) || image.width;
    return [width, image.naturalHeight || Number(image.getAttribute("height")) || image.height];
}

/**
 * The nearest centre of the view that leaves no gap at an edge of the image.
 *
 * @param {number} length of the window
 * @param {number} size of the image at the current zoom
 * @param {number} centre from 0 to 1
 */
export function limitCentre(length, size, centre) {
    const half = length / (2 * size);
    return half >= 0.5 ? 0.5 : clamp(centre, half, 1 - half);
}

/**
 * Where the image lies in its window; null while either has no size.
 *
 * @param {HTMLElement} box
 * @param {View} view
 * @returns {Geometry | null}
 */
export function geometry(box, view) {
    const {width, height, left, top} = box.getBoundingClientRect();
    const [columns, rows] = sizeOf(imageIn(box));
    if (!width || !height || !columns || !rows) return null;
    const wide = width * ratio();
    const high = height * ratio();
    let fit = Math.min(wide / columns, high / rows);
    if (fit > 0.999) fit = Math.floor(fit + 0.001); // between whole numbers some rows would be doubled, others not
    const s = view.zoom || fit;
    const edge = (/** @type {number} */ length, /** @type {number} */ size, /** @type {number} */ centre) =>
        Math.round(length / 2 - limitCentre(length, size, centre) * size);
    return {
        s, fit, wide, high, columns, rows, x: left, y: top,
        left: edge(wide, columns * s, view.x), top: edge(high, rows * s, view.y),
    };
}

/**
 * The window that stands for all of them.
 *
 * @param {Table} table
 */
export function leadingBox(table) {
    return table.view.mode === "grid" ? visibleBox(table.figures[0], table.view) : table.stage;
}

/**
 * The place in the image that is at a place of the page.
 *
 * @param {HTMLElement} box
 * @param {View} view
 * @param {Point} client CSS pixels
 * @returns {Point | null} from 0 to 1 inside the image
 */
export function placeAt(box, view, [clientX, clientY]) {
    const g = geometry(box, view);
    if (!g) return null;
    const [x, y] = [(clientX - g.x) * ratio(), (clientY - g.y) * ratio()];
    return [(x - g.left) / (g.columns * g.s), (y - g.top) / (g.rows * g.s)];
}
