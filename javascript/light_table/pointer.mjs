// @ts-check
// Mouse, finger and wheel.

import {closest} from "../shared/dom.mjs";
import {noteInput, onClick, onError, onInput} from "./controls.mjs";
import {redraw, redrawPlace} from "./draw.mjs";
import {geometry, isStage, placeAt} from "./geometry.mjs";
import {MAX_ZOOM, holdOther, isFullScreen, pan, setSplit, setZoom, showOther, stepZoom} from "./view.mjs";

/** @import {Point, Table} from "./types" */

const WHEEL_STEP = 60; // a wheel's notch is about 100, a touchpad's event a few
const CONTROLS = "button, a, select, input, output, [role=slider], [role=dialog]";

/**
 * Images or the divider being dragged.
 *
 * @typedef {{table: Table, box: HTMLElement, isDivider: boolean, points: Map<number, Point>, distance?: number,
 *   middle?: Point, s?: number}} Gesture
 */

/** @type {Gesture | null} */
let gesture = null;
let wheelTravel = 0;

const clientPoint = (/** @type {MouseEvent} */ event) => /** @type {Point} */ ([event.clientX, event.clientY]);
const boxUnder = (/** @type {Event} */ event) => closest(event, ".vae-lab-window");

/**
 * Listen to what happens inside a table.
 *
 * @param {Table} table
 */
export function listen(table) {
    const {grid} = table;
    grid.addEventListener("click", (event) => onClick(table, event));
    grid.addEventListener("input", (event) => onInput(table, event));
    grid.addEventListener("change", (event) => onInput(table, event));
    grid.addEventListener("pointerdown", (event) => onDown(table, event));
    grid.addEventListener("pointermove", (event) => followPointer(table, event));
    grid.addEventListener("pointerleave", () => setPlace(table, null));
    grid.addEventListener("wheel", (event) => onWheel(table, event), {passive: false});
    grid.addEventListener("load", () => redraw(table), true);
    grid.addEventListener("error", (event) => onError(table, event), true);
    grid.addEventListener("dblclick", (event) => onDoubleClick(table, event));
    grid.addEventListener("contextmenu", (event) => {
        if (table.view.other) event.preventDefault(); // the menu of a finger that holds long
    });
    grid.addEventListener("dragstart", (event) => {
        if (table.view.zoom || closest(event, ".vae-lab-stage")) event.preventDefault();
    });
    new ResizeObserver(() => redraw(table)).observe(grid);
}

/** Listen to what happens anywhere on the page. */
export function listenToPage() {
    document.addEventListener("pointerdown", () => noteInput(true), true);
    document.addEventListener("pointermove", onMove, true);
    document.addEventListener("pointerup", onUp, true);
    document.addEventListener("pointercancel", onUp, true);
}

// --- dragging --------------------------------------------------------------------------------------------------------

/**
 * @param {Table} table
 * @param {PointerEvent} event
 */
function onDown(table, event) {
    if (event.button !== 0) return;
    if (event.target === table.hold) {
        hold(table, event, table.hold);
        return;
    }
    const divider = closest(event, ".vae-lab-divider");
    const box = boxUnder(event);
    if (!divider && !box && closest(event, CONTROLS)) return;
    (divider ?? table.grid).focus({preventScroll: true});
    if (!box) return;
    followPointer(table, event, true);
    if (gesture && gesture.table === table && gesture.box === box) beginPinch(gesture, event);
    else if (isStage(box) && table.view.mode === "blink" && !table.view.zoom) {
        hold(table, event, table.stage);
        event.preventDefault();
    } else beginDrag(table, box, event, divider !== null);
}

/**
 * @param {Table} table
 * @param {HTMLElement} box
 * @param {PointerEvent} event
 * @param {boolean} isOnDivider
 */
function beginDrag(table, box, event, isOnDivider) {
    const {view} = table;
    const isDivider = isOnDivider || (isStage(box) && view.mode === "slider" && !view.zoom);
    const isMouse = event.pointerType === "mouse";
    if ((!isDivider && !view.zoom && isMouse) || (view.loupe && !isMouse)) return;
    gesture = {table, box, isDivider, points: new Map([[event.pointerId, clientPoint(event)]])};
    if (isDivider) splitAt(table, event);
    if (isDivider || isStage(box) || view.zoom) box.setPointerCapture(event.pointerId);
    if (isMouse) event.preventDefault();
}

/**
 * @param {Table} table
 * @param {PointerEvent} event
 */
function splitAt(table, {clientX, clientY}) {
    const {left, top, width, height} = table.stage.getBoundingClientRect();
    setSplit(table, table.view.axis === "y" ? (clientY - top) / height : (clientX - left) / width);
}

