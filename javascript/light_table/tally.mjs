// @ts-check
// What the answers of a blind test say.

import {t} from "../shared/text.mjs";

/** @import {Trial} from "./types" */

const Z = 1.959964; // of 95 %

/**
 * Wilson's 95 % confidence interval of a share.
 *
 * @param {number} count
 * @param {number} total at least 1
 * @returns {[low: number, high: number]} from 0 to 1
 */
export function wilson(count, total) {
    const share = count / total;
    const middle = share + (Z * Z) / (2 * total);
    const half = Z * Math.sqrt((share * (1 - share)) / total + (Z * Z) / (4 * total * total));
    const scale = 1 + (Z * Z) / total;
    return [Math.max(0, (middle - half) / scale), Math.min(1, (middle + half) / scale)];
}

/**
 * A sentence or more for each pair of VAEs that was judged.
 *
 * @param {Trial[]} trials with their answers
 * @returns {string[]}
 */
export function sentences(trials) {
    /** @type {Map<string, {names: [string, string], wins: [number, number], ties: number}>} */
    const pairs = new Map();
    for (const {names, answer} of trials) {
        if (!answer) continue;
        const sorted = /** @type {[string, string]} */ ([...names].sort());
        const key = JSON.stringify(sorted);
        const pair = pairs.get(key) ?? {names: sorted, wins: [0, 0], ties: 0};
        if (answer === "none") pair.ties += 1;
        else pair.wins[sorted.indexOf(names[answer === "left" ? 0 : 1])] += 1;
        pairs.set(key, pair);
    }
    return [...pairs.values()].map(describe);
}

/** @param {{names: [string, string], wins: [number, number], ties: number}} pair */
function describe({names, wins, ties}) {
    const first = wins[1] > wins[0] ? 1 : 0;
    const [x, y] = [names[first], names[1 - first]];
    const [count, total] = [wins[first], wins[0] + wins[1]];
    const lines = [];
    if (total) {
        const [low, high] = wilson(count, total);
        const percent = (/** @type {number} */ share) => Math.round(100 * share);
        const values = {x, y, count, total, percent: percent(count / total), low: percent(low), high: percent(high)};
        lines.push(
            t("You prefer {x} over {y} in {count} of {total} ({percent} %, 95 % interval {low} to {high} %).", values));
        if (low <= 0.5) lines.push(t("This may be chance."));
    }
    if (ties) lines.push(t("No preference between {x} and {y}: {count}.", {x, y, count: ties}));
    return lines.join(" ");
}
