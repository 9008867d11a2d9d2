// Tables that are sorted by a press on a heading, and copied as tab-separated text.
//
// A classic script like vae_lab.js. Gradio may replace elements at any time, so one listener on the document does it
// all. A cell's data-value is what it is sorted by, and data-copy what is copied where that is not the same.
(function () {
    "use strict";

    const TOLD_MS = 2500;

    const collator = new Intl.Collator(undefined, {numeric: true, sensitivity: "base"});

    // --- sorting ------------------------------------------------------------------------------------------------

    // Numbers begin with the largest, names with A; a second press turns that round, a third restores the first order.
    function nextOrder(heading, isText) {
        const first = isText ? "ascending" : "descending";
        const second = isText ? "descending" : "ascending";
        return {none: first, [first]: second, [second]: "none"}[heading.getAttribute("aria-sort") ?? "none"];
    }

    function sort(heading) {
        const table = heading.closest("table");
        const body = table.tBodies[0];
        const column = heading.cellIndex;
        const values = new Map([...body.rows].map((row) => [row, row.cells[column]?.dataset.value]));
        const isText = [...values.values()].some((value) => value !== undefined && Number.isNaN(Number(value)));
        const order = nextOrder(heading, isText);
        for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const byOrder = (a, b) => Number(a.dataset.order) - Number(b.dataset.order);
        const byValue = (a, b) => {
            const [x, y] = [values.get(a), values.get(b)];
            if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // without one: last
            if (x === y) return 0;
            return sign * (isText ? collator.compare(x, y) : Number(x) < Number(y) ? -1 : 1);
        };
        const rows = [...body.rows].sort((a, b) => (order !== "none" && byValue(a, b)) || byOrder(a, b));
        body.append(...rows);
    }

    // --- copying ------------------------------------------------------------------------------------------------

    function asText(table) {
        const heading = (cell) => cell.querySelector("button") ?? cell;
        const head = [...table.tHead.rows[0].cells].map((cell) => heading(cell).textContent);
        const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].map(copied));
        return [head, ...rows].map((cells) => cells.map(harmless).join("\t")).join("\n") + "\n";
    }

    const copied = (cell) => cell.dataset.copy ?? cell.dataset.value ?? "";

    // One cell stays one cell, and no name becomes a formula.
    function harmless(text) {
        const line = text.replace(/\s+/g, " ").trim();
        return /^[=+@-]/.test(line) && Number.isNaN(Number(line)) ? `'${line}` : line;
    }

    // The clipboard's API is there on pages that the browser calls secure: https, and this machine.
    async function toClipboard(text) {
        try {
            await navigator.clipboard.writeText(text);
            return true;
        } catch (error) {
            return byHand(text);
        }
    }

    function byHand(text) {
        const focused = document.activeElement;
        const area = document.createElement("textarea");
        area.value = text;
        area.style.cssText = "position: fixed; top: 0; opacity: 0";
        document.body.append(area);
        area.select();
        const done = document.execCommand("copy");
        area.remove();
        focused?.focus();
        return done;
    }

    async function copy(button) {
        const box = button.closest(".vae-lab-tabular");
        const done = await toClipboard(asText(box.querySelector("table")));
        const told = box.querySelector(".vae-lab-copied");
        if (!told) return;
        told.textContent = done ? "Copied" : "The browser does not allow it";
        setTimeout(() => { told.textContent = ""; }, TOLD_MS);
    }

    function onClick(event) {
        const sorts = event.target.closest?.(".vae-lab-sortable thead .vae-lab-sort");
        if (sorts) sort(sorts.closest("th"));
        const copies = event.target.closest?.(".vae-lab-tabular .vae-lab-copy");
        if (copies) copy(copies);
    }

    document.addEventListener("click", onClick);
})();