/** @param {PointerEvent} event */
function onMove(event) {
    const before = gesture?.points.get(event.pointerId);
    if (!gesture || !before) return;
    const {table, box, points} = gesture;
    const now = clientPoint(event);
    points.set(event.pointerId, now);
    if (points.size > 1) pinch(gesture);
    else if (gesture.isDivider) splitAt(table, event);
    else if (table.view.zoom) pan(table, box, now[0] - before[0], now[1] - before[1]);
}

/** @param {PointerEvent} event */
function onUp(event) {
    gesture?.points.delete(event.pointerId);
    if (gesture?.points.size === 0) gesture = null;
}

/**
 * The button Hold, or the image: shows B as long as mouse or finger stays down, wherever it moves.
 *
 * @param {Table} table
 * @param {PointerEvent} event
 * @param {HTMLElement} element
 */
function hold(table, event, element) {
    element.setPointerCapture(event.pointerId);
    holdOther(table);
    element.addEventListener("lostpointercapture", () => showOther(table, false), {once: true});
}

// --- two fingers -----------------------------------------------------------------------------------------------------

/**
 * The distance of the first two fingers, and the middle between them.
 *
 * @param {Map<number, Point>} points
 * @returns {{distance: number, middle: Point}}
 */
function measureFingers(points) {
    const [[x1, y1], [x2, y2]] = [...points.values()];
    return {distance: Math.hypot(x1 - x2, y1 - y2) || 1, middle: [(x1 + x2) / 2, (y1 + y2) / 2]};
}

/**
 * @param {Gesture} drag that the second finger joins
 * @param {PointerEvent} event
 */
function beginPinch(drag, event) {
    const {table, box, points} = drag;
    points.set(event.pointerId, clientPoint(event));
    if (points.size < 2) return;
    Object.assign(drag, measureFingers(points), {s: geometry(box, table.view)?.s, isDivider: false});
}

/**
 * The distance of the fingers is the zoom; what is between them stays there.
 *
 * @param {Gesture} drag
 */
function pinch(drag) {
    const {table, box} = drag;
    const {distance, middle} = measureFingers(drag.points);
    const g = geometry(box, table.view);
    if (!g || !drag.s || !drag.middle || !drag.distance) return;
    pan(table, box, middle[0] - drag.middle[0], middle[1] - drag.middle[1]);
    drag.middle = middle;
    const wanted = (drag.s * distance) / drag.distance;
    const s = wanted >= 1 ? Math.min(Math.round(wanted), MAX_ZOOM) : wanted;
    setZoom(table, s <= g.fit ? 0 : s, box, middle);
}

// --- loupe, double click, wheel --------------------------------------------------------------------------------------

/**
 * The place that loupe and readout are about. A crosshair stays where it was put.
 *
 * @param {Table} table
 * @param {PointerEvent} event
 * @param {boolean} [isPress]
 */
function followPointer(table, event, isPress = false) {
    const {view} = table;
    const box = boxUnder(event);
    const isSliding = view.follow && view.mode === "slider" && event.pointerType === "mouse" && !event.buttons;
    if (isSliding && box && isStage(box)) splitAt(table, event);
    if (view.cross && !isPress) return;
    setPlace(table, box && placeAt(box, table.view, clientPoint(event)));
}

/**
 * @param {Table} table
 * @param {Point | null} place
 */
function setPlace(table, place) {
    const isInside = place?.every((coordinate) => coordinate >= 0 && coordinate < 1) ?? false;
    if (!isInside && (!table.view.at || table.view.cross)) return;
    table.view.at = isInside ? place : null;
    redrawPlace(table);
}

/**
 * @param {Table} table
 * @param {MouseEvent} event
 */
function onDoubleClick(table, event) {
    const box = boxUnder(event);
    if (!box || closest(event, ".vae-lab-divider")) return;
    const g = geometry(box, table.view);
    if (g) setZoom(table, table.view.zoom ? 0 : Math.max(1, 2 * Math.floor(g.fit)), box, clientPoint(event));
}

/**
 * Without Ctrl only on a table that is in use: others let the page scroll.
 *
 * @param {Table} table
 * @param {WheelEvent} event
 */
function onWheel(table, event) {
    const box = boxUnder(event);
    const isInUse = event.ctrlKey || table.grid.contains(document.activeElement) || isFullScreen(table);
    if (!box || !isInUse || !event.deltaY) return;
    const travel = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : 40 * event.deltaY;
    wheelTravel = Math.sign(wheelTravel) === Math.sign(travel) ? wheelTravel + travel : travel;
    const step = event.ctrlKey ? WHEEL_STEP / 4 : WHEEL_STEP; // a pinch on a touchpad comes in small steps
    let hasMoved = true;
    if (Math.abs(wheelTravel) >= step) {
        hasMoved = stepZoom(table, -Math.sign(wheelTravel), box, clientPoint(event));
        wheelTravel = 0;
    }
    if (hasMoved || event.ctrlKey) event.preventDefault();
}
