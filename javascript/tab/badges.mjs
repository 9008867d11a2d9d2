// @ts-check
// Badges of broken VAEs: next to the checkpoint in use, and on the cards of checkpoints.

import {all, make} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {address} from "../shared/server.mjs";

/**
 * One entry of what GET checkpoints answers.
 *
 * @typedef {{name: string, stem: string, current: boolean, status: string | null, title?: string | null,
 *   text?: string | null}} Checkpoint
 */

const POLL_MS = 4000; // how often verdicts are requested while something that shows them is visible
const REFUSED_MS = 60000; // the same after an error, such as a login that has expired

const CARDS = "#txt2img_checkpoints_cards > .card, #img2img_checkpoints_cards > .card";
const SHOWS_BADGES = "#vae_lab_panel, #vae_lab_checkup, .vae-lab-deciding, " + CARDS;
const STATUSES_ON_CARDS = ["broken", "suspect", "missing"];
/** @type {Record<string, string>} */
const STATUS_WORDS = {broken: t("broken"), suspect: t("suspect"), unreadable: t("cannot be read")};

/** @type {Checkpoint[] | null} */
let checkpoints = null; // the last answer
/** @type {Map<string, Checkpoint>} */
let cards = new Map(); // stem of a file -> the checkpoint whose badge its card gets
let requestedAt = 0;
let interval = POLL_MS;
let isRequesting = false;
let hasNewResults = false; // the Checkup page has shown new results while an answer was under way
let isStale = false; // what the Checkup page shows of the checkpoint in use
/** @type {() => boolean} */
let refreshCheckup = () => false;

/**
 * @param {() => boolean} refresh refreshes the Checkup page, if it is visible; false if it must be asked again later
 */
export function start(refresh) {
    refreshCheckup = refresh;
}

/**
 * Called by the tab's clock.
 *
 * @param {number} tick ms
 */
export function checkBadges(tick) {
    if (document.hidden || !all(document, SHOWS_BADGES).some((element) => element.offsetParent !== null)) return;
    if (checkpoints !== null) showBadges();
    const hasNewLine = document.querySelector(".vae-lab-current-badge:not([data-filled])");
    const wait = hasNewLine && interval < REFUSED_MS ? tick : interval;
    if (Date.now() - requestedAt > wait) requestVerdicts(false);
}

/**
 * Request the verdicts and show them.
 *
 * @param {boolean} isShownAlready the Checkup page itself has just shown what may be new
 */
export async function requestVerdicts(isShownAlready) {
    if (isRequesting) {
        hasNewResults ||= isShownAlready;
        return;
    }
    isRequesting = true;
    requestedAt = Date.now();
    interval = REFUSED_MS;
    try {
        const answer = await fetch(address("checkpoints?fresh=false"), {cache: "no-store"});
        if (answer.ok) receive((await answer.json()).checkpoints, isShownAlready);
    } catch {
        // The server has stopped; the next request comes later.
    } finally {
        isRequesting = false;
    }
    if (!hasNewResults) return;
    hasNewResults = false;
    requestVerdicts(true);
}

/**
 * @param {Checkpoint[]} answer
 * @param {boolean} isShownAlready
 */
function receive(answer, isShownAlready) {
    const before = signature();
    checkpoints = answer;
    cards = groupByStem(answer);
    interval = Math.max(POLL_MS, 20 * (Date.now() - requestedAt)); // a slow answer is requested less often
    showBadges();
    for (const badge of all(document, ".vae-lab-current-badge")) badge.dataset.filled = "";
    // Another checkpoint, or a new verdict. While a run is active, its page waits for the end of it.
    isStale = !isShownAlready && !hasNewResults && (isStale || (before !== null && signature() !== before));
    if (isStale) isStale = !refreshCheckup();
}

function signature() {
    const current = checkpoints?.find((checkpoint) => checkpoint.current);
    return checkpoints === null ? null : JSON.stringify([current?.name, current?.status, current?.text]);
}

function showBadges() {
    for (const badge of all(document, ".vae-lab-current-badge")) showCurrent(badge);
    for (const card of all(document, CARDS)) showOnCard(card, cards.get(card.dataset.name ?? ""));
}

/**
 * The checkpoint that a badge names, else the one in use.
 *
 * @param {HTMLElement} badge
 */
export function checkpointOf(badge) {
    const name = badge.dataset.checkpoint;
    return checkpoints?.find((checkpoint) => (name ? checkpoint.name === name : checkpoint.current));
}

/** @param {HTMLElement} badge */
function showCurrent(badge) {
    const checkpoint = checkpointOf(badge);
    const isBad = checkpoint?.status && checkpoint.status !== "healthy" && checkpoint.status !== "no-vae";
    const text = isBad ? describe(checkpoint, t("Built-in VAE")) : "";
    const isUnused = isBad && badge.hasAttribute("data-unused");
    fillBadge(badge, isUnused ? t("{text}, not used now", {text}) : text, isBad ? checkpoint : null);
}

/**
 * Cards know a checkpoint only by its file's stem; where two checkpoints share one and differ, neither is shown.
 *
 * @param {Checkpoint[]} answer
 * @returns {Map<string, Checkpoint>}
 */
function groupByStem(answer) {
    const byStem = new Map();
    for (const checkpoint of answer) {
        const other = byStem.get(checkpoint.stem) ?? checkpoint;
        byStem.set(checkpoint.stem, other.status === checkpoint.status ? checkpoint : {status: null});
    }
    return new Map([...byStem].filter(([, checkpoint]) => STATUSES_ON_CARDS.includes(checkpoint.status)));
}

/**
 * @param {HTMLElement} card
 * @param {Checkpoint | undefined} checkpoint
 */
function showOnCard(card, checkpoint) {
    /** @type {HTMLElement | null} */
    let badge = card.querySelector(":scope > .vae-lab-card-badge");
    if (!checkpoint) {
        badge?.remove();
        return;
    }
    if (!badge) {
        badge = make("span", {class: "vae-lab-card-badge", role: "img"});
        card.append(badge);
    }
    fillBadge(badge, describe(checkpoint, t("VAE")), checkpoint);
    badge.setAttribute("aria-label", `VAE Lab: ${badge.textContent}. ${checkpoint.text ?? ""}`);
}

/**
 * @param {Checkpoint} checkpoint
 * @param {string} subject
 */
function describe({status, title}, subject) {
    if (status === "missing") return t("No VAE inside");
    const text = `${subject} ${STATUS_WORDS[status ?? ""] ?? status}`;
    if (!title || status === "unreadable") return text;
    const finding = t(title);
    return t("{text}: {finding}", {text, finding: finding[0].toLowerCase() + finding.slice(1)});
}

/**
 * Only what has changed is written: this runs with every tick of the clock. What was written is stored, since the
 * WebUI may have put a translation in its place.
 *
 * @param {HTMLElement} badge
 * @param {string} text
 * @param {Checkpoint | null} checkpoint
 */
function fillBadge(badge, text, checkpoint) {
    const title = t(checkpoint?.text ?? "");
    const status = checkpoint?.status ?? "";
    if (badge.dataset.text !== text) badge.textContent = badge.dataset.text = text;
    if ((badge.dataset.title ?? "") !== title) badge.title = badge.dataset.title = title;
    if ((badge.dataset.status ?? "") !== status) badge.dataset.status = status;
}
