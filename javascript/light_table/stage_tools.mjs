// @ts-check
// The tools of each view of the stage, between the names of A and B.

import {make} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";
import {MAX_RATE, MIN_RATE} from "./blink.mjs";
import {button} from "./button.mjs";
import {MAX_GAIN} from "./difference.mjs";
import {GRADIENT, MAX_DELTA_E} from "./heat.mjs";

/** @type {[string, string, string][]} */
const AXES = [
    ["x", t("Vertical"), t("A vertical divider: A is on its left (V)")],
    ["y", t("Horizontal"), t("A horizontal divider: A is above it (V)")],
    ["blend", t("Opacity"), t("B over A, as opaque as you like (O)")],
];

/** Of the slider: the kind of divider, or the opacity, and whether it follows the pointer. */
export function buildSliderTools() {
    const axes = make("span", {role: "group", class: "vae-lab-switch", "aria-label": t("Divider")},
        ...AXES.map(([axis, text, title]) => button(text, "axis", axis, {title})));
    const blend = make("input",
        {type: "range", min: 0, max: 100, step: 1, "aria-label": t("Opacity of B"), "data-set": "blend"});
    const blendLabel = make("output", {});
    const blendTools = make("label", {}, "A", blend, "B", blendLabel);
    const follow = button(t("Follow the mouse"), "follow", "", {title: t("The divider moves without a click (M)")});
    const sliderTools = make("span", {class: "vae-lab-gain"}, axes, follow, blendTools);
    return {sliderTools, blendTools, blend, blendLabel};
}

/** Of Blink. */
export function buildBlinkTools() {
    const hold = button(t("Hold to see B"), "hold", "",
        {class: "vae-lab-hold", title: t("Or hold the image, or the space bar")});
    const rate = make("input", {
        type: "range", min: MIN_RATE, max: MAX_RATE, step: 0.5, "aria-label": t("Changes per second"),
        title: t("Changes per second"), "data-set": "rate",
    });
    const rateLabel = make("output", {});
    const blinkTools = make("span", {class: "vae-lab-gain"}, hold,
        button(t("Blink automatically"), "auto", "", {title: t("A and B in turn, until you press it again (R)")}),
        make("label", {}, rate, rateLabel));
    return {blinkTools, hold, rate, rateLabel};
}

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
    const metrics = make("span", {role: "group", class: "vae-lab-switch", "aria-label": t("Difference")},
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
    return make("span", {class: "vae-lab-heat-legend", role: "img", "aria-label": label, title: label}, bar, ...ticks);
}
