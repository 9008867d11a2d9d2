// @ts-check
// Small helpers around the DOM.

/**
 * An element by its id.
 *
 * @param {string} id
 */
export const find = (id) => document.getElementById(id);

/**
 * The first match below an element of which our own markup always has one.
 *
 * @param {Element} element
 * @param {string} selector
 * @returns {HTMLElement}
 */
export const part = (element, selector) => /** @type {HTMLElement} */ (element.querySelector(selector));

/**
 * All matches, as an array.
 *
 * @param {ParentNode} parent
 * @param {string} selector
 * @returns {HTMLElement[]}
 */
export const all = (parent, selector) =>
    [.../** @type {NodeListOf<HTMLElement>} */ (parent.querySelectorAll(selector))];

/**
 * The element that an event is about, or the ancestor of it that matches a selector.
 *
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export function closest(event, selector) {
    return event.target instanceof Element ? event.target.closest(selector) : null;
}

/**
 * A new element; attributes that are null or undefined are left out.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number | null | undefined>} attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (value !== null && value !== undefined) element.setAttribute(name, String(value));
    }
    element.append(...children);
    return element;
}

/**
 * Set an element's text, only if it has changed: hosts watch the page for changes, and this runs with every frame of
 * a drag. The text is stored, since the WebUI may have put a translation in its place.
 *
 * @param {HTMLElement} element
 * @param {string} text
 */
export function write(element, text) {
    if (element.dataset.text !== text) element.textContent = element.dataset.text = text;
}

/**
 * As `write`, of a text that no dictionary has and that changes all the time: hosts, which look for new nodes, do not
 * see it.
 *
 * @param {HTMLElement} element that has nothing else in it
 * @param {string} text
 */
export function writeQuietly(element, text) {
    const node = element.firstChild ?? element.appendChild(document.createTextNode(""));
    if (node.nodeValue !== text) node.nodeValue = text;
}

/**
 * Set an attribute, only if it has changed.
 *
 * @param {Element} element
 * @param {string} name
 * @param {string} value
 */
export function setAttribute(element, name, value) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Fill the text field of a gradio component, as if the user had typed; whether it exists.
 *
 * @param {string} id of the component
 * @param {string | number} value
 * @returns {boolean}
 */
export function fill(id, value) {
    /** @type {HTMLInputElement | null | undefined} */
    const field = find(id)?.querySelector("textarea, input:not([type=range])");
    if (!field) return false;
    field.value = String(value);
    field.dispatchEvent(new Event("input", {bubbles: true}));
    return true;
}

/**
 * What `look` returns, as soon as that is something; null after `wait` ms.
 *
 * @template T
 * @param {() => T | null | undefined} look
 * @param {number} wait
 * @returns {Promise<T | null>}
 */
export async function until(look, wait) {
    for (const end = Date.now() + wait; Date.now() < end;) {
        const result = look();
        if (result) return result;
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return null;
}
