// @ts-check
// What only the stand-alone app's page needs: gradio's page has no landmark, and forbids phones to zoom.

import {until} from "../shared/dom.mjs";

const BUILT_MS = 60000; // gradio builds the page meanwhile

export async function start() {
    document.querySelector("meta[name=viewport]")?.setAttribute("content", "width=device-width, initial-scale=1");
    const content = await until(() => document.querySelector(".gradio-container .contain"), BUILT_MS);
    content?.setAttribute("role", "main");
}
