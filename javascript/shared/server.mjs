// @ts-check
// Our routes on the server.

import {make} from "./dom.mjs";
import {t} from "./text.mjs";

/** The address of a route. */
export const address = (/** @type {string} */ path) => new URL("vae-lab/v1/" + path, document.baseURI);

/** Dispatched on the document after a VAE was chosen to stay, or that was undone. */
export const CHOICE_EVENT = "vae-lab-choice";

/**
 * What the routes that change a choice answer: a message and, if it can be undone, an id; of an error, its reason.
 *
 * @typedef {{message?: string, undo_id?: string | null, detail?: string}} ChoiceAnswer
 */

/**
 * A button that undoes a choice; picks.mjs handles clicks on it.
 *
 * @param {string} id
 */
export const undoButton = (id) => make("button", {type: "button", class: "vae-lab-link", "data-undo": id}, t("Undo"));

/**
 * Change a choice.
 *
 * @param {"choose" | "undo"} route
 * @param {Record<string, string>} body
 * @returns {Promise<ChoiceAnswer>}
 */
export async function changeChoice(route, body) {
    const headers = {"Content-Type": "application/json"};
    try {
        const answer = await fetch(address(route), {method: "POST", headers, body: JSON.stringify(body)});
        return await answer.json();
    } catch {
        return {detail: t("No response from VAE Lab.")};
    } finally {
        document.dispatchEvent(new CustomEvent(CHOICE_EVENT));
    }
}
