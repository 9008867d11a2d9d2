// @ts-check
// The difference map: gain x |A - B| of each channel and pixel.

import {make, write} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {clamp, isLoaded, sizeOf} from "./geometry.mjs";

/** @import {DifferenceMap, Table} from "./types" */

export const MAX_GAIN = 64;

/** @param {Table} table */
export function drawDifference(table) {
    const {view, layers} = table;
    layers.map.setAttribute("aria-label", t("difference between {a} and {b}", {a: view.a, b: view.b}));
    if (!isLoaded(layers.a) || !isLoaded(layers.b)) { // their load event draws it again
        layers.map.hidden = true;
        write(table.largest, "");
        return;
    }
    const key = `${layers.a.src} ${layers.b.src}`;
    if (table.difference?.key !== key) table.difference = {key, ...computeDifference(layers.a, layers.b)};
    const {values, largest, width, height} = table.difference;
    const summary = t("Largest difference {value} of 255", {value: largest});
    write(table.largest, values ? summary : t("The images differ in size"));
    layers.map.hidden = !values;
    const gain = view.gain || table.difference.gain;
    table.gain.value = String(gain);
    write(table.gainLabel, `× ${gain}`);
    const painted = `${key} ${gain}`;
    if (!values || layers.map.dataset.painted === painted) return;
    layers.map.dataset.painted = painted;
    layers.map.width = width;
    layers.map.height = height;
    const image = new ImageData(width, height); // which clamps its bytes to 255
    for (let i = 0; i < values.length; i++) image.data[i] = i % 4 === 3 ? 255 : values[i] * gain;
    layers.map.getContext("2d")?.putImageData(image, 0, 0);
}

/**
 * |A - B| of each channel, the largest of them, and the gain that fits all but the strongest 1 %.
 *
 * @param {HTMLImageElement} a
 * @param {HTMLImageElement} b
 * @returns {Omit<DifferenceMap, "key">}
 */
function computeDifference(a, b) {
    const [width, height] = sizeOf(a);
    if (String(sizeOf(b)) !== String([width, height])) return {values: null, largest: 0, width, height, gain: 1};
    const values = readBytes(a, width, height);
    const others = readBytes(b, width, height);
    const histogram = new Uint32Array(256);
    for (let i = 0; i < values.length; i++) {
        values[i] = Math.abs(values[i] - others[i]);
        if (i % 4 !== 3) histogram[values[i]] += 1;
    }
    const largest = Math.max(0, histogram.findLastIndex((count) => count > 0));
    let strong = 255;
    const share = values.length * 0.0075; // 1 % of the three colour channels
    for (let above = histogram[255]; strong > 1 && above < share; strong--) above += histogram[strong - 1];
    return {values, largest, width, height, gain: clamp(Math.floor(255 / strong), 1, MAX_GAIN)};
}

/**
 * The pixels of an image.
 *
 * @param {HTMLImageElement} image
 * @param {number} width
 * @param {number} height
 * @returns {Uint8ClampedArray} RGBA
 */
export function readBytes(image, width, height) {
    const context = make("canvas", {width, height}).getContext("2d", {willReadFrequently: true});
    if (!context) throw new Error("no 2d context");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, width, height).data;
}
