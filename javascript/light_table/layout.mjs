// @ts-check
// The elements that a table adds to its grid.

import {all, find, make} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {SEND_TARGETS, canUse} from "./actions.mjs";
import {button} from "./button.mjs";
import {buildHistogram} from "./histogram.mjs";
import {buildBlinkTools, buildDifferenceTools, buildSliderTools} from "./stage_tools.mjs";

/** @import {Figure, Side, Stage, Table, Tools} from "./types" */

/** @type {Record<string, string>} */
const USE = {checkpoint: t("Use for this checkpoint"), always: t("Use always")};
const MODES = [
    ["grid", t("Grid"), t("All images side by side (G)")],
    ["slider", t("A/B slider"), t("A to the left of a divider, B to the right (S)")],
    ["blink", t("Blink"), t("A, and B while you hold the space bar")],
    ["difference", t("Difference"), t("Absolute difference of A and B, per pixel (D)")],
];
/** @type {[number, string][]} */
const ZOOMS = [[0, t("Fit")], [1, "100 %"], [2, "200 %"], [4, "400 %"], [8, "800 %"]];
const KEYS = [
    ["G", t("grid")], ["S", t("A/B slider")], [t("Space"), t("blink: B while held")], ["D", t("difference")],
    ["V", t("vertical or horizontal divider")], ["O", t("opacity instead of a divider")],
    ["M", t("the divider follows the mouse")], ["R", t("blink automatically, or stop")],
    ["E", t("difference as ΔE or as RGB")], ["1 … 9", t("choose B")], ["Shift + 1 … 9", t("choose A")],
    [t("N, P"), t("next or previous image as B")], ["A, B", t("use the image under the pointer as A or B")],
    [t("+ and −"), t("zoom in, zoom out")], ["0", t("fit")], [t("Arrows"), t("move the images, or the divider")],
    [t(", and ."), t("previous and next image of a batch")], ["L", t("loupe on and off, or while held")],
    ["X", t("crosshair for the colours of one pixel; arrows move it, with Shift by 10 pixels")],
    ["T", t("blind test; in it, 1 and 2: left or right is better, 0: no preference")],
    ["H", t("histogram of A and B")], ["F", t("full screen")], ["?", t("this help")],
    [t("Drag"), t("move all images together")], [t("Double click"), t("100 % at the pointer, or back to fit")],
    [t("Two fingers"), t("zoom")], [t("Wheel"), t("zoom at the pointer after a click on an image; with Ctrl, always")],
];

/**
 * Puts a figure's images into windows, through which they are seen when they are magnified.
 *
 * @param {HTMLElement} figure
 * @returns {Figure}
 */
export function layFigure(figure) {
    const boxes = [...figure.querySelectorAll("img")].map(layWindow);
    return {
        figure, boxes, name: figure.dataset.vae ?? "", isReference: Boolean(figure.closest("[data-reference]")),
        isMap: Boolean(figure.closest(".vae-lab-losses")),
        save: make("a", {}, t("Save")), open: make("a", {target: "_blank"}, t("Open")),
        pixel: make("span", {class: "vae-lab-pixel", title: t("Colour at the pointer; ΔE is CIEDE2000 from A")}),
    };
}

/**
 * @param {HTMLImageElement} image
 * @returns {HTMLElement}
 */
function layWindow(image) {
    const link = image.closest("a");
    const isWindow = link !== null && link === image.parentElement && link.children.length === 1;
    const box = isWindow ? link : make("span", {});
    if (!isWindow) image.replaceWith(box);
    if (!isWindow) box.append(image);
    box.classList.add("vae-lab-window");
    if (isWindow) box.tabIndex = -1; // Open, below the image, is for the keyboard
    box.removeAttribute("title");
    box.append(...overlays());
    return box;
}

/** What is drawn over the image in a window. */
function overlays() {
    return [
        make("canvas", {class: "vae-lab-loupe", "aria-hidden": "true"}),
        make("span", {class: "vae-lab-cross", "aria-hidden": "true"}),
    ];
}

/**
 * The toolbar.
 *
 * @param {number} figures how many there are
 * @param {number} batch images per figure
 * @param {boolean} blind whether a blind test is possible
 * @returns {Tools}
 */
