// @ts-check
// The tools of each view of the stage, between the names of A and B.

import {make} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {button} from "./button.mjs";
import {MAX_GAIN} from "./difference.mjs";
import {GRADIENT, MAX_DELTA_E} from "./heat.mjs";

/** Of Difference: what is shown, and either the gain or the scale. */
export function buildDifferenceTools() {
    const gain = make("input",
        {type: "range", min: 1, max: MAX_GAIN, step: 1, "aria-label": t("Gain"), "data-set": "gain"});
    const gainLabel = make("output", {});
    const gainTools = make("span", {class: "vae-lab-gain"},
        make("label", {}, t("Gain"), " ", gain, " ", gainLabel),
        button(t("Auto"), "gain", "", {title: t("Fit the gain to all but the strongest 1 % of differences")}));
    const legend = buildLegend();
    const largest = make("output", {class: "vae-lab-largest"});
    const metrics = make("span", {role: "group", class: "vae-lab-choices", "aria-label": t("Difference")},
        button("RGB", "metric", "rgb", {title: t("Difference of each channel, times the gain (E)")}),
        button("ΔE", "metric", "lab", {title: t("Colour difference as the eye sees it, CIEDE2000 (E)")}));
    const differenceTools = make("span", {class: "vae-lab-gain"}, metrics, gainTools, legend, largest);
    return {differenceTools, gainTools, gain, gainLabel, legend, largest};
}

function buildLegend() {
    const bar = make("span", {class: "vae-lab-scale"});
    bar.style.background = GRADIENT;
    const ticks = [0, 1, 2, 5, MAX_DELTA_E].map((value) => {
        const tick = make("span", {class: "vae-lab-tick"}, value === MAX_DELTA_E ? `${value}+` : String(value));
        tick.style.left = `${(100 * value) / MAX_DELTA_E}%`;
        return tick;
    });
    const label = t("Scale of ΔE: below 1 is hardly visible, {max} or more has the last colour", {max: MAX_DELTA_E});
    return make("span", {class: "vae-lab-legend", role: "img", "aria-label": label, title: label}, bar, ...ticks);
}
