// @ts-check
// The blind test: two images of unknown VAEs at a time, and which of them is better.
//
// While it runs, the grid is empty, and next to it is another one with only two figures, "Left" and "Right", whose
// images have addresses that say nothing. That grid is a light table like any other.

import {all, make} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {button} from "./button.mjs";
import {imageIn} from "./geometry.mjs";
import {sentences} from "./tally.mjs";
import {showMessage} from "./view.mjs";

/**
 * @import {Answer, Figure, Table, Trial} from "./types"
 *
 * @typedef {{name: string, images: Blob[]}} Candidate a VAE and its images
 * @typedef {{candidates: Candidate[], waiting: Trial[], done: Trial[], trial: Trial, urls: string[],
 *   panel: HTMLElement, end: () => void}} Test
 */

const SIDES = [t("Left"), t("Right")];

/** @type {WeakMap<Element, Test>} */
const tests = new WeakMap(); // by the grid with the two figures

/**
 * The figures whose images can be judged.
 *
 * @param {Figure[]} figures
 */
export const candidatesOf = (figures) => figures.filter((figure) => !figure.isMap && !figure.isReference);

/**
 * Hide the table, and show two of its images.
 *
 * @param {Table} table
 */
export async function startBlind(table) {
    const {grid} = table;
    const figures = candidatesOf(table.figures);
    if (figures.length < 2 || !grid.childElementCount) return;
    if (document.fullscreenElement) await document.exitFullscreen();
    showMessage(table, "");
    /** @type {Candidate[]} */
    let candidates;
    try {
        candidates = await Promise.all(figures.map(load));
    } catch {
        showMessage(table, t("This image has expired. Compare again."));
        return;
    }
    const hidden = [...grid.childNodes];
    const panel = make("div", {class: "vae-lab-blind", id: "vae_lab_blind"});
    const end = () => {
        panel.remove();
        grid.hidden = false;
        grid.replaceChildren(...hidden);
        grid.focus();
    };
    grid.replaceChildren();
    grid.hidden = true;
    grid.after(panel);
    const empty = {names: /** @type {[string, string]} */ (["", ""]), image: 0, answer: null};
    next({candidates, waiting: [], done: [], trial: empty, urls: [], panel, end});
}

/**
 * @param {Figure} figure
 * @returns {Promise<Candidate>}
 */
async function load({name, boxes}) {
    const images = await Promise.all(boxes.map(async (box) => {
        const answer = await fetch(imageIn(box).src);
        if (!answer.ok) throw new Error(String(answer.status));
        return answer.blob();
    }));
    return {name, images};
}

// --- trials ----------------------------------------------------------------------------------------------------------

/**
 * Every pair of candidates on every image that both have, in random order, with random sides.
 *
 * @param {Candidate[]} candidates
 * @returns {Trial[]}
 */
function draw(candidates) {
    /** @type {Trial[]} */
    const trials = candidates.flatMap((a, i) => candidates.slice(i + 1).flatMap((b) =>
        [...Array(Math.min(a.images.length, b.images.length)).keys()].map((image) =>
            ({names: Math.random() < 0.5 ? [a.name, b.name] : [b.name, a.name], image, answer: null}))));
    for (let i = trials.length - 1; i > 0; i--) {
        const j = Math.floor(Math.random() * (i + 1));
        [trials[i], trials[j]] = [trials[j], trials[i]];
    }
    return trials;
}

/** @param {Test} test */
function next(test) {
    if (!test.waiting.length) test.waiting = draw(test.candidates);
    test.trial = /** @type {Trial} */ (test.waiting.pop());
    const old = test.urls;
    test.urls = test.trial.names.map((name) => {
        const candidate = test.candidates.find((each) => each.name === name);
        return URL.createObjectURL(/** @type {Candidate} */ (candidate).images[test.trial.image]);
    });
    const images = /** @type {HTMLImageElement[]} */ (all(test.panel, "figure img"));
    if (images.length) images.forEach((image, i) => (image.src = test.urls[i]));
    else showTrial(test);
    old.forEach(URL.revokeObjectURL);
    const count = test.panel.querySelector(".vae-lab-blind-count");
    if (count) count.textContent = t("Judged: {count}", {count: test.done.length});
}

/** @param {Test} test */
function showTrial(test) {
    const figures = SIDES.map((side, i) => make("figure", {"data-vae": side},
        make("figcaption", {}, make("span", {class: "vae-lab-name"}, side)),
        make("div", {class: "vae-lab-images"}, make("img", {src: test.urls[i], alt: side}))));
    const answers = make("div", {class: "vae-lab-answers", role: "group", "aria-label": t("Which image is better?")},
        button(t("Left is better"), "answer", "left", {title: t("Key {key}", {key: 1})}),
        button(t("No preference"), "answer", "none", {title: t("Key {key}", {key: 0})}),
        button(t("Right is better"), "answer", "right", {title: t("Key {key}", {key: 2})}),
        button(t("End and reveal"), "answer", "end"),
        make("span", {class: "vae-lab-blind-count vae-lab-quiet", role: "status"}));
    const question = make("p", {}, make("b", {}, t("Blind test: which image is better?")), " ",
        t("The names are hidden, and the sides change at random. All tools work, also slider and blink."));
    const grid = make("div", {class: "vae-lab-grid", "data-blind": ""}, ...figures, answers);
    tests.set(grid, test);
    test.panel.replaceChildren(question, grid);
    requestAnimationFrame(() => grid.focus()); // once it is a light table
}

// --- answers ---------------------------------------------------------------------------------------------------------

/**
 * @param {Table} table of the two figures
 * @param {Answer | "end"} value
 */
export function answerBlind({grid}, value) {
    const test = tests.get(grid);
    if (!test) return;
    if (value === "end") {
        reveal(test);
        return;
    }
    test.done.push({...test.trial, answer: value});
    next(test);
}

/** @param {Test} test */
function reveal(test) {
    test.urls.forEach(URL.revokeObjectURL);
    const found = sentences(test.done);
    const close = make("button", {type: "button", class: "vae-lab-link"}, t("Back to the images"));
    close.addEventListener("click", test.end);
    const lines = found.length ? found : [t("Nothing was judged.")];
    test.panel.replaceChildren(make("div", {class: "vae-lab-note", role: "status"},
        make("p", {}, make("b", {}, t("Result of the blind test"))), ...lines.map((line) => make("p", {}, line)),
        make("p", {}, close)));
    close.focus();
}
