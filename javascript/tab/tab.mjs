// @ts-check
// The tab: refreshes a page of it whenever that comes into view, and keeps progress, badges and marks up to date.
//
// This runs long before the tab exists, and gradio may replace elements at any time. So no element is stored: a clock
// checks what is there now.

import {all, find} from "../shared/dom.mjs";
import {CHOICE_EVENT} from "../shared/server.mjs";
import * as badges from "./badges.mjs";
import * as numberTables from "./number_tables.mjs";
import * as picks from "./picks.mjs";
import * as runs from "./runs.mjs";

const TICK_MS = 300;
// Lines that say which VAE decodes; a choice made elsewhere changes them.
const LINES = ["vae_lab_txt2img", "vae_lab_img2img"].map((name) => ({name, panel: name + "_deciding"}));

/** @type {Set<string>} */
const visiblePages = new Set(); // names

export function start() {
    runs.start((page) => badges.requestVerdicts(page?.name === "vae_lab_checkup"));
    badges.start(refreshCheckup);
    picks.start((page) => visiblePages.add(page));
    numberTables.start();
    document.addEventListener("click", onClick, true);
    document.addEventListener(CHOICE_EVENT, refreshDecision);
    setInterval(tick, TICK_MS);
}

/** @param {MouseEvent} event */
function onClick(event) {
    picks.onClick(event);
    runs.onClick(event);
}

function tick() {
    for (const page of [...runs.PAGES, ...LINES]) {
        const panel = find(page.panel);
        const isVisible = panel !== null && panel.offsetParent !== null;
        if (isVisible && !visiblePages.has(page.name)) {
            // Not during its own run: the refresh could overwrite what the run shows in the end.
            if (!runs.isRunning(page)) find(page.name + "_refresh")?.click();
            runs.ask();
        }
        if (isVisible) visiblePages.add(page.name);
        else visiblePages.delete(page.name);
    }
    runs.checkRun();
    picks.markPicks();
    badges.checkBadges(TICK_MS);
    translateTitles();
}

/** Another VAE may decode from now on. */
function refreshDecision() {
    for (const page of runs.PAGES) {
        if (page.decides && visiblePages.has(page.name)) find(page.name + "_refresh")?.click();
    }
}

/** Refresh the Checkup page, if it is visible; false during a run, at whose end it has to be done. */
function refreshCheckup() {
    if (runs.isRunning()) return false;
    if (visiblePages.has("vae_lab_checkup")) find("vae_lab_checkup_refresh")?.click();
    return true;
}

/** The WebUI translates the title of an element that is added, but not the titles inside it. */
function translateTitles() {
    if (!window.localization) return;
    for (const element of all(document, ".vae-lab [title]")) {
        const translated = window.localization[element.title];
        if (translated) element.title = translated;
    }
}
