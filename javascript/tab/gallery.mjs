// @ts-check
// A button below the WebUI's galleries: compare VAEs on the image that is selected there.

import {all, find, make, until} from "../shared/dom.mjs";
import {address} from "../shared/server.mjs";
import {t} from "../shared/text.mjs";
import {pick, switchTo} from "./picks.mjs";

/** @typedef {{id: string, infotexts: string[]}} Stored one entry of what GET latents answers */

const WAIT_MS = 15000; // for the page to show what was asked for
const MESSAGE_MS = 8000;
const GALLERIES = ["txt2img", "img2img"];

/** Called by the tab's clock: the WebUI builds its page late, and may build it again. */
export function addGalleryButtons() {
    for (const gallery of GALLERIES) {
        const row = find("image_buttons_" + gallery);
        if (row && find("vae_lab_panel") && !row.querySelector(".vae-lab-from-gallery")) row.append(button(gallery));
    }
}

/** @param {string} gallery */
function button(gallery) {
    // Its look is that of the WebUI's own buttons there.
    const own = find("image_buttons_" + gallery)?.querySelector("button")?.className ?? "";
    const made = make("button", {
        type: "button", class: `${own} vae-lab-from-gallery`, id: "vae_lab_compare_" + gallery,
        title: t("Compare VAEs on this image"), "aria-label": t("Compare VAEs on this image"),
    }, "VAE");
    made.addEventListener("click", () => compare(gallery, made));
    return made;
}

/**
 * Open the tab with the latent of the selected image, and compare.
 *
 * @param {string} gallery
 * @param {HTMLElement} pressed
 */
async function compare(gallery, pressed) {
    const seed = seedOf(find("html_info_" + gallery)?.innerText ?? "");
    if (!seed) return say(pressed, t("There is no image yet: generate one first."));
    const found = await stored(seed);
    if (found === null) return say(pressed, t("No response from VAE Lab."));
    if (!found) return say(pressed, t("The latent of this image is no longer stored: generate it again."));
    const asked = refreshes();
    switchTo(find("tab_vae_lab"));
    switchTo(find("vae_lab_page_compare"));
    // The page refreshes itself when it comes into view, which would undo what was picked before.
    await until(() => refreshes() !== asked || null, WAIT_MS);
    pick("latent", found.id);
    const shown = () => all(document, "#vae_lab_latent [data-latent]").find((card) => card.dataset.latent === found.id);
    if (await until(shown, WAIT_MS)) find("vae_lab_compare")?.click();
}

/**
 * Of generation parameters; each image of a batch has its own.
 *
 * @param {string} infotext
 */
const seedOf = (infotext) => /\bSteps: .*\bSeed: (\d+)/.exec(infotext)?.[1];

/**
 * The newest stored generation with an image of this seed; null if the server does not answer.
 *
 * @param {string} seed
 * @returns {Promise<Stored | undefined | null>}
 */
async function stored(seed) {
    try {
        const answer = await fetch(address("latents"), {cache: "no-store"});
        /** @type {Stored[]} */
        const latents = (await answer.json()).latents ?? [];
        return latents.find(({infotexts}) => infotexts.some((infotext) => seedOf(infotext) === seed));
    } catch {
        return null;
    }
}

/** How often the Compare page has been refreshed. */
const refreshes = () => all(document, "#vae_lab_deciding [data-asked]")[0]?.dataset.asked;

/**
 * A message below the button, for a while.
 *
 * @param {HTMLElement} pressed
 * @param {string} text
 */
function say(pressed, text) {
    const row = pressed.parentElement;
    row?.parentElement?.querySelector(".vae-lab-gallery-note")?.remove();
    const note = make("p", {class: "vae-lab-gallery-note", role: "status"}, text);
    row?.after(note);
    setTimeout(() => note.remove(), MESSAGE_MS);
}
