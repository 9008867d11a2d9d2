// @ts-check
// The loupe: a magnifying glass at the same place in every image.

import {part} from "../shared/dom.mjs";
import {clamp, geometry, imageIn, isLoaded, isStage, ratio, visibleBox} from "./geometry.mjs";

/** @import {Geometry, Point, Table} from "./types" */

const SIDE = 180; // CSS pixels, less in small figures

/**
 * @param {Table} table
 * @param {Geometry | null} leading of the window that stands for all of them
 */
export function drawLoupes(table, leading) {
    const {view} = table;
    const boxes = table.figures.map((figure) => visibleBox(figure, view));
    for (const box of [...boxes, table.stage]) {
        const canvas = /** @type {HTMLCanvasElement} */ (part(box, ".vae-lab-loupe"));
        const g = view.loupe && view.at && leading && !box.hidden ? geometry(box, view) : null;
        canvas.hidden = !g;
        if (!g || !view.at || !leading) continue;
        const layers = isStage(box) ? stageLayers(table, g, view.at) : {layer: imageIn(box)};
        drawLoupe(canvas, g, view.at, leading.s, layers);
    }
}

/**
 * An image or map, and what is drawn over it to the left of an edge, in image pixels from the middle of the loupe.
 *
 * @typedef {HTMLImageElement | HTMLCanvasElement} Layer
 * @typedef {{layer: Layer, over?: Layer, edge?: number}} Layers
 */

/**
 * What the stage shows at a place: both sides of the divider, if it is near.
 *
 * @param {Table} table
 * @param {Geometry} g
 * @param {Point} at
 * @returns {Layers}
 */
function stageLayers(table, g, [u]) {
    const {view, layers} = table;
    if (view.mode === "difference") return {layer: layers.map};
    if (view.mode === "blink") return {layer: view.other ? layers.b : layers.a};
    const edge = (Math.round(view.split * g.wide) - g.left) / g.s; // in image pixels
    return {layer: layers.b, over: layers.a, edge: edge - u * g.columns};
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Geometry} g
 * @param {Point} at
 * @param {number} s zoom of the leading window
 * @param {Layers} layers
 */
function drawLoupe(canvas, g, [u, v], s, {layer, over, edge = 0}) {
    const side = Math.round(Math.min(SIDE * ratio(), g.wide / 2, g.high / 2));
    const magnification = s > 1 ? Math.max(8, 2 * Math.round(s)) : 4;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const left = clamp(g.left + u * g.columns * g.s - side / 2, 0, g.wide - side);
    const top = clamp(g.top + v * g.rows * g.s - side / 2, 0, g.high - side);
    const px = (/** @type {number} */ length) => `${Math.round(length) / ratio()}px`;
    Object.assign(canvas.style, {width: px(side), height: px(side), left: px(left), top: px(top)});
    const middle = (/** @type {number} */ place, /** @type {number} */ pixels) =>
        Math.min(Math.floor(place * pixels), pixels - 1) + 0.5;
    const x = Math.round(side / 2 - middle(u, g.columns) * magnification);
    const y = Math.round(side / 2 - middle(v, g.rows) * magnification);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, side, side);
    const paint = (/** @type {Layer} */ source) => {
        if (source instanceof HTMLImageElement && !isLoaded(source)) return;
        context.drawImage(source, x, y, g.columns * magnification, g.rows * magnification);
    };
    paint(layer);
    if (!over) return;
    context.save();
    context.beginPath();
    context.rect(0, 0, side / 2 + edge * magnification, side);
    context.clip();
    paint(over);
    context.restore();
}
