// The light table: images of several VAEs compared as a photographer would, on every .vae-lab-grid of a page.
//
// A classic script like vae_lab.js. Gradio may put a new grid in the place of an old one at any time, so all that a
// table consists of lies inside its grid and goes with it; only plain values (zoom, mode, names) outlive it.
// A grid has figure[data-vae] elements, each with one <img> or, of a batch, several. data-reference on a figure says
// that it is no VAE's but what the others are compared with; on a grid, that no VAE is to be chosen by its images.
// One unit is used for all geometry: s, device pixels per image pixel. At whole numbers every image pixel is a
// square of s x s device pixels.
(function () {
    "use strict";

    const MODES = [
        ["grid", "Grid", "All images side by side (G)"],
        ["slider", "A/B slider", "A to the left of a divider, B to the right (S)"],
        ["blink", "Blink", "A, and B while you hold the space bar"],
        ["difference", "Difference", "How far A and B are apart, pixel by pixel (D)"],
    ];
    const ZOOMS = [[0, "Fit"], [1, "100 %"], [2, "200 %"], [4, "400 %"], [8, "800 %"]];
    const LADDER = [1, 2, 3, 4, 5, 6, 8, 12, 16];
    const MOST_ZOOM = 16;
    const MOST_GAIN = 64;
    const LEAST_COLUMN = 280; // CSS pixels, as in style.css
    const LEAST_SHARE = 0.14; // of the window's width, as there
    const LOUPE_SIDE = 180; // CSS pixels, less in small figures
    const HOLD_MS = 350; // L held for longer is let go with the key
    const WHEEL_STEP = 60; // a wheel's notch is about 100, a touchpad's event a few
    const WAIT_MS = 10000; // for the page to answer
    const BUILT_IN = "Built-in";
    const CONTROLS = "button, a, select, input, output, [role=slider], [role=dialog]";
    // Images of the WebUI, and its own functions that turn to them.
    const TARGETS = [
        {id: "img2img_image", label: "img2img", turn: "switch_to_img2img", sized: true},
        {id: "img2maskimg", label: "inpaint", turn: "switch_to_inpaint", sized: true},
        {id: "extras_image", label: "extras", turn: "switch_to_extras"},
    ];
    const CLEARS = ".modify-upload button + button, .touch-none + div button + button, button[aria-label='Clear']";
    const HELP = [
        ["G", "grid"], ["S", "A/B slider"], ["Space", "blink: B while held"], ["D", "difference"],
        ["1 … 9", "choose B"], ["Shift + 1 … 9", "choose A"], ["N, P", "the next or previous image as B"],
        ["A, B", "the image under the pointer becomes A or B"],
        ["+ and −", "zoom in, zoom out"], ["0", "fit"], ["Arrows", "move the images, or the divider"],
        [", and .", "previous and next image of a batch"], ["L", "loupe, on and off; or while held"],
        ["F", "full screen"], ["?", "this help"], ["Drag", "move all images at once"],
        ["Double click", "100 % at the pointer, or back to fit"],
        ["Two fingers", "zoom"], ["Wheel", "zoom at the pointer, once an image was clicked; with Ctrl always"],
    ];

    const tables = new WeakMap(); // grid -> table
    const kept = new Map(); // id of the element around a grid -> its view, for the grid that comes next
    const grids = document.getElementsByClassName("vae-lab-grid");
    let gesture = null; // {table, box, points: pointer id -> [x, y], …} while images or the divider are dragged
    let wheeled = 0;
    let byPointer = false; // the last input came from mouse or finger
    let focused = null; // element that had the focus last
    let focusedByPointer = true; // else it keeps the keys, whatever lies under the mouse
    let loupeHeld = null; // {table, since: ms} while the key L is down
    let using = Promise.resolve(); // until what was chosen last has been answered: gradio 3 drops what comes before

    // Only what has changed: hosts watch the page for changes, and this runs with every frame of a drag. What was
    // written is remembered, since the WebUI may have put a translation in its place.
    const write = (element, words) => element.dataset.words === words || (element.textContent = element.dataset.words = words);
    const find = (id) => document.getElementById(id);
    const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
    const ratio = () => window.devicePixelRatio || 1;
    const percent = (s) => `${Math.round(100 * s)} %`;

    function make(tag, attributes, ...children) {
        const element = document.createElement(tag);
        for (const [name, value] of Object.entries(attributes)) {
            if (value !== null && value !== undefined) element.setAttribute(name, value);
        }
        element.append(...children);
        return element;
    }

    // A button that does `act` with `value`; see ACTS.
    function button(words, act, value, attributes = {}) {
        return make("button", {type: "button", "data-act": act, "data-value": value ?? "", ...attributes}, words);
    }

    // --- a table is laid --------------------------------------------------------------------------------------------

    function lay(grid) {
        const figures = [...grid.querySelectorAll("figure[data-vae]")].filter((figure) => figure.querySelector("img"));
        const table = {grid, figures: figures.map((figure) => layFigure(figure)), drawing: false, map: null};
        tables.set(grid, table);
        if (!figures.length) return;
        table.batch = Math.max(...table.figures.map((figure) => figure.boxes.length));
        table.names = table.figures.map((figure) => figure.name);
        table.view = takeOver(table);
        layTools(table);
        layStage(table);
        table.figures.forEach((figure, i) => layActions(table, figure, i));
        grid.classList.add("vae-lab-table");
        for (const [name, value] of Object.entries({tabindex: 0, role: "group", "aria-label": "Light table"})) {
            grid.setAttribute(name, value);
        }
        listen(table);
        draw(table);
    }

    // The view of the grid that was in this place before, as far as it still holds.
    function takeOver({grid, figures, names, batch}) {
        const around = grid.parentElement?.closest("[id]");
        const place = `${around?.id} ${[...(around ?? document).querySelectorAll(".vae-lab-grid")].indexOf(grid)}`;
        const first = {mode: "grid", image: 0, zoom: 0, x: 0.5, y: 0.5, split: 0.5, gain: 0, loupe: false};
        const view = {...first, ...kept.get(place), other: false, at: null, help: false};
        const reference = figures.find((figure) => figure.reference)?.name;
        const preferred = [reference, BUILT_IN, ...names].filter((name) => names.includes(name));
        if (!names.includes(view.a)) view.a = preferred.find((name) => name !== view.b) ?? preferred[0];
        if (!names.includes(view.b) || view.b === view.a) view.b = names.find((name) => name !== view.a) ?? view.a;
        if (names.length < 2) view.mode = "grid";
        view.image = Math.min(view.image, batch - 1);
        kept.set(place, view);
        return view;
    }

    // Every image gets a window of its own, through which it is seen when it is magnified.
    function layFigure(figure) {
        const boxes = [...figure.querySelectorAll("img")].map((image) => {
            const link = image.parentElement;
            const box = link.matches("a") && link.children.length === 1 ? link : make("span", {});
            if (box !== link) image.replaceWith(box);
            if (box !== link) box.append(image);
            box.classList.add("vae-lab-window");
            if (box.matches("a")) box.tabIndex = -1; // Open, below the image, is for the keyboard
            box.removeAttribute("title");
            box.append(make("canvas", {class: "vae-lab-loupe", "aria-hidden": "true"}));
            return box;
        });
        return {figure, name: figure.dataset.vae, boxes, reference: Boolean(figure.closest("[data-reference]"))};
    }

    function layTools(table) {
        const alone = table.figures.length < 2;
        const modes = MODES.map(([mode, words, title]) =>
            button(words, "mode", mode, {title, disabled: alone && mode !== "grid" ? "" : null}));
        const zooms = ZOOMS.map(([zoom, words]) => button(words, "zoom", zoom));
        table.zoomed = make("output", {class: "vae-lab-zoomed", "aria-label": "Zoom"});
        const images = [...Array(table.batch).keys()].map((i) =>
            make("option", {value: i}, `${i + 1} of ${table.batch}`));
        table.image = make("select", {"aria-label": "Image of the batch", "data-set": "image"}, ...images);
        const batch = make("span", {role: "group", "aria-label": "Image"}, "Image ", table.image);
        batch.hidden = table.batch < 2;
        table.said = make("span", {class: "vae-lab-told", role: "status"});
        const keys = HELP.flatMap(([key, words]) => [make("dt", {}, key), make("dd", {}, words)]);
        table.help = make("div", {class: "vae-lab-help", role: "dialog", "aria-label": "Keys of the light table"},
            make("dl", {}, ...keys), button("Close", "help"));
        const tools = make("div", {class: "vae-lab-toolbar", role: "toolbar", "aria-label": "Light table"},
            make("span", {role: "group", "aria-label": "View"}, ...modes),
            make("span", {role: "group", "aria-label": "Zoom"},
                button("−", "step", -1, {"aria-label": "Zoom out", title: "Zoom out (−)"}), ...zooms,
                button("+", "step", 1, {"aria-label": "Zoom in", title: "Zoom in (+)"}), table.zoomed),
            batch,
            make("span", {role: "group", "aria-label": "Tools"},
                button("Loupe", "loupe", "", {title: "A magnifying glass, at the same place in every image (L)"}),
                button("Full screen", "full", "", {title: "Full screen (F)"}),
                button("?", "help", "", {"aria-label": "Keys", title: "Keys (?)"})),
            table.said, table.help);
        table.grid.prepend(tools);
        table.tools = tools;
    }

    function layStage(table) {
        const options = () => table.names.map((name, i) => make("option", {value: name}, `${i + 1}  ${name}`));
        const side = (side) => {
            const name = make("span", {class: "vae-lab-name"});
            const sign = side.toUpperCase();
            const select = make("select", {"aria-label": `Image ${sign}`, "data-set": side}, ...options());
            const label = make("label", {class: "vae-lab-side", "data-side": side},
                make("b", {"aria-hidden": "true"}, sign), name, select);
            return {label, name, select};
        };
        table.sides = {a: side("a"), b: side("b")};
        table.hold = button("Hold to see B", "hold", "",
            {class: "vae-lab-hold", title: "Or hold the image, or the space bar"});
        table.gain = make("input",
            {type: "range", min: 1, max: MOST_GAIN, step: 1, "aria-label": "Gain", "data-set": "gain"});
        table.gained = make("output", {});
        table.largest = make("output", {class: "vae-lab-largest"});
        const gain = make("span", {class: "vae-lab-gain"},
            make("label", {}, "Gain ", table.gain, " ", table.gained),
            button("Auto", "gain", "", {title: "As much gain as makes all but the strongest differences fit"}),
            table.largest);
        const pair = make("div", {class: "vae-lab-pair"}, table.sides.a.label,
            make("span", {class: "vae-lab-middle"}, table.hold, gain), table.sides.b.label);
        const image = () => make("img", {alt: "", draggable: "false"});
        table.layers = {a: image(), b: image(), map: make("canvas", {class: "vae-lab-map", role: "img"})};
        table.half = make("span", {class: "vae-lab-half"}, table.layers.a);
        table.divider = make("span", {
            class: "vae-lab-divider", role: "slider", tabindex: 0, "aria-label": "Divider between A and B",
            "aria-valuemin": 0, "aria-valuemax": 100,
        });
        table.stage = make("div", {class: "vae-lab-stage vae-lab-window"}, table.layers.b, table.half, table.layers.map,
            table.divider, make("canvas", {class: "vae-lab-loupe", "aria-hidden": "true"}));
        table.tools.after(pair, table.stage);
        table.pair = pair;
    }

    function layActions(table, figure, i) {
        const choose = ["a", "b"].map((side) => button(side.toUpperCase(), "side", side, {
            title: `Compare as ${side.toUpperCase()}`, "aria-label": `${figure.name} as image ${side.toUpperCase()}`,
        }));
        const number = make("span", {class: "vae-lab-key", title: `Key ${i + 1}: as B`}, String(i + 1));
        const row = make("div", {class: "vae-lab-actions", role: "group", "aria-label": `Actions for ${figure.name}`});
        if (table.figures.length > 1) row.append(make("span", {}, ...(i < 9 ? [number] : []), ...choose));
        figure.save = make("a", {}, "Save");
        figure.open = make("a", {target: "_blank"}, "Open");
        row.append(make("span", {}, figure.save, figure.open));
        const isMap = Boolean(figure.figure.closest(".vae-lab-losses")); // no image that anything could be done with
        if (find("vae_lab_panel") && !figure.reference && !isMap) {
            const uses = [["checkpoint", "Use for this checkpoint"], ["always", "Use always"]];
            row.append(make("span", {}, ...uses.map(([reach, words]) => button(words, "use", reach))));
        }
        const sends = TARGETS.filter((target) => find(target.id) && !isMap).map((target) =>
            button(target.label, "send", target.id, {"aria-label": `Send to ${target.label}`}));
        if (sends.length) row.append(make("span", {}, "Send to", ...sends));
        figure.boxes[figure.boxes.length - 1].parentElement.append(row);
        figure.row = row;
    }

    // --- geometry ---------------------------------------------------------------------------------------------------

    // [width, height] of an image in pixels, before and after it has come.
    function sizeOf(image) {
        const width = image.naturalWidth || Number(image.getAttribute("width")) || image.width;
        return [width, image.naturalHeight || Number(image.getAttribute("height")) || image.height];
    }

    const imageIn = (box) => box.querySelector("img");
    const isStage = (box) => box.classList.contains("vae-lab-stage");
    const boxOf = (figure, view) => figure.boxes[Math.min(view.image, figure.boxes.length - 1)];

    // Where the image lies in its window: scale s, and the left and top edges, in device pixels; null out of sight.
    function geometry(box, view) {
        const {width, height, left, top} = box.getBoundingClientRect();
        const [columns, rows] = sizeOf(imageIn(box));
        if (!width || !height || !columns || !rows) return null;
        const wide = width * ratio();
        const high = height * ratio();
        let fit = Math.min(wide / columns, high / rows);
        if (fit > 0.999) fit = Math.floor(fit + 0.001); // between whole numbers some rows would be doubled, others not
        const s = view.zoom || fit;
        const edge = (length, pixels, centre) => {
            const half = length / (2 * pixels * s);
            return Math.round(length / 2 - (half >= 0.5 ? 0.5 : clamp(centre, half, 1 - half)) * pixels * s);
        };
        return {
            s, fit, wide, high, columns, rows, x: left, y: top,
            left: edge(wide, columns, view.x), top: edge(high, rows, view.y),
        };
    }

    // The window that stands for all of them.
    function leading(table) {
        return table.view.mode === "grid" ? boxOf(table.figures[0], table.view) : table.stage;
    }

    // [u, v] from 0 to 1: the place in the image that is at a place of the page.
    function placeAt(box, view, clientX, clientY) {
        const g = geometry(box, view);
        if (!g) return null;
        const [x, y] = [(clientX - g.x) * ratio(), (clientY - g.y) * ratio()];
        return [(x - g.left) / (g.columns * g.s), (y - g.top) / (g.rows * g.s)];
    }

    // --- drawing ----------------------------------------------------------------------------------------------------

    function redraw(table) {
        if (table.drawing) return;
        table.drawing = true;
        requestAnimationFrame(() => {
            table.drawing = false;
            if (table.grid.isConnected) draw(table);
        });
    }

    function draw(table) {
        const {grid, view} = table;
        grid.dataset.mode = view.mode;
        grid.toggleAttribute("data-zoomed", view.zoom > 0);
        grid.toggleAttribute("data-loupe", view.loupe);
        table.help.hidden = !view.help;
        table.image.value = view.image;
        spreadColumns(table);
        const first = geometry(boxOf(table.figures[0], view), view);
        for (const figure of table.figures) drawFigure(table, figure, first);
        table.pair.hidden = table.stage.hidden = view.mode === "grid";
        if (view.mode !== "grid") drawStage(table);
        const g = geometry(leading(table), view);
        write(table.zoomed, g ? percent(g.s) : "");
        for (const element of grid.querySelectorAll("[data-act]")) press(table, element);
        drawLoupes(table, g);
    }

    // As many columns as there are images, if the style sheet has room for them, and none wider than its image at
    // 100 %; what is left over is on the right.
    function spreadColumns({grid, figures, view}) {
        const style = getComputedStyle(grid);
        const wide = grid.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
        const gap = parseFloat(style.columnGap) || 0;
        if (!(wide > 0)) return;
        const least = Math.min(wide, Math.max(LEAST_COLUMN, LEAST_SHARE * window.innerWidth));
        const all = [...grid.querySelectorAll(":scope > figure")];
        const columns = Math.max(1, Math.min(all.length, Math.floor((wide + gap) / (least + gap))));
        const natural = Math.max(least, sizeOf(imageIn(boxOf(figures[0], view)))[0] / ratio());
        const narrow = columns * (natural + gap) < wide;
        const tracks = narrow ? `repeat(${columns}, ${natural}px) 1fr` : `repeat(${columns}, minmax(0, 1fr))`;
        if (grid.dataset.tracks === tracks) return;
        grid.dataset.tracks = grid.style.gridTemplateColumns = tracks;
        all.forEach((figure, i) => (figure.style.gridColumn = String((i % columns) + 1)));
    }

    function press(table, element) {
        const {act, value} = element.dataset;
        const {view} = table;
        const name = element.closest("figure")?.dataset.vae;
        const pressed = {
            mode: () => view.mode === value, zoom: () => view.zoom === Number(value), loupe: () => view.loupe,
            full: () => document.fullscreenElement === table.grid, side: () => view[value] === name,
            hold: () => view.other, help: () => view.help, gain: () => !view.gain,
        }[act];
        if (pressed) element.setAttribute(act === "help" ? "aria-expanded" : "aria-pressed", pressed());
    }

    // first: the geometry of the first figure, which others of its size share to the pixel.
    function drawFigure(table, figure, first) {
        const {view} = table;
        const shown = boxOf(figure, view);
        for (const box of figure.boxes) {
            const image = imageIn(box);
            const [columns, rows] = sizeOf(image);
            if (columns && rows) box.style.aspectRatio = `${columns} / ${rows}`;
            box.hidden = box !== shown;
            const g = box.hidden ? null : geometry(box, view);
            if (g) put(image, isLike(g, first) ? {...g, left: first.left, top: first.top} : g, view.zoom > 0 || g.s >= 1);
        }
        const {src} = imageIn(shown);
        if (figure.save.href !== src) figure.save.href = figure.open.href = src;
        figure.save.download = fileName(table, figure);
    }

    // Columns of one grid can differ in width by a fraction of a pixel.
    function isLike(g, first) {
        const sizes = ["columns", "rows", "wide", "high"];
        return Boolean(first) && sizes.every((size) => Math.abs(g[size] - first[size]) < 1);
    }

    function fileName(table, figure) {
        const number = table.batch > 1 ? `-${table.view.image + 1}` : "";
        const loss = figure.figure.closest(".vae-lab-losses") ? "-loss" : "";
        return `${figure.name.replace(/[/\\:*?"<>|]/g, "_")}${loss}${number}.png`;
    }

    // Into its place; without one (`placed` false), the style sheet makes it as wide as its window. By a transform,
    // since browsers round lengths to whole pixels, of which an image at 100 % on a 150 % screen has none.
    function put(layer, g, placed) {
        const by = (length) => `${length / ratio()}px`;
        layer.classList.toggle("vae-lab-placed", placed);
        layer.classList.toggle("vae-lab-sharp", g.s >= 1);
        Object.assign(layer.style, {
            width: placed ? `${g.columns}px` : "", height: placed ? `${g.rows}px` : "",
            transform: placed ? `translate(${by(g.left)}, ${by(g.top)}) scale(${g.s / ratio()})` : "",
        });
    }

    function drawStage(table) {
        const {view, layers, stage, sides} = table;
        for (const side of ["a", "b"]) {
            const figure = table.figures.find((figure) => figure.name === view[side]);
            const image = imageIn(boxOf(figure, view));
            if (layers[side].src !== image.src) layers[side].src = image.src;
            const [columns, rows] = sizeOf(image);
            if (side === "b") stage.style.aspectRatio = `${columns} / ${rows}`;
            layers[side].setAttribute("width", columns);
            layers[side].setAttribute("height", rows);
            layers[side].alt = `${side.toUpperCase()}: ${view[side]}`;
            if (sides[side].name.textContent !== view[side]) sides[side].name.replaceChildren(...breakable(view[side]));
            sides[side].select.value = view[side];
            const away = view.mode === "blink" && view.other !== (side === "b");
            sides[side].label.toggleAttribute("data-away", away);
        }
        const mode = view.mode;
        table.hold.hidden = mode !== "blink";
        table.gain.closest(".vae-lab-gain").hidden = layers.map.hidden = mode !== "difference";
        table.half.hidden = mode === "difference" || (mode === "blink" && view.other);
        layers.b.hidden = mode === "difference";
        table.divider.hidden = mode !== "slider";
        const g = geometry(stage, view);
        if (!g) return;
        for (const layer of Object.values(layers)) put(layer, g, true);
        const split = Math.round(view.split * g.wide) / ratio();
        table.half.style.clipPath = mode === "slider" ? `inset(0 ${g.wide / ratio() - split}px 0 0)` : "";
        table.divider.style.left = `${split}px`;
        table.divider.setAttribute("aria-valuenow", Math.round(100 * view.split));
        table.divider.setAttribute("aria-valuetext", `${Math.round(100 * view.split)} % from the left`);
        if (mode === "difference") drawDifference(table);
    }

    // A name that may wrap where a reader would break it, as in the captions.
    function breakable(name) {
        return name.match(/[^/_.-]*[/_.-]?/g).flatMap((part) => [part, document.createElement("wbr")]);
    }

    function drawDifference(table) {
        const {view, layers} = table;
        const names = `difference between ${view.a} and ${view.b}`;
        layers.map.setAttribute("aria-label", names);
        if (!isThere(layers.a) || !isThere(layers.b)) { // drawn again as soon as they have come
            layers.map.hidden = true;
            write(table.largest, "");
            return;
        }
        const key = `${layers.a.src} ${layers.b.src}`;
        if (table.map?.key !== key) table.map = {key, ...differenceOf(layers.a, layers.b)};
        const {values, largest, width, height} = table.map;
        write(table.largest, values ? `Largest difference ${largest} of 255` : "The images differ in size");
        layers.map.hidden = !values;
        const gain = view.gain || table.map.gain || 1;
        table.gain.value = gain;
        write(table.gained, `× ${gain}`);
        const painted = `${key} ${gain}`;
        if (!values || layers.map.dataset.painted === painted) return;
        layers.map.dataset.painted = painted;
        layers.map.width = width;
        layers.map.height = height;
        const shown = new ImageData(width, height); // its bytes end at 255 by themselves
        for (let i = 0; i < values.length; i++) shown.data[i] = i % 4 === 3 ? 255 : values[i] * gain;
        layers.map.getContext("2d").putImageData(shown, 0, 0);
    }

    const isThere = (image) => image.complete && image.naturalWidth > 0;

    // |A - B| of each channel, the largest of them, and the gain that makes all but the strongest 1 % fit.
    function differenceOf(a, b) {
        const [width, height] = sizeOf(a);
        if (String(sizeOf(b)) !== String([width, height])) return {values: null};
        const values = bytesOf(a, width, height);
        const others = bytesOf(b, width, height);
        const count = new Uint32Array(256);
        for (let i = 0; i < values.length; i++) {
            values[i] = Math.abs(values[i] - others[i]);
            if (i % 4 !== 3) count[values[i]] += 1;
        }
        const largest = Math.max(0, count.findLastIndex((pixels) => pixels > 0));
        let strong = 255;
        for (let above = count[255]; strong > 1 && above < values.length * 0.0075; strong--) above += count[strong - 1];
        return {values, largest, width, height, gain: clamp(Math.floor(255 / strong), 1, MOST_GAIN)};
    }

    function bytesOf(image, width, height) {
        const canvas = make("canvas", {width, height});
        const context = canvas.getContext("2d", {willReadFrequently: true});
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, width, height).data;
    }

    // --- the loupe --------------------------------------------------------------------------------------------------

    function drawLoupes(table, lead) {
        const {view} = table;
        const boxes = table.figures.map((figure) => boxOf(figure, view));
        for (const box of [...boxes, table.stage]) {
            const canvas = box.querySelector(".vae-lab-loupe");
            const g = view.loupe && view.at && lead && !box.hidden ? geometry(box, view) : null;
            canvas.hidden = !g;
            if (g) drawLoupe(canvas, g, view.at, lead.s, isStage(box) ? onStage(table, g, view.at) : [imageIn(box)]);
        }
    }

    // What the stage shows at a place: both sides of the divider, if it is near.
    function onStage(table, g, [u]) {
        const {view, layers} = table;
        if (view.mode === "difference") return [layers.map];
        if (view.mode === "blink") return [view.other ? layers.b : layers.a];
        const edge = (Math.round(view.split * g.wide) - g.left) / g.s; // in image pixels
        return [layers.b, layers.a, edge - u * g.columns];
    }

    // layers: what is drawn, and what over it to the left of an edge, counted in image pixels from the middle.
    function drawLoupe(canvas, g, [u, v], s, [layer, over, edge]) {
        const side = Math.round(Math.min(LOUPE_SIDE * ratio(), g.wide / 2, g.high / 2));
        const magnified = s > 1 ? Math.max(8, 2 * Math.round(s)) : 4;
        if (canvas.width !== side) canvas.width = canvas.height = side;
        const left = clamp(g.left + u * g.columns * g.s - side / 2, 0, g.wide - side);
        const top = clamp(g.top + v * g.rows * g.s - side / 2, 0, g.high - side);
        const px = (length) => `${Math.round(length) / ratio()}px`;
        Object.assign(canvas.style, {width: px(side), height: px(side), left: px(left), top: px(top)});
        const middle = (place, pixels) => Math.min(Math.floor(place * pixels), pixels - 1) + 0.5;
        const x = Math.round(side / 2 - middle(u, g.columns) * magnified);
        const y = Math.round(side / 2 - middle(v, g.rows) * magnified);
        const context = canvas.getContext("2d");
        context.imageSmoothingEnabled = false;
        context.clearRect(0, 0, side, side);
        const paint = (source) => {
            if (source.matches("img") && !isThere(source)) return;
            context.drawImage(source, x, y, g.columns * magnified, g.rows * magnified);
        };
        paint(layer);
        if (!over) return;
        context.save();
        context.beginPath();
        context.rect(0, 0, side / 2 + edge * magnified, side);
        context.clip();
        paint(over);
        context.restore();
    }

    // --- changing the view ------------------------------------------------------------------------------------------

    function setMode(table, mode) {
        if (table.figures.length < 2) return;
        table.view.mode = mode;
        table.view.other = false;
        draw(table);
        if (mode !== "grid" && !isFull(table)) table.grid.scrollIntoView({block: "start"}); // the stage fits below it
    }

    function choose(table, side, name) {
        if (!table.names.includes(name)) return;
        const {view} = table;
        const other = side === "a" ? "b" : "a";
        if (view[other] === name) view[other] = view[side]; // A and B change places
        view[side] = name;
        draw(table);
    }

    // The next image that is not A becomes B.
    function stepB(table, step) {
        const others = table.names.filter((name) => name !== table.view.a);
        if (!others.length) return;
        choose(table, "b", others[(others.indexOf(table.view.b) + step + others.length) % others.length]);
    }

    function turn(table, step) {
        table.view.image = clamp(table.view.image + step, 0, table.batch - 1);
        draw(table);
    }

    // zoom: s, or 0 for fit. The place under the pointer stays where it is; without a pointer, the middle does.
    function setZoom(table, zoom, box = leading(table), pointer = null) {
        const {view} = table;
        const g = geometry(box, view);
        const place = pointer && placeAt(box, view, ...pointer);
        view.zoom = zoom;
        if (g && place) {
            const s = zoom || g.fit;
            view.x = place[0] - ((pointer[0] - g.x) * ratio() - g.wide / 2) / (g.columns * s);
            view.y = place[1] - ((pointer[1] - g.y) * ratio() - g.high / 2) / (g.rows * s);
        }
        settle(table, box);
        draw(table);
    }

    // The next rung of the ladder, in which "fit" has its place; false at its ends.
    function stepZoom(table, step, box = leading(table), pointer = null) {
        const g = geometry(box, table.view);
        if (!g) return false;
        const rungs = [...LADDER, g.fit].sort((a, b) => a - b);
        const up = rungs.find((rung) => rung > g.s * 1.001);
        const down = rungs.filter((rung) => rung < g.s / 1.001).pop();
        const rung = step > 0 ? up : down;
        if (rung === undefined) return false;
        setZoom(table, rung === g.fit ? 0 : rung, box, pointer);
        return true;
    }

    // The middle of the view, back to where an image can really be moved to.
    function settle(table, box) {
        const {view} = table;
        const g = geometry(box, view);
        if (!g) return;
        const within = (length, pixels, centre) => {
            const half = length / (2 * pixels * g.s);
            return half >= 0.5 ? 0.5 : clamp(centre, half, 1 - half);
        };
        view.x = within(g.wide, g.columns, view.x);
        view.y = within(g.high, g.rows, view.y);
    }

    // By CSS pixels.
    function pan(table, box, dx, dy) {
        const {view} = table;
        const g = geometry(box, view);
        if (!g) return;
        view.x -= (dx * ratio()) / (g.columns * g.s);
        view.y -= (dy * ratio()) / (g.rows * g.s);
        settle(table, box);
        redraw(table);
    }

    function split(table, clientX) {
        const {left, width} = table.stage.getBoundingClientRect();
        table.view.split = clamp((clientX - left) / width, 0, 1);
        redraw(table);
    }

    function showOther(table, other) {
        if (table.view.other === other) return;
        table.view.other = other;
        draw(table);
    }

    function toggleFull(table) {
        const done = document.fullscreenElement ? document.exitFullscreen() : table.grid.requestFullscreen?.();
        if (!done) say(table, "This browser has no full screen.");
        done?.catch((error) => say(table, `No full screen: ${error.message}`));
    }

    function toggle(table, what) {
        table.view[what] = !table.view[what];
        draw(table);
    }

    function say(table, words, ...more) {
        table.said.replaceChildren(words, ...more);
    }

    const ACTS = {
        mode: (table, mode) => setMode(table, mode),
        zoom: (table, zoom) => setZoom(table, Number(zoom)),
        step: (table, step) => stepZoom(table, Number(step)),
        loupe: (table) => toggle(table, "loupe"),
        help: (table) => toggle(table, "help"),
        full: (table) => toggleFull(table),
        side: (table, side, figure) => choose(table, side, figure.name),
        gain: (table) => {
            table.view.gain = 0;
            draw(table);
        },
        use: (table, reach, figure) => {
            const next = () => use(table, reach, figure?.name ?? "");
            using = using.then(next, next);
        },
        send: (table, id, figure) => send(table, TARGETS.find((target) => target.id === id), figure),
    };

    // --- acting on an image ----------------------------------------------------------------------------------------

    // Saves which VAE decodes from now on. javascript/vae_lab.js handles the Undo button, and refreshes the page.
    async function use(table, reach, vae) {
        const body = JSON.stringify({reach, vae, checkpoint: table.grid.dataset.checkpoint ?? ""});
        const request = {method: "POST", headers: {"Content-Type": "application/json"}, body};
        say(table, "");
        const waiting = setTimeout(() => say(table, "Waiting for the current generation…"), WAIT_MS);
        try {
            const answer = await fetch(new URL("vae-lab/v1/choose", document.baseURI), request);
            const {message, undo_id: undoId, detail} = await answer.json();
            const undo = undoId && make("button", {type: "button", class: "vae-lab-link", "data-undo": undoId}, "Undo");
            say(table, message ?? detail, ...(undo ? [" ", undo] : []));
        } catch (error) {
            say(table, "No response from VAE Lab.");
        } finally {
            clearTimeout(waiting);
        }
        document.dispatchEvent(new CustomEvent("vae-lab-choice"));
    }

    async function send(table, target, figure) {
        say(table, `Sending to ${target.label}…`);
        try {
            const answer = await fetch(figure.save.href);
            if (!answer.ok) throw new Error(`the image cannot be read (${answer.status})`);
            const file = new File([await answer.blob()], fileName(table, figure), {type: "image/png"});
            const place = find(target.id);
            place?.querySelector(CLEARS)?.click(); // only an empty image takes a file
            const input = await until(() => place?.querySelector("input[type=file]"));
            if (!input) throw new Error("it has no place for a file");
            const transfer = new DataTransfer();
            transfer.items.add(file);
            input.files = transfer.files;
            input.dispatchEvent(new Event("change"));
            say(table, `${figure.name}: sent to ${target.label}.`);
            if (document.fullscreenElement) await document.exitFullscreen();
            document.activeElement?.blur(); // not every browser does so when the table is hidden
            window[target.turn]?.();
            if (target.sized && window.opts?.send_size) sendSize(figure);
            place.scrollIntoView({block: "center"});
        } catch (error) {
            say(table, `Not sent to ${target.label}: ${error.message}.`);
        }
    }

    // As the WebUI's own "Send to" does, where its settings want it.
    function sendSize(figure) {
        const [columns, rows] = sizeOf(imageIn(figure.boxes[0]));
        for (const [id, length] of [["img2img_width", columns], ["img2img_height", rows]]) {
            const field = find(id)?.querySelector("input[type=number]");
            if (!field) continue;
            field.value = length;
            field.dispatchEvent(new Event("input", {bubbles: true}));
        }
    }

    // What `look` finds, as soon as it finds it; null after a while.
    async function until(look, wait = WAIT_MS) {
        for (const end = Date.now() + wait; Date.now() < end;) {
            const found = look();
            if (found) return found;
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
        return null;
    }

    // --- mouse and finger -------------------------------------------------------------------------------------------

    function listen(table) {
        const {grid} = table;
        const on = (name, listener, options) => grid.addEventListener(name, (event) => listener(table, event), options);
        on("click", onClick);
        on("input", onInput);
        on("change", onInput);
        on("pointerdown", onDown);
        on("pointermove", onHover);
        on("pointerleave", (table) => lookAt(table, null));
        on("wheel", onWheel, {passive: false});
        on("load", redraw, true);
        on("error", onError, true);
        on("dblclick", onDoubleClick);
        on("contextmenu", (table, event) => table.view.other && event.preventDefault()); // a finger that holds long
        on("dragstart", (table, event) => {
            if (table.view.zoom || event.target.closest(".vae-lab-stage")) event.preventDefault();
        });
        new ResizeObserver(() => redraw(table)).observe(grid);
    }

    // Images of a comparison are kept until newer ones need the room.
    function onError(table, event) {
        if (event.target.matches("img")) say(table, "An image did not come: it is no longer kept. Compare again.");
    }

    function onDoubleClick(table, event) {
        const box = event.target.closest(".vae-lab-window");
        if (!box || event.target.closest(".vae-lab-divider")) return;
        const g = geometry(box, table.view);
        if (g) setZoom(table, table.view.zoom ? 0 : Math.max(1, 2 * Math.floor(g.fit)), box, [event.clientX, event.clientY]);
    }

    function onClick(table, event) {
        const pressed = event.target.closest("[data-act]");
        if (pressed === table.hold && event.detail === 0) showOther(table, !table.view.other); // by Enter
        if (pressed) {
            const figure = table.figures.find((figure) => figure.figure.contains(pressed));
            ACTS[pressed.dataset.act]?.(table, pressed.dataset.value, figure);
        }
        if (byPointer && event.target.closest("button, a")) focus(table); // so that keys work at once
        const onImage = event.target.closest(".vae-lab-window") && event.detail > 0;
        if (onImage && !event.ctrlKey && !event.metaKey && !event.shiftKey) event.preventDefault();
    }

    function focus(table) {
        table.grid.focus({preventScroll: true});
    }

    function onInput(table, event) {
        const what = event.target.dataset.set;
        const {value} = event.target;
        if (what === "a" || what === "b") choose(table, what, value);
        if (what === "image") turn(table, Number(value) - table.view.image);
        if (what === "gain") {
            table.view.gain = clamp(Number(value), 1, MOST_GAIN);
            redraw(table);
        }
        if (event.type === "change" && byPointer) focus(table);
    }

    function onDown(table, event) {
        if (event.button !== 0) return;
        if (event.target === table.hold) {
            hold(table, event, table.hold);
            return;
        }
        const divider = event.target.closest(".vae-lab-divider");
        if (!divider && event.target.closest(CONTROLS) && !event.target.closest(".vae-lab-window")) return;
        (divider ?? table.grid).focus({preventScroll: true});
        const box = event.target.closest(".vae-lab-window");
        if (!box) return;
        onHover(table, event);
        if (gesture && gesture.table === table && gesture.box === box) {
            gesture.points.set(event.pointerId, [event.clientX, event.clientY]);
            Object.assign(gesture, spread(gesture), {s: geometry(box, table.view)?.s, divider: false});
            return;
        }
        if (isStage(box) && table.view.mode === "blink" && !table.view.zoom) {
            hold(table, event, table.stage);
            event.preventDefault();
            return;
        }
        const moves = divider || (isStage(box) && table.view.mode === "slider" && !table.view.zoom);
        const nothing = !moves && !table.view.zoom && event.pointerType === "mouse";
        if (nothing || (table.view.loupe && event.pointerType !== "mouse")) return;
        gesture = {table, box, divider: Boolean(moves), points: new Map()};
        gesture.points.set(event.pointerId, [event.clientX, event.clientY]);
        if (moves) split(table, event.clientX);
        if (moves || isStage(box) || table.view.zoom) box.setPointerCapture(event.pointerId);
        if (event.pointerType === "mouse") event.preventDefault();
    }

    function onMove(event) {
        const before = gesture?.points.get(event.pointerId);
        if (!before) return;
        const {table, box, points} = gesture;
        const now = [event.clientX, event.clientY];
        points.set(event.pointerId, now);
        if (points.size > 1) pinch(gesture);
        else if (gesture.divider) split(table, event.clientX);
        else if (table.view.zoom) pan(table, box, now[0] - before[0], now[1] - before[1]);
    }

    // How far the first two fingers are apart, and what lies between them.
    function spread({points}) {
        const [[x1, y1], [x2, y2]] = [...points.values()];
        return {apart: Math.hypot(x1 - x2, y1 - y2) || 1, middle: [(x1 + x2) / 2, (y1 + y2) / 2]};
    }

    // Two fingers: their distance is the zoom, and what lies between them stays there.
    function pinch(gesture) {
        const {table, box} = gesture;
        const {apart, middle} = spread(gesture);
        const g = geometry(box, table.view);
        if (!g || !gesture.s) return;
        pan(table, box, middle[0] - gesture.middle[0], middle[1] - gesture.middle[1]);
        gesture.middle = middle;
        const wanted = (gesture.s * apart) / gesture.apart;
        const s = wanted >= 1 ? Math.min(Math.round(wanted), MOST_ZOOM) : wanted;
        setZoom(table, s <= g.fit ? 0 : s, box, middle);
    }

    function onUp(event) {
        gesture?.points.delete(event.pointerId);
        if (gesture?.points.size === 0) gesture = null;
    }

    // The button Hold, or the image: B as long as mouse or finger stays down, wherever it goes.
    function hold(table, event, held) {
        held.setPointerCapture(event.pointerId);
        showOther(table, true);
        held.addEventListener("lostpointercapture", () => showOther(table, false), {once: true});
    }

    function onHover(table, event) {
        if (!table.view.loupe) return;
        const box = event.target.closest(".vae-lab-window");
        lookAt(table, box && placeAt(box, table.view, event.clientX, event.clientY));
    }

    function lookAt(table, place) {
        const inside = place && place.every((part) => part >= 0 && part < 1);
        if (!inside && !table.view.at) return;
        table.view.at = inside ? place : null;
        redraw(table);
    }

    // Without Ctrl only on a table that is being worked at: others let the page scroll.
    function onWheel(table, event) {
        const box = event.target.closest(".vae-lab-window");
        const working = event.ctrlKey || table.grid.contains(document.activeElement) || isFull(table);
        if (!box || !working || !event.deltaY) return;
        const size = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : 40 * event.deltaY;
        wheeled = Math.sign(wheeled) === Math.sign(size) ? wheeled + size : size;
        const step = event.ctrlKey ? WHEEL_STEP / 4 : WHEEL_STEP; // a pinch on a touchpad comes in small steps
        let moved = true;
        if (Math.abs(wheeled) >= step) {
            moved = stepZoom(table, -Math.sign(wheeled), box, [event.clientX, event.clientY]);
            wheeled = 0;
        }
        if (moved || event.ctrlKey) event.preventDefault();
    }

    const isFull = (table) => document.fullscreenElement === table.grid;

    // --- keys -------------------------------------------------------------------------------------------------------

    // The table that keys are for: it has the focus, fills the screen, or lies under the pointer.
    function tableForKeys(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return null;
        const focused = document.activeElement;
        const fields = "input:not([type=range], [type=checkbox], [type=radio]), textarea, select, [contenteditable]";
        if (focused?.matches(fields) || focused?.isContentEditable) return null;
        const free = focusedByPointer || focused === document.body;
        const hovered = free ? document.querySelector(".vae-lab-grid:hover") : null;
        const grid = document.fullscreenElement ?? focused?.closest(".vae-lab-grid") ?? hovered;
        const table = tables.get(grid);
        return table?.figures.length && grid.getClientRects().length ? table : null; // none on a page that is hidden
    }

    // A window that comes back gives the focus to what had it before; that says nothing new.
    function onFocus(event) {
        if (event.target !== focused) focusedByPointer = byPointer;
        focused = event.target;
    }

    function onKeyDown(event) {
        byPointer = false;
        const table = tableForKeys(event);
        const act = table && actOfKey(table, event);
        if (!act) return;
        event.preventDefault();
        event.stopPropagation();
        act();
    }

    function actOfKey(table, event) {
        const {view} = table;
        const key = keyOf(event);
        const once = (act) => (event.repeat ? () => {} : act);
        if (key.startsWith("Arrow")) return arrow(table, key, event.shiftKey);
        if (/^[0-9]$/.test(key)) {
            if (key === "0") return () => setZoom(table, 0);
            const name = table.names[key - 1];
            return name ? () => choose(table, event.shiftKey ? "a" : "b", name) : null;
        }
        const under = pointedAt(table);
        const acts = {
            "+": () => stepZoom(table, 1), "=": () => stepZoom(table, 1), "-": () => stepZoom(table, -1),
            ",": () => turn(table, -1), ".": () => turn(table, 1),
            g: () => setMode(table, "grid"), s: () => setMode(table, "slider"), d: () => setMode(table, "difference"),
            n: () => stepB(table, 1), p: () => stepB(table, -1),
            f: once(() => toggleFull(table)), "?": once(() => toggle(table, "help")), l: once(() => pressLoupe(table)),
            a: under && (() => choose(table, "a", under.name)), b: under && (() => choose(table, "b", under.name)),
            " ": spaceIsOurs(table) && once(() => blink(table)),
            Escape: view.help && (() => toggle(table, "help")),
        };
        return acts[key] || null;
    }

    // What a key stands for on any keyboard: digits by their place, since some have signs there, and Shift makes signs
    // of them; letters by their place where the keyboard writes no Latin ones.
    function keyOf({key = "", code = ""}) {
        const digit = /^Digit([0-9])$/.exec(code)?.[1] ?? (/^Numpad/.test(code) && /^[0-9]$/.test(key) ? key : null);
        if (digit !== null) return digit;
        const letter = /^Key([A-Z])$/.exec(code)?.[1];
        if (letter && /^\p{L}$/u.test(key) && !/^[a-z]$/i.test(key)) return letter.toLowerCase();
        return key.length === 1 ? key.toLowerCase() : key;
    }

    function arrow(table, key, far) {
        const {view} = table;
        const focused = document.activeElement;
        const [dx, dy] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[key];
        if (focused?.matches("input")) return null; // a range or a radio button, which arrows move
        if (view.mode === "slider" && (focused === table.divider || (dx && !view.zoom))) {
            return () => {
                view.split = clamp(view.split + (dx - dy) * (far ? 0.1 : 0.01), 0, 1);
                draw(table);
            };
        }
        if (!view.zoom) return null;
        const box = leading(table);
        const step = Math.min(box.clientWidth, box.clientHeight) / (far ? 2 : 8);
        return () => pan(table, box, -dx * step, -dy * step);
    }

    function pointedAt(table) {
        const figure = table.grid.querySelector("figure:hover") ?? document.activeElement?.closest("figure");
        return table.figures.find((other) => other.figure === figure);
    }

    // Space presses a button of ours that has the focus, except those that it could only press in vain.
    function spaceIsOurs(table) {
        const focused = document.activeElement;
        if (!table.grid.contains(focused) || !focused.matches("button")) return true;
        const {act, value} = focused.dataset;
        return act === "hold" || (act === "mode" && value === "blink" && table.view.mode === "blink");
    }

    function blink(table) {
        if (table.view.mode !== "blink") setMode(table, "blink");
        if (table.view.mode === "blink") showOther(table, true);
    }

    function pressLoupe(table) {
        loupeHeld = table.view.loupe ? null : {table, since: Date.now()};
        toggle(table, "loupe");
    }

    // Wherever the key comes up: the pointer may have left the table meanwhile.
    function onKeyUp(event) {
        if (event.key === " ") {
            const table = tableForKeys(event);
            if (table && spaceIsOurs(table)) event.preventDefault(); // some browsers press buttons only now
            letGo();
        }
        if (!loupeHeld || keyOf(event) !== "l") return;
        const {table, since} = loupeHeld;
        if (table.view.loupe && Date.now() - since > HOLD_MS) toggle(table, "loupe");
        loupeHeld = null;
    }

    function letGo() {
        for (const grid of grids) {
            const table = tables.get(grid);
            if (table?.figures.length) showOther(table, false);
        }
    }

    // --- the page ---------------------------------------------------------------------------------------------------

    function layAll() {
        for (const grid of [...grids]) {
            if (!tables.has(grid)) lay(grid);
        }
    }

    function redrawAll() {
        for (const grid of grids) {
            const table = tables.get(grid);
            if (table?.figures.length) redraw(table);
        }
    }

    document.addEventListener("keydown", onKeyDown, true);
    document.addEventListener("keyup", onKeyUp, true);
    document.addEventListener("pointerdown", () => (byPointer = true), true);
    document.addEventListener("focusin", onFocus, true);
    document.addEventListener("pointermove", onMove, true);
    document.addEventListener("pointerup", onUp, true);
    document.addEventListener("pointercancel", onUp, true);
    document.addEventListener("fullscreenchange", redrawAll);
    window.addEventListener("resize", redrawAll);
    window.addEventListener("blur", letGo);
    new MutationObserver(layAll).observe(document, {childList: true, subtree: true});
    layAll();
})();
