// @ts-check
// The only script that a page loads; everything else is imported from the folders next to this file.
//
// The hosts load javascript/*.mjs as modules and add the time of the file's last change to its address, so that a
// browser notices an update. Imported modules have no such query, and the hosts send them without Cache-Control. So
// each is requested from the server once, past the browser's cache, before it is imported: otherwise a browser could
// combine modules of two versions after an update.
// The stand-alone app adds "alone" to the address.
// window.vaeLab: a promise that is fulfilled once everything runs. An extension that is installed twice runs once.

const MODULES = [
    "shared/clipboard.mjs", "shared/dom.mjs", "shared/server.mjs", "shared/text.mjs",
    "light_table/table.mjs", "light_table/layout.mjs", "light_table/geometry.mjs", "light_table/view.mjs",
    "light_table/draw.mjs", "light_table/difference.mjs", "light_table/loupe.mjs", "light_table/color.mjs",
    "light_table/heat.mjs", "light_table/histogram.mjs", "light_table/blink.mjs", "light_table/blind.mjs",
    "light_table/tally.mjs", "light_table/button.mjs", "light_table/stage_tools.mjs", "light_table/readout.mjs",
    "light_table/actions.mjs", "light_table/controls.mjs", "light_table/pointer.mjs", "light_table/keys.mjs",
    "tab/tab.mjs", "tab/runs.mjs", "tab/comparisons.mjs", "tab/badges.mjs", "tab/picks.mjs",
    "tab/gallery.mjs", "tab/number_tables.mjs", "tab/fixes.mjs", "tab/about.mjs",
    "tab/merger.mjs", "tab/standalone.mjs", "tab/unreachable.mjs", "tab/vae_files.mjs", "tab/vae_list.mjs",
    "tab/library.mjs",
];

async function start() {
    const refresh = (/** @type {string} */ module) => fetch(new URL(module, import.meta.url), {cache: "no-cache"});
    await Promise.allSettled(MODULES.map(refresh)); // what the browser has is better than nothing
    const isAlone = new URL(import.meta.url).searchParams.has("alone");
    if (isAlone) await (await import("./tab/standalone.mjs")).start();
    const [lightTable, tab] = await Promise.all([import("./light_table/table.mjs"), import("./tab/tab.mjs")]);
    lightTable.start();
    tab.start();
}

window.vaeLab ??= start();
