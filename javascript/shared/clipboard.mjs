// @ts-check
// The clipboard.

import {make} from "./dom.mjs";

/**
 * Copy a text; whether the browser did. The clipboard's API exists only on pages that the browser calls secure: https,
 * and this machine.
 *
 * @param {string} text
 */
export async function toClipboard(text) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch {
        return copySelection(text);
    }
}

/** @param {string} text */
function copySelection(text) {
    const focused = document.activeElement;
    const area = make("textarea", {style: "position: fixed; top: 0; opacity: 0"});
    area.value = text;
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return isDone;
}
