(function () {
  "use strict";

  // Asks the server every two seconds whether something changed, and then puts the new parts in place of the old ones:
  // scroll, focus, what is open, sorted and typed stay as they are.
  var live = document.getElementById("view-live"), changed = document.getElementById("view-changed");
  var main = document.getElementById("main"), header = document.querySelector("header.top");
  var version = live.dataset.version, here = location.pathname + location.search, missed = 0, timer = null;
  var NEXT = 2000, MOST_MISSED = 2;

  function parts(of) {
    // The theme's button is the page's, not the run's.
    var top = Array.from(of.querySelector("header.top").children[0].children).filter(function (part) { return part.id !== "theme"; });
    return { header: top, main: Array.from(of.querySelector("#main").children) };
  }
  function texts(list) { return list.map(function (part) { return part.outerHTML; }); }
  var shown = parts(document), served = { header: texts(shown.header), main: texts(shown.main) };

  function say(text, on) {
    if (live.textContent !== text) live.textContent = text;
    live.className = on ? "on" : "off";
  }

  function places(node, top) {
    var path = [];
    for (; node && node !== top; node = node.parentElement) path.unshift(Array.from(node.parentElement.children).indexOf(node));
    return path;
  }
  function at(path, top) {
    return path.reduce(function (node, i) { return node && node.children[i]; }, top);
  }

  // What a person did to a part, and how to do it to the one that takes its place.
  function memory(part) {
    function all(what) { return Array.from(part.querySelectorAll(what)); }
    var focused = part.contains(document.activeElement) ? document.activeElement : null;
    return {
      open: all("details").map(function (one) { return one.open; }),
      sorted: all("table.sortable").map(function (table) {
        return Array.from(table.querySelectorAll("th[aria-sort]")).map(function (head) { return head.getAttribute("aria-sort"); });
      }),
      typed: all("label.filter input").map(function (box) { return box.value; }),
      scrolled: all(".scroll").map(function (box) { return box.scrollLeft; }),
      focus: focused && { path: places(focused, part), href: focused.getAttribute("href"), tag: focused.tagName,
        from: focused.selectionStart, to: focused.selectionEnd },
    };
  }
  function remember(part, kept) {
    function all(what) { return Array.from(part.querySelectorAll(what)); }
    all("details").forEach(function (one, i) { if (kept.open[i]) one.open = true; });
    all("table.sortable").forEach(function (table, i) {
      var heads = Array.from(table.querySelectorAll("th[aria-sort]")), was = kept.sorted[i] || [];
      if (was.length !== heads.length) return;
      heads.forEach(function (head, k) {
        var button = head.querySelector("button.sort");
        for (var turn = 0; button && was[k] !== "none" && head.getAttribute("aria-sort") !== was[k] && turn < 2; turn += 1) button.click();
      });
    });
    all("label.filter input").forEach(function (box, i) {
      if (kept.typed[i]) { box.value = kept.typed[i]; box.dispatchEvent(new Event("input", { bubbles: true })); }
    });
    all(".scroll").forEach(function (box, i) { box.scrollLeft = kept.scrolled[i] || 0; });
    if (!kept.focus) return;
    var same = kept.focus.href && all("a").find(function (link) { return link.getAttribute("href") === kept.focus.href; });
    var found = same || at(kept.focus.path, part);
    if (!found || found.tagName !== kept.focus.tag) return;
    found.focus({ preventScroll: true });
    if (kept.focus.from !== undefined && kept.focus.from !== null) found.setSelectionRange(kept.focus.from, kept.focus.to);
  }

  function put(list, now, was, parent) {
    var fresh = texts(now);
    if (fresh.length !== was.length) {
      var kept = memory(parent);
      list.forEach(function (part) { part.remove(); });
      // What the page's script put between the parts goes, too.
      if (parent === main) parent.replaceChildren();
      now.forEach(function (part) { parent.appendChild(document.adoptNode(part)); });
      parent.dispatchEvent(new CustomEvent("replaced", { bubbles: true }));
      remember(parent, kept);
      return [now, fresh];
    }
    var after = list.map(function (part, i) {
      if (fresh[i] === was[i]) return part;
      var kept = memory(part), next = document.adoptNode(now[i]);
      part.replaceWith(next);
      next.dispatchEvent(new CustomEvent("replaced", { bubbles: true }));
      remember(next, kept);
      return next;
    });
    return [after, fresh];
  }

  function replace(text) {
    var next = new DOMParser().parseFromString(text, "text/html"), fresh = next.getElementById("view-live");
    if (!fresh) return;
    var x = window.scrollX, y = window.scrollY, now = parts(next);
    var top = put(shown.header, now.header, served.header, header.children[0]);
    var rest = put(shown.main, now.main, served.main, main);
    shown = { header: top[0], main: rest[0] };
    served = { header: top[1], main: rest[1] };
    document.title = next.title;
    version = fresh.dataset.version;
    window.scrollTo({ left: x, top: y, behavior: "instant" });
    changed.textContent = "changed " + new Date().toLocaleTimeString();
  }

  function get(url) {
    return fetch(url, { cache: "no-store", credentials: "omit", redirect: "error" });
  }
  function poll() {
    timer = null;
    if (document.hidden) return; // goes on when somebody looks
    get("/state?page=" + encodeURIComponent(here)).then(function (answer) {
      if (answer.status === 404) throw new Error("gone");
      return answer.json();
    }).then(function (state) {
      missed = 0;
      say(state.told, true);
      if (state.version === version) return state;
      return get(here).then(function (answer) { return answer.text(); }).then(replace).then(function () { return state; });
    }).then(function (state) {
      again(state.wait * 1000);
    }).catch(function (error) {
      if (error.message === "gone") return say("This run is no longer there: the page stays as it is.", false);
      missed += 1;
      if (missed < MOST_MISSED) return again(NEXT);
      say("The server has stopped: this page no longer changes.", false);
    });
  }
  function again(wait) {
    if (timer === null) timer = window.setTimeout(poll, Math.max(NEXT, wait || 0));
  }
  document.addEventListener("visibilitychange", function () { if (!document.hidden && missed < MOST_MISSED) again(0); });
  say("Live", true);
  again(NEXT);
})();
