(function () {
  "use strict";

  // Theme: the system's until the button is pressed, then kept as long as this tab is open.
  var root = document.documentElement, button = document.getElementById("theme");
  var system = window.matchMedia("(prefers-color-scheme: dark)");
  function kept() { try { return sessionStorage.getItem("theme"); } catch (e) { return null; } }
  function keep(theme) { try { sessionStorage.setItem("theme", theme); } catch (e) { /* not allowed: not kept */ } }
  function dark() { return root.dataset.theme ? root.dataset.theme === "dark" : system.matches; }
  function name() { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", "Show in " + (dark() ? "light" : "dark") + " colours"); }
  if (kept() === "dark" || kept() === "light") root.dataset.theme = kept();
  if (button) {
    name();
    button.hidden = false;
    button.addEventListener("click", function () { root.dataset.theme = dark() ? "light" : "dark"; keep(root.dataset.theme); name(); });
    system.addEventListener("change", name);
  }

  // Tables: <table class="sortable"> gets a button in each column header, class="filterable" a box to type in.
  function value(row, column) {
    var cell = row.cells[column];
    if (!cell) return "";
    var told = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
    var number = told === "" ? NaN : Number(told.replace(/[,%$\u202f ]/g, "").replace("\u2212", "-"));
    return isNaN(number) ? told.toLowerCase() : number;
  }
  function compare(a, b) {
    if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? -1 : 1;
  }
  var filters = 0;
  function tables(within) {
    within.querySelectorAll("table.sortable").forEach(function (table) {
      var body = table.tBodies[0], heads = table.tHead ? Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells) : [];
      if (!body || body.rows.length < 2) return;
      heads.forEach(function (head, column) {
        if (head.colSpan !== 1 || head.dataset.sort === "no") return;
        var sort = document.createElement("button");
        sort.type = "button";
        sort.className = "sort";
        while (head.firstChild) sort.appendChild(head.firstChild);
        head.appendChild(sort);
        if (!head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", "none");
        sort.addEventListener("click", function () {
          var down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
          heads.forEach(function (other) { if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none"); });
          head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
          Array.from(body.rows).map(function (row, i) { return [value(row, column), i, row]; })
            .sort(function (a, b) { return down * compare(a[0], b[0]) || a[1] - b[1]; })
            .forEach(function (found) { body.appendChild(found[2]); });
        });
      });
    });
    within.querySelectorAll("table.filterable").forEach(function (table) {
      var body = table.tBodies[0];
      if (!body || body.rows.length < 6) return;
      var label = document.createElement("label"), box = document.createElement("input"), told = document.createElement("span");
      label.className = "filter";
      label.textContent = "Show rows with ";
      box.type = "search";
      box.id = "filter-" + filters++;
      label.htmlFor = box.id;
      told.setAttribute("role", "status");
      label.append(box, " ", told);
      box.addEventListener("input", function () {
        var wanted = box.value.trim().toLowerCase(), shown = 0;
        Array.from(body.rows).forEach(function (row) {
          row.hidden = wanted !== "" && row.textContent.toLowerCase().indexOf(wanted) < 0;
          if (!row.hidden) shown += 1;
        });
        told.textContent = wanted === "" ? "" : shown + " of " + body.rows.length;
      });
      var place = table.closest(".scroll") || table;
      place.parentNode.insertBefore(label, place);
    });
  }
  tables(document);
  // A page that is live puts new parts in place of old ones.
  document.addEventListener("replaced", function (event) { tables(event.target); });

  // What is folded up is printed, too.
  var opened = [];
  window.addEventListener("beforeprint", function () {
    opened = Array.from(document.querySelectorAll("details:not([open]):not(.screen)"));
    opened.forEach(function (part) { part.open = true; });
  });
  window.addEventListener("afterprint", function () { opened.forEach(function (part) { part.open = false; }); });
})();
