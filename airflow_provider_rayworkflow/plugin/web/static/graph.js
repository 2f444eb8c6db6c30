// Draws a workflow's graph from left to right. Layout by dagre; everything is text or an attribute.
"use strict";
const graph = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 190;
  const HEIGHT = 48;
  const MAX_LABEL = 22;
  const MAX_DETAIL = 30;
  const STATES = [
    ["failed", "failed"],
    ["retried", "tried again"],
    ["caught", "caught exception"],
    ["running", "running"],
    ["submitted", "waits for worker or limit"],
    ["waiting", "waits for tasks"],
    ["idle", "has not run"],
    ["not_run", "upstream failed"],
    ["continued", "returned a graph"],
    ["done", "done"],
    ["skipped", "skipped"],
    ["cached", "from the cache"],
    ["reused", "done by an earlier run"],
  ];

  let view = null; // {svg, box: [x, y, width, height], size: [width, height]}
  let drawn = ""; // nodes and edges as they are on the screen

  function element(name, attributes, ...children) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function duration(seconds) {
    if (seconds < 60) return `${Math.max(0, seconds).toFixed(1)} s`;
    const minutes = Math.floor(Math.round(seconds) / 60);
    if (minutes < 60) return `${minutes} min ${String(Math.round(seconds) % 60).padStart(2, "0")} s`;
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  }

  function isRunning(node) {
    return node.state === "running" || node.state === "retried";
  }

  function detail(node) {
    if (node.task === undefined) return `${node.count} tasks`;
    const parts = [STATES.find(([state]) => state === node.state)[1]];
    const end = node.ended_at ?? (isRunning(node) ? Date.now() / 1000 : null);
    if (node.started_at !== null && end !== null) parts.push(duration(end - node.started_at));
    if (node.attempt > 1) parts.push(`attempt ${node.attempt}`);
    const line = parts.join(" · ");
    // The state has a stroke of its own and a legend, too.
    return line.length <= MAX_DETAIL || parts.length === 1 ? line : parts.slice(1).join(" · ");
  }

  function short(label) {
    return label.length <= MAX_LABEL ? label : `…${label.slice(1 - MAX_LABEL)}`;
  }

  function drawNode(node, at) {
    const text = (content, attributes) => {
      const made = element("text", attributes);
      made.textContent = content;
      return made;
    };
    const title = element("title", {});
    title.textContent = node.label;
    const made = element(
      "g",
      {
        class: `node state-${node.state}${node.task === undefined ? " group" : ""}`,
        transform: `translate(${at.x - WIDTH / 2}, ${at.y - HEIGHT / 2})`,
        tabindex: 0,
        role: "button",
      },
      title,
    );
    if (node.task === undefined) {
      made.append(element("rect", { class: "behind", x: 4, y: 4, width: WIDTH, height: HEIGHT, rx: 6 }));
    }
    made.append(
      element("rect", { class: "box", width: WIDTH, height: HEIGHT, rx: 6 }),
      text(short(node.label), { class: "label", x: 12, y: 20 }),
      text(detail(node), { class: "detail", x: 12, y: 37 }),
    );
    if (node.task === undefined) {
      let x = 0;
      for (const [state, count] of node.states) {
        const width = (count / node.count) * WIDTH;
        made.append(
          element("rect", { class: `share state-${state}`, x, y: HEIGHT - 4, width, height: 4 }),
        );
        x += width;
      }
    }
    return made;
  }

  function path(points) {
    const [first, ...rest] = points;
    const corners = rest.map((point, index) => {
      const before = points[index];
      const middle = (before.x + point.x) / 2;
      return `C${middle},${before.y} ${middle},${point.y} ${point.x},${point.y}`;
    });
    return `M${first.x},${first.y}${corners.join("")}`;
  }

  function layout(data) {
    const made = new dagre.graphlib.Graph({ multigraph: true });
    made.setGraph({ rankdir: "LR", nodesep: 18, ranksep: 60, marginx: 12, marginy: 12 });
    made.setDefaultEdgeLabel(() => ({}));
    for (const node of data.nodes) made.setNode(String(node.id), { width: WIDTH, height: HEIGHT });
    for (const [from, to, kind] of data.edges) made.setEdge(String(from), String(to), {}, kind);
    dagre.layout(made);
    return made;
  }

  function show() {
    view.svg.setAttribute("viewBox", view.box.join(" "));
  }

  function fit() {
    const shown = view.svg.getBoundingClientRect();
    const scale = Math.max(view.size[0] / shown.width, view.size[1] / shown.height, 0.8);
    const [width, height] = [shown.width * scale, shown.height * scale];
    view.box = [
      Math.min(0, (view.size[0] - width) / 2),
      (view.size[1] - height) / 2,
      width,
      height,
    ];
    show();
  }

  function zoom(factor, x = 0.5, y = 0.5) {
    const [left, top, width, height] = view.box;
    view.box = [
      left + width * (1 - factor) * x,
      top + height * (1 - factor) * y,
      width * factor,
      height * factor,
    ];
    show();
  }

  function movable(svg) {
    let from = null;
    svg.addEventListener("pointerdown", (event) => {
      from = { x: event.clientX, y: event.clientY, box: view.box, moved: false };
    });
    addEventListener("pointermove", (event) => {
      if (from === null) return;
      const scale = from.box[2] / svg.getBoundingClientRect().width;
      const [x, y] = [(event.clientX - from.x) * scale, (event.clientY - from.y) * scale];
      from.moved ||= Math.hypot(event.clientX - from.x, event.clientY - from.y) > 4;
      if (from.moved) {
        view.box = [from.box[0] - x, from.box[1] - y, from.box[2], from.box[3]];
        show();
      }
    });
    addEventListener("pointerup", () => {
      const moved = from?.moved;
      from = null;
      if (moved) addEventListener("click", (event) => event.stopPropagation(), { capture: true, once: true });
    });
    svg.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return; // else the page scrolls
        event.preventDefault();
        const shown = svg.getBoundingClientRect();
        zoom(
          event.deltaY > 0 ? 1.15 : 1 / 1.15,
          (event.clientX - shown.left) / shown.width,
          (event.clientY - shown.top) / shown.height,
        );
      },
      { passive: false },
    );
  }

  function legend(list, nodes) {
    const present = new Set(nodes.flatMap((node) => node.states.map(([state]) => state)));
    list.replaceChildren(
      ...STATES.filter(([state]) => present.has(state)).map(([state, title]) => {
        const item = document.createElement("li");
        item.className = `state-${state}`;
        item.textContent = title;
        return item;
      }),
    );
  }

  // Draws the graph, or changes what is drawn; calls `choose` with a node that is clicked.
  function draw(place, list, data, choose) {
    const next = JSON.stringify(data);
    if (next === drawn && !data.nodes.some(isRunning)) return; // else a duration grows
    drawn = next;
    const placed = layout(data);
    const edges = element("g", { class: "edges" });
    for (const edge of placed.edges()) {
      const [from, to] = [placed.node(edge.v), placed.node(edge.w)];
      const points = [
        { x: from.x + WIDTH / 2, y: from.y },
        ...placed.edge(edge).points.slice(1, -1),
        { x: to.x - WIDTH / 2, y: to.y },
      ];
      edges.append(element("path", { class: edge.name, d: path(points), "marker-end": "url(#arrow)" }));
    }
    const nodes = element("g", { class: "nodes" });
    for (const node of data.nodes) {
      const made = drawNode(node, placed.node(String(node.id)));
      made.addEventListener("click", () => choose(node));
      made.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          choose(node);
        }
      });
      nodes.append(made);
    }
    const arrow = element(
      "marker",
      { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      element("path", { d: "M0,0L8,4L0,8z" }),
    );
    const svg = element("svg", { role: "group" }, element("defs", {}, arrow), edges, nodes);
    const size = [placed.graph().width, placed.graph().height];
    const isNew = view === null;
    view = { svg, size, box: isNew ? [0, 0, ...size] : view.box };
    place.replaceChildren(svg);
    movable(svg);
    if (isNew) fit();
    else show();
    legend(list, data.nodes);
  }

  return { draw, fit, zoom };
})();
