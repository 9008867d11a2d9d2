// @ts-check
// Progress bars and Cancel: what the server's current run is doing, shown on every page of the tab.

import {all, closest, find, part, write} from "../shared/dom.mjs";
import {address} from "../shared/server.mjs";
import {t} from "../shared/text.mjs";

/**
 * A page of the tab. `starts`: ids of the buttons that start a run; `decides`: it says which VAE decodes.
 *
 * @typedef {{name: string, panel: string, starts: string[], cancelling: string, decides?: boolean}} Page
 * What GET progress and GET hashes answer; of hashes that are complete, `done` counts all files so far:
 * @typedef {{busy: boolean, done: number, total: number, what: string, seconds?: number, results?: number,
 *     unit?: string}} Progress
 * @typedef {{page: Page | null, before?: string, quietSince: number, isCancelling: boolean}} Run
 */

const MIN_SECONDS = 2; // of a run, before the time left is estimated
const GIVE_UP_MS = 10000; // a run that the server has not known for so long has failed

const AFTER_FILE = t("Cancelling after the current file…");
/** @type {Page[]} */
export const PAGES = [
    {
        name: "vae_lab", panel: "vae_lab_panel", decides: true, cancelling: t("Cancelling after the current image…"),
        starts: ["vae_lab_compare", "vae_lab_identify", "vae_lab_encode"],
    },
    {
        name: "vae_lab_checkup", panel: "vae_lab_checkup", decides: true, cancelling: AFTER_FILE,
        starts: [
            "vae_lab_checkup_check", "vae_lab_checkup_check_all", "vae_lab_bake_run", "vae_lab_checkup_download",
        ],
    },
    {
        name: "vae_lab_roundtrip", panel: "vae_lab_roundtrip", cancelling: t("Cancelling after the current step…"),
        starts: ["vae_lab_roundtrip_run"],
    },
    {name: "vae_lab_library", panel: "vae_lab_library", cancelling: AFTER_FILE, starts: ["vae_lab_library_scan"]},
];

const LIBRARY = PAGES[PAGES.length - 1];

/** @type {Run | null} */
let run = null; // while this page waits for one
let isAsking = false;
let results = 0; // of the running comparison that can be shown
let isHashing = false; // in the background: runs can start
/** @type {number | null} */
let hashed = null; // files, when the table was shown
let endedRuns = 0; // an answer from before the last end says nothing about now
/** @type {(page: Page | null) => void} */
let onEnd = () => {};

/**
 * Whether a run is active; of a page, or of any.
 *
 * @param {{name: string}} [page]
 */
export const isRunning = (page) => run !== null && (page === undefined || run.page === page);

/** How many results of the running comparison can be shown; 0 without one. */
export const resultsSoFar = () => (run ? results : 0);

/**
 * @param {(page: Page | null) => void} callback called at the end of each run, with the page that started it
 */
export function start(callback) {
    onEnd = callback;
}

/**
 * A click that may start or cancel a run.
 *
 * @param {MouseEvent} event
 */
export function onClick(event) {
    const button = closest(event, "button");
    if (!button) return;
    const page = PAGES.find((each) => each.starts.includes(button.id));
    if (PAGES.some((each) => button.id === each.name + "_cancel")) {
        if (run) run.isCancelling = true;
        cancel();
    } else if (page && run) {
        event.stopImmediatePropagation(); // one run at a time; the server would refuse it as well
        event.preventDefault();
    } else if (page) {
        begin(page);
    }
}

/**
 * Something on a page that is no button of gradio's starts a run; the page's message ends it.
 *
 * @param {string} name of the page
 */
export function startOn(name) {
    const page = PAGES.find((each) => each.name === name);
    if (page && !run) begin(page);
}

/** Called by the tab's clock. */
export function checkRun() {
    if (hasMessage()) end();
    else if (run || (isHashing && libraryIsVisible())) ask();
}

/** Ask the server what its run is doing. */
export async function ask() {
    if (isAsking) return;
    isAsking = true;
    const before = endedRuns;
    try {
        const answer = await fetch(address("progress"), {cache: "no-store"});
        if (!answer.ok) throw new Error(answer.statusText);
        const progress = await answer.json();
        if (before === endedRuns) follow(progress);
        if (!run && libraryIsVisible()) await followHashing();
    } catch {
        if (run && Date.now() - run.quietSince > GIVE_UP_MS) end(); // the server has stopped
    } finally {
        isAsking = false;
    }
    if (before !== endedRuns) ask();
}

