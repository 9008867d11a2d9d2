// @ts-check
// The table on the Library page: one row for each VAE; its button shows the row below, with details and other files.

import {closest, fill} from "../shared/dom.mjs";

/** @param {MouseEvent} event */
export function onClick(event) {
    const fold = closest(event, "#vae_lab_library .vae-lab-library-fold");
    const more = /** @type {HTMLElement | null | undefined} */ (fold?.closest("tr")?.nextElementSibling);
    if (fold && more) {
        more.hidden = !more.hidden;
        fold.setAttribute("aria-expanded", String(!more.hidden));
    }
    const find = closest(event, "#vae_lab_library [data-find]");
    if (find) fill("vae_lab_library_filter", find.dataset.find ?? "");
}
