// @ts-check
// Brings a table in line with its view.

import {all, write} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {drawDifference} from "./difference.mjs";
import {geometry, imageIn, leadingBox, ratio, sizeOf, visibleBox} from "./geometry.mjs";
import {drawHeat} from "./heat.mjs";
import {drawHistogram} from "./histogram.mjs";
import {drawLoupes} from "./loupe.mjs";
import {drawReadout} from "./readout.mjs";

/** @import {Figure, Geometry, Side, Table} from "./types" */

const MIN_COLUMN = 280; // CSS pixels, as in style.css
const MIN_COLUMN_SHARE = 0.14; // of the window's width, as in style.css
const MIN_PAIR = 1000; // CSS pixels; with less room, the tools of the stage are below the names

/**
 * Draw in the next frame.
 *
 * @param {Table} table
 */
export function redraw(table) {
    if (table.isDrawing) return;
    table.isDrawing = true;
    requestAnimationFrame(() => {
        table.isDrawing = false;
        if (table.grid.isConnected) draw(table);
    });
}

/**
 * Draw what follows the pointer in the next frame.
 *
 * @param {Table} table
 */
export function redrawPlace(table) {
    if (table.isDrawing || table.isPointing) return;
    table.isPointing = true;
    requestAnimationFrame(() => {
        table.isPointing = false;
        if (table.grid.isConnected) drawPlace(table, geometry(leadingBox(table), table.view));
    });
}

/**
 * @param {Table} table
 * @param {Geometry | null} leading of the window that stands for all of them
 */
function drawPlace(table, leading) {
    drawLoupes(table, leading);
    drawReadout(table);
}

/** @param {Table} table */
export function draw(table) {
    const {grid, view} = table;
    grid.dataset.mode = view.mode;
    grid.dataset.axis = view.axis;
    grid.toggleAttribute("data-zoomed", view.zoom > 0);
    grid.toggleAttribute("data-loupe", view.loupe);
    grid.toggleAttribute("data-cross", view.cross);
    table.help.hidden = !view.help;
    table.imageMenu.value = String(view.image);
    arrangeColumns(table);
    const first = geometry(visibleBox(table.figures[0], view), view);
    for (const figure of table.figures) drawFigure(table, figure, first);
    table.pair.hidden = table.stage.hidden = table.readout.hidden = view.mode === "grid";
    if (view.mode !== "grid") drawStage(table);
    const g = geometry(leadingBox(table), view);
    write(table.zoomLabel, g ? `${Math.round(100 * g.s)} %` : "");
    for (const button of all(grid, "[data-act]")) markPressed(table, button);
    drawHistogram(table);
    drawPlace(table, g);
}

/**
 * As many columns as there are images, if the style sheet has room for them, and none wider than its image at 100 %;
 * what is left over is on the right.
 *
 * @param {Table} table
 */
function arrangeColumns({grid, figures, pair, view}) {
    const style = getComputedStyle(grid);
    const wide = grid.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const gap = parseFloat(style.columnGap) || 0;
    if (!(wide > 0)) return;
    pair.toggleAttribute("data-narrow", wide < MIN_PAIR);
    const narrowest = Math.min(wide, Math.max(MIN_COLUMN, MIN_COLUMN_SHARE * window.innerWidth));
    const items = all(grid, ":scope > figure");
    const columns = Math.max(1, Math.min(items.length, Math.floor((wide + gap) / (narrowest + gap))));
    const natural = Math.max(narrowest, sizeOf(imageIn(visibleBox(figures[0], view)))[0] / ratio());
    const hasRoom = columns * (natural + gap) < wide;
    const tracks = hasRoom ? `repeat(${columns}, ${natural}px) 1fr` : `repeat(${columns}, minmax(0, 1fr))`;
    if (grid.dataset.tracks === tracks) return;
    grid.dataset.tracks = grid.style.gridTemplateColumns = tracks;
    items.forEach((item, i) => (item.style.gridColumn = String((i % columns) + 1)));
}

/**
 * @param {Table} table
 * @param {HTMLElement} button
 */
function markPressed({grid, view}, button) {
    const {act = "", value = ""} = button.dataset;
    /** @type {Record<string, (() => boolean) | undefined>} */
    const checks = {
        mode: () => view.mode === value, zoom: () => view.zoom === Number(value), loupe: () => view.loupe,
        full: () => document.fullscreenElement === grid, hold: () => view.other, help: () => view.help,
        side: () => view[/** @type {Side} */ (value)] === button.closest("figure")?.dataset.vae, gain: () => !view.gain,
        metric: () => view.metric === value, axis: () => view.axis === value, follow: () => view.follow,
        auto: () => view.auto, histogram: () => view.histogram,
    };
    const check = checks[act];
    if (check) button.setAttribute(act === "help" ? "aria-expanded" : "aria-pressed", String(check()));
}

/**
 * @param {Table} table
 * @param {Figure} figure
 * @param {Geometry | null} first geometry of the first figure, which others of its size share to the pixel
 */
function drawFigure(table, figure, first) {
    const {view} = table;
    const visible = visibleBox(figure, view);
    for (const box of figure.boxes) {
        const image = imageIn(box);
        const [columns, rows] = sizeOf(image);
        if (columns && rows) box.style.aspectRatio = `${columns} / ${rows}`;
        box.hidden = box !== visible;
        const g = box.hidden ? null : geometry(box, view);
        if (!g) continue;
        const shared = first && isSameSize(g, first) ? {...g, left: first.left, top: first.top} : g;
        place(image, shared, view.zoom > 0 || g.s >= 1);
    }
    const {src} = imageIn(visible);
    if (figure.save.href !== src) figure.save.href = figure.open.href = src;
    figure.save.download = fileName(table, figure);
}

