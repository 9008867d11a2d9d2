// @ts-check
// What only the stand-alone app's page does: the menu of languages and the translation of gradio's labels, for which
// the WebUI has its own; a landmark, which gradio's page lacks; and zooming on phones, which gradio forbids.

import {all, make, until} from "../shared/dom.mjs";
import {t} from "../shared/text.mjs";

const BUILT_MS = 60000; // gradio builds the page meanwhile
// A cookie, which the server needs too. Unlike localStorage, it is the same on every port: the app takes any free one.
const COOKIE = "vae_lab_language";
const COOKIE_S = 365 * 24 * 3600;
/** @type {Record<string, string>} */
const LANGUAGES = {en: "English", zh_CN: "中文"};

// Our own markup is in gradio's ".prose", and in the language of the page already: it has names of files, which must
// stay as they are. Only these parts are as they were when the server started.
const OWN = ".prose, script, style";
const STARTED = ".vae-lab-heading, .vae-lab-about, .vae-lab-guide, .vae-lab-empty";
const ATTRIBUTES = ["aria-label", "placeholder", "title"];

export async function start() {
    document.querySelector("meta[name=viewport]")?.setAttribute("content", "width=device-width, initial-scale=1");
    const language = chosen();
    remember(language); // before the first request for something to show
    document.documentElement.lang = tag(language);
    const content = await until(() => document.querySelector(".gradio-container .contain .vae-lab-heading"), BUILT_MS);
    content?.closest(".contain")?.setAttribute("role", "main");
    if (language !== "en") await translatePage(language);
    content?.append(menu(language));
}

/** As HTML writes it. */
const tag = (/** @type {string} */ language) => language.replace("_", "-");

/** The language of the cookie, else of the browser. */
function chosen() {
    const stored = new RegExp(`(?:^|; )${COOKIE}=(\\w+)`).exec(document.cookie)?.[1] ?? "";
    return stored in LANGUAGES ? stored : navigator.language.startsWith("zh") ? "zh_CN" : "en";
}

/** @param {string} language */
function remember(language) {
    document.cookie = `${COOKIE}=${language}; Path=/; Max-Age=${COOKIE_S}; SameSite=Strict`;
}

/** @param {string} language */
function menu(language) {
    const options = Object.entries(LANGUAGES).map(([value, name]) => make("option", {value, lang: tag(value)}, name));
    const select = make("select", {}, ...options);
    select.value = language;
    select.addEventListener("change", () => {
        remember(select.value);
        location.reload();
    });
    return make("label", {class: "vae-lab-language"}, t("Language"), " ", select);
}

/** @param {string} language */
async function translatePage(language) {
    try {
        const answer = await fetch(new URL(`../../localizations/${language}.json`, import.meta.url));
        window.localization = await answer.json();
    } catch {
        return; // without its dictionary, the page stays English
    }
    translate(document.body);
    new MutationObserver((changes) => changes.flatMap(changedBy).forEach(translate))
        .observe(document.body, {childList: true, characterData: true, subtree: true});
}

/** @param {MutationRecord} change */
const changedBy = ({type, target, addedNodes}) => (type === "characterData" ? [target] : [...addedNodes]);

/**
 * Replace whole texts for which the dictionary has a translation.
 *
 * @param {Node} node and what is below it
 */
function translate(node) {
    if (node instanceof Element) {
        for (const element of [node, ...all(node, ATTRIBUTES.map((name) => `[${name}]`).join())]) {
            if (isTranslated(element)) translateAttributes(element);
        }
    }
    const texts = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    for (let text = node instanceof Text ? node : texts.nextNode(); text; text = texts.nextNode()) {
        if (text.parentElement && isTranslated(text.parentElement)) translateText(text);
    }
}

/** @param {Element} element */
const isTranslated = (element) => !element.closest(OWN) || element.closest(STARTED) !== null;

/** @param {Node} node */
function translateText(node) {
    const shown = node.nodeValue ?? "";
    const known = shown.trim();
    const translated = window.localization?.[known];
    if (translated) node.nodeValue = shown.replace(known, () => translated);
}

/** @param {Element} element */
function translateAttributes(element) {
    for (const name of ATTRIBUTES) {
        const translated = window.localization?.[element.getAttribute(name) ?? ""];
        if (translated) element.setAttribute(name, translated);
    }
}
