// @ts-check
// The map of the colour difference CIEDE2000 between A and B, pixel by pixel, on a fixed scale.

import {setAttribute, write} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {deltaE, labOf} from "./color.mjs";
import {readBytes} from "./difference.mjs";
import {isLoaded, sizeOf} from "./geometry.mjs";

/** @import {HeatMap, Table} from "./types" */

export const MAX_DELTA_E = 10; // the end of the scale
const WORK_MS = 30; // for one frame; a large map takes several
// Inferno of matplotlib: lighter means more, also without colour vision.
const STOPS = [
    [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10],
    [249, 201, 50], [252, 255, 164],
];
const COLORS = Uint8Array.from({length: 3 * 256}, (_, i) => {
    const place = (Math.floor(i / 3) / 255) * (STOPS.length - 1);
    const [low, high] = [STOPS[Math.floor(place)], STOPS[Math.ceil(place)]];
    return Math.round(low[i % 3] + (place % 1) * (high[i % 3] - low[i % 3]));
});

/** The scale, as a background of the style sheet's language. */
export const GRADIENT = `linear-gradient(90deg, ${STOPS.map((color) => `rgb(${color.join(" ")})`).join(", ")})`;

/**
 * Draw what can be computed in one frame's time.
 *
 * @param {Table} table
 * @returns {boolean} whether the map is complete; else it needs another call
 */
export function drawHeat(table) {
    const {view, layers} = table;
    setAttribute(layers.map, "aria-label", t("ΔE between {a} and {b}", {a: view.a, b: view.b}));
    const [width, height] = sizeOf(layers.a);
    const isComparable = String(sizeOf(layers.b)) === String([width, height]);
    layers.map.hidden = !isLoaded(layers.a) || !isLoaded(layers.b) || !isComparable; // their load event draws it again
    if (layers.map.hidden) {
        write(table.largest, isComparable ? "" : t("The images differ in size"));
        return true;
    }
    const key = `${layers.a.src} ${layers.b.src}`;
    if (table.heat?.key !== key) table.heat = begin(table, key, width, height);
    const {heat} = table;
    const painted = `ΔE ${key}`;
    if (layers.map.dataset.painted !== painted) {
        layers.map.dataset.painted = painted;
        Object.assign(layers.map, {width, height});
        layers.map.getContext("2d")?.putImageData(heat.image, 0, 0);
    }
    const first = heat.rows;
    for (const end = performance.now() + WORK_MS; heat.rows < height && performance.now() < end;) computeRow(heat);
    layers.map.getContext("2d")?.putImageData(heat.image, 0, 0, 0, first, width, heat.rows - first);
    const isComplete = heat.rows === height;
    if (isComplete) heat.a = heat.b = null;
    const values = {mean: (heat.sum / (width * height)).toFixed(2), largest: heat.largest.toFixed(1)};
    write(table.largest, isComplete ? t("ΔE mean {mean}, largest {largest}", values) : "");
    return isComplete;
}

/**
 * @param {Table} table
 * @param {string} key
 * @param {number} width
 * @param {number} height
 * @returns {HeatMap}
 */
function begin({layers}, key, width, height) {
    const [a, b] = [readBytes(layers.a, width, height), readBytes(layers.b, width, height)];
    return {key, a, b, image: new ImageData(width, height), rows: 0, sum: 0, largest: 0};
}

/** @param {HeatMap} heat */
function computeRow(heat) {
    const {a, b, image: {data, width}} = heat;
    if (!a || !b) return;
    for (let i = 4 * width * heat.rows, end = i + 4 * width; i < end; i += 4) {
        const isEqual = a[i] === b[i] && a[i + 1] === b[i + 1] && a[i + 2] === b[i + 2];
        const value = isEqual ? 0 : deltaE(labOf(a[i], a[i + 1], a[i + 2]), labOf(b[i], b[i + 1], b[i + 2]));
        heat.sum += value;
        if (value > heat.largest) heat.largest = value;
        const color = 3 * Math.min(255, Math.round((255 * value) / MAX_DELTA_E));
        data[i] = COLORS[color];
        data[i + 1] = COLORS[color + 1];
        data[i + 2] = COLORS[color + 2];
        data[i + 3] = 255;
    }
    heat.rows += 1;
}
