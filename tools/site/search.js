// Search without a server: every word of the question must stand in a section, its heading or the
// title of its page; what stands in a title counts most.
"use strict";
(() => {
  const query = document.getElementById("query"), list = document.getElementById("found");
  const up = document.body.dataset.up, most = 12;
  let chosen = -1;

  const score = (words, page, [heading, , text]) => {
    const places = [[page.title.toLowerCase(), 6], [heading.toLowerCase(), 4],
                    [page.about.toLowerCase(), 2], [text.toLowerCase(), 1]];
    let sum = 0;
    for (const word of words) {
      const best = Math.max(0, ...places.map(([place, weight]) => {
        if (!place.includes(word)) return 0;
        const whole = place.split(/[^\p{L}\p{N}_]+/u).includes(word);
        return whole ? 2 * weight : weight;
      }));
      if (!best) return 0;
      sum += best;
    }
    return sum;
  };

  const search = text => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean), hits = [];
    if (!words.length) return hits;
    for (const page of SEARCH_INDEX)
      for (const section of page.sections) {
        const value = score(words, page, section);
        if (value) hits.push({value, page, section});
      }
    return hits.sort((one, other) => other.value - one.value).slice(0, most);
  };

  const select = index => {
    const rows = [...list.children].filter(row => row.dataset.href);
    chosen = rows.length ? (index + rows.length) % rows.length : -1;
    rows.forEach((row, place) => row.setAttribute("aria-selected", String(place === chosen)));
    if (chosen >= 0) {
      rows[chosen].scrollIntoView({block: "nearest"});
      query.setAttribute("aria-activedescendant", rows[chosen].id);
    } else query.removeAttribute("aria-activedescendant");
  };

  const close = () => {
    list.hidden = true;
    query.setAttribute("aria-expanded", "false");
    select(-1);
  };

  const open = row => { window.location.href = row.dataset.href; };

  const show = () => {
    const hits = search(query.value);
    list.replaceChildren(...hits.map(({page, section: [heading, anchor, text]}, place) => {
      const row = document.createElement("li"), more = document.createElement("small");
      row.id = `hit-${place}`;
      row.setAttribute("role", "option");
      row.dataset.href = up + page.href + (anchor ? `#${anchor}` : "");
      row.textContent = heading && heading !== page.title ? `${page.title}: ${heading}` : page.title;
      more.textContent = (text || page.about).slice(0, 140);
      row.append(more);
      row.addEventListener("mousedown", () => open(row));
      return row;
    }));
    if (!hits.length && query.value.trim()) {
      const row = document.createElement("li");
      row.setAttribute("role", "option");
      row.setAttribute("aria-disabled", "true");
      row.textContent = "No page has all of these words; try fewer.";
      list.append(row);
    }
    list.hidden = !list.children.length;
    query.setAttribute("aria-expanded", String(!list.hidden));
    select(hits.length ? 0 : -1);
  };

  query.addEventListener("input", show);
  query.addEventListener("blur", close);
  query.addEventListener("keydown", event => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      select(chosen + (event.key === "ArrowDown" ? 1 : -1));
    } else if (event.key === "Escape") close();
  });
  document.getElementById("search").addEventListener("submit", event => {
    event.preventDefault();
    const row = [...list.children].filter(each => each.dataset.href)[Math.max(chosen, 0)];
    if (row) open(row);
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "/" || /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) return;
    event.preventDefault();
    query.focus();
  });
})();
