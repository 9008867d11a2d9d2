// @ts-check

/**
 * A text in the user's language.
 *
 * The WebUI puts its dictionary into window.localization before any script runs; a page without one stays English.
 *
 * @param {string} template English, with {name} where a value belongs; the key of the dictionary
 * @param {Record<string, string | number>} [values] what to put in, by name
 * @returns {string}
 */
export function t(template, values = {}) {
    const translated = window.localization?.[template] || template;
    return translated.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}
