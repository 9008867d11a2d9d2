// @ts-check
// The light table: compares the images of several VAEs as a photographer would, on every .vae-lab-grid of a page.
//
// A grid has figure[data-vae] elements, each with one <img> or, of a batch, several. data-reference on an ancestor of
// a figure says that it is no VAE's, but what the others are compared with. data-shared is on the grid of a file that
// was shared (vae_lab/service/share.py): the ending of its images. Gradio may replace a grid at any time, so
// all elements of a table are inside its grid; only its view outlives it.

import {all} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {candidatesOf} from "./blind.mjs";
import {draw, redraw} from "./draw.mjs";
import {listenToKeys} from "./keys.mjs";
import {buildStage, buildTools, layActions, layFigure} from "./layout.mjs";
import {listen, listenToPage} from "./pointer.mjs";

/** @import {Figure, Table, View} from "./types" */

const BUILT_IN = "Built-in"; // as in vae_lab/host/choices.py

/** @type {WeakMap<Element, Table | null>} */
const tables = new WeakMap(); // null for a grid without images
/** @type {Map<string, View>} */
const views = new Map(); // by the place of a grid on the page, for the next grid there
const grids = /** @type {HTMLCollectionOf<HTMLElement>} */ (document.getElementsByClassName("vae-lab-grid"));

/** Makes a light table of every grid of the page, now and whenever one is added. */
export function start() {
    listenToPage();
    listenToKeys((grid) => (grid && tables.get(grid)) ?? null);
    document.addEventListener("fullscreenchange", redrawAll);
    window.addEventListener("resize", redrawAll);
    new MutationObserver(layAll).observe(document, {childList: true, subtree: true});
    layAll();
}

function layAll() {
    for (const grid of [...grids]) {
        if (!tables.has(grid)) tables.set(grid, lay(grid));
    }
}

function redrawAll() {
    for (const grid of grids) {
        const table = tables.get(grid);
        if (table) redraw(table);
    }
}

/**
 * @param {HTMLElement} grid
 * @returns {Table | null}
 */
function lay(grid) {
    const figures = all(grid, "figure[data-vae]").filter((figure) => figure.querySelector("img")).map(layFigure);
    if (!figures.length) return null;
    const batch = Math.max(...figures.map((figure) => figure.boxes.length));
    const names = figures.map((figure) => figure.name);
    const isBlind = grid.dataset.blind !== undefined;
    /** @type {Table} */
    const table = {
        ...buildTools(figures.length, batch, !isBlind && candidatesOf(figures).length > 1), ...buildStage(names),
        grid, figures, batch, names,
        isBlind,
        view: continueView(grid, figures, batch), isDrawing: false, isPointing: false, difference: null,
        heat: null,
    };
    grid.prepend(table.toolbar, table.pair, table.stage, table.readout, table.histogram);
    figures.forEach((figure, i) => layActions(table, figure, i));
    grid.classList.add("vae-lab-table");
    grid.tabIndex = 0;
    grid.setAttribute("role", "group");
    grid.setAttribute("aria-label", t("Light table"));
    listen(table);
    draw(table);
    return table;
}

/**
 * The view of the previous grid in this place, as far as it fits.
 *
 * @param {HTMLElement} grid
 * @param {Figure[]} figures
 * @param {number} batch
 * @returns {View}
 */
function continueView(grid, figures, batch) {
    const around = grid.parentElement?.closest("[id]");
    const place = `${around?.id} ${all(around ?? document, ".vae-lab-grid").indexOf(grid)}`;
    /** @type {View} */
    const view = {
        mode: "grid", image: 0, zoom: 0, x: 0.5, y: 0.5, split: 0.5, axis: "x", blend: 0.5, follow: false, rate: 1,
        gain: 0, metric: "rgb", loupe: false, histogram: false, a: "", b: "",
        ...views.get(place), other: false, auto: false, at: null, cross: false, help: false,
    };
    const names = figures.map((figure) => figure.name);
    const reference = figures.find((figure) => figure.isReference)?.name ?? "";
    const preferred = [reference, BUILT_IN, ...names].filter((name) => names.includes(name));
    if (!names.includes(view.a)) view.a = preferred.find((name) => name !== view.b) ?? preferred[0];
    if (!names.includes(view.b) || view.b === view.a) view.b = names.find((name) => name !== view.a) ?? view.a;
    if (names.length < 2) view.mode = "grid";
    view.image = Math.min(view.image, batch - 1);
    // While images are still to come, A and B may be missing: that is no reason to forget them.
    if (!grid.dataset.comparison?.includes(":")) views.set(place, view);
    return view;
}
