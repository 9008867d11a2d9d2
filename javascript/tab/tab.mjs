// @ts-check
// The tab: refreshes a page of it whenever that comes into view, and keeps progress, badges and marks up to date.
//
// This runs long before the tab exists, and gradio may replace elements at any time. So no element is stored: a clock
// checks what is there now.

import {all, find} from "../shared/dom.mjs";
import {address, CHOICE_EVENT} from "../shared/server.mjs";
import * as about from "./about.mjs";
import * as badges from "./badges.mjs";
import {followComparison} from "./comparisons.mjs";
import * as fixes from "./fixes.mjs";
import {addGalleryButtons} from "./gallery.mjs";
import * as library from "./library.mjs";
import {checkMerger} from "./merger.mjs";
import * as numberTables from "./number_tables.mjs";
import * as picks from "./picks.mjs";
import * as runs from "./runs.mjs";
import * as unreachable from "./unreachable.mjs";
import * as vaeFiles from "./vae_files.mjs";
import * as vaeList from "./vae_list.mjs";

const TICK_MS = 300;
const FOLLOW_MS = 500; // how often the server is asked which VAE is active, while a page shows that
const REFUSED_MS = 60000; // the same after an error, such as a login that has expired
const REFRESHED_MS = 1000; // gradio 3 drops a click on Refresh while it is busy, so it is repeated after this time
// Lines that say which VAE decodes; a choice made elsewhere changes them.
const LINES = ["vae_lab_txt2img", "vae_lab_img2img"].map((name) => ({name, panel: name + "_deciding"}));

/** @type {Set<string>} */
const visiblePages = new Set(); // names
/** @type {Map<string, number>} */
const refreshedAt = new Map(); // name of a page -> when it was refreshed because another VAE was active
let isAsking = false;
let askAgainAt = 0;

export function start() {
    runs.start((page) => badges.requestVerdicts(page?.name === "vae_lab_checkup"));
    badges.start(refreshCheckup);
    picks.start((page) => visiblePages.add(page));
    numberTables.start();
    fixes.start();
    vaeFiles.start();
    vaeList.start();
    about.start();
    unreachable.start(runs.giveUp);
    document.addEventListener("click", onClick, true);
    document.addEventListener(CHOICE_EVENT, refreshDecision);
    setInterval(tick, TICK_MS);
    setInterval(followActive, FOLLOW_MS);
}

/** @param {MouseEvent} event */
function onClick(event) {
    unreachable.onClick(event);
    picks.onClick(event);
    fixes.onClick(event);
    vaeFiles.onClick(event);
    vaeList.onClick(event);
    library.onClick(event);
    about.onClick(event);
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
    followComparison(runs.isRunning(runs.PAGES[0]), runs.resultsSoFar());
    vaeList.arrangeLists();
    addGalleryButtons();
    checkMerger();
    picks.markPicks();
    badges.checkBadges(TICK_MS);
    translateTitles();
    showEndsOfNames();
}

/** Closed menus show the end of a long file name, where names differ most; a latent begins with what it is. */
function showEndsOfNames() {
    for (const field of all(document, ".vae-lab .secondary-wrap input")) {
        if (field.closest("#vae_lab_source")) continue;
        if (field.offsetParent && field !== document.activeElement) field.scrollLeft = field.scrollWidth;
    }
}

/** Another VAE may decode from now on. */
function refreshDecision() {
    for (const page of runs.PAGES) {
        if (page.decides && visiblePages.has(page.name)) find(page.name + "_refresh")?.click();
    }
}

/**
 * Refresh what names the active VAE if another one is active by now: it may have been chosen in the settings, in a
 * second tab, or with another checkpoint.
 */
async function followActive() {
    const pages = [...runs.PAGES, ...LINES].filter((page) => visiblePages.has(page.name) && markOf(page));
    if (isAsking || document.hidden || !pages.length || Date.now() < askAgainAt) return;
    isAsking = true;
    askAgainAt = Date.now() + REFUSED_MS;
    try {
        const answer = await fetch(address("active"), {cache: "no-store"});
        if (!answer.ok) return;
        const {mark, undo_id: undoId} = await answer.json();
        askAgainAt = 0;
        picks.withdrawUndos(undoId);
        pages.filter((page) => ![mark, undefined].includes(markOf(page))).forEach(refreshLine);
    } catch {
        // The server has stopped.
    } finally {
        isAsking = false;
    }
}

/** The mark of what a page shows as active; undefined if it shows none. */
const markOf = (/** @type {{panel: string}} */ page) =>
    all(document, `#${page.panel} .vae-lab-deciding[data-active]`)[0]?.dataset.active;

/** @param {{name: string}} page */
function refreshLine(page) {
    if (runs.isRunning(page) || Date.now() - (refreshedAt.get(page.name) ?? 0) < REFRESHED_MS) return;
    refreshedAt.set(page.name, Date.now());
    find(page.name + "_refresh")?.click();
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
