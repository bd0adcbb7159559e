"use strict";
// Every section with filters works alike: controls name a key, items carry a value of that key.
(() => {
  const valueOf = (control) =>
    control.tagName === "SELECT"
      ? control.value
      : control.querySelector('[aria-pressed="true"]').value;

  // A value is one of an item's words, or all of its text: names may hold spaces.
  const matches = (item, key, value) => {
    const own = item.dataset[key];
    return value === "" || own === value || own.split(" ").includes(value);
  };

  const limitOptions = (select, parent) => {
    for (const option of select.querySelectorAll("[data-parent]")) {
      const other = parent !== "" && option.dataset.parent !== parent;
      option.hidden = other;
      option.disabled = other;
    }
    if (select.selectedOptions[0]?.disabled) {
      const first = [...select.options].find((option) => !option.disabled);
      if (first) select.value = first.value;
    }
  };

  // Of many items a few are shown at first: the rest has the class "later". It is not hidden, since
  // it matches the filters: the viewer goes through it, and it is printed.
  const startMore = (section, list) => {
    const bar = section.querySelector("[data-more]");
    if (!bar) return null;
    const narrow = matchMedia("(max-width: 480px)").matches;
    const step = Number(narrow ? bar.dataset.narrow : bar.dataset.more);
    const [next, rest] = bar.querySelectorAll("button");
    let limit = step;
    const show = () => {
      const items = list();
      items.forEach((item, place) => item.classList.toggle("later", place >= limit));
      const left = items.length - limit;
      bar.hidden = left <= 0;
      next.textContent = `Show ${Math.min(step, left)} more`;
      rest.textContent = `Show all ${items.length}`;
    };
    const grow = (to) => {
      const first = list()[limit];
      limit = to;
      show();
      first?.querySelector("button")?.focus();
    };
    next.addEventListener("click", () => grow(limit + step));
    rest.addEventListener("click", () => grow(list().length));
    section.addEventListener("reveal", (event) => {
      limit = Math.max(limit, list().indexOf(event.target) + 1);
      show();
    });
    return () => {
      limit = step;
      show();
    };
  };

  const startFilter = (section) => {
    const controls = [...section.querySelectorAll("[data-key]")];
    const items = [...section.querySelectorAll("[data-item]")];
    const count = section.querySelector("[data-count]");
    const empty = section.querySelector("[data-empty]");
    const more = startMore(section, () => items.filter((item) => !item.hidden));
    const apply = () => {
      for (const child of section.querySelectorAll("[data-child]")) {
        const parent = controls.find((one) => one.dataset.key === child.dataset.child);
        limitOptions(child, valueOf(parent));
      }
      const wanted = controls.map((control) => [control.dataset.key, valueOf(control)]);
      let shown = 0;
      for (const item of items) {
        item.hidden = !wanted.every(([key, value]) => matches(item, key, value));
        shown += item.hidden ? 0 : 1;
      }
      if (count) count.textContent = `${shown} of ${items.length} ${count.dataset.count}`;
      if (empty) empty.hidden = shown > 0;
      more?.();
    };
    for (const control of controls) {
      control.addEventListener("change", apply);
      for (const button of control.querySelectorAll("button")) {
        button.addEventListener("click", () => {
          for (const one of control.querySelectorAll("button")) {
            one.setAttribute("aria-pressed", String(one === button));
          }
          apply();
        });
      }
    }
    apply();
  };

  const startViewer = (viewer) => {
    const cards = document.querySelector("[data-cards]");
    const pair = viewer.querySelector(".viewer-pair");
    const facts = viewer.querySelector("dl");
    let current = null;
    const visible = () => [...cards.children].filter((item) => !item.hidden);
    const show = (item) => {
      current = item;
      const copy = item.querySelector(".pair").cloneNode(true);
      for (const one of copy.querySelectorAll("[id]")) one.removeAttribute("id");
      pair.replaceChildren(copy);
      facts.replaceChildren();
      for (const [name, value] of JSON.parse(item.dataset.facts)) {
        const line = document.createElement("div");
        line.append(document.createElement("dt"), document.createElement("dd"));
        line.firstChild.textContent = name;
        line.lastChild.textContent = value;
        facts.append(line);
      }
      const all = visible();
      viewer.querySelector("h3").textContent = item.querySelector(".name").textContent;
      viewer.querySelector("[role=status]").textContent =
        `${all.indexOf(item) + 1} of ${all.length}`;
    };
    const move = (step) => {
      const all = visible();
      show(all[(all.indexOf(current) + step + all.length) % all.length]);
    };
    cards.addEventListener("click", (event) => {
      const item = event.target.closest("li");
      if (!item) return;
      show(item);
      viewer.showModal();
    });
    viewer.addEventListener("click", (event) => {
      if (event.target === viewer || event.target.closest("[data-close]")) viewer.close();
      const step = event.target.dataset.move;
      if (step) move(Number(step));
    });
    viewer.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      move(step);
    });
    // back to the picture that was looked at last, which may not have been shown yet
    viewer.addEventListener("close", () => {
      current.dispatchEvent(new Event("reveal", { bubbles: true }));
      current.querySelector("button").focus();
    });
  };

  const startView = (section) => {
    const view = section.querySelector("[data-view]");
    const outline = section.querySelector("[data-outline]");
    const apply = () => {
      section.classList.toggle("over", view.value === "over");
      section.classList.toggle("bare", !outline.checked);
    };
    view.addEventListener("change", apply);
    outline.addEventListener("change", apply);
    apply();
  };

  const startNav = (links) => {
    const seen = new Set();
    const watcher = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (entry.isIntersecting) seen.add(entry.target.id);
          else seen.delete(entry.target.id);
        }
        const first = links.find((link) => seen.has(link.hash.slice(1)));
        for (const link of links) {
          if (link === first) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
        // on a phone the list is wider than the screen
        if (first) first.closest("ul").scrollLeft = first.offsetLeft - first.offsetWidth;
      },
      { rootMargin: "-20% 0px -60% 0px" },
    );
    for (const link of links) watcher.observe(document.getElementById(link.hash.slice(1)));
  };

  document.documentElement.classList.add("live"); // controls do something
  document.querySelectorAll("[data-filter]").forEach(startFilter);
  const viewer = document.getElementById("viewer");
  if (viewer) {
    startViewer(viewer);
    startView(viewer.closest("section"));
  }
  startNav([...document.querySelectorAll(".nav a")]);
})();
