// @ts-check
// Colours in numbers: CIELAB and the colour difference CIEDE2000, as vae_lab/comparison/measures.py has them.

/**
 * @typedef {[red: number, green: number, blue: number]} Rgb from 0 to 255
 * @typedef {[lightness: number, a: number, b: number]} Lab
 */

const LINEAR = Float64Array.from({length: 256}, (_, i) =>
    (i <= 0.04045 * 255 ? i / 255 / 12.92 : ((i / 255 + 0.055) / 1.055) ** 2.4));
const WHITE = [0.95047, 1, 1.08883]; // D65, 2 degrees

const root = (/** @type {number} */ value) => (value > 0.008856 ? Math.cbrt(value) : 7.787 * value + 16 / 116);

/**
 * CIELAB (D65) of a colour in sRGB.
 *
 * @param {number} red from 0 to 255, as green and blue
 * @param {number} green
 * @param {number} blue
 * @returns {Lab}
 */
export function labOf(red, green, blue) {
    const [r, g, b] = [LINEAR[red], LINEAR[green], LINEAR[blue]];
    const x = root((0.412453 * r + 0.35758 * g + 0.180423 * b) / WHITE[0]);
    const y = root((0.212671 * r + 0.71516 * g + 0.072169 * b) / WHITE[1]);
    const z = root((0.019334 * r + 0.119193 * g + 0.950227 * b) / WHITE[2]);
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/**
 * The colour difference CIEDE2000 (Sharma, Wu, Dalal, 2005); below 1 is hardly visible.
 *
 * @param {Lab} first
 * @param {Lab} second
 */
export function deltaE(first, second) {
    const [l1, a1, b1] = first;
    const [l2, a2, b2] = second;
    const mean7 = ((Math.hypot(a1, b1) + Math.hypot(a2, b2)) / 2) ** 7;
    const stretch = 1.5 - 0.5 * Math.sqrt(mean7 / (mean7 + 25 ** 7));
    const [c1, c2] = [Math.hypot(a1 * stretch, b1), Math.hypot(a2 * stretch, b2)];
    const [h1, h2] = [hue(a1 * stretch, b1), hue(a2 * stretch, b2)];
    const isGrey = c1 * c2 === 0;
    let turn = isGrey ? 0 : h2 - h1;
    if (Math.abs(turn) > Math.PI) turn -= Math.sign(turn) * 2 * Math.PI;
    let h = isGrey ? h1 + h2 : (h1 + h2) / 2;
    if (!isGrey && Math.abs(h1 - h2) > Math.PI) h += h < Math.PI ? Math.PI : -Math.PI;
    const c = (c1 + c2) / 2;
    const from50 = ((l1 + l2) / 2 - 50) ** 2;
    const dL = (l2 - l1) / (1 + (0.015 * from50) / Math.sqrt(20 + from50));
    const dC = (c2 - c1) / (1 + 0.045 * c);
    const dH = (2 * Math.sqrt(c1 * c2) * Math.sin(turn / 2)) / (1 + 0.015 * c * hueWeight(h));
    const theta = (Math.PI / 3) * Math.exp(-((((h * 180) / Math.PI - 275) / 25) ** 2));
    const rotation = -2 * Math.sqrt(c ** 7 / (c ** 7 + 25 ** 7)) * Math.sin(theta);
    return Math.sqrt(Math.max(0, dL * dL + dC * dC + dH * dH + rotation * dC * dH));
}

/**
 * @param {number} a
 * @param {number} b
 * @returns {number} angle from 0 to 2 pi
 */
function hue(a, b) {
    const angle = Math.atan2(b, a);
    return angle < 0 ? angle + 2 * Math.PI : angle;
}

/** @param {number} h mean hue */
function hueWeight(h) {
    const degrees = Math.PI / 180;
    return 1 - 0.17 * Math.cos(h - 30 * degrees) + 0.24 * Math.cos(2 * h) + 0.32 * Math.cos(3 * h + 6 * degrees) -
        0.2 * Math.cos(4 * h - 63 * degrees);
}
