// Copyright 2026 The verl-pgrpo authors. SPDX-License-Identifier: Apache-2.0
// Choosing a group, finding and sorting groups. The page can be read without it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("groups");
  const body = table.tBodies[0];
  const filter = document.getElementById("filter");
  const ends = document.getElementById("picked-ends");
  const rows = Array.from(body.rows);
  const nameOf = (row) => row.cells[0].textContent;
  const shown = () => Array.from(body.rows).filter((row) => !row.hidden);
  let chosen = null;

  // Heights are thousandths of the y axis; null means unknown.
  const places = (heights) =>
    heights.map((height) => (height === null ? null : data.bottom - (height / 1000) * (data.bottom - data.top)));

  function path(x, y) {
    let pen = "M", drawn = "";
    y.forEach((place, i) => {
      if (place !== null) drawn += pen + x[i] + " " + place.toFixed(1);
      pen = place === null ? "M" : "L";
    });
    return drawn;
  }

  function area(x, low, high) {
    const known = x.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null);
    if (!known.length) return "";
    const there = known.map((i) => x[i] + " " + high[i].toFixed(1));
    const back = known.reverse().map((i) => x[i] + " " + low[i].toFixed(1));
    return "M" + there.concat(back).join("L") + "Z";
  }

  function draw(group) {
    data.arms.forEach((_, arm) => {
      const [mean, low, high] = (data.curves[group] || [])[arm] || [[]];
      document.querySelector(`[data-line="${arm}"]`).setAttribute("d", path(data.x, places(mean)));
      const band = low ? area(data.x, places(low), places(high)) : "";
      document.querySelector(`[data-band="${arm}"]`).setAttribute("d", band);
    });
  }

  function choose(row, focus) {
    if (chosen) {
      chosen.classList.remove("chosen");
      chosen.removeAttribute("aria-current");
      chosen.querySelector("button").tabIndex = -1;
    }
    chosen = row;
    const button = row.querySelector("button");
    row.classList.add("chosen");
    row.setAttribute("aria-current", "true");
    button.tabIndex = 0;
    draw(row.dataset.group);
    document.getElementById("picked-name").textContent = nameOf(row);
    const values = data.arms.map((arm, i) => arm + " " + row.cells[i + 1].textContent.trim());
    ends.textContent = "Ends at: " + values.join(", ") + ".";
    document.documentElement.dataset.picked = nameOf(row);
    if (focus) button.focus();
  }

  function apply() {
    const wanted = filter.value.toLowerCase();
    let count = 0;
    rows.forEach((row) => {
      row.hidden = !nameOf(row).toLowerCase().includes(wanted);
      if (!row.hidden) count += 1;
    });
    document.getElementById("count").textContent = wanted ? count.toLocaleString("en") + " found" : "";
    // The Tab key must reach a row that can be seen.
    const visible = shown();
    if (chosen && chosen.hidden && visible.length) choose(visible[0], false);
  }

  function sort(heading) {
    const column = heading.cellIndex;
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentNode.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => (column ? parseFloat(row.cells[column].dataset.v) : nameOf(row));
    rows.sort((a, b) => {
      const one = key(a), other = key(b);
      if (!column) return (up ? 1 : -1) * one.localeCompare(other, "en", { numeric: true });
      if (isNaN(one) || isNaN(other)) return isNaN(one) - isNaN(other);  // not known: last, either way
      return up ? one - other : other - one;
    });
    body.append(...rows);
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) choose(row, true);
  });
  body.addEventListener("keydown", (event) => {
    const visible = shown(), at = visible.indexOf(event.target.closest("tr"));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: visible.length - 1 }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (at === 0 && event.key === "ArrowUp") filter.focus();
    else choose(visible[Math.max(0, Math.min(visible.length - 1, to))], true);
  });
  filter.addEventListener("input", apply);
  filter.addEventListener("keydown", (event) => {
    const visible = shown();
    if ((event.key === "ArrowDown" || event.key === "Enter") && visible.length) {
      event.preventDefault();
      choose(visible[0], true);
    }
  });
  table.tHead.addEventListener("click", (event) => {
    const heading = event.target.closest("th");
    if (heading) sort(heading);
  });
  const focus = rows.find((row) => row.dataset.group === String(data.focus)) || rows[0];
  if (focus) choose(focus, false);
})();
