// @ts-check
// The colours of one pixel: at the pointer, or at the crosshair that the keyboard moves.

import {part, setAttribute, writeQuietly} from "../shared/dom.mjs";
import {deltaE, labOf} from "./color.mjs";
import {geometry, imageIn, isLoaded, ratio, sizeOf, visibleBox} from "./geometry.mjs";

/**
 * @import {Rgb} from "./color.mjs"
 * @import {Figure, Point, Table} from "./types"
 */

const context = pixelContext();

function pixelContext() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    return canvas.getContext("2d", {willReadFrequently: true});
}

/** @param {Table} table */
export function drawReadout(table) {
    const {view, figures} = table;
    const shown = figures.filter((figure) => !figure.isMap);
    const a = shown.find((figure) => figure.name === view.a);
    const colorA = a ? colorOf(a, table) : null;
    const b = shown.find((figure) => figure.name === view.b);
    const isGrid = view.mode === "grid";
    for (const figure of shown) writeQuietly(figure.pixel, isGrid ? figureText(table, figure, colorA) : "");
    writeQuietly(table.readout, isGrid ? "" : pairText(table, colorA, b ? colorOf(b, table) : null));
    setAttribute(table.readout, "aria-live", view.cross ? "polite" : "off"); // a pointer needs no voice
    for (const box of [...figures.map((figure) => visibleBox(figure, view)), table.stage]) drawCross(table, box);
}

/**
 * @param {Table} table
 * @param {Figure} figure
 * @param {Rgb | null} colorA
 */
function figureText(table, figure, colorA) {
    const color = colorOf(figure, table);
    const delta = color && colorA && figure.name !== table.view.a ? differenceText(colorA, color) : "";
    return color ? `RGB ${color.join(" ")}${delta}` : "";
}

/**
 * @param {Rgb} colorA
 * @param {Rgb} color
 */
function differenceText(colorA, color) {
    return ` · ΔE ${deltaE(labOf(...colorA), labOf(...color)).toFixed(1)}`;
}

/**
 * @param {Table} table
 * @param {Rgb | null} colorA
 * @param {Rgb | null} colorB
 */
function pairText({view, layers}, colorA, colorB) {
    if (!view.at || !colorA || !colorB) return "";
    const [x, y] = pixelAt(layers.a, view.at);
    return `x ${x}  y ${y} · A ${colorA.join(" ")} · B ${colorB.join(" ")}${differenceText(colorA, colorB)}`;
}

/**
 * @param {HTMLImageElement} image
 * @param {Point} at
 * @returns {Point}
 */
function pixelAt(image, at) {
    const [x, y] = sizeOf(image).map((length, i) => Math.min(Math.floor(at[i] * length), length - 1));
    return [x, y];
}

/**
 * @param {Figure} figure
 * @param {Table} table
 * @returns {Rgb | null}
 */
function colorOf(figure, {view}) {
    const image = imageIn(visibleBox(figure, view));
    if (!view.at || !context || !isLoaded(image)) return null;
    context.drawImage(image, ...pixelAt(image, view.at), 1, 1, 0, 0, 1, 1);
    const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
    return [red, green, blue];
}

/**
 * @param {Table} table
 * @param {HTMLElement} box
 */
function drawCross({view}, box) {
    const cross = part(box, ".vae-lab-cross");
    const g = view.cross && view.at && !box.hidden ? geometry(box, view) : null;
    cross.hidden = !g;
    if (!g || !view.at) return;
    const middle = (/** @type {number} */ place, /** @type {number} */ pixels) =>
        Math.min(Math.floor(place * pixels), pixels - 1) + 0.5;
    cross.style.left = `${(g.left + middle(view.at[0], g.columns) * g.s) / ratio()}px`;
    cross.style.top = `${(g.top + middle(view.at[1], g.rows) * g.s) / ratio()}px`;
}
