// @ts-check
// Histograms of A and B: how often each level occurs, in luma and in each channel.

import {make, part, setAttribute} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {readBytes} from "./difference.mjs";
import {imageIn, isLoaded, ratio, sizeOf, visibleBox} from "./geometry.mjs";

/** @import {Side, Table} from "./types" */

const HEIGHT = 72; // CSS pixels
const CHANNELS = [t("Luma"), t("Red"), t("Green"), t("Blue")];
const COLORS = ["", "#d92d20", "#17a34a", "#2f6fed"]; // of A; luma has the colour of quiet text

/** Four charts, each with A as an area and B as a line. */
export function buildHistogram() {
    const charts = CHANNELS.map((title) => make("span", {class: "vae-lab-chart"},
        make("canvas", {role: "img", "aria-label": t("{channel}: levels of A and B", {channel: title})}),
        title));
    const legend = make("p", {class: "vae-lab-quiet"}, t("Filled: A. Line: B. From black on the left to white."));
    return {histogram: make("div", {class: "vae-lab-histogram"}, ...charts, legend)};
}

/** @param {Table} table */
export function drawHistogram(table) {
    const {histogram, view} = table;
    histogram.hidden = !view.histogram;
    if (histogram.hidden) return;
    const [a, b] = [levelsOf(table, "a"), levelsOf(table, "b")];
    const style = getComputedStyle(histogram);
    const key = `${a?.src} ${b?.src} ${histogram.clientWidth} ${ratio()} ${style.color}`;
    if (histogram.dataset.painted === key) return;
    setAttribute(histogram, "data-painted", key);
    const quiet = getComputedStyle(part(histogram, "p")).color;
    [...histogram.querySelectorAll("canvas")].forEach((canvas, channel) => {
        canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio()));
        canvas.height = Math.round(HEIGHT * ratio());
        const context = canvas.getContext("2d");
        if (!context) return;
        // The ends of the scale would hide everything between them in an image that is clipped.
        const between = [a, b].flatMap((levels) => [...(levels?.counts[channel] ?? [])].slice(1, -1));
        const highest = Math.max(1e-9, ...between);
        context.fillStyle = COLORS[channel] || quiet;
        context.strokeStyle = style.color;
        context.lineWidth = Math.max(1, ratio());
        context.lineJoin = "bevel"; // a point would reach above its count
        if (a) context.fill(outline(canvas, a.counts[channel], highest, true));
        if (b) context.stroke(outline(canvas, b.counts[channel], highest, false));
    });
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Float64Array} counts of 256 levels
 * @param {number} highest count that fits
 * @param {boolean} isArea closed along the bottom
 */
function outline({width, height}, counts, highest, isArea) {
    const path = new Path2D();
    const y = (/** @type {number} */ level) => height * (1 - 0.95 * Math.min(1, counts[level] / highest));
    path.moveTo(0, isArea ? height : y(0));
    for (let level = 0; level < 256; level++) {
        path.lineTo((level * width) / 256, y(level));
        path.lineTo(((level + 1) * width) / 256, y(level));
    }
    if (isArea) path.lineTo(width, height);
    return path;
}

/**
 * @typedef {{src: string, counts: Float64Array[]}} Levels shares of 256 levels, of luma, red, green and blue
 */

/** @type {WeakMap<HTMLImageElement, Levels>} */
const known = new WeakMap();

/**
 * @param {Table} table
 * @param {Side} side
 * @returns {Levels | null}
 */
function levelsOf({figures, view}, side) {
    const figure = figures.find((each) => each.name === view[side]);
    const image = figure && imageIn(visibleBox(figure, view));
    if (!image || !isLoaded(image)) return null;
    let levels = known.get(image);
    if (levels?.src !== image.src) {
        levels = {src: image.src, counts: countLevels(image)};
        known.set(image, levels);
    }
    return levels;
}

/** @param {HTMLImageElement} image */
function countLevels(image) {
    const [width, height] = sizeOf(image);
    const bytes = readBytes(image, width, height);
    const counts = CHANNELS.map(() => new Float64Array(256));
    const [luma, red, green, blue] = counts;
    const one = 1 / (width * height);
    for (let i = 0; i < bytes.length; i += 4) {
        luma[Math.round(0.299 * bytes[i] + 0.587 * bytes[i + 1] + 0.114 * bytes[i + 2])] += one;
        red[bytes[i]] += one;
        green[bytes[i + 1]] += one;
        blue[bytes[i + 2]] += one;
    }
    return counts;
}