export function buildTools(figures, batch, blind) {
    const modes = MODES.map(([mode, text, title]) =>
        button(text, "mode", mode, {title, disabled: figures < 2 && mode !== "grid" ? "" : null}));
    const zooms = ZOOMS.map(([zoom, text]) => button(text, "zoom", zoom));
    const zoomLabel = make("output", {class: "vae-lab-zoom", "aria-label": t("Zoom")});
    const images = [...Array(batch).keys()].map((i) =>
        make("option", {value: i}, t("{number} of {total}", {number: i + 1, total: batch})));
    const imageMenu = make("select", {"aria-label": t("Image of the batch"), "data-set": "image"}, ...images);
    const imageTools = make("span", {role: "group", "aria-label": t("Image")}, t("Image"), " ", imageMenu);
    imageTools.hidden = batch < 2;
    const message = make("span", {class: "vae-lab-tool-message", role: "status"});
    const test = button(t("Blind test"), "blind", "", {title: t("Judge images without their names (T)")});
    const keys = KEYS.flatMap(([key, text]) => [make("dt", {}, key), make("dd", {}, text)]);
    const help = make("div", {class: "vae-lab-help", role: "dialog", "aria-label": t("Keys of the light table")},
        make("dl", {}, ...keys), button(t("Close"), "help", ""));
    const toolbar = make("div", {class: "vae-lab-toolbar", role: "toolbar", "aria-label": t("Light table")},
        make("span", {role: "group", "aria-label": t("View")}, ...modes),
        make("span", {role: "group", "aria-label": t("Zoom")},
            button("−", "step", -1, {"aria-label": t("Zoom out"), title: t("Zoom out (−)")}), ...zooms,
            button("+", "step", 1, {"aria-label": t("Zoom in"), title: t("Zoom in (+)")}), zoomLabel),
        imageTools,
        make("span", {role: "group", "aria-label": t("Tools")},
            button(t("Loupe"), "loupe", "", {title: t("Magnify the same place in every image (L)")}),
            button(t("Histogram"), "histogram", "", {title: t("How often each level occurs in A and B (H)")}),
            ...(blind ? [test] : []),
            button(t("Full screen"), "full", "", {title: t("Full screen (F)")}),
            button("?", "help", "", {"aria-label": t("Keys"), title: t("Keys (?)")})),
        message, help);
    return {toolbar, zoomLabel, imageMenu, message, help};
}

/**
 * The stage, on which A and B are shown, and what is above it.
 *
 * @param {string[]} names of the figures
 * @returns {Stage}
 */
export function buildStage(names) {
    const sides = {a: buildSide("a", names), b: buildSide("b", names)};
    const [slider, blink, difference] = [buildSliderTools(), buildBlinkTools(), buildDifferenceTools()];
    const pair = make("div", {class: "vae-lab-pair"}, sides.a.label,
        make("span", {class: "vae-lab-middle"}, slider.sliderTools, blink.blinkTools, difference.differenceTools),
        sides.b.label);
    const image = () => make("img", {alt: "", draggable: "false"});
    const layers = {a: image(), b: image(), map: make("canvas", {class: "vae-lab-map", role: "img"})};
    const half = make("span", {class: "vae-lab-half"}, layers.a);
    const divider = make("span", {
        class: "vae-lab-divider", role: "slider", tabindex: 0, "aria-label": t("Divider between A and B"),
        "aria-valuemin": 0, "aria-valuemax": 100,
    });
    const stage = make("div", {class: "vae-lab-stage vae-lab-window"}, layers.b, half, layers.map, divider,
        ...overlays());
    const readout = make("p",
        {class: "vae-lab-pixel vae-lab-readout", title: t("Colours at the pointer; ΔE is CIEDE2000")});
    const tools = {...slider, ...blink, ...difference, ...buildHistogram()};
    return {...tools, readout, stage, pair, sides, layers, half, divider};
}

/**
 * @param {Side} side
 * @param {string[]} names
 */
function buildSide(side, names) {
    const letter = side.toUpperCase();
    const options = names.map((name, i) => make("option", {value: name}, `${i + 1}  ${name}`));
    const name = make("span", {class: "vae-lab-name"});
    const select = make("select", {"aria-label": t("Image {side}", {side: letter}), "data-set": side}, ...options);
    const label = make("label", {class: "vae-lab-side", "data-side": side},
        make("b", {"aria-hidden": "true"}, letter), name, select);
    return {label, name, select};
}

/**
 * The row of buttons below a figure's image.
 *
 * @param {Table} table
 * @param {Figure} figure
 * @param {number} i its place
 */
export function layActions(table, figure, i) {
    if (table.isBlind) {
        figure.boxes[0].parentElement?.append(figure.pixel);
        return;
    }
    const {name} = figure;
    const row = make("div", {class: "vae-lab-actions", role: "group", "aria-label": t("Actions for {name}", {name})});
    if (table.figures.length > 1) row.append(chooseButtons(name, i));
    const isShared = table.grid.dataset.shared !== undefined; // a page without a server, whose images cannot be opened
    row.append(make("span", {}, figure.save, ...(isShared ? [] : [figure.open])));
    if (canUse(figure)) {
        row.append(make("span", {}, ...reaches().map((reach) => button(USE[reach], "use", reach))));
    }
    const targets = SEND_TARGETS.filter((target) => find(target.id) && !figure.isMap);
    const sends = targets.map(({id, label}) =>
        button(label, "send", id, {"aria-label": t("Send to {target}", {target: label})}));
    if (sends.length) row.append(make("span", {}, t("Send to"), ...sends));
    figure.boxes[figure.boxes.length - 1].parentElement?.append(...(figure.isMap ? [] : [figure.pixel]), row);
}

/** How far a choice of a VAE can reach on this host. */
function reaches() {
    const line = all(document, "#vae_lab_panel .vae-lab-deciding")[0];
    return (line?.dataset.reaches ?? "checkpoint always").split(" ").filter((reach) => reach in USE);
}

/**
 * @param {string} name
 * @param {number} i
 */
function chooseButtons(name, i) {
    const number = make("span", {class: "vae-lab-key", title: t("Key {key}: as B", {key: i + 1})}, String(i + 1));
    const buttons = ["a", "b"].map((side) => {
        const letter = side.toUpperCase();
        const title = t("Compare as {side}", {side: letter});
        return button(letter, "side", side, {title, "aria-label": t("{name} as image {side}", {name, side: letter})});
    });
    return make("span", {}, ...(i < 9 ? [number] : []), ...buttons);
}
