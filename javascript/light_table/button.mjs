// @ts-check

import {make} from "../shared/dom.mjs";

/**
 * A button that carries what it does in data-act and data-value, see controls.mjs.
 *
 * @param {string} text
 * @param {string} act
 * @param {string | number} value
 * @param {Record<string, string | number | null | undefined>} [attributes]
 */
export function button(text, act, value, attributes = {}) {
    return make("button", {type: "button", "data-act": act, "data-value": value, ...attributes}, text);
}