/**
 * Whether two windows and their images have one size; columns of one grid can differ by a fraction of a pixel.
 *
 * @param {Geometry} g
 * @param {Geometry} first
 */
function isSameSize(g, first) {
    const sizes = /** @type {const} */ (["columns", "rows", "wide", "high"]);
    return sizes.every((size) => Math.abs(g[size] - first[size]) < 1);
}

/**
 * @param {Table} table
 * @param {Figure} figure
 */
export function fileName(table, figure) {
    const number = table.batch > 1 ? `-${table.view.image + 1}` : "";
    const ending = `${figure.isMap ? "-loss" : ""}${number}.${table.grid.dataset.shared ?? "png"}`;
    return figure.name.replace(/[/\\:*?"<>|]/g, "_") + ending;
}

/**
 * Move a layer into its place; or, if not `isPlaced`, let the style sheet make it as wide as its window. By a
 * transform, since browsers round lengths to whole pixels, which an image at 100 % on a 150 % screen does not have.
 *
 * @param {HTMLElement} layer
 * @param {Geometry} g
 * @param {boolean} isPlaced
 */
function place(layer, g, isPlaced) {
    const px = (/** @type {number} */ length) => `${length / ratio()}px`;
    layer.classList.toggle("vae-lab-placed", isPlaced);
    layer.classList.toggle("vae-lab-sharp", g.s >= 1);
    Object.assign(layer.style, {
        width: isPlaced ? `${g.columns}px` : "", height: isPlaced ? `${g.rows}px` : "",
        transform: isPlaced ? `translate(${px(g.left)}, ${px(g.top)}) scale(${g.s / ratio()})` : "",
    });
}

/** @param {Table} table */
function drawStage(table) {
    const {view, layers, stage} = table;
    drawSide(table, "a");
    drawSide(table, "b");
    const {mode} = view;
    table.sliderTools.hidden = mode !== "slider";
    table.blinkTools.hidden = mode !== "blink";
    table.rate.value = String(view.rate);
    write(table.rateLabel, t("{rate} / s", {rate: view.rate}));
    table.differenceTools.hidden = layers.map.hidden = mode !== "difference";
    table.gainTools.hidden = view.metric !== "rgb";
    table.legend.hidden = view.metric !== "lab";
    table.half.hidden = mode === "difference" || (mode === "blink" && view.other);
    layers.b.hidden = mode === "difference";
    const g = geometry(stage, view);
    if (!g) return;
    for (const layer of Object.values(layers)) place(layer, g, true);
    drawSlider(table, g);
    if (mode === "difference" && view.metric === "rgb") drawDifference(table);
    else if (mode === "difference" && !drawHeat(table)) redraw(table);
}

/**
 * @param {Table} table
 * @param {Geometry} g of the stage
 */
function drawSlider(table, g) {
    const {view, half, divider} = table;
    const isBlend = view.axis === "blend";
    const isDivided = view.mode === "slider" && !isBlend;
    const [length, right, below] = view.axis === "y" ? [g.high, 0, 1] : [g.wide, 1, 0];
    const split = Math.round(view.split * length) / ratio();
    const rest = length / ratio() - split;
    half.style.clipPath = isDivided ? `inset(0 ${right * rest}px ${below * rest}px 0)` : "";
    half.style.opacity = view.mode === "slider" && isBlend ? String(1 - view.blend) : "";
    divider.hidden = !isDivided;
    Object.assign(divider.style, right ? {left: `${split}px`, top: ""} : {left: "", top: `${split}px`});
    const percent = Math.round(100 * view.split);
    divider.setAttribute("aria-orientation", right ? "horizontal" : "vertical");
    divider.setAttribute("aria-valuenow", String(percent));
    const text = right ? t("{percent} % from the left", {percent}) : t("{percent} % from the top", {percent});
    divider.setAttribute("aria-valuetext", text);
    table.blendTools.hidden = !isBlend;
    table.blend.value = String(Math.round(100 * view.blend));
    write(table.blendLabel, `${table.blend.value} %`);
}

/**
 * @param {Table} table
 * @param {Side} side
 */
function drawSide(table, side) {
    const {view, layers, stage} = table;
    const {label, name, select} = table.sides[side];
    const figure = table.figures.find((each) => each.name === view[side]) ?? table.figures[0];
    const image = imageIn(visibleBox(figure, view));
    if (layers[side].src !== image.src) layers[side].src = image.src;
    const [columns, rows] = sizeOf(image);
    if (side === "b") stage.style.aspectRatio = `${columns} / ${rows}`;
    layers[side].setAttribute("width", String(columns));
    layers[side].setAttribute("height", String(rows));
    layers[side].alt = `${side.toUpperCase()}: ${view[side]}`;
    if (name.textContent !== view[side]) name.replaceChildren(...breakable(view[side]));
    select.value = view[side];
    label.toggleAttribute("data-away", view.mode === "blink" && view.other !== (side === "b"));
}

/**
 * A name that may wrap where a reader would break it, as in the captions.
 *
 * @param {string} name
 * @returns {(string | Node)[]}
 */
function breakable(name) {
    return (name.match(/[^/_.-]*[/_.-]?/g) ?? []).flatMap((piece) => [piece, document.createElement("wbr")]);
}
