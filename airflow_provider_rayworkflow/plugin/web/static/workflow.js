// One workflow's page: keeps it up to date, shows what is clicked, and has done what is confirmed.
"use strict";
(() => {
  const REFRESH_MS = 5000;
  // After an action it may take the scheduler, or a cluster, some time to begin.
  const WATCH_AFTER_ACTION_MS = 180_000;
  const main = document.getElementById("workflow");
  const { query, connId, workflowId } = main.dataset;
  const head = document.getElementById("head");
  const panel = document.getElementById("panel");
  const told = document.getElementById("told");
  let shown = null; // what the panel shows: a function that asks for it again
  let timer = null;
  let watchUntil = 0;
  let isPanelOld = false; // the workflow has gone on since it was filled

  async function ask(path, parameters = {}) {
    const more = new URLSearchParams(parameters).toString();
    const answer = await fetch(`workflow/${path}?${query}${more && `&${more}`}`);
    if (!answer.ok) throw new Error(await page.problem(answer));
    return answer;
  }

  function tell(text, isProblem = false) {
    told.textContent = text;
    told.classList.toggle("problem", isProblem);
  }

  // What the server sends as HTML has been escaped there.
  function put(place, html) {
    const open = [...place.querySelectorAll("details")].map((details) => details.open);
    place.innerHTML = html;
    const details = [...place.querySelectorAll("details")];
    if (details.length === open.length) details.forEach((one, index) => (one.open = open[index]));
    page.localTimes(place);
  }

  async function refresh() {
    clearTimeout(timer);
    let isActive = true;
    try {
      const live = await (await ask("live")).json();
      isActive = live.is_active;
      put(head, live.head);
      const place = document.getElementById("graph");
      if (live.too_large) {
        place.replaceChildren(remark(live.too_large));
        if (!shown) panel.replaceChildren();
      } else graph.draw(place, document.querySelector(".legend"), live.graph, choose);
      main.dataset.drawn = live.graph.nodes.length;
      const failed = live.graph.nodes.find((node) => node.state === "failed");
      if (failed && !shown) choose(failed);
      if (shown && (isActive || isPanelOld)) await shown();
      isPanelOld = isActive;
    } catch (error) {
      tell(error.message, true);
    }
    if (isActive || Date.now() < watchUntil) timer = setTimeout(refresh, REFRESH_MS);
  }

  function remark(text) {
    const made = document.createElement("p");
    made.className = "quiet";
    made.textContent = text;
    return made;
  }

  function choose(node) {
    if (node.task === undefined) show(() => showGroup({ label: node.label }));
    else show(() => showTask(node.task));
  }

  async function show(what) {
    shown = what;
    try {
      await what();
    } catch (error) {
      tell(error.message, true);
    }
  }

  async function showTask(taskId) {
    put(panel, await (await ask("task", { task_id: taskId })).text());
    panel.dataset.shows = taskId;
    await taskLog.fill(panel, ask);
  }

  async function showLog() {
    put(panel, await (await ask("all_logs")).text());
    panel.dataset.shows = "log";
    await taskLog.fill(panel, ask);
  }

  async function showGroup(parameters) {
    put(panel, await (await ask("group", parameters)).text());
    panel.dataset.shows = parameters.label;
  }

  function groupOf(place, number = 1) {
    const form = panel.querySelector("form[data-group]");
    const chosen = Object.fromEntries(new FormData(form));
    return { label: place.dataset.group, page: number, ...chosen };
  }

  function confirmed(button) {
    const dialog = document.getElementById("confirm");
    const yes = dialog.querySelector("[value=yes]");
    document.getElementById("confirm-title").textContent = `${button.dataset.title}?`;
    document.getElementById("confirm-what").textContent = button.dataset.taskId ?? workflowId;
    document.getElementById("confirm-question").textContent = button.dataset.question;
    yes.textContent = button.dataset.title;
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.onclick = (event) => {
        if (event.target.value) dialog.close(event.target.value);
      };
      dialog.onclose = () => resolve(dialog.returnValue === "yes");
    });
  }

  async function act(button) {
    const { action, taskId = "" } = button.dataset;
    if (!(await confirmed(button))) return;
    tell("…");
    try {
      const answer = await fetch("workflow/action", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-RayWorkflow": "1" },
        body: JSON.stringify({ conn_id: connId, workflow_id: workflowId, action, task_id: taskId }),
      });
      if (!answer.ok) throw new Error(await page.problem(answer));
      let { message } = await answer.json();
      if (button.dataset.clears !== undefined && main.dataset.dagId) {
        await page.clear(main.dataset);
        message = "The task instance is cleared; its next try resumes the workflow.";
      }
      tell(message);
      watchUntil = Date.now() + WATCH_AFTER_ACTION_MS;
      isPanelOld = true;
      if (action === "delete") page.leaveToList();
      else await refresh();
    } catch (error) {
      tell(error.message, true);
    }
  }

  page.leaveToList = () => {
    window.location.href = `workflows?${new URLSearchParams({ conn_id: connId })}`;
  };

  main.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]");
    const task = event.target.closest("a[data-task]");
    const turn = event.target.closest("a[data-page]");
    const zoom = event.target.closest("button[data-zoom]");
    if (button) act(button);
    if (event.target.closest("button[data-all-logs]")) show(showLog);
    if (task || turn) event.preventDefault();
    if (task) show(() => showTask(task.dataset.task));
    if (turn) {
      const parameters = groupOf(turn, turn.dataset.page);
      show(() => showGroup(parameters));
    }
    if (zoom?.dataset.zoom === "fit") graph.fit();
    else if (zoom) graph.zoom(zoom.dataset.zoom === "in" ? 1 / 1.3 : 1.3);
  });
  main.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-group]");
    if (!form) return;
    event.preventDefault();
    const parameters = groupOf(form);
    show(() => showGroup(parameters));
  });
  refresh();
})();
