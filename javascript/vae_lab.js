// Progress bars and Cancel, fresh lists whenever a page of ours comes into view, and badges of broken VAEs.
//
// Loaded as a classic script by the WebUI, long before the tab exists, and by the stand-alone page. Gradio may
// replace elements at any time, so nothing is held on to: one clock looks at what is there now.
(function () {
    "use strict";

    const POLL_MS = 300;
    const GIVE_UP_MS = 10000; // a run that the server knows nothing of for so long has failed
    const BADGES_MS = 4000; // how often verdicts are asked for while something that shows them is in view
    const REFUSED_MS = 60000; // the same after an error, such as a login that has run out

    const PAGES = [
        {
            name: "vae_lab", panel: "vae_lab_panel", step: "image", decides: true,
            starts: ["vae_lab_compare", "vae_lab_identify", "vae_lab_encode"],
        },
        {
            name: "vae_lab_checkup", panel: "vae_lab_checkup", step: "file", decides: true,
            starts: ["vae_lab_checkup_check", "vae_lab_checkup_check_all"],
        },
        {name: "vae_lab_roundtrip", panel: "vae_lab_roundtrip", starts: ["vae_lab_roundtrip_run"], step: "step"},
        {name: "vae_lab_library", panel: "vae_lab_library", step: "file", starts: ["vae_lab_library_scan"]},
    ];
    // Lines that say what decodes, and that a choice made elsewhere changes.
    const LINES = ["vae_lab_txt2img", "vae_lab_img2img"].map((name) => ({name, panel: name + "_deciding"}));
    const CARDS = "#txt2img_checkpoints_cards > .card, #img2img_checkpoints_cards > .card";
    const SHOWS_BADGES = "#vae_lab_panel, #vae_lab_checkup, .vae-lab-deciding, " + CARDS;
    const WORDS = {broken: "broken", suspect: "suspect", unreadable: "cannot be read"};
    const ON_CARDS = ["broken", "suspect", "missing"];

    let run = null; // {page, before: message shown when it began, quietSince: ms} while this page waits for one
    let asking = false;
    let ended = 0; // runs that this page has seen end: what was asked before says nothing of now
    const inView = new Set(); // names of pages
    let known = null; // what GET checkpoints said last
    let onCards = new Map(); // stem of a file -> the checkpoint whose badge its card gets
    let askedAt = 0;
    let askAgainAfter = BADGES_MS;
    let askingCheckpoints = false;
    let shownMeanwhile = false; // the checkup itself has written what may be new, while an answer was on its way
    let isStale = false; // what the Checkup page shows of the checkpoint in use

    const find = (id) => document.getElementById(id);
    const address = (path) => new URL("vae-lab/v1/" + path, document.baseURI);
    const lastMessage = (page) => find(page.name + "_message")?.querySelector("[data-run]")?.dataset.run;
    const isShown = (element) => Boolean(element && element.offsetParent !== null);

    // --- runs ---------------------------------------------------------------------------------------------------

    function show(progress) {
        for (const page of PAGES) showOn(page, progress);
    }

    function showOn(page, progress) {
        const panel = find(page.panel);
        const bar = panel?.querySelector(".vae-lab-progress");
        if (!bar) return;
        panel.toggleAttribute("data-busy", run !== null);
        panel.toggleAttribute("data-cancelling", Boolean(run?.cancelling));
        if (run === null) return;
        const total = Math.max(progress.total, 1);
        const count = progress.total ? `${progress.done} of ${progress.total}` : "";
        const what = (run.page ?? page).step;
        const cancelling = `Cancelling after the current ${what}…`;
        const words = run.cancelling ? cancelling : [count, progress.what].filter(Boolean).join(" · ");
        bar.setAttribute("aria-valuemax", total);
        bar.setAttribute("aria-valuenow", progress.done);
        bar.setAttribute("aria-valuetext", words);
        bar.querySelector(".vae-lab-bar").style.width = `${(100 * progress.done) / total}%`;
        const step = bar.querySelector(".vae-lab-step");
        if (step.dataset.words !== words) step.textContent = step.dataset.words = words;
    }

    function begin(page) {
        run = {page, before: lastMessage(page), quietSince: Date.now(), cancelling: false};
        show({done: 0, total: 0, what: "Starting…"});
    }

    function end() {
        ended += 1;
        const ownCheckup = run?.page?.name === "vae_lab_checkup";
        run = null;
        show({});
        askCheckpoints(ownCheckup);
        ask(); // what was told may be of something else, while the run goes on
    }

    function follow(progress) {
        if (run === null) {
            if (!progress.busy) return;
            run = {page: null, cancelling: false}; // begun before the page was loaded, or by someone else
        }
        if (progress.busy) {
            run.quietSince = Date.now();
            if (run.cancelling) cancel(); // it may have been asked for before the server had heard of the run
            show(progress);
        } else if (!run.page || Date.now() - run.quietSince > GIVE_UP_MS) {
            end();
        }
    }

    async function ask() {
        if (asking) return;
        asking = true;
        const before = ended;
        try {
            const answer = await fetch(address("progress"), {cache: "no-store"});
            if (!answer.ok) throw new Error(answer.statusText);
            const progress = await answer.json();
            if (before === ended) follow(progress);
        } catch (error) {
            if (run !== null && Date.now() - (run.quietSince ?? 0) > GIVE_UP_MS) end(); // the server is gone
        } finally {
            asking = false;
        }
        if (before !== ended) ask();
    }

    const cancel = () => fetch(address("cancel"), {method: "POST"}).catch(() => {});

    function hasTold() {
        const message = run?.page && lastMessage(run.page);
        return Boolean(message) && message !== run.before;
    }

    function look() {
        for (const page of [...PAGES, ...LINES]) {
            const visible = isShown(find(page.panel));
            if (visible && !inView.has(page.name)) {
                // Not into its own run: what that shows in the end could be overtaken by what there was before.
                if (run === null || run.page !== page) find(page.name + "_refresh")?.click();
                ask();
            }
            visible ? inView.add(page.name) : inView.delete(page.name);
        }
        if (hasTold()) end();
        else if (run !== null) ask();
        markRow();
        markThumbnail();
        lookAtBadges();
        translateTitles();
    }

    // The WebUI translates the title of an element that is added, but not the titles inside it.
    function translateTitles() {
        if (!window.localization) return;
        for (const element of document.querySelectorAll(".vae-lab [title]")) {
            const translated = window.localization[element.title];
            if (translated) element.title = translated;
        }
    }

    function onClick(event) {
        const row = event.target.closest?.("#vae_lab_checkup tr[data-file]");
        if (row) pick("file", row.dataset.file);
        const thumbnail = event.target.closest?.("#vae_lab_kept [data-pick]");
        if (thumbnail) pick("latent", thumbnail.dataset.pick);
        const listed = event.target.closest?.("#vae_lab_library tr[data-file] .vae-lab-link");
        if (listed) openInCheckup(listed.closest("tr").dataset.file);
        const undoButton = event.target.closest?.(".vae-lab [data-undo]");
        if (undoButton && !undoButton.disabled) undo(undoButton);
        const badge = event.target.closest?.(".vae-lab-current-badge:not(:empty)");
        const named = badge && checkpointOf(badge)?.name;
        if (named) openInCheckup(named);
        const button = event.target.closest?.("button");
        const page = PAGES.find((page) => button && page.starts.includes(button.id));
        if (PAGES.some((page) => button?.id === page.name + "_cancel")) {
            if (run !== null) run.cancelling = true;
            cancel();
        } else if (page && run !== null) {
            event.stopImmediatePropagation(); // one run at a time; the server would refuse it as well
            event.preventDefault();
        } else if (page) {
            begin(page);
        }
    }

    // What the server answers to a request with a JSON body; of an error, {detail: one line}.
    async function post(path, body) {
        const headers = {"Content-Type": "application/json"};
        try {
            const answer = await fetch(address(path), {method: "POST", headers, body: JSON.stringify(body)});
            return await answer.json();
        } catch (error) {
            return {detail: "No response from VAE Lab."};
        }
    }

    // The answer replaces the text around the button, so that it stands where the user is looking.
    async function undo(undoButton) {
        undoButton.disabled = true;
        const line = undoButton.parentElement;
        const {message, undo_id: undoId, detail} = await post("undo", {undo_id: undoButton.dataset.undo});
        // Only inside the line: gradio removes the line itself when it has something new to show.
        line.replaceChildren(message ?? detail);
        if (undoId) {
            undoButton.dataset.undo = undoId;
            undoButton.disabled = false;
            line.append(" ", undoButton);
        }
        refreshDecision();
    }

    // Another VAE may decode from now on.
    function refreshDecision() {
        for (const page of PAGES) {
            if (page.decides && inView.has(page.name)) find(page.name + "_refresh")?.click();
        }
    }

    // Python learns of clicks in our HTML through one hidden text field; see vae_lab/ui/panels/picks.py.
    function pick(kind, name) {
        const field = find("vae_lab_picked")?.querySelector("textarea, input");
        if (!field) return;
        field.value = JSON.stringify({kind, name, time: Date.now()}); // the time, so that the same can be picked twice
        field.dispatchEvent(new Event("input", {bubbles: true}));
    }

    // A file of the library, on the other page: that need not refresh itself, since what is picked is shown afresh.
    function openInCheckup(file) {
        if (document.fullscreenElement) document.exitFullscreen();
        document.activeElement?.blur();
        inView.add("vae_lab_checkup");
        for (const id of ["tab_vae_lab", "vae_lab_page_checkup"]) turnTo(find(id)); // the first is the WebUI's
        pick("file", file);
    }

    // By its place, since the words on tabs may be translated.
    function turnTo(item) {
        const place = [...(item?.parentElement.querySelectorAll(":scope > .tabitem") ?? [])].indexOf(item);
        item?.parentElement.querySelectorAll(":scope > .tab-nav button")[place]?.click();
    }

    // The row whose card is shown.
    function markRow() {
        const shown = document.querySelector("#vae_lab_checkup_verdict [data-file]")?.dataset.file;
        for (const row of document.querySelectorAll("#vae_lab_checkup tr[data-file]")) {
            if (row.dataset.file === shown) row.setAttribute("aria-current", "true");
            else row.removeAttribute("aria-current");
        }
    }

    // The latent whose card is shown; of all of them, one is in the order of the Tab key.
    function markThumbnail() {
        const buttons = [...document.querySelectorAll("#vae_lab_kept [data-pick]")];
        const shown = document.querySelector("#vae_lab_latent [data-latent]")?.dataset.latent;
        const chosen = buttons.find((button) => button.dataset.pick === shown);
        const first = buttons.find((button) => button === document.activeElement) ?? chosen ?? buttons[0];
        for (const button of buttons) {
            set(button, "aria-pressed", String(button === chosen));
            set(button, "tabindex", button === first ? "0" : "-1");
        }
    }

    function set(element, name, value) {
        if (element.getAttribute(name) !== value) element.setAttribute(name, value);
    }

    function onKey(event) {
        const button = event.target.closest?.("#vae_lab_kept [data-pick]");
        if (!button || event.ctrlKey || event.metaKey || event.altKey) return;
        const all = [...button.parentElement.querySelectorAll("[data-pick]")];
        const here = all.indexOf(button);
        const to = {ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1}[event.key];
        if (all[to] === undefined) return;
        event.preventDefault();
        event.stopPropagation();
        all[to].focus();
        markThumbnail();
    }

    // --- badges -------------------------------------------------------------------------------------------------

    function lookAtBadges() {
        if (document.hidden || ![...document.querySelectorAll(SHOWS_BADGES)].some(isShown)) return;
        if (known !== null) showBadges();
        const fresh = document.querySelector(".vae-lab-current-badge:not([data-filled])"); // a new line was written
        const wait = fresh && askAgainAfter < REFUSED_MS ? POLL_MS : askAgainAfter;
        if (Date.now() - askedAt > wait) askCheckpoints(false);
    }

    // isShownAlready: the checkup itself has just written what may be new.
    async function askCheckpoints(isShownAlready) {
        if (askingCheckpoints) {
            shownMeanwhile ||= isShownAlready;
            return;
        }
        askingCheckpoints = true;
        askedAt = Date.now();
        askAgainAfter = REFUSED_MS;
        try {
            const answer = await fetch(address("checkpoints"), {cache: "no-store"});
            if (!answer.ok) return;
            const before = signature();
            known = (await answer.json()).checkpoints;
            onCards = forCards(known);
            askAgainAfter = Math.max(BADGES_MS, 20 * (Date.now() - askedAt)); // a slow answer is asked for less often
            showBadges();
            for (const span of document.querySelectorAll(".vae-lab-current-badge")) span.dataset.filled = "";
            // Another checkpoint, or looked at meanwhile. While a run goes on, its page waits for the end of it.
            isStale = !isShownAlready && !shownMeanwhile && (isStale || (before !== null && signature() !== before));
            if (isStale && run === null) {
                isStale = false;
                if (inView.has("vae_lab_checkup")) find("vae_lab_checkup_refresh")?.click();
            }
        } catch (error) {
            // The server is gone; it is asked again later.
        } finally {
            askingCheckpoints = false;
        }
        if (!shownMeanwhile) return;
        shownMeanwhile = false;
        askCheckpoints(true);
    }

    function signature() {
        const current = known?.find((checkpoint) => checkpoint.current);
        return known === null ? null : JSON.stringify([current?.name, current?.status, current?.text]);
    }

    function showBadges() {
        for (const span of document.querySelectorAll(".vae-lab-current-badge")) showCurrent(span, checkpointOf(span));
        for (const card of document.querySelectorAll(CARDS)) showOnCard(card, onCards.get(card.dataset.name));
    }

    // Of the checkpoint that the badge names, else of the one in use.
    function checkpointOf(span) {
        const name = span.dataset.checkpoint;
        return known?.find((checkpoint) => (name ? checkpoint.name === name : checkpoint.current));
    }

    function showCurrent(span, checkpoint) {
        const bad = checkpoint?.status && checkpoint.status !== "healthy";
        let words = bad ? inWords(checkpoint, "Built-in VAE ") : "";
        if (bad && span.hasAttribute("data-unused")) words += ", not used now";
        write(span, words, bad ? checkpoint : null);
    }

    // Cards know a checkpoint by its file's stem alone; where two checkpoints share one and differ, neither is shown.
    function forCards(checkpoints) {
        const found = new Map();
        for (const checkpoint of checkpoints) {
            const other = found.get(checkpoint.stem) ?? checkpoint;
            found.set(checkpoint.stem, other.status === checkpoint.status ? checkpoint : {status: null});
        }
        return new Map([...found].filter(([, checkpoint]) => ON_CARDS.includes(checkpoint.status)));
    }

    function showOnCard(card, checkpoint) {
        let badge = card.querySelector(":scope > .vae-lab-card-badge");
        if (!checkpoint) {
            badge?.remove();
            return;
        }
        if (!badge) {
            badge = document.createElement("span");
            badge.className = "vae-lab-card-badge";
            badge.setAttribute("role", "img");
            card.append(badge);
        }
        write(badge, inWords(checkpoint, "VAE "), checkpoint);
        badge.setAttribute("aria-label", `VAE Lab: ${badge.textContent}. ${checkpoint.text ?? ""}`);
    }

    function inWords(checkpoint, subject) {
        if (checkpoint.status === "missing") return "No VAE inside";
        const title = checkpoint.title ?? "";
        const what = WORDS[checkpoint.status] ?? checkpoint.status;
        const detail = title && checkpoint.status !== "unreadable" ? `: ${title[0].toLowerCase()}${title.slice(1)}` : "";
        return subject + what + detail;
    }

    // Only what has changed is written: this runs with every tick of the clock. What was written is remembered, since
    // the WebUI may have put a translation in its place.
    function write(element, words, checkpoint) {
        const title = checkpoint?.text ?? "";
        if (element.dataset.words !== words) element.textContent = element.dataset.words = words;
        if ((element.dataset.title ?? "") !== title) element.title = element.dataset.title = title;
        if ((element.dataset.status ?? "") !== (checkpoint?.status ?? "")) element.dataset.status = checkpoint?.status ?? "";
    }

    document.addEventListener("click", onClick, true);
    document.addEventListener("keydown", onKey, true);
    document.addEventListener("vae-lab-choice", refreshDecision); // by javascript/light_table.js
    setInterval(look, POLL_MS);
})();
