// @ts-check
// About this host: what the server says of itself, fetched whenever it is opened.

import {toClipboard} from "../shared/clipboard.mjs";
import {closest, make, part, write} from "../shared/dom.mjs";
import {address} from "../shared/server.mjs";
import {t} from "../shared/text.mjs";

const BOX = "details.vae-lab-about";

export function start() {
    // The event does not bubble.
    document.addEventListener("toggle", (event) => {
        const box = /** @type {HTMLDetailsElement | null} */ (closest(event, BOX));
        if (box?.open) show(box);
    }, true);
}

/** @param {HTMLElement} box */
async function show(box) {
    const rows = part(box, "tbody");
    try {
        const answer = await fetch(address("host"), {cache: "no-store"});
        const {facts, detail} = await answer.json();
        if (!answer.ok) throw new Error(detail);
        rows.replaceChildren(...Object.entries(facts).map(row));
        write(part(box, "[role=status]"), "");
    } catch (error) {
        write(part(box, "[role=status]"), error instanceof TypeError ? t("No response from VAE Lab.") : String(error));
    }
}

/** @param {[string, unknown]} fact */
const row = ([name, value]) =>
    make("tr", {}, make("th", {scope: "row"}, name), make("td", {}, String(value)));

/**
 * Copy the table as lines of text.
 *
 * @param {MouseEvent} event
 */
export async function onClick(event) {
    const box = closest(event, "[data-about=copy]")?.closest(BOX);
    if (!box) return;
    const lines = [...box.querySelectorAll("tr")].map((each) => [...each.children].map((cell) => cell.textContent));
    const isDone = await toClipboard(lines.map((cells) => cells.join(": ")).join("\n"));
    write(part(box, "[role=status]"), isDone ? t("Copied") : t("The browser does not allow it"));
}
