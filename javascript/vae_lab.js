// Progress bar, Cancel, and a fresh list whenever the VAE Lab tab comes into view.
//
// Loaded as a classic script by the WebUI, long before the tab exists, and by the stand-alone page. Gradio may
// replace elements at any time, so nothing is held on to: one clock looks at what is there now.
(function () {
    "use strict";

    const POLL_MS = 300;
    const GIVE_UP_MS = 10000; // a run that the server knows nothing of for so long has failed
    const CANCELLING = "Cancelling after the current picture…";

    let run = null; // {before: message shown when it began, quietSince: ms} while this page waits for one
    let wasVisible = false;
    let asking = false;

    const find = (id) => document.getElementById(id);
    const address = (path) => new URL("vae-lab/v1/" + path, document.baseURI);
    const lastMessage = () => find("vae_lab_message")?.querySelector("[data-run]")?.dataset.run;

    function show(progress) {
        const panel = find("vae_lab_panel");
        const bar = panel?.querySelector(".vae-lab-progress");
        if (!bar) return;
        panel.toggleAttribute("data-busy", run !== null);
        panel.toggleAttribute("data-cancelling", Boolean(run?.cancelling));
        if (run === null) return;
        const total = Math.max(progress.total, 1);
        const step = progress.total ? `${progress.done} of ${progress.total}` : "";
        const words = run.cancelling ? CANCELLING : [step, progress.what].filter(Boolean).join(" · ");
        bar.setAttribute("aria-valuemax", total);
        bar.setAttribute("aria-valuenow", progress.done);
        bar.setAttribute("aria-valuetext", words);
        bar.querySelector(".vae-lab-bar").style.width = `${(100 * progress.done) / total}%`;
        bar.querySelector(".vae-lab-step").textContent = words;
    }

    function begin() {
        run = {before: lastMessage(), quietSince: Date.now(), own: true, cancelling: false};
        show({done: 0, total: 0, what: "Starting…"});
    }

    function end() {
        run = null;
        show({});
    }

    function follow(progress) {
        if (run === null) {
            if (!progress.busy) return;
            run = {own: false, cancelling: false}; // begun before the page was loaded, or by someone else
        }
        if (progress.busy) {
            run.quietSince = Date.now();
            show(progress);
        } else if (!run.own || Date.now() - run.quietSince > GIVE_UP_MS) {
            end();
        }
    }

    async function ask() {
        if (asking) return;
        asking = true;
        try {
            const answer = await fetch(address("progress"), {cache: "no-store"});
            if (answer.ok) follow(await answer.json());
        } catch (error) {
            if (run !== null && Date.now() - run.quietSince > GIVE_UP_MS) end(); // the server is gone
        } finally {
            asking = false;
        }
    }

    function look() {
        const panel = find("vae_lab_panel");
        const visible = Boolean(panel && panel.offsetParent !== null);
        if (visible && !wasVisible) {
            find("vae_lab_refresh")?.click();
            ask();
        }
        wasVisible = visible;
        if (run === null) return;
        if (run.own && lastMessage() !== run.before) end();
        else ask();
    }

    function onClick(event) {
        const button = event.target.closest?.("#vae_lab_compare, #vae_lab_identify, #vae_lab_cancel");
        if (!button) return;
        if (button.id === "vae_lab_cancel") {
            if (run !== null) run.cancelling = true;
            fetch(address("cancel"), {method: "POST"}).catch(() => {});
        } else if (run !== null) {
            event.stopImmediatePropagation(); // one run at a time; the server would refuse it as well
            event.preventDefault();
        } else {
            begin();
        }
    }

    document.addEventListener("click", onClick, true);
    setInterval(look, POLL_MS);
})();
