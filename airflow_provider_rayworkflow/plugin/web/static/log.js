// The log of a workflow's tasks in the panel: what is new comes with each refresh, each line once.
"use strict";
const taskLog = (() => {
  const MAX_ROWS = 5000;
  const list = document.createElement("div");
  list.className = "log";
  list.tabIndex = 0;
  let shown = null; // the id of the task, "" for all
  let cursor = "";
  let asking = false;

  function row(line) {
    const made = document.createElement("div");
    made.className = `line level-${line.level}`;
    const time = document.createElement("time");
    const at = new Date(line.at * 1000);
    time.dateTime = at.toISOString();
    time.textContent = at.toLocaleTimeString();
    time.title = `${at.toLocaleString()}, ${line.level}${line.attempt > 1 ? `, attempt ${line.attempt}` : ""}`;
    made.append(time);
    if (!shown && line.task_id) {
      const task = document.createElement("a");
      task.href = "#";
      task.dataset.task = line.task_id;
      task.textContent = line.task_id;
      made.append(" ", task);
    }
    made.append(` ${line.text}`);
    return made;
  }

  function remark(text) {
    const made = document.createElement("p");
    made.className = "quiet";
    made.textContent = text;
    return made;
  }

  function take(answer) {
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
    if (answer.is_cut) list.append(remark("Earlier lines: rayworkflow logs."));
    for (const damage of answer.damaged) list.append(remark(damage));
    list.append(...answer.lines.map(row));
    while (list.childElementCount > MAX_ROWS) list.firstElementChild.remove();
    if (follows) list.scrollTop = list.scrollHeight;
  }

  // Puts the log into its place of a panel that has just been filled, and asks for what is new.
  async function fill(panel, ask) {
    const place = panel.querySelector("[data-log]");
    if (!place) return;
    if (place.dataset.log !== shown) {
      [shown, cursor] = [place.dataset.log, ""];
      list.replaceChildren();
    }
    const top = list.scrollTop;
    place.append(list);
    list.scrollTop = top;
    if (asking) return;
    asking = true;
    const wanted = shown;
    try {
      const answer = await (await ask("log", { task_id: wanted, after: cursor })).json();
      if (wanted !== shown) return;
      cursor = answer.cursor;
      take(answer);
      if (!list.childElementCount) place.append(remark("Nothing so far."));
    } finally {
      asking = false;
    }
  }

  return { fill };
})();
