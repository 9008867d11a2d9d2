// @ts-check
// Buttons, menus and sliders.

import {closest} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {send, use} from "./actions.mjs";
import {answerBlind, startBlind} from "./blind.mjs";
import {setRate, toggleAuto} from "./blink.mjs";
import {MAX_GAIN} from "./difference.mjs";
import {draw, redraw} from "./draw.mjs";
import {clamp} from "./geometry.mjs";
import {
    choose, setAxis, setImage, setMetric, setMode, setSplit, setZoom, showMessage, showOther, stepZoom, toggle,
    toggleFullScreen,
} from "./view.mjs";

/** @import {Answer, Figure, Mode, Side, Table, View} from "./types" */

let isByPointer = false; // the last input came from mouse or finger

export const wasByPointer = () => isByPointer;
/** @param {boolean} byPointer whether an input came from mouse or finger */
export const noteInput = (byPointer) => (isByPointer = byPointer);

const focusGrid = (/** @type {Table} */ table) => table.grid.focus({preventScroll: true});

/** @type {Record<string, (table: Table, value: string, figure?: Figure) => void>} */
const ACTS = {
    mode: (table, mode) => setMode(table, /** @type {Mode} */ (mode)),
    zoom: (table, zoom) => setZoom(table, Number(zoom)),
    step: (table, step) => stepZoom(table, Number(step)),
    loupe: (table) => toggle(table, "loupe"),
    help: (table) => toggle(table, "help"),
    full: (table) => toggleFullScreen(table),
    side: (table, side, figure) => choose(table, /** @type {Side} */ (side), figure?.name ?? ""),
    gain: (table) => {
        table.view.gain = 0;
        draw(table);
    },
    metric: (table, metric) => setMetric(table, /** @type {View["metric"]} */ (metric)),
    axis: (table, axis) => setAxis(table, /** @type {View["axis"]} */ (axis)),
    histogram: (table) => toggle(table, "histogram"),
    follow: (table) => toggle(table, "follow"),
    auto: (table) => toggleAuto(table),
    blind: (table) => startBlind(table),
    answer: (table, value) => answerBlind(table, /** @type {Answer | "end"} */ (value)),
    use: (table, reach, figure) => use(table, reach, figure?.name ?? ""),
    send: (table, target, figure) => figure && send(table, target, figure),
};

/**
 * @param {Table} table
 * @param {MouseEvent} event
 */
export function onClick(table, event) {
    const button = closest(event, "[data-act]");
    if (button === table.hold && event.detail === 0) showOther(table, !table.view.other); // by Enter
    if (button) {
        const figure = table.figures.find((each) => each.figure.contains(button));
        const {act = "", value = ""} = button.dataset;
        ACTS[act]?.(table, value, figure);
    }
    if (isByPointer && closest(event, "button, a")) focusGrid(table); // so that keys work immediately
    const isOnImage = closest(event, ".vae-lab-window") && event.detail > 0;
    if (isOnImage && !event.ctrlKey && !event.metaKey && !event.shiftKey) event.preventDefault();
}

/**
 * @param {Table} table
 * @param {Event} event
 */
export function onInput(table, event) {
    const {value, dataset} = /** @type {HTMLInputElement | HTMLSelectElement} */ (event.target);
    if (dataset.set === "a" || dataset.set === "b") choose(table, dataset.set, value);
    if (dataset.set === "image") setImage(table, Number(value));
    if (dataset.set === "blend") setSplit(table, Number(value) / 100);
    if (dataset.set === "rate") setRate(table, Number(value));
    if (dataset.set === "gain") {
        table.view.gain = clamp(Number(value), 1, MAX_GAIN);
        redraw(table);
    }
    if (event.type === "change" && isByPointer) focusGrid(table);
}

/**
 * The server discards the images of a comparison when newer ones need the memory.
 *
 * @param {Table} table
 * @param {Event} event
 */
export function onError(table, event) {
    if (event.target instanceof HTMLImageElement) showMessage(table, t("This image has expired. Compare again."));
}
