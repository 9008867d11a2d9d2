// @ts-check
// The loupe: a magnifying glass at the same place in every image.

import {part} from "../shared/dom.mjs";
import {clamp, geometry, imageIn, isLoaded, isStage, ratio, visibleBox} from "./geometry.mjs";

/** @import {Geometry, Point, Table, View} from "./types" */

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
 * An image or map, and what is drawn over it: with an opacity, or to the left of an edge (or above it), which is in
 * image pixels from the middle of the loupe.
 *
 * @typedef {HTMLImageElement | HTMLCanvasElement} Layer
 * @typedef {{layer: Layer, over?: Layer, axis?: View["axis"], edge?: number, opacity?: number}} Layers
 */

/**
 * What the stage shows at a place: both sides of the divider, if it is near.
 *
 * @param {Table} table
 * @param {Geometry} g
 * @param {Point} at
 * @returns {Layers}
 */
function stageLayers(table, g, [u, v]) {
    const {view, layers} = table;
    if (view.mode === "difference") return {layer: layers.map};
    if (view.mode === "blink") return {layer: view.other ? layers.b : layers.a};
    const both = {layer: layers.b, over: layers.a, axis: view.axis};
    if (view.axis === "blend") return {...both, opacity: 1 - view.blend};
    if (view.axis === "y") return {...both, edge: (Math.round(view.split * g.high) - g.top) / g.s - v * g.rows};
    return {...both, edge: (Math.round(view.split * g.wide) - g.left) / g.s - u * g.columns};
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Geometry} g
 * @param {Point} at
 * @param {number} s zoom of the leading window
 * @param {Layers} layers
 */
function drawLoupe(canvas, g, [u, v], s, {layer, over, axis, edge = 0, opacity = 1}) {
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
    const end = axis === "blend" ? side : side / 2 + edge * magnification;
    context.rect(0, 0, axis === "y" ? side : end, axis === "y" ? end : side);
    context.clip();
    context.globalAlpha = opacity;
    paint(over);
    context.restore();
}
