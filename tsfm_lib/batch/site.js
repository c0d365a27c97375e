// Search over ENTRIES (entries.js): [page, anchor, page's title, section's title, words]. Every word of the query has to be there.
// Folded text has the length of the original, so that what was found in the one can be marked in the other.
const fold = text => text.replace(/[^\x00-\x7f]/g, sign => sign.normalize("NFKD")[0]).toLowerCase();
const FOLDED = ENTRIES.map(([, , page, section, words]) => ({ head: fold(page + " " + section), words: fold(words) }));

function search(query) {
  const wanted = fold(query).split(/\s+/).filter(word => word.length > 1);
  if (!wanted.length) return [];
  const found = [];
  FOLDED.forEach(({ head, words }, i) => {
    let score = 0;
    for (const word of wanted) {
      const times = Math.min(words.split(word).length - 1, 9);
      if (!times && !head.includes(word)) return;
      score += times + (head.includes(word) ? 20 : 0);
    }
    found.push([score, i]);
  });
  return found.sort((a, b) => b[0] - a[0] || a[1] - b[1]).map(([, i]) => ({ entry: ENTRIES[i], words: wanted }));
}

function snippet(text, wanted) {
  const at = Math.max(0, ...wanted.map(word => fold(text).indexOf(word)));
  const line = document.createElement("span");
  const from = Math.max(0, at - 70);
  let rest = (from ? "…" : "") + text.slice(from, at + 170) + (text.length > at + 170 ? "…" : "");
  while (rest) {                                   // the words found, marked; everything else as text, never as HTML
    const next = wanted.map(word => [fold(rest).indexOf(word), word.length]).filter(([where]) => where >= 0).sort((a, b) => a[0] - b[0])[0];
    if (!next) break;
    const mark = document.createElement("mark");
    mark.textContent = rest.slice(next[0], next[0] + next[1]);
    line.append(rest.slice(0, next[0]), mark);
    rest = rest.slice(next[0] + next[1]);
  }
  line.append(rest);
  return line;
}

function show(query) {
  const hits = search(query);
  document.getElementById("count").textContent = query.trim() ? `${hits.length} sections` : "";
  document.getElementById("found").replaceChildren(...hits.slice(0, 60).map(({ entry: [page, anchor, title, section, text], words }) => {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = page + (anchor ? "#" + encodeURIComponent(anchor) : "");
    link.textContent = section && section !== title ? `${title} · ${section}` : title;
    item.append(link, document.createElement("br"), snippet(text, words));
    return item;
  }));
}

const input = document.querySelector("main input[name=q]");
input.value = new URLSearchParams(location.search).get("q") || "";
input.addEventListener("input", () => show(input.value));
show(input.value);