/** @param {Page} page */
function begin(page) {
    run = {page, before: lastMessage(page), quietSince: Date.now(), isCancelling: false};
    show({busy: true, done: 0, total: 0, what: t("Starting…")});
}

/** The server does not answer: what was just started has not begun. If it has, the next answer shows it again. */
export function giveUp() {
    if (run) end();
}

function end() {
    endedRuns += 1;
    const page = run?.page ?? null;
    run = null;
    results = 0;
    show(null);
    onEnd(page);
    ask(); // another page may have started the next run
}

/** @param {Progress} progress */
function follow(progress) {
    if (!run) {
        if (!progress.busy) return;
        run = {page: null, quietSince: 0, isCancelling: false}; // of another page, or from before this one was loaded
    }
    if (progress.busy) {
        run.quietSince = Date.now();
        results = progress.results ?? 0;
        if (run.isCancelling) cancel(); // the first request may have come before the server knew the run
        show(progress);
    } else if (!run.page || Date.now() - run.quietSince > GIVE_UP_MS) {
        end();
    }
}

const cancel = () => fetch(address("cancel"), {method: "POST"}).catch(() => {});

const libraryIsVisible = () => Boolean(find(LIBRARY.panel)?.offsetParent);

/** Show which file is being hashed in the background; at the end, the table with the hashes. */
async function followHashing() {
    const answer = await fetch(address("hashes"), {cache: "no-store"});
    if (!answer.ok) return;
    const progress = await answer.json();
    if (run) return;
    if (!progress.busy && hashed !== null && hashed !== progress.done) find(LIBRARY.name + "_refresh")?.click();
    hashed = progress.busy ? (hashed ?? 0) : progress.done;
    isHashing = progress.busy;
    find(LIBRARY.panel)?.toggleAttribute("data-hashing", isHashing);
    if (isHashing) fill(LIBRARY, progress);
}

/** @param {Page} page */
const lastMessage = (page) => all(document, `#${page.name}_message [data-run]`)[0]?.dataset.run;

function hasMessage() {
    const message = run?.page && lastMessage(run.page);
    return Boolean(message) && message !== run?.before;
}

/** @param {Progress | null} progress */
function show(progress) {
    for (const page of PAGES) showOn(page, progress);
}

/**
 * @param {Page} page
 * @param {Progress | null} progress
 */
function showOn(page, progress) {
    const panel = find(page.panel);
    if (!panel) return;
    panel.toggleAttribute("data-busy", run !== null);
    panel.toggleAttribute("data-cancelling", Boolean(run?.isCancelling));
    if (run && progress) fill(page, progress);
}

/**
 * @param {Page} page
 * @param {Progress} progress
 */
function fill(page, progress) {
    const bar = find(page.panel)?.querySelector(".vae-lab-progress");
    if (!bar) return;
    const {done} = progress;
    const total = Math.max(progress.total, 1);
    const asText = progress.unit === "bytes" ? sized : String;
    const count = progress.total ? t("{done} of {total}", {done: asText(done), total: asText(progress.total)}) : "";
    const {cancelling} = run?.page ?? page;
    const parts = [count, progress.what, rate(progress), timeLeft(progress)];
    const text = run?.isCancelling ? cancelling : parts.filter(Boolean).join(" · ");
    bar.setAttribute("aria-valuemax", String(total));
    bar.setAttribute("aria-valuenow", String(done));
    bar.setAttribute("aria-valuetext", text);
    part(bar, ".vae-lab-bar").style.width = `${(100 * done) / total}%`;
    write(part(bar, ".vae-lab-step"), text);
}

/** As `sized` in vae_lab/text.py, from a megabyte on. */
const sized = (/** @type {number} */ bytes) =>
    bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;

/**
 * Of a run that counts bytes.
 *
 * @param {Progress} progress
 */
const rate = ({unit, done, seconds = 0}) => unit === "bytes" && done && seconds ? `${sized(done / seconds)}/s` : "";

/**
 * By the mean time of the steps so far; "" while that says little.
 *
 * @param {Progress} progress
 */
function timeLeft({done, total, seconds = 0}) {
    if (!done || done >= total || seconds < MIN_SECONDS) return "";
    const left = Math.ceil((seconds / done) * (total - done));
    if (left < 60) return t("about {seconds} s left", {seconds: left});
    return t("about {minutes} min left", {minutes: Math.ceil(left / 60)});
}
